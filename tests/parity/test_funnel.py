"""A funnel that keeps everything is an exact search; one that does not is what numpy makes of its stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.types import Float32s, Ranking, Size

WIDTH = 40
CASES = range(12)


def draw_case(seed: int) -> tuple[dict[int, Float32s], list[str]]:
    """A pool at three depths and the texts of some queries. Odd seeds: coarse values, duplicates and zero vectors."""
    draw = np.random.default_rng(seed)
    rows = int(draw.integers(1, 250))
    pool = {layer: draw.normal(size=(rows, WIDTH)).astype(np.float32) for layer in (2, 4, 6)}
    if seed % 2:
        same, other = draw.integers(rows, size=(2, rows // 3))
        for layer in pool:
            pool[layer] = np.sign(pool[layer])
            pool[layer][same] = pool[layer][other]
            pool[layer][draw.integers(rows, size=rows // 10)] = 0
    return pool, [f"query {seed} {n}" for n in range(int(draw.integers(1, 30)))]


def exact(pool: dict[int, Float32s], encoder: Any, query: str, size: Size) -> npt.NDArray[np.float64]:
    """The score of every row, in float64."""

    def unit(vector: Float32s) -> npt.NDArray[np.float64]:
        cut = vector[..., : size.dim].astype(np.float64)
        length = np.linalg.norm(cut, axis=-1, keepdims=True)
        return cut / np.where(length == 0, 1, length)

    return unit(pool[size.layers]) @ unit(encoder.raw([query], size.layers)[0])


def check(ranking: Ranking, scores: npt.NDArray[np.float64], k: int) -> None:
    """`ranking` is the best `k` by `scores`: the same scores place by place; rows free only among equal scores."""
    best = np.argsort(-scores, kind="stable")[:k]
    assert len({*ranking.rows.tolist()}) == len(ranking) == len(best)
    assert np.abs(ranking.scores - scores[best]).max() < 1e-6
    assert np.abs(scores[ranking.rows] - scores[best]).max() < 1e-6
    distinct = len(scores) == 1 or np.diff(np.sort(scores)).min() > 1e-6
    if distinct:
        assert ranking.rows.tolist() == best.tolist()


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize("stages", ["L2-d8:{n} > L6-d40:{k}", "L4-d8:{n} > L2-d40:{n} > L6-d17:{k}"])
def test_a_funnel_that_keeps_everything_is_exact(store_of: Callable[..., Any], seed: int, stages: str) -> None:
    pool, queries = draw_case(seed)
    rows = len(pool[2])
    for k in {1, min(7, rows), rows}:
        funnel = Funnel.parse(stages.format(n=rows, k=k), 6, WIDTH)
        last = funnel.stages[-1].size
        store, encoder = store_of(pool, f"{funnel.stages[0].size},L2-d8,{last}")
        for either in (funnel, Funnel.single(last, k)):
            rankings = FunnelSearcher(store, encoder, either).search(queries)
            for query, ranking in zip(queries, rankings, strict=True):
                check(ranking, exact(pool, encoder, query, last), k)


@pytest.mark.parametrize("seed", CASES)
def test_equal_vectors_stand_in_order_of_row(store_of: Callable[..., Any], seed: int) -> None:
    pool, queries = draw_case(seed)
    rows = len(pool[2])
    store, encoder = store_of(pool, "L2-d8,L6-d40")
    funnel = FunnelSearcher(store, encoder, Funnel.parse(f"L2-d8:{rows} > L6-d40:{rows}", 6, WIDTH))
    for query, ranking in zip(queries, funnel.search(queries), strict=True):
        vectors = store.vectors(6).rows(slice(None), WIDTH)
        check(ranking, exact(pool, encoder, query, Size(6, WIDTH)), rows)
        # Rows with the same vector have the same score, to the last bit, and stand in order of row.
        place = {row: n for n, row in enumerate(ranking.rows.tolist())}
        _, group = np.unique(vectors, axis=0, return_inverse=True)
        for number in range(group.max() + 1):
            members = np.flatnonzero(group == number).tolist()
            assert len({ranking.scores[place[row]].item() for row in members}) == 1
            assert [place[row] for row in members] == sorted(place[row] for row in members)


@pytest.mark.parametrize("seed", range(0, 12, 2))  # without equal scores
def test_a_narrow_funnel_equals_its_stages_in_numpy(store_of: Callable[..., Any], seed: int) -> None:
    pool, queries = draw_case(seed)
    store, encoder = store_of(pool, "L2-d8,L4-d8,L6-d8")
    funnel = FunnelSearcher(store, encoder, Funnel.parse("L2-d8:30 > L4-d40:12 > L6-d20:5", 6, WIDTH))
    for query, ranking in zip(queries, funnel.search(queries), strict=True):
        kept = np.arange(len(pool[2]))
        for size, keep in ((Size(2, 8), 30), (Size(4, 40), 12), (Size(6, 20), 5)):
            scores = exact(pool, encoder, query, size)
            kept = kept[np.argsort(-scores[kept], kind="stable")][:keep]
        assert ranking.rows.tolist() == kept.tolist()
        assert ranking.scores == pytest.approx(scores[kept], abs=1e-6)
