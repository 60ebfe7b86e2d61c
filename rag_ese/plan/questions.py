"""The held-out questions: read, made distinct, and split into those that choose and those that judge the choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_ese.data import files
from rag_ese.data.sources import read_source
from rag_ese.errors import DataError

FEWEST = 20
"""With fewer questions in all, an interval says nothing about a recall that anyone would ask for."""


@dataclass(frozen=True)
class HeldOut:
    """Two halves without a common question, and where they came from."""

    choosing: list[str]
    judging: list[str]
    name: str
    revision: str

    def __len__(self) -> int:
        return len(self.choosing) + len(self.judging)


def read_questions(path: Path, limit: int | None = None, seed: int = 0) -> HeldOut:
    """Reads texts, or objects with a `question`, each text once; `limit` and the halves are drawn with `seed`.

    Raises DataError where the file cannot be read, holds no questions, or too few to split.
    """
    texts = list(dict.fromkeys(_text(record, where) for where, record in read_source(path)))
    if not texts:
        raise DataError(f"{path} holds 0 questions: give a HotpotQA file, or JSONL with one question per line")
    order = np.random.default_rng(seed).permutation(len(texts))[:limit]
    if len(order) < FEWEST:
        raise DataError(
            f"{len(order)} different questions of {path} are too few to choose on one half and judge on the other: "
            f"give {FEWEST} or more, better some hundreds"
        )
    half = len(order) // 2
    halves = [[texts[place] for place in sorted(part)] for part in (order[:half], order[half:])]
    return HeldOut(halves[0], halves[1], path.name, files.fingerprint(path))


def _text(record: object, where: str) -> str:
    value = record.get("question") if isinstance(record, dict) else record
    text = files.text(value, "question", where)
    if not text.strip():
        raise DataError(f"{where}: the question is empty; write it or remove the line")
    return text
