from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator import Prompt, VLLMGenerator

Ask = Callable[..., Prompt]


class FakeLLM:
    """Stands in for vllm.LLM: notes what it is given, answers with the number of the conversation."""

    made: list[FakeLLM]
    max_model_len = 512

    def __init__(self, **arguments: Any) -> None:
        from transformers import AutoTokenizer

        if arguments.get("dtype") == "impossible":
            raise ValueError("no such dtype")
        self.arguments, self.calls = arguments, list[tuple[str, list[Any], Any]]()
        self.tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.max_model_len))
        FakeLLM.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def chat(self, messages: list[Any], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append(("chat", messages, sampling_params))
        return [
            SimpleNamespace(prompt_token_ids=[1, 2, 3], outputs=[SimpleNamespace(text=f"{number}.", token_ids=[4, 5])])
            for number in range(len(messages))
        ]

    def generate(self, prompts: list[str], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.calls.append(("generate", prompts, sampling_params))
        return [SimpleNamespace(prompt_token_ids=None, outputs=[]) for _ in prompts]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    FakeLLM.made = []
    monkeypatch.setattr(module, "LLM", FakeLLM, raising=False)
    monkeypatch.setattr(module, "SamplingParams", lambda **arguments: arguments, raising=False)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return FakeLLM


def test_arguments_and_answers(
    fake: type[FakeLLM], tiny_llama: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    generator = VLLMGenerator(str(tiny_llama), max_tokens=20, seed=5, dtype="float32")
    assert fake.made == []
    answers = generator.generate([ask("Who?", A="She."), ask("Where?")])
    (llm,) = fake.made
    assert llm.arguments == {
        "model": str(tiny_llama),
        "seed": 5,
        "enable_prefix_caching": True,
        "tensor_parallel_size": 2,
        "dtype": "float32",
    }
    ((method, messages, decoding),) = llm.calls
    assert method == "chat"
    assert [[message["role"] for message in each] for each in messages] == [["system", "user"]] * 2
    assert decoding == {"temperature": 0.0, "max_tokens": 20, "seed": 5}
    assert [answer.text for answer in answers] == ["0", "1"]
    assert answers[0].usage == {"prompt_tokens": 3, "completion_tokens": 2}


def test_long_batches_go_in_chunks(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    answers = VLLMGenerator(str(tiny_llama)).generate([ask("Who?")] * 600)
    assert [len(messages) for _, messages, _ in fake.made[0].calls] == [512, 88]
    assert [answer.text for answer in answers[510:514]] == ["510", "511", "0", "1"]


def test_passages_give_way_to_the_answer_tokens(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    generator = VLLMGenerator(str(tiny_llama), max_tokens=100)
    prompt = ask("Which is the last word?", A="Rome.", B="The city of Paris. " * 200)
    (answer,) = generator.generate([prompt])
    assert answer.usage["dropped_passages"] == 1
    (_, ((_, user),), _) = fake.made[0].calls[0]
    assert user["content"].endswith("Question: Which is the last word?")
    assert "[2]" not in user["content"]
    with pytest.raises(GeneratorError, match="reads at most 412"):
        generator.generate([ask("Which? " * 400)])


def test_without_a_chat_template(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    generator = VLLMGenerator(str(tiny_llama))
    generator._tokenizer.chat_template = None
    assert generator.generate([ask("Who?")])[0].text == ""
    method, (text,), _ = fake.made[0].calls[0]
    assert method == "generate"
    assert text.endswith("Question: Who?\nAnswer:")


def test_fingerprint_and_a_start_that_fails(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    base = VLLMGenerator(str(tiny_llama))
    assert base.fingerprint == VLLMGenerator(str(tiny_llama)).fingerprint
    assert base.fingerprint != VLLMGenerator(str(tiny_llama), max_tokens=3).fingerprint
    with pytest.raises(GeneratorError, match=r"vLLM cannot run .* no such dtype"):
        VLLMGenerator(str(tiny_llama), dtype="impossible").generate([ask("Who?")])


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"\.\[vllm\]"):
        VLLMGenerator("org/model")


@pytest.mark.llm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed")
def test_the_real_engine_equals_transformers(tiny_llama: Path, ask: Ask) -> None:
    from rag_ese.generator import TransformersGenerator

    prompts = [ask(f"Which river is number {number}?", A="The river.") for number in range(5)]
    options = {"dtype": "float32", "enforce_eager": True, "gpu_memory_utilization": 0.5, "max_model_len": 512}
    answers = VLLMGenerator(str(tiny_llama), max_tokens=12, **options).generate(prompts)
    expected = TransformersGenerator(str(tiny_llama), max_tokens=12).generate(prompts)
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
