from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_ese.reader.weights import Reader, start_reader
from rag_ese.reader.windows import Cutter
from rag_ese.types import Passage

PLACES = ["Paris", "Oslo", "Rome", "Lima", "Cairo", "Quito", "Delhi", "Hanoi", "Sofia", "Riga", "Accra", "Tunis"]


@pytest.fixture(scope="session")
def reader() -> Reader:
    import torch

    torch.manual_seed(0)
    return start_reader(128)


@pytest.fixture
def cutter(reader: Reader) -> Cutter:
    return Cutter(reader.tokenizer, 96)


@pytest.fixture
def passages() -> tuple[Passage, ...]:
    return (
        Passage("Ada (person)", ("Ada was born in Oslo.", " Her father was Béla, a painter — of Riga.")),
        Passage("Béla", ("Béla was a painter.", " He died in 1815.")),
        Passage("Oslo", ("Oslo is the capital of Norway.",)),
    )


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """SQuAD's manner, twelve rows."""
    file = tmp_path / "rows.jsonl"
    lines = [
        {
            "question": f"Where was person {number} born?",
            "title": f"Person_{number}",
            "context": f"Person {number} was a painter. Person {number} was born in {place}, far away.",
            "answers": [place],
        }
        for number, place in enumerate(PLACES)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def hops(tmp_path: Path) -> Path:
    """HotpotQA's form, four questions, one of them of yes or no."""
    file = tmp_path / "hops.json"
    records = [
        {
            "_id": f"q{number}",
            "question": "Is it so?" if number == 3 else f"Where was the father of person {number} born?",
            "answer": "yes" if number == 3 else PLACES[number],
            "supporting_facts": [[f"Person {number}", 0], [f"Father {number}", 1]],
            "context": [
                [f"Person {number}", [f"Person {number} is the child of Father {number}."]],
                [f"Father {number}", ["He was no king.", f" He was born in {PLACES[number]}."]],
                [f"Other {number}", ["Nothing is known."]],
            ],
        }
        for number in range(4)
    ]
    file.write_text(json.dumps(records), encoding="utf-8")
    return file
