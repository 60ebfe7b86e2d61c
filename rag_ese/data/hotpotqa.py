"""HotpotQA (Yang et al. 2018, arXiv:1809.09600): questions with gold evidence, and the passages that come with them."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rag_ese.data import files, records
from rag_ese.data.records import Setting
from rag_ese.errors import DataError
from rag_ese.types import Passage, Question


@dataclass(frozen=True)
class HotpotQA:
    """Questions, and the pool of all their context passages (distinct by title and text, in order of appearance)."""

    questions: list[Question]
    passages: list[Passage]
    source: str
    """What it is: a path, or the hub's data set, setting and split."""
    revision: str
    """The hub's revision, or the xxh3 hash of the file."""
    fallback: str | None = None
    """Why this is a substitute for what was asked for; None when it is what was asked for."""


def load(path: Path, setting: Setting = "distractor", limit: int | None = None, seed: int = 0) -> HotpotQA:
    """Reads .json[.gz] (a list of questions, the official form) or .jsonl[.gz] (one question per line).

    Both the official fields and the hub's column form are read. `limit` and `seed` choose questions as `collect` says.
    Raises DataError with the file and the question or the line.
    """
    if not path.is_dir() and files.suffix(path) not in (".json", ".jsonl"):
        raise DataError(f"{path} has an unknown ending; HotpotQA files end in .json, .jsonl, .json.gz or .jsonl.gz")
    revision = files.fingerprint(path)
    numbered = _lines(path) if files.suffix(path) == ".jsonl" else _items(path)
    return collect(numbered, str(path), revision, setting, limit, seed)


def collect(
    numbered: Iterable[tuple[str, object]],
    source: str,
    revision: str,
    setting: Setting = "distractor",
    limit: int | None = None,
    seed: int = 0,
) -> HotpotQA:
    """Makes a HotpotQA of records, each with the place it stands at.

    `limit` keeps a random sample of that many questions, without replacement and in file order; the same seed chooses
    the same questions on every machine, and a smaller limit chooses among those of a larger one. The passages stay
    those of ALL questions, so that fewer questions are not an easier task.
    """
    records.check(setting)
    if limit is not None and limit < 1:
        raise DataError(f"a limit of {limit} leaves no questions: choose 1 or more")
    questions: dict[str, Question] = {}
    passages: dict[str, Passage] = {}
    for where, record in numbered:
        question, context = records.parse(record, where, setting)
        if question.id in questions:
            raise DataError(f"{where}: the question id {question.id!r} was used before; ids must be unique, remove one")
        questions[question.id] = question
        passages.update((passage.id, passage) for passage in context if passage.id not in passages)
    if not questions:
        raise DataError(f"{source} holds 0 questions; check that it is a HotpotQA file, downloaded to its end")
    return HotpotQA(sample(list(questions.values()), limit, seed), list(passages.values()), source, revision)


def sample(questions: list[Question], limit: int | None, seed: int) -> list[Question]:
    """The `limit` questions whose hashes with the seed are smallest: random, yet the same with every library."""
    if limit is None or limit >= len(questions):
        return questions
    chosen = set(sorted((question.id for question in questions), key=lambda name: _draw(seed, name))[:limit])
    return [question for question in questions if question.id in chosen]


def resolve_gold(questions: Sequence[Question], passages: Iterable[Passage]) -> tuple[list[Question], int]:
    """Fills `gold` by title from a pool, for the fullwiki setting: every pool passage with a supporting title is gold.

    Returns the questions and how many (question, title) pairs the pool lacks. A lacking title gets the id of a passage
    that is not in the pool, so that it counts as not retrieved rather than dropping out of the metrics. Titles are
    compared with HTML entities decoded: HotpotQA writes `Sam &amp; Cat`, other distributions of the same abstracts `Sam
    & Cat`.
    """
    wanted = {html.unescape(title) for question in questions for title, _ in question.supporting_facts}
    found: dict[str, dict[str, None]] = {}
    for passage in passages:
        title = html.unescape(passage.title)
        if title in wanted:
            found.setdefault(title, {})[passage.id] = None
    resolved, missing = [], 0
    for question in questions:
        titles = dict.fromkeys(html.unescape(title) for title, _ in question.supporting_facts)
        missing += sum(title not in found for title in titles)
        ids = [name for title in titles for name in found.get(title, (Passage(title, ()).id,))]
        resolved.append(replace(question, gold=tuple(ids)))
    return resolved, missing


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=16).digest()


def _items(path: Path) -> Iterator[tuple[str, object]]:
    content = files.read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path} holds a {type(content).__name__}, where a list of questions is needed")
    for position, record in enumerate(content, start=1):
        yield f"{path}, question {position}", record


def _lines(path: Path) -> Iterator[tuple[str, object]]:
    for number, record in files.read_jsonl(path):
        yield f"{path}, line {number}", record
