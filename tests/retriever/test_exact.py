"""Certified exact search gives what comparing with every vector gives: the same rows, and the same bits of score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rag_ese.errors import ConfigError, DataError, StoreCorruptError
from rag_ese.index.lexical import best
from rag_ese.retriever import ExactIndex, ExactSearcher, Funnel, FunnelSearcher
from rag_ese.retriever.exact_batch import whole_products
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s, Size


def unit(vectors: np.ndarray) -> Float32s:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1, norms), np.float32)


def like_embeddings(count: int, dim: int, seed: int = 0) -> Float32s:
    """Unit vectors with a decaying spectrum, turned at random, around a common mean."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    return unit((draw.normal(size=(count, dim)) * (np.arange(dim) + 1.0) ** -0.7 + 0.05) @ turn)


def check(index: ExactIndex, vectors: Float32s, queries: Float32s, k: int) -> Any:
    """Both ways of searching, one query at a time and together, against brute force."""
    each = [index.search(query[None], k) for query in queries]
    scores, rows, touched = index.search(queries, k)
    for at, query in enumerate(queries):
        expected = best(products(vectors, query), k)
        for given_scores, given_rows in ((each[at][0][0], each[at][1][0]), (scores[at], rows[at])):
            assert given_rows.tolist() == expected.rows.tolist()
            assert given_scores.tobytes() == expected.scores.tobytes()
    return touched, [one[2] for one in each]


def cases() -> dict[str, tuple[Float32s, Float32s]]:
    draw = np.random.default_rng(5)
    x = like_embeddings(3000, 48)
    q = unit(x[:12] + 0.3 * like_embeddings(12, 48, 1))
    flat = unit(draw.normal(size=(700, 48)))
    opposed = np.hstack([np.repeat(x[:40, :24], 20, axis=0), -4 * unit(draw.normal(size=(800, 24)))])
    zeros = x[:900].copy()
    zeros[::7] = 0
    mixed = q.copy()
    mixed[3] = 0
    mixed[4] *= 1e-20
    mixed[5] *= 1e18
    mixed[6] *= 1000
    return {
        "embedding-like": (x, q),
        "flat spectrum": (flat, unit(draw.normal(size=(9, 48)))),
        "duplicates": (np.repeat(x[:60], 30, axis=0), q),
        "all equal": (np.repeat(x[:1], 500, axis=0), q),
        "nearly equal": (unit(np.repeat(x[:1], 500, axis=0) + 1e-7 * draw.normal(size=(500, 48))), q),
        "zero rows": (zeros, q),
        "nothing but zeros": (np.zeros((300, 48), np.float32), q),
        "negative scores": (x[x @ q[0] < 0], np.repeat(q[:1], 9, axis=0)),
        "anti-correlated tails": (unit(opposed), unit(np.hstack([opposed[::80, :24], -opposed[::80, 24:]]))),
        "queries of any length": (x, mixed),
        "vectors of any length": (x * draw.lognormal(0, 2, size=(len(x), 1)).astype(np.float32), q),
        "one outlier": (np.vstack([x[:500], 1000 * x[:1]]), q),
    }


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("name", cases())
def test_equals_brute_force(name: str, rotate: bool) -> None:
    vectors, queries = cases()[name]
    index = ExactIndex.build(vectors, (13, 32), rotate)
    for k in (1, 10, 100):
        check(index, vectors, queries, k)


@pytest.mark.parametrize("widths", [(), (1,), (47,), (8, 16, 24, 32, 40), (64, 128)])
def test_any_widths(widths: tuple[int, ...]) -> None:
    vectors, queries = cases()["embedding-like"]
    check(ExactIndex.build(vectors, widths), vectors, queries, 10)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 129])
def test_fewer_rows_than_asked_for(count: int) -> None:
    vectors = like_embeddings(count, 20)
    index = ExactIndex.build(vectors, (8,))
    check(index, vectors, like_embeddings(9, 20, 1), 70)
    assert index.search(vectors[:1], 1000)[1].shape == (1, count)


def test_no_rows_and_no_queries(tmp_path: Path) -> None:
    empty = ExactIndex.build(np.zeros((0, 20), np.float32), (8,), folder=tmp_path / "made")
    for index in (empty, ExactIndex.open(tmp_path / "made", empty.vectors)):
        scores, rows, touched = index.search(np.ones((3, 20), np.float32), 5)
        assert scores.shape == rows.shape == (3, 0) and touched.bytes == 0
    assert ExactIndex.build(like_embeddings(5, 20)).search(np.zeros((0, 20), np.float32), 5)[1].shape == (0, 5)


VALUES = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]) | st.floats(-1, 1, width=32)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_small_arrays(data: Any) -> None:
    count, dim, k = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 7)), data.draw(st.integers(1, 10))
    vectors = data.draw(arrays(np.float32, (count, dim), elements=VALUES))
    queries = data.draw(arrays(np.float32, (8, dim), elements=VALUES))
    check(ExactIndex.build(vectors, (2, 5), data.draw(st.booleans())), vectors, queries, k)


def test_a_list_that_overflows_is_searched_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ese.retriever.exact_batch._ROOM", 16)
    vectors, queries = cases()["all equal"]
    touched, _ = check(ExactIndex.build(vectors), vectors, queries, 1)
    assert touched.sketched == len(queries) * len(vectors)


def test_what_is_touched() -> None:
    vectors = like_embeddings(20000, 64)
    queries = unit(vectors[:9] + 0.2 * like_embeddings(9, 64, 3))
    together, each = check(ExactIndex.build(vectors, (24, 40)), vectors, queries, 10)
    alone = sum(each[1:], each[0])
    assert (alone.queries, alone.rows, alone.sketched) == (9, 20000, 9 * 20000)
    assert (together.sketched, together.coded[0]) == (0, 9 * 20000)
    for touched in (alone, together):
        assert touched.coded[0] > touched.coded[1] > touched.coded[2] >= 90 and touched.scored >= 90
        assert touched.share < 0.25
    assert alone.share < together.share
    assert alone.dimensions == sum(
        np.dot([s.sketched + s.coded[0], s.coded[1], s.coded[2] + s.scored * 64 / 24], [24, 16, 24]) for s in each
    )
    assert "20000 rows at 4 bits x 24" in str(alone)


def test_save_and_open(tmp_path: Path) -> None:
    vectors, queries = cases()["embedding-like"]
    built = ExactIndex.build(vectors, (13, 32))
    built.save(tmp_path / "saved")
    ExactIndex.build(vectors, (13, 32), folder=tmp_path / "streamed")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    streamed = {path.name: path.read_bytes() for path in (tmp_path / "streamed").iterdir()}
    assert saved.pop("vectors.npy") and saved == streamed
    check(ExactIndex.open(tmp_path / "saved"), vectors, queries, 10)
    with pytest.raises(DataError, match=r"holds no vectors\.npy"):
        ExactIndex.open(tmp_path / "streamed")
    with pytest.raises(DataError, match="3000 vectors of width 48, but these are 2999 of width 48"):
        ExactIndex.open(tmp_path / "streamed", ExactIndex.build(vectors[1:]).vectors)


@pytest.mark.parametrize("name", ["exact.json", "codes.npy", "tails.npy"])
def test_a_broken_folder(tmp_path: Path, name: str) -> None:
    ExactIndex.build(like_embeddings(200, 20), (8,)).save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(StoreCorruptError, match="build it again"):
        ExactIndex.open(tmp_path)


def test_wrong_input() -> None:
    index = ExactIndex.build(like_embeddings(30, 20), (8,))
    query = np.ones((2, 20), np.float32)
    with pytest.raises(ConfigError, match="best 0 rows"):
        index.search(query, 0)
    for wrong in (query[:, :19], query[0]):
        with pytest.raises(ConfigError, match="do not fit vectors of width 20"):
            index.search(wrong, 1)
    for value in (np.nan, np.inf, -np.inf):
        query[1, 3] = value
        with pytest.raises(DataError, match="query 1 of 2 holds NaN or infinity"):
            index.search(query, 1)
        rows = like_embeddings(30, 20)
        rows[17, 2] = value
        with pytest.raises(DataError, match="row 17 has length"):
            ExactIndex.build(rows)
    with pytest.raises(DataError, match="row 4 has length 1e"):
        ExactIndex.build(np.diag([1, 1, 1, 1, 1e7]).astype(np.float32))
    with pytest.raises(DataError, match="shape"):
        ExactIndex.build(np.ones(3, np.float32))
    with pytest.raises(ConfigError, match="widths"):
        ExactIndex.build(np.ones((3, 3), np.float32), (0,))


@pytest.mark.parametrize("exact", [True, False])
def test_whole_numbers_multiply_exactly(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ese.retriever.exact_batch._integers_are_exact", lambda: exact)
    left = np.full((8, 2100), 127, np.int8)
    right = np.where(np.arange(30)[:, None] % 2, left[0], -left[0]).astype(np.int8)
    right[:, 5] = 126
    for dim in (1, 2, 3, 31, 256, 2100):
        a, b = left[:, :dim].copy(), right[:, :dim].copy()
        assert (whole_products(a, b) == a.astype(np.int64) @ b.T.astype(np.int64)).all()


def test_the_searcher_agrees_with_the_plain_one(store_of: Any) -> None:
    vectors = {2: like_embeddings(300, 24), 6: like_embeddings(300, 24, 8)}
    store, encoder = store_of(vectors, "L2-d8,L6-d24")
    queries = [f"question {n}" for n in range(12)]
    for size in (Size(2, 8), Size(6, 24)):
        searcher = ExactSearcher(store, encoder, size, 7)
        plain = FunnelSearcher(store, encoder, Funnel.single(size, 7)).search(queries)
        for found, expected in zip(searcher.search(queries), plain, strict=True):
            assert found.rows.tolist() == expected.rows.tolist()
            assert found.scores == pytest.approx(expected.scores, abs=1e-6)
        assert (searcher.name, searcher.keep) == (f"{size} exact", 7)
        assert searcher.touched is not None and searcher.touched.queries == 12
        assert searcher.search([]) == []
    with pytest.raises(ConfigError, match="wider than the 24"):
        ExactSearcher(store, encoder, Size(6, 25), 7)
