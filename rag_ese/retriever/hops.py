"""Two hops: what the first search found extends the query of a second one, for questions that need a bridge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_ese.retriever.searchers import Searcher
from rag_ese.types import Passage, Ranking

BRIDGES = 3
"""So many of the first hop's best passages extend the query, each in a query of its own."""
KEPT = 7
"""So many of the first hop's best stay in front; the second hop fills up behind them. Both were chosen on HotpotQA
training questions, for readers of ten passages (docs/log.md)."""


class HopSearcher:
    """Searches, appends title and text of each of the best passages to the query, searches again, and merges.

    Over any searcher: scores are only compared within a hop, each divided by the best of its search. A passage that
    only the second hop found scores what it has there times what the bridge to it has in the first hop. The result is
    as long as the inner searcher's, so two hops read no more passages than one; they search 1 + BRIDGES times.
    """

    def __init__(self, searcher: Searcher, passages: Sequence[Passage]) -> None:
        self.name, self.keep = f"{searcher.name}, 2 hops", searcher.keep
        self._searcher, self._passages = searcher, passages

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        first = self._searcher.search(queries)
        extended = [
            f"{query} {self._passages[int(row)].title} {self._passages[int(row)].text}"
            for query, ranking in zip(queries, first, strict=True)
            for row in ranking.rows[:BRIDGES]
        ]
        second = iter(self._searcher.search(extended) if extended else ())
        return [merge(ranking, [next(second) for _ in ranking.rows[:BRIDGES]], self.keep) for ranking in first]


def merge(first: Ranking, second: Sequence[Ranking], keep: int) -> Ranking:
    """The first KEPT of `first`, the best of `second` (one ranking per bridge), the rest of `first`; `keep` in all.

    The scores only repeat the order, from `keep` downwards: those of different searches have no common scale.
    """
    found: dict[int, float] = {}
    for bridge, ranking in zip(_relative(first)[: len(second)], second, strict=True):
        for row, score in zip(ranking.rows.tolist(), _relative(ranking), strict=True):
            found[row] = max(found.get(row, -np.inf), bridge * score)
    behind = sorted(found, key=lambda row: (-found[row], row))
    order = list(dict.fromkeys([*first.rows[:KEPT].tolist(), *behind, *first.rows[KEPT:].tolist()]))[:keep]
    return Ranking(np.array(order, dtype=np.int64), np.arange(keep, keep - len(order), -1, dtype=np.float32))


def _relative(ranking: Ranking) -> list[float]:
    """The scores as shares of the best one, 0 where it is not positive."""
    best = float(ranking.scores[0]) if len(ranking) else 0.0
    return [max(float(score) / best, 0.0) if best > 0 else 0.0 for score in ranking.scores]
