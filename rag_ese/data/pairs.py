"""Questions with the passage that answers them: JSONL files in the manner of SQuAD, and HotpotQA's own files."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_ese.data import files, records
from rag_ese.data.sources import read_source
from rag_ese.errors import DataError
from rag_ese.types import Passage


@dataclass(frozen=True)
class Pair:
    """A question, its passage, and what else is known: hard negatives (whole passages) and answer strings."""

    question: str
    title: str
    context: str
    negatives: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    @property
    def passage(self) -> str:
        return join(self.title, self.context)


def join(title: str, text: str) -> str:
    """Title, newline, text, as passages are encoded everywhere in this project; the text alone without a title."""
    return f"{title}\n{text}" if title else text


def parse(record: object, where: str) -> list[Pair]:
    """The pairs of one record; `where` is its place, for the errors.

    In the manner of SQuAD: `question`, `context`, perhaps `title`, `negatives` (a list of passages) and `answers`;
    records that say they hold another `granularity` than "paragraph" (lone sentences, for example) give no pair. A
    HotpotQA record gives one pair per gold passage, whose hard negatives are the other context passages.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is not an object with question and context: correct the line")
    if "supporting_facts" in record:
        return _hotpotqa(record, where)
    if record.get("granularity", "paragraph") != "paragraph":
        return []
    question, context = (filled(record, name, where) for name in ("question", "context"))
    title = files.text(record.get("title") or "", "title", where).replace("_", " ")
    negatives = files.texts(record.get("negatives") or (), "negatives", where)
    return [Pair(question, title, context, negatives, _answers(record.get("answers"), where))]


def read(path: Path) -> Iterator[Pair]:
    """The pairs of a file, in its order. Raises DataError with the line or the question's number."""
    for where, record in read_source(path):
        yield from parse(record, where)


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """(question, passage) of every pair of a file."""
    return ((pair.question, pair.passage) for pair in read(path))


def distinct_passages(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One pair per passage: the first question of each, in order of passage text."""
    first: dict[str, str] = {}
    for question, passage in pairs:
        first.setdefault(passage, question)
    return [(first[passage], passage) for passage in sorted(first)]


def filled(record: Mapping[str, object], name: str, where: str) -> str:
    """A field that must hold text."""
    value = files.text(record.get(name), name, where)
    if not value.strip():
        raise DataError(f"{where}: the field {name!r} is empty; write it or remove the row")
    return value


def _hotpotqa(record: Mapping[str, object], where: str) -> list[Pair]:
    question, context = records.parse(record, where)
    distinct: dict[str, Passage] = {passage.id: passage for passage in context if passage.text.strip()}
    others = tuple(join(each.title, each.text) for name, each in distinct.items() if name not in question.gold)
    answers = () if question.answer.lower() in ("yes", "no") else (question.answer,)
    gold = [distinct[name] for name in question.gold if name in distinct]
    return [Pair(question.text, passage.title, passage.text, others, answers) for passage in gold]


def _answers(value: object, where: str) -> tuple[str, ...]:
    """Answers as published: strings, {"text": ...} objects, a column {"text": [...]}, or Python's repr of these."""
    if isinstance(value, str):
        try:
            parsed = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            parsed = None
        value = parsed if isinstance(parsed, list | tuple | Mapping) else [value]
    if isinstance(value, Mapping):
        value = value.get("text")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: the field 'answers' is a {type(value).__name__}, where a list of strings is needed")
    each = [answer.get("text") if isinstance(answer, Mapping) else answer for answer in value]
    return tuple(dict.fromkeys(files.texts(each, "answers", where)))
