"""How well the supporting passages were found. "Recall" means several things in the field: here each has its own name.

ndcg@10 mrr@10 map@10    graded by position, through trec_eval (pytrec_eval)
support_recall@k         the share of the gold passages among the first k
both_gold@k              1 when all gold passages are among the first k
answer_hit@k             1 when the answer string stands in one of the first k passages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pytrec_eval

from rag_ese.errors import DataError, disk_errors
from rag_ese.eval.answers import normalise
from rag_ese.types import Question

KS = (2, 5, 10, 20, 100)
_CUT = 10
_TREC = {"ndcg@10": "ndcg_cut_10", "mrr@10": "recip_rank", "map@10": "map_cut_10"}

Rankings = Mapping[str, Sequence[str]]
"""Question id -> passage ids, best first."""


def score(
    rankings: Rankings,
    questions: Sequence[Question],
    depth: int,
    passage_text: Callable[[str], str] | None = None,
) -> dict[str, list[float | None]]:
    """Per-question values of every metric, in the order of `questions`.

    `depth` is how many passages the system was asked for: metrics at a deeper k are None. A question without a ranking
    counts 0. `passage_text` gives a passage's text by its id; without it there is no answer_hit. answer_hit is None for
    yes/no questions, whose answer stands in nearly every passage and in none as evidence, and for an answer that
    normalises to nothing. Raises DataError for a question without gold passages and for a ranking that names a passage
    twice.
    """
    _check(rankings, questions)
    values = _trec(rankings, questions, depth)
    found = [_gold_ranks(rankings.get(question.id, ()), question) for question in questions]
    for k in KS:
        shares = [
            sum(rank <= k for rank in ranks) / len(set(q.gold)) for ranks, q in zip(found, questions, strict=True)
        ]
        values[f"support_recall@{k}"] = [share if k <= depth else None for share in shares]
        values[f"both_gold@{k}"] = [float(share == 1) if k <= depth else None for share in shares]
    if passage_text:
        deepest = max((k for k in KS if k <= depth), default=0)
        first = _first_hits(rankings, questions, deepest, passage_text)
        for k in KS:
            values[f"answer_hit@{k}"] = [None if rank is None or k > depth else float(rank <= k) for rank in first]
    return values


def write_trec_run(path: Path, name: str, rankings: Rankings) -> None:
    """Writes `question Q0 passage rank score name` lines with ranks from 1; the scores only repeat the order."""
    lines = []
    for question, ids in rankings.items():
        for word in (name, question, *ids):
            if not word or len(word.split()) != 1:
                raise DataError(f"{word!r} cannot stand in a TREC run, whose columns are split at blanks; rename it")
        lines += [f"{question} Q0 {id} {rank} {len(ids) - rank + 1} {name}\n" for rank, id in enumerate(ids, start=1)]
    with disk_errors("writing the TREC run", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")


def _check(rankings: Rankings, questions: Sequence[Question]) -> None:
    for question in questions:
        if not question.gold:
            raise DataError(
                f"question {question.id} has 0 gold passages; in the fullwiki setting call resolve_gold first"
            )
        ids = rankings.get(question.id, ())
        if len(set(ids)) < len(ids):
            raise DataError(
                f"the ranking of question {question.id} names {len(ids) - len(set(ids))} passages twice; drop them"
            )


def _trec(rankings: Rankings, questions: Sequence[Question], depth: int) -> dict[str, list[float | None]]:
    if depth < _CUT:
        return {name: [None] * len(questions) for name in _TREC}
    relevant = {question.id: dict.fromkeys(question.gold, 1) for question in questions}
    # trec_eval orders by score and breaks ties by name, so each rank needs a score of its own; it has no cut for
    # recip_rank, so the run is cut before.
    run = {
        name: {passage: float(_CUT - rank) for rank, passage in enumerate(rankings[name][:_CUT])}
        for name in relevant
        if name in rankings
    }
    measured = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "recip_rank", "map_cut.10"}).evaluate(run)
    # pytrec_eval leaves out the queries that the run lacks: they count 0.
    return {name: [measured.get(q.id, {}).get(column, 0.0) for q in questions] for name, column in _TREC.items()}


def _gold_ranks(ids: Sequence[str], question: Question) -> list[int]:
    gold = set(question.gold)
    return [rank for rank, passage in enumerate(ids, start=1) if passage in gold]


def _first_hits(
    rankings: Rankings, questions: Sequence[Question], deepest: int, passage_text: Callable[[str], str]
) -> list[float | None]:
    """The first rank whose passage holds the answer, on token boundaries; inf: none of `deepest`; None: not asked."""

    @lru_cache(maxsize=100_000)
    def padded(passage: str) -> str:
        return f" {normalise(passage_text(passage))} "

    first: list[float | None] = []
    for question in questions:
        answer = normalise(question.answer)
        if answer in ("", "yes", "no"):
            first.append(None)
            continue
        ids = rankings.get(question.id, ())[:deepest]
        hits = (rank for rank, passage in enumerate(ids, start=1) if f" {answer} " in padded(passage))
        first.append(next(hits, float("inf")))
    return first
