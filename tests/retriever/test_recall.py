"""The exact best by the stored vectors, and the share of them that a ranking holds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError, DataError
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.retriever.recall import exact_top, recalls
from rag_ese.types import Size

FULL = Size(6, 24)


@pytest.mark.parametrize("rows", [8, 16384])
def test_the_exact_best_are_those_of_numpy(
    store_of: Callable[..., Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    pool = draw.normal(size=(60, 24)).astype(np.float32)
    pool[30:45] = pool[5]  # fifteen rows alike
    store, encoder = store_of({6: pool}, "L6-d24", kind="sq8")  # the index rounds, the vectors do not
    monkeypatch.setattr("rag_ese.retriever.recall._ROWS", rows)
    queries = np.concatenate([encoder.begin(["one", "two"]).at(FULL), store.vectors(6).rows(slice(5, 6), 24)])
    unit = store.vectors(6).rows(slice(None), 24)
    expected = [np.argsort(-np.einsum("ij,j->i", unit, query), kind="stable")[:10].tolist() for query in queries]
    assert exact_top(store, queries, FULL, 10).tolist() == expected
    assert expected[2][:3] == [5, 30, 31]
    assert exact_top(store, queries[:0], FULL, 10).shape == (0, 10)


def test_recall_is_a_share_of_the_exact() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recalls([np.array([4, 9, 1]), np.array([8, 7, 6, 5, 1])], exact).tolist() == [0.5, 1.0]
    assert recalls([np.array([], np.int64)], exact[:1]).tolist() == [0.0]


@pytest.mark.parametrize("k", [0, -1, 7])
def test_a_k_that_the_pool_does_not_have(store_of: Callable[..., Any], k: int) -> None:
    store, encoder = store_of({6: np.eye(6, 24, dtype=np.float32)}, "L6-d24")
    with pytest.raises(ConfigError, match=rf"k {k} is not possible over a pool of 6 passages: choose 1 to 6"):
        exact_top(store, encoder.begin(["one"]).at(FULL), FULL, k)


def test_queries_that_are_not_finite(store_of: Callable[..., Any]) -> None:
    store, encoder = store_of({6: np.eye(6, 24, dtype=np.float32)}, "L6-d24")
    queries = encoder.begin(["one", "two"]).at(FULL)
    queries[1, 3] = np.nan
    with pytest.raises(DataError, match="1 of 2 query vectors at L6-d24 are not finite"):
        exact_top(store, queries, FULL, 2)


def test_a_trace_ends_in_what_search_returns(store_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    pool = {layer: draw.normal(size=(40, 24)).astype(np.float32) for layer in (2, 4, 6)}
    store, encoder = store_of(pool, "L2-d8,L4-d12,L6-d24")
    queries = [f"query {n}" for n in range(5)]
    monkeypatch.setattr("rag_ese.retriever.searchers._QUERIES", 2)
    for stages in ("L2-d8:20", "L2-d8:20 > L6-d24:5", "L2-d8:20 > L4-d12:9 > L6-d24:5"):
        funnel = Funnel.parse(stages, 6, 24)
        searcher = FunnelSearcher(store, encoder, funnel)
        traced = searcher.trace(queries)
        assert [[len(ranking) for ranking in each] for each in traced] == [[s.keep for s in funnel.stages]] * 5
        for each, ranking in zip(traced, searcher.search(queries), strict=True):
            assert each[-1].rows.tolist() == ranking.rows.tolist()
            for before, after in pairwise(each):
                assert {*after.rows.tolist()} <= {*before.rows.tolist()}
    assert searcher.trace([]) == []
