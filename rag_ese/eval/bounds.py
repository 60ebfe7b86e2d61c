"""The floor and the ceiling of a reader: no passages at all (closed book), and exactly the gold passages (oracle).

Between the ceiling and 100 lies what the reader loses, between a row and the ceiling what the retriever loses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rag_ese.data import HotpotQA
from rag_ese.eval import answers as answer_metrics
from rag_ese.eval.reading import read
from rag_ese.eval.results import SystemResult
from rag_ese.generator import Generator, Prompt
from rag_ese.index import Store
from rag_ese.types import Passage, Question

CLOSED_BOOK = "closed book"
ORACLE = "gold passages"


def bounds(
    hotpot: HotpotQA,
    store: Store,
    questions: Sequence[Question],
    generator: Generator,
    closed_book: bool,
    oracle: bool,
    note: Callable[[str], None],
) -> Iterator[SystemResult]:
    """The rows that were asked for. What cannot be as it should is noted."""
    if closed_book:
        row = _row(CLOSED_BOOK, questions, [Prompt(question.text, ()) for question in questions], generator)
        if not any(answer.text for answer in row.answers.values()):
            note(f"closed book: {generator.name} answers nothing without passages, so its floor is 0")
        yield row
    if oracle:
        gold = _gold(hotpot, store, questions)
        wanted = {name for question in questions for name in question.gold}
        if lacking := wanted - gold.keys():
            note(
                f"WARNING: {len(lacking)} of {len(wanted)} gold passages are neither in the questions' contexts nor in "
                f"the pool: the row {ORACLE!r} reads without them"
            )
        prompts = [Prompt(each.text, tuple(gold[name] for name in each.gold if name in gold)) for each in questions]
        yield _row(ORACLE, questions, prompts, generator)


def _row(name: str, questions: Sequence[Question], prompts: Sequence[Prompt], generator: Generator) -> SystemResult:
    reading = read(name, questions, prompts, generator)
    return SystemResult(
        name=name,
        kind="bound",
        size=None,
        index_bytes=0,
        vector_bytes=0,
        latency=None,
        values=answer_metrics.score(reading.answers, questions),
        answers=reading.answers,
        reading=reading.speed(0.0),
    )


def _gold(hotpot: HotpotQA, store: Store, questions: Sequence[Question]) -> Mapping[str, Passage]:
    """Gold passages by id: from the questions' own contexts, and what is not there from the pool."""
    wanted = {name for question in questions for name in question.gold}
    found = {passage.id: passage for passage in hotpot.passages if passage.id in wanted}
    for row in range(len(store)) if wanted - found.keys() else ():
        if (name := store.passages.id(row)) in wanted and name not in found:
            found[name] = store.passages[row]
    return found
