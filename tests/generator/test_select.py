from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag_ese.errors import GeneratorError
from rag_ese.generator import ExtractiveReader, OpenAIGenerator, TransformersGenerator, resolve, select


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAG_ESE_LLM", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(select, "_reader", lambda folder, notify: ExtractiveReader())  # tests/reader has its own
    monkeypatch.setattr(select, "_reader", lambda folder, notify: ExtractiveReader())  # tests/reader has its own


def test_named_backends(said: list[str], tiny_llama: Path) -> None:
    assert resolve("none", said.append) is None
    assert isinstance(resolve("rules", said.append), ExtractiveReader)
    server = resolve("openai:http://127.0.0.1:9/v1#org/model", said.append)
    assert isinstance(server, OpenAIGenerator)
    assert server.name == "openai:http://127.0.0.1:9/v1#org/model"
    local = resolve(f"hf:{tiny_llama}", said.append)
    assert isinstance(local, TransformersGenerator)
    assert said == []


@pytest.mark.parametrize(
    "spec", ["", "gpt", "vllm", "vllm:", "hf:", "openai:http://x", "openai:host#m", "openai:#m", "a:b"]
)
def test_unknown_forms(spec: str, said: list[str]) -> None:
    with pytest.raises(GeneratorError, match=re.escape(f"write {select.FORMS}")):
        resolve(spec, said.append)


def test_auto_without_a_model_is_the_reader(said: list[str]) -> None:
    assert isinstance(resolve("auto", said.append), ExtractiveReader)
    assert said == ["generator: reader (RAG_ESE_LLM names no language model)"]


def test_auto_takes_the_server(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_ESE_LLM", "org/model")
    monkeypatch.setattr(select, "_vllm_obstacle", lambda: "there is no CUDA GPU")
    assert isinstance(resolve("auto", said.append), ExtractiveReader)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert isinstance(resolve("auto", said.append), OpenAIGenerator)
    assert "there is no CUDA GPU and OPENAI_BASE_URL is not set" in said[0]
    assert said[1].startswith("generator: openai:http://127.0.0.1:9/v1#org/model (")


def test_auto_takes_vllm(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_ESE_LLM", "org/model")
    monkeypatch.setattr(select, "_vllm_obstacle", lambda: None)
    monkeypatch.setattr(select, "VLLMGenerator", lambda model, template: ExtractiveReader())
    resolve("auto", said.append)
    assert said[0].startswith("generator: vllm:org/model (")


def test_importing_loads_no_backend() -> None:
    code = "import sys, rag_ese.generator; print({'torch', 'transformers', 'openai', 'vllm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
