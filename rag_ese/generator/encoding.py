"""From a prompt to the token ids that a model is given: what is measured is what is sent."""

from __future__ import annotations

from typing import Any

from rag_ese.errors import GeneratorError
from rag_ese.generator.base import Prompt
from rag_ese.generator.prompt import PromptTemplate


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a folder or a hub name, without running code that comes with it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise GeneratorError(
            f"transformers cannot load the tokenizer of {model!r}: {' '.join(str(error).split())[:300]}"
        ) from error


def encode(tokenizer: Any, template: PromptTemplate, prompt: Prompt) -> list[int]:
    """Token ids through the tokenizer's chat template where it has one, else of the plain text."""
    if not getattr(tokenizer, "chat_template", None):
        return list(tokenizer(template.plain_text(prompt))["input_ids"])
    text = tokenizer.apply_chat_template(template.messages(prompt), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
