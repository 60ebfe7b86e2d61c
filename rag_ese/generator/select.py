"""From what is written on the command line to a generator."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from rag_ese.errors import ConfigError, GeneratorError
from rag_ese.generator.base import Generator
from rag_ese.generator.openai_api import OpenAIGenerator
from rag_ese.generator.prompt import PromptTemplate
from rag_ese.generator.reader import ExtractiveReader
from rag_ese.generator.transformers_lm import TransformersGenerator
from rag_ese.generator.vllm_engine import VLLMGenerator

FORMS = "auto, none, reader[:FOLDER], rules, vllm:MODEL, hf:MODEL or openai:URL#MODEL"


def read_options(text: str) -> dict[str, Any]:
    """`max_tokens=32,dtype=float32` as keyword arguments of a backend; values are read as YAML reads them."""
    options = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"cannot read the option {part!r}: write NAME=VALUE, several separated by commas")
        options[name.strip()] = yaml.safe_load(value)
    return options


def resolve(
    spec: str,
    notify: Callable[[str], None],
    template: PromptTemplate | None = None,
    options: Mapping[str, Any] | None = None,
) -> Generator | None:
    """The generator that `spec` names: one of the FORMS; None for `none` (retrieval only).

    `auto` takes vLLM when the environment variable RAG_ESE_LLM names a model, vllm is installed and there is a CUDA
    GPU; else that model at the server OPENAI_BASE_URL; else the trained reader. It tells `notify` what and why.
    `options` are keyword arguments of the language model's class. Raises GeneratorError for any other form or option,
    MissingExtraError when the backend is not installed.
    """
    if spec == "auto":
        spec, reason = _automatic()
        notify(f"generator: {spec} ({reason})")
    if spec == "none":
        return None
    if spec == "rules":
        return ExtractiveReader()
    backend, _, model = spec.partition(":")
    if backend == "reader":
        return _reader(model, notify)
    url, _, served = model.rpartition("#")
    try:
        if backend == "vllm" and model:
            return VLLMGenerator(model, template, **options or {})
        if backend == "hf" and model:
            return TransformersGenerator(model, template, **options or {})
        if backend == "openai" and url.startswith(("http://", "https://")) and served:
            return OpenAIGenerator(url, served, template, **options or {})
    except TypeError as error:
        raise GeneratorError(f"{backend} does not take the options {dict(options or {})}: {error}") from error
    raise GeneratorError(f"there is no generator {spec!r}: write {FORMS}")


_REMEMBERED = 200_000
"""Windows whose scores the reader keeps: those of thousands of questions at several sizes, in some 100 MB."""


def _reader(folder: str, notify: Callable[[str], None]) -> Generator:
    """The trained reader in `folder`, or the one that comes with the package. Loads torch."""
    from rag_ese.reader.trained import TrainedReader
    from rag_ese.reader.weights import EMBEDDED_READER

    if not folder and not EMBEDDED_READER.exists():
        notify(f"WARNING: the trained reader's weights are missing in {EMBEDDED_READER}: rules answer instead")
        return ExtractiveReader()
    return TrainedReader(Path(folder) if folder else None, remember=_REMEMBERED)


def _automatic() -> tuple[str, str]:
    model = os.environ.get("RAG_ESE_LLM")
    if not model:
        return "reader", "RAG_ESE_LLM names no language model"
    obstacle = _vllm_obstacle()
    if obstacle is None:
        return f"vllm:{model}", "RAG_ESE_LLM names a model, vllm is installed and there is a CUDA GPU"
    url = os.environ.get("OPENAI_BASE_URL")
    if url:
        return f"openai:{url}#{model}", f"RAG_ESE_LLM and OPENAI_BASE_URL are set, and {obstacle}"
    return "reader", f"{obstacle} and OPENAI_BASE_URL is not set; for {model} without vLLM write hf:{model}"


def _vllm_obstacle() -> str | None:
    """Why vLLM cannot run here, or None. torch is only asked when vllm is there: importing it takes seconds."""
    if find_spec("vllm") is None:
        return "vllm is not installed"
    import torch

    return None if torch.cuda.is_available() else "there is no CUDA GPU"
