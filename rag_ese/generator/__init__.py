"""A question and its passages in, an answer out: language models behind one interface, and a reader that needs none.

Importing this package loads neither torch nor transformers, vllm or openai.
"""

from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.cache import CachedGenerator
from rag_ese.generator.openai_api import OpenAIGenerator
from rag_ese.generator.prompt import PromptTemplate, load_prompt
from rag_ese.generator.reader import ExtractiveReader
from rag_ese.generator.select import read_options, resolve
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.generator.transformers_lm import TransformersGenerator
from rag_ese.generator.vllm_engine import VLLMGenerator

__all__ = [
    "CachedGenerator",
    "ExtractiveReader",
    "Generator",
    "OpenAIGenerator",
    "Prompt",
    "PromptTemplate",
    "TransformersGenerator",
    "VLLMGenerator",
    "extract_short_answer",
    "load_prompt",
    "read_options",
    "resolve",
]
