from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rag_ese.config import load
from rag_ese.errors import DataError
from rag_ese.eval.squad import SquadConfig, evaluate
from rag_ese.generator import CachedGenerator, ExtractiveReader, Prompt, resolve
from rag_ese.reader import weights
from rag_ese.reader.scoring import score_windows
from rag_ese.reader.trained import TrainedReader
from rag_ese.types import Passage


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader with heads that know nothing."""
    torch.manual_seed(3)
    reader = weights.start_reader(96)
    path = tmp_path_factory.mktemp("reader") / "model"
    weights.save_reader(reader, path, {})
    return path


def test_answers_stand_where_they_say(folder: Path, passages: tuple[Passage, ...]) -> None:
    long = Passage("Long", tuple(f" Sentence {number} of a long text — über alles." for number in range(40)))
    prompts = [Prompt(f"Where was {name}?", (*passages, long)) for name in ("Ada", "Béla", "Oslo")]
    prompts += [Prompt("Is Ada a painter?", passages), Prompt("Who?", ()), Prompt("Who?", (Passage("", ()),))]
    answers = TrainedReader(folder, "cpu").generate(prompts)
    for answer in answers[:3]:
        assert answer.evidence and 0 < answer.evidence.score < 1
        passage = next(each for each in (*passages, long) if each.id == answer.evidence.id)
        assert passage.text[answer.evidence.start : answer.evidence.end] == answer.text != ""
        assert answer.evidence.sentence in passage.sentences
        assert answer.supporting_facts and answer.supporting_facts[0][0] == passage.title
        assert len(answer.supporting_facts) == 2
    assert answers[3].text in ("yes", "no") and answers[3].evidence
    assert [(answer.text, answer.supporting_facts) for answer in answers[4:]] == [("", ()), ("", ())]


def test_batches_and_their_order_change_no_answer(folder: Path, passages: tuple[Passage, ...]) -> None:
    reader = TrainedReader(folder, "cpu")
    prompts = [Prompt(f"Where is number {number}?", passages[number % 3 :]) for number in range(5)]
    together = reader.generate(prompts)
    alone = [reader.generate([prompt])[0] for prompt in prompts]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    for left, right in zip(together, alone, strict=True):
        assert left.evidence and right.evidence
        assert left.evidence.score == pytest.approx(right.evidence.score, rel=0.05)


def test_what_was_read_is_not_read_again(
    folder: Path, passages: tuple[Passage, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(model: Any, windows: Any, *options: int) -> Any:
        read.append(len(windows))
        return score_windows(model, windows, *options)

    monkeypatch.setattr("rag_ese.reader.trained.score_windows", counted)
    prompts = [Prompt("Where was Ada born?", passages), Prompt("Where was Ada born?", passages[1:])]
    forgetful, reader = TrainedReader(folder, "cpu"), TrainedReader(folder, "cpu", remember=5)
    expected = [forgetful.generate([prompt])[0] for prompt in prompts]
    assert read == [3, 3, 2, 1]
    read.clear()
    answers = [reader.generate([prompt])[0] for prompt in prompts]
    assert read == [3, 3, 0, 0]  # the last five of six: the first passage alone is forgotten
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    reader.generate(prompts[:1])
    assert read[4:] == [1, 0]


@pytest.mark.parametrize("remember", [0, 4])
def test_threads_share_a_reader(folder: Path, passages: tuple[Passage, ...], remember: int) -> None:
    reader = TrainedReader(folder, "cpu", remember=remember)
    prompts = [Prompt(f"Where is number {number % 4}?", passages[number % 3 :]) for number in range(24)]
    expected = [reader.generate([prompt])[0].text for prompt in prompts]
    with ThreadPoolExecutor(8) as pool:
        assert [answers[0].text for answers in pool.map(lambda prompt: reader.generate([prompt]), prompts)] == expected


def test_the_cache_keeps_evidence(folder: Path, passages: tuple[Passage, ...], tmp_path: Path) -> None:
    prompt = Prompt("Where was Ada born?", passages)
    cached = CachedGenerator(TrainedReader(folder, "cpu"), tmp_path / "cache")
    first, second = cached.generate([prompt]), cached.generate([prompt])
    assert first == second and first[0].evidence and cached.hits == 1


def test_which_reader_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    assert isinstance(resolve(f"reader:{folder}", said.append), TrainedReader) and not said
    monkeypatch.setattr(weights, "EMBEDDED_READER", tmp_path / "none")
    assert isinstance(resolve("reader", said.append), ExtractiveReader)
    assert said[0].startswith("WARNING") and "rules answer instead" in said[0]


def squad_file(tmp_path: Path) -> Path:
    questions = [{"id": "a", "question": "Where?", "answers": [{"text": "Oslo", "answer_start": 7}]}]
    content = {"data": [{"title": "A_B", "paragraphs": [{"context": "Ada in Oslo.", "qas": questions}]}]}
    file = tmp_path / "squad.json"
    file.write_text(json.dumps(content))
    return file


def test_squad_from_file_to_scores(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.json"
    results = evaluate(
        load(SquadConfig, None, {"data": squad_file(tmp_path), "reader": str(folder), "predictions": out})
    )
    assert results["questions"] == 1 and 0 <= results["exact_match"] <= results["f1"] <= 100
    assert json.loads(out.read_text())["a"] in "Ada in Oslo."


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content.pop("data"), "no list 'data'"),
        (lambda content: content["data"].clear(), "0 questions"),
        (lambda content: content["data"][0]["paragraphs"][0]["qas"][0].update(answers=[]), "question a has no answer"),
        (lambda content: content["data"][0]["paragraphs"][0].pop("context"), "'context' is missing"),
    ],
)
def test_files_that_are_not_squad(tmp_path: Path, spoil: Callable[[object], object], message: str) -> None:
    file = squad_file(tmp_path)
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        evaluate(load(SquadConfig, None, {"data": file}))
