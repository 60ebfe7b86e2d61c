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
    """Stands in for vllm.LLM: notes what it is given, answers with the number of the prompt."""

    made: list[FakeLLM]
    max_model_len = 512

    def __init__(self, **arguments: Any) -> None:
        from transformers import AutoTokenizer

        if arguments.get("dtype") == "impossible":
            raise ValueError("no such dtype")
        self.arguments, self.calls = arguments, list[tuple[list[Any], Any]]()
        self.tokenizer = AutoTokenizer.from_pretrained(arguments["model"])
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=self.max_model_len))
        FakeLLM.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def texts(self) -> list[str]:
        """What it was asked, decoded."""
        return [self.tokenizer.decode(each["prompt_token_ids"]) for prompts, _ in self.calls for each in prompts]

    def generate(self, prompts: list[Any], sampling_params: list[Any], use_tqdm: bool) -> list[Any]:
        self.calls.append((prompts, sampling_params))
        if any("break" in text for text in self.texts()):
            raise RuntimeError("the engine core died")
        return [
            SimpleNamespace(
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=[SimpleNamespace(text=f"{number}.", token_ids=[4, 5])] if number else [],
            )
            for number, prompt in enumerate(prompts)
        ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    FakeLLM.made = []
    monkeypatch.setattr(module, "LLM", FakeLLM, raising=False)
    monkeypatch.setattr(module, "SamplingParams", lambda **arguments: arguments, raising=False)
    params = ModuleType("vllm.sampling_params")
    monkeypatch.setattr(params, "StructuredOutputsParams", lambda choice: {"choice": choice}, raising=False)
    monkeypatch.setattr(module, "sampling_params", params, raising=False)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
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
    ((prompts, decodings),) = llm.calls
    assert llm.texts()[1].endswith("Question: Where?</s><|assistant|>")
    assert decodings == [{"temperature": 0.0, "max_tokens": 20, "seed": 5}] * 2
    assert [answer.text for answer in answers] == ["", "1"]  # no output at all is an empty answer
    assert answers[1].usage == {"prompt_tokens": len(prompts[1]["prompt_token_ids"]), "completion_tokens": 2}


def test_yes_or_no_is_a_choice(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    asked = [ask("Are both rivers long?"), ask("Is it a river or a lake?")]
    generator = VLLMGenerator(str(tiny_llama))
    generator.generate(asked)
    free = VLLMGenerator(str(tiny_llama), yes_no_choice=False)
    free.generate(asked)
    choices = [[each.get("structured_outputs") for each in llm.calls[0][1]] for llm in fake.made]
    assert choices == [[{"choice": ["yes", "no"]}, None], [None, None]]
    assert generator.fingerprint != free.fingerprint


def test_long_batches_go_in_chunks(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    answers = VLLMGenerator(str(tiny_llama)).generate([ask("Who?")] * 600)
    assert [len(prompts) for prompts, _ in fake.made[0].calls] == [512, 88]
    assert [answer.text for answer in answers[510:514]] == ["510", "511", "", "1"]


def test_an_engine_that_dies_keeps_the_chunks_before(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    answered = []
    with pytest.raises(GeneratorError, match=r"failed while answering 1 questions .*core died.*only for the missing"):
        for position, _ in VLLMGenerator(str(tiny_llama)).stream([ask("Who?")] * 512 + [ask("break")]):
            answered.append(position)
    assert answered == [*range(512)]


def test_passages_give_way_to_the_answer_tokens(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    generator = VLLMGenerator(str(tiny_llama), max_tokens=100)
    prompt = ask("Which is the last word?", A="Rome.", B="The city of Paris. " * 200)
    (answer,) = generator.generate([prompt])
    assert answer.usage["dropped_passages"] == 1 and answer.usage["prompt_tokens"] <= 412
    (text,) = fake.made[0].texts()
    assert "Question: Which is the last word?</s>" in text and "[1] A" in text and "[2]" not in text
    with pytest.raises(GeneratorError, match="reads at most 412"):
        generator.generate([ask("Which? " * 400)])


def test_without_a_chat_template(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    generator = VLLMGenerator(str(tiny_llama))
    generator._tokenizer.chat_template = None
    generator.generate([ask("Who?")])
    assert fake.made[0].texts()[0].endswith("Question: Who?\nAnswer:")


def test_fingerprint_and_a_start_that_fails(fake: type[FakeLLM], tiny_llama: Path, ask: Ask) -> None:
    base = VLLMGenerator(str(tiny_llama))
    assert base.fingerprint == VLLMGenerator(str(tiny_llama)).fingerprint
    assert base.fingerprint != VLLMGenerator(str(tiny_llama), max_tokens=3).fingerprint
    with pytest.raises(GeneratorError, match=r"vLLM cannot run .* no such dtype"):
        VLLMGenerator(str(tiny_llama), dtype="impossible").generate([ask("Who?")])


def test_a_model_that_does_not_exist(fake: type[FakeLLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(GeneratorError, match=r"cannot load the language model '.*nowhere'"):
        VLLMGenerator(str(tmp_path / "nowhere"))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_error_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"\.\[vllm\]"):
        VLLMGenerator("org/model")
