"""Question-passage pairs for training and fitting, from JSONL files in the manner of SQuAD."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rag_ese.errors import DataError


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """(question, passage) of every line of a .jsonl or .jsonl.gz file with `question`, `context` and perhaps `title`.

    The passage is title, newline, context, as passages are encoded everywhere in this project.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _pair(line, f"{path}, line {number}")
    except OSError as error:
        raise DataError(f"cannot read the pairs in {path}: {error}") from error


def _pair(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        question, context, title = row["question"], row["context"], row.get("title") or ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not an object with question and context: {error!r}") from error
    return question, f"{title.replace('_', ' ')}\n{context}" if title else context


def distinct_passages(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One pair per passage: the first question of each, in order of passage text."""
    first: dict[str, str] = {}
    for question, passage in pairs:
        first.setdefault(passage, question)
    return [(first[passage], passage) for passage in sorted(first)]
