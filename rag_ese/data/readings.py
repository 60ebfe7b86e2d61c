"""Questions with what must be read to answer them: rows that readers are trained on, out of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple, cast

from rag_ese.data import files, pairs, records
from rag_ese.data.sources import read_source
from rag_ese.errors import DataError
from rag_ese.types import Passage, Question

Closed = Literal["yes", "no"]
_CLOSED = ("yes", "no")


class Gold(NamedTuple):
    """An answer in a passage of a reading: its characters `start` to `end` (exclusive) of the passage's text."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """A question, the passages that answer it together, and the answer: places in them, or yes or no.

    `distractors` are passages that do not answer it, where the file has some.
    """

    question: str
    passages: tuple[Passage, ...]
    gold: tuple[Gold, ...]
    closed: Closed | None = None
    distractors: tuple[Passage, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What tells whether two rows belong together: the question and its passages."""
        return self.question, *(passage.full for passage in self.passages)


def read_readings(path: Path, titles: bool = True) -> Iterator[Reading]:
    """The rows of a file in SQuAD's manner (`question`, `context`, `answers`), of BoolQ (`answer`) or of HotpotQA.

    Rows whose answer does not occur in their passages are left out, and so are passages cut to a sentence. Without
    `titles` the titles are dropped: some data sets have none that say anything. Raises DataError with the line.
    """
    for where, record in read_source(path):
        if not isinstance(record, Mapping):
            raise DataError(f"{where} is not an object with question and context: correct the line")
        if record.get("granularity", "paragraph") != "paragraph":
            continue
        reading = _hotpotqa(record, where) if "supporting_facts" in record else _squad(record, where, titles)
        if reading.gold or reading.closed:
            yield reading


def occurrences(answer: str, text: str) -> list[tuple[int, int]]:
    """Where an answer stands in a text as whole words: (start, end) in characters, case ignored where it must be.

    >>> occurrences("art", "Art is no part of art.")
    [(18, 21)]
    """
    words = rf"(?<!\w){re.escape(answer.strip())}(?!\w)"
    for flags in (re.RegexFlag(0), re.IGNORECASE):
        if answer.strip() and (found := [match.span() for match in re.finditer(words, text, flags)]):
            return found
    return []


def _squad(record: Mapping[str, object], where: str, titles: bool) -> Reading:
    question, context = (pairs.filled(record, name, where) for name in ("question", "context"))
    title = files.text(record.get("title") or "", "title", where).replace("_", " ") if titles else ""
    passage = Passage(title, (context,))
    answer = record.get("answer")
    if answer in _CLOSED:
        return Reading(question, (passage,), (), cast(Closed, answer))
    answers = record.get("answers")
    each = answers if isinstance(answers, Sequence) and not isinstance(answers, str) else ()
    places = {place: None for value in each for place in _places(value, context, where)}
    return Reading(question, (passage,), tuple(Gold(0, *place) for place in places))


def _places(answer: object, context: str, where: str) -> list[tuple[int, int]]:
    """The place that an annotator marked; every occurrence where only the words are known."""
    if not isinstance(answer, Mapping):
        return occurrences(files.text(answer, "answers", where), context)
    text, start = files.text(answer.get("text"), "text", where), answer.get("answer_start")
    if isinstance(start, int) and text.strip() and context[start : start + len(text)] == text:
        return [(start, start + len(text))]
    return occurrences(text, context)


def _hotpotqa(record: Mapping[str, object], where: str) -> Reading:
    question, context = records.parse(record, where)
    gold = tuple(dict.fromkeys(passage for passage in context if passage.id in question.gold))
    others = tuple(passage for passage in context if passage.id not in question.gold)
    if question.answer in _CLOSED:
        return Reading(question.text, gold, (), cast(Closed, question.answer), others)
    return Reading(question.text, gold, tuple(_bridged(question, gold)), None, others)


def _bridged(question: Question, passages: Sequence[Passage]) -> list[Gold]:
    """Where the answer stands in the supporting sentences; anywhere in the passages if in none of these."""
    facts = set(question.supporting_facts)
    found: list[Gold] = []
    supported: list[Gold] = []
    for number, passage in enumerate(passages):
        ends = list(accumulate(map(len, passage.sentences)))
        for start, end in occurrences(question.answer, passage.text):
            found.append(Gold(number, start, end))
            sentence = next(place for place, limit in enumerate(ends) if start < limit)
            if (passage.title, sentence) in facts:
                supported.append(found[-1])
    return supported or found
