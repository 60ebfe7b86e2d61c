"""Question-passage pairs for training and fitting, from JSONL files in the manner of SQuAD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rag_ese.data import files
from rag_ese.errors import DataError


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """(question, passage) of every line of a .jsonl or .jsonl.gz file with `question`, `context` and perhaps `title`.

    The passage is title, newline, context, as passages are encoded everywhere in this project. Lines that say they hold
    another `granularity` than "paragraph" (lone sentences, for example) are left out.
    """
    for number, row in files.read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise DataError(f"{where} is not an object with question and context: correct the line")
        if row.get("granularity", "paragraph") != "paragraph":
            continue
        question, context = (files.text(row.get(name), name, where) for name in ("question", "context"))
        title = str(row.get("title") or "").replace("_", " ")
        yield question, f"{title}\n{context}" if title else context


def distinct_passages(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One pair per passage: the first question of each, in order of passage text."""
    first: dict[str, str] = {}
    for question, passage in pairs:
        first.setdefault(passage, question)
    return [(first[passage], passage) for passage in sorted(first)]
