"""SQuAD 1.1's official file: articles of paragraphs of questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_ese.data import files
from rag_ese.errors import DataError
from rag_ese.types import Passage


@dataclass(frozen=True)
class SquadQuestion:
    """A question about one paragraph, and the answers that its annotators gave."""

    id: str
    text: str
    passage: Passage
    answers: tuple[str, ...]


def read_squad(path: Path) -> list[SquadQuestion]:
    """Every question of an official .json or .json.gz file, in its order. Raises DataError naming what is wrong."""
    content = files.read_json(path)
    found = [
        _question(record, Passage(title, (context,)), f"{path}, article {title!r}")
        for article in _list(content, "data", str(path))
        for title in [_string(article, "title", str(path)).replace("_", " ")]
        for paragraph in _list(article, "paragraphs", f"{path}, article {title!r}")
        for context in [_string(paragraph, "context", f"{path}, article {title!r}")]
        for record in _list(paragraph, "qas", f"{path}, article {title!r}")
    ]
    if not found:
        raise DataError(f"{path} holds 0 questions: check that it is a SQuAD file, downloaded to its end")
    return found


def _question(record: object, passage: Passage, where: str) -> SquadQuestion:
    name = _string(record, "id", where)
    where = f"{where}, question {name}"
    answers = tuple(_string(answer, "text", where) for answer in _list(record, "answers", where))
    if not answers:
        raise DataError(f"{where} has no answer: SQuAD 1.1 has one at least; leave out the unanswerable ones of 2.0")
    return SquadQuestion(name, _string(record, "question", where), passage, answers)


def _list(record: object, name: str, where: str) -> Iterator[object]:
    value = record.get(name) if isinstance(record, Mapping) else None
    if not isinstance(value, list):
        raise DataError(f"{where} has no list {name!r}: give SQuAD 1.1's official file, such as dev-v1.1.json")
    return iter(value)


def _string(record: object, name: str, where: str) -> str:
    return files.text(record.get(name) if isinstance(record, Mapping) else None, name, where)
