from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rag_ese.errors import GeneratorError
from rag_ese.generator import Prompt, TransformersGenerator
from rag_ese.generator.short_answer import extract_short_answer

Ask = Callable[..., Prompt]


@pytest.fixture
def generator(tiny_llama: Path) -> TransformersGenerator:
    return TransformersGenerator(str(tiny_llama), max_tokens=12, batch_size=3, device="cpu")


@pytest.fixture
def prompts(ask: Ask) -> list[Prompt]:
    return [ask(f"Which river is number {n}?" * (n % 3 + 1), A="The river. " * (n % 4)) for n in range(7)]


def test_batches_equal_one_by_one_token_for_token(
    generator: TransformersGenerator, prompts: list[Prompt], tiny_llama: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    expected, encoded = [], []
    for prompt in prompts:
        messages = generator._template.messages(prompt)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :].tolist()
        encoded.append(ids[0].tolist())
        expected.append(output[: output.index(2)] if 2 in output else output)
    assert len({len(ids) for ids in encoded}) > 2
    assert generator.complete(encoded) == expected

    answers = generator.generate(prompts)
    assert [answer.text for answer in answers] == [
        extract_short_answer(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in expected
    ]
    assert [answer.usage["prompt_tokens"] for answer in answers] == [len(ids) for ids in encoded]
    assert [answer.usage["completion_tokens"] for answer in answers] == [len(tokens) for tokens in expected]


def test_the_question_stays_although_passages_are_dropped(generator: TransformersGenerator, ask: Ask) -> None:
    prompt = ask("Which river is the last word?", A="Rome.", B="The city of Paris. " * 200)
    seen: list[str] = []
    complete = generator.complete

    def spy(encoded: list[list[int]]) -> list[list[int]]:
        seen.extend(generator._tokenizer.decode(ids) for ids in encoded)
        return complete(encoded)

    generator.complete = spy  # type: ignore[method-assign]
    (answer,) = generator.generate([prompt])
    assert answer.usage["dropped_passages"] == 1
    assert answer.usage["prompt_tokens"] <= 512 - 12
    assert "Question: Which river is the last word?</s>" in seen[0]
    assert "[1] A\nRome." in seen[0]


def test_a_question_that_is_too_long_loses_no_other_answer(generator: TransformersGenerator, ask: Ask) -> None:
    answered = []
    with pytest.raises(GeneratorError, match="reads at most 500"):
        for position, _ in generator.stream([ask("Where? " * 400), ask("Who?")]):
            answered.append(position)
    assert answered == [1]


def test_without_a_chat_template_the_prompt_is_plain_text(tiny_llama: Path, tmp_path: Path, ask: Ask) -> None:
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "plain"))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    generator = TransformersGenerator(str(folder), max_tokens=4, device="cpu")
    prompt = ask("Where?", A="Paris.")
    assert generator._tokenizer.decode(generator._encode(prompt)).endswith("Question: Where?\nAnswer:")
    assert len(generator.generate([prompt])) == 1


def test_the_fingerprint_sees_the_weights_and_the_settings(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "copy")
    weights = Path(folder) / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    base = TransformersGenerator(str(tiny_llama), device="cpu").fingerprint
    assert base == TransformersGenerator(str(tiny_llama), device="cpu").fingerprint
    changed = TransformersGenerator(str(folder), device="cpu").fingerprint
    assert base.replace(str(tiny_llama), "") != changed.replace(str(folder), "")
    assert base != TransformersGenerator(str(tiny_llama), device="cpu", max_tokens=5).fingerprint


def test_a_model_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(GeneratorError, match=r"cannot load the language model '.*nowhere'"):
        TransformersGenerator(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(GeneratorError, match="cannot load"):
        TransformersGenerator(str(tmp_path / "empty")).generate([Prompt("Who?", ())])
