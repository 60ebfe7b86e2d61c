"""Two hops over a searcher that is written down by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from rag_ese.retriever.hops import BRIDGES, KEPT, HopSearcher, merge
from rag_ese.types import Passage, Ranking

PASSAGES = [Passage(f"Title {row}", (f"Text {row}.", " More.")) for row in range(40)]


def ranking(scores: Mapping[int, float]) -> Ranking:
    return Ranking(np.array([*scores], dtype=np.int64), np.array([*scores.values()], dtype=np.float32))


class Scripted:
    """Answers each query from a table and notes what it was asked."""

    name, keep = "scripted", 10

    def __init__(self, table: Mapping[str, Mapping[int, float]]) -> None:
        self.table, self.asked = table, list[str]()

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        self.asked += queries
        return [ranking(self.table.get(query, {})) for query in queries]


def test_the_second_hop_is_asked_with_the_bridge_and_fills_up_behind_the_first() -> None:
    first = {row: 1.0 - row / 20 for row in range(10)}
    table = {"q": first, "q Title 0 Text 0. More.": {30: 8.0, 0: 4.0}, "q Title 1 Text 1. More.": {31: 5.0, 30: 1.0}}
    inner = Scripted(table)
    (found,) = HopSearcher(inner, PASSAGES).search(["q"])
    assert inner.asked == ["q", *(f"q Title {row} Text {row}. More." for row in range(BRIDGES))]
    # 30 is the best behind bridge 0 (1 x 1), 31 behind bridge 1 (0.95 x 1)
    assert found.rows.tolist() == [*range(KEPT), 30, 31, 7]
    assert (np.diff(found.scores) < 0).all() and found.rows.dtype == np.int64 and found.scores.dtype == np.float32


def test_budget_and_duplicates() -> None:
    first = ranking({row: 10.0 - row for row in range(10)})
    second = [ranking({row: 1.0 - row / 40 for row in range(5, 25)}) for _ in range(BRIDGES)]
    found = merge(first, second, keep=12)
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("hit", [{}, {3: 0.0}, {3: -0.5, 4: -0.7}, {3: 2.0}])
def test_few_hits_and_scores_without_a_scale(hit: dict[int, float]) -> None:
    inner = Scripted({"q": hit})
    results = HopSearcher(inner, PASSAGES).search(["q", "nothing"])
    assert [found.rows.tolist() for found in results] == [list(hit), []]
    assert HopSearcher(inner, PASSAGES).search([]) == []


def test_queries_do_not_mix() -> None:
    table = {"a": {1: 1.0}, "b": {2: 1.0}, "a Title 1 Text 1. More.": {5: 1.0}, "b Title 2 Text 2. More.": {6: 1.0}}
    results = HopSearcher(Scripted(table), PASSAGES).search(["a", "b"])
    assert [found.rows.tolist() for found in results] == [[1, 5], [2, 6]]
