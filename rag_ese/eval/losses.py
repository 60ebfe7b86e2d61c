"""Where a funnel loses a question: before it, at its cut, at its re-ranking, or only in the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from rag_ese.eval.results import SystemResult
from rag_ese.index import Store
from rag_ese.types import Question, Ranking

FATES = {
    "not_indexed": "gold not in the index",
    "cut": "lost at the shortlist",
    "reranked": "lost at re-ranking",
    "unanswered": "retrieved, not answered",
    "kept": "kept",
}
"""The fates of a question, in the order in which they strike, with the words for people."""
TOP = 10
ANSWERED = 0.5
"""From this answer F1 on a question counts as answered."""


def fate(gold: Iterable[str], indexed: Container[str], stages: Sequence[Sequence[str]], f1: float | None = None) -> str:
    """The first fate that struck any gold passage of a question, or else its answer; one of FATES.

    `stages` are the passage ids that each stage kept, best first; the last one counts to its first TOP. What is lost at
    any stage after the first is lost at re-ranking. A single stage has no re-ranking: what is not in its first TOP is
    cut. `f1` is that of the answer, None where nothing was asked to answer.
    """
    passages = [*gold]
    *before, last = stages
    final = last[:TOP]
    shortlist = before[0] if before else final
    if any(each not in indexed for each in passages):
        return "not_indexed"
    if any(each not in shortlist for each in passages):
        return "cut"
    if any(each not in final for each in passages):
        return "reranked"
    return "unanswered" if f1 is not None and f1 < ANSWERED else "kept"


def count_losses(
    store: Store,
    questions: Sequence[Question],
    traces: Sequence[Sequence[Ranking]],
    answer_f1: Sequence[float | None] | None = None,
) -> dict[str, int]:
    """How many questions met each fate, every fate named; the counts add up to the questions.

    `traces` holds one ranking per stage for each question, as `FunnelSearcher.trace` gives them.
    """
    wanted = {name for question in questions for name in question.gold}
    indexed = {name for name in map(store.passages.id, range(len(store))) if name in wanted}
    scores = answer_f1 or [None] * len(questions)
    counts = Counter(
        fate(question.gold, indexed, [[store.passages.id(int(row)) for row in stage.rows] for stage in stages], f1)
        for question, stages, f1 in zip(questions, traces, scores, strict=True)
    )
    return {name: counts[name] for name in FATES}


def markdown_table(systems: Iterable[SystemResult]) -> str:
    """A row per funnel, in questions; nothing where there is no funnel."""
    rows = [[system.name, *(str(system.losses[name]) for name in FATES)] for system in systems if system.losses]
    if not rows:
        return ""
    lines = [["funnel", *FATES.values()], ["---", *("---:" for _ in FATES)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
