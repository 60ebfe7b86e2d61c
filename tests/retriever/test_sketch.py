"""Sketches against numpy: the codes, the scores and the rows that they find, alone, together, filtered, in a funnel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError, StoreCorruptError
from rag_ese.index import Store, build, row_kernels
from rag_ese.index.kinds import build_index, read_index
from rag_ese.index.sketch import BLOCK, SketchIndex, build_sketches, open_sketches
from rag_ese.index.vectors import VectorFile
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.types import Float32s, Int64s, Passage, Size


def unit(vectors: np.ndarray) -> Float32s:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30), np.float32)


def like_embeddings(count: int, dim: int, seed: int = 0) -> Float32s:
    """Unit vectors with a decaying spectrum around a common mean."""
    draw = np.random.default_rng(seed)
    return unit(draw.normal(size=(count, dim)) * (np.arange(dim) + 1.0) ** -0.5 + 0.05)


def made(path: Path, vectors: Float32s, centroids: Float32s | None = None, piece: int = 100) -> SketchIndex:
    none = np.zeros((0, vectors.shape[1]), np.float32)

    def pieces() -> Any:
        return (vectors[start : start + piece] for start in range(0, len(vectors), piece))

    build_sketches(path, len(vectors), pieces, vectors, none if centroids is None else centroids)
    return open_sketches(path)


def oracle(index: SketchIndex, vectors: Float32s, query: Float32s, rows: Int64s) -> np.ndarray:
    """The score of each of `rows`, by the definition, in whole numbers as far as they go."""
    held = index._sketches
    nibbles = np.clip(np.floor((vectors[rows] - held.mean) @ held.turn / held.step) + 8, 0, 15).astype(int)
    turned = np.einsum("i,ij->j", query, held.turn)
    scale = np.abs(turned).max() / np.float32(127)
    weights = np.rint(turned / scale).astype(int)
    return np.asarray((nibbles * weights).sum(axis=1) * scale * held.step - 7.5 * scale * held.step * weights.sum())


def expected(scores: np.ndarray, rows: Int64s, k: int) -> list[int]:
    return [int(row) for row in rows[np.lexsort((rows, -np.round(scores, 9)))][:k]]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 700])
@pytest.mark.parametrize("dim", [1, 7, 16, 48])
def test_rows_and_scores_are_those_of_the_definition(tmp_path: Path, count: int, dim: int) -> None:
    vectors, queries = like_embeddings(count, dim), like_embeddings(11, dim, 1)
    index, everything = made(tmp_path / "x", vectors), np.arange(count)
    for k in {1, min(10, count), count}:
        together = index.search(queries, k)
        for at, query in enumerate(queries):
            alone = index.search(query[None], k)
            want = oracle(index, vectors, query, everything)
            assert alone[1][0].tolist() == expected(want, everything, k) == together[1][at].tolist()
            np.testing.assert_allclose(
                alone[0][0], want[alone[1][0]] + query @ index._sketches.mean, rtol=1e-4, atol=1e-5
            )


def test_the_codes_stand_for_the_vectors(tmp_path: Path) -> None:
    vectors = like_embeddings(500, 48)
    held = made(tmp_path / "x", vectors)._sketches
    pairs = held.codes.transpose(0, 2, 1).reshape(-1, 24)[:500]
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(500, 48)
    meant = ((nibbles - 7.5) * held.step) @ held.turn.T + held.mean
    missed = np.linalg.norm(vectors - meant, axis=1) / np.linalg.norm(vectors - held.mean, axis=1)
    assert missed.mean() < 0.13 and held.fills.tolist() == [64] * 7 + [52]


def test_equal_scores_are_in_order_of_row_even_at_the_cut(tmp_path: Path) -> None:
    vectors = np.repeat(like_embeddings(5, 16), 60, axis=0)
    vectors = vectors[np.random.default_rng(0).permutation(300)]
    index = made(tmp_path / "x", vectors)
    for query in like_embeddings(9, 16, 1):
        scores, rows = index.search(query[None], 90)
        assert rows[0].tolist() == expected(oracle(index, vectors, query, np.arange(300)), np.arange(300), 90)
        assert len(set(scores[0].tolist())) == 2


def test_lists_search_the_rows_of_the_nearest(tmp_path: Path) -> None:
    vectors, queries = like_embeddings(2000, 24), like_embeddings(12, 24, 1)
    centroids = unit(vectors[::100])
    index = made(tmp_path / "x", vectors, centroids, piece=333)
    lists = np.argmax(vectors @ centroids.T, axis=1)
    for probes in (1, 5, 19, 20, 50):
        together = index.search(queries, 15, None, probes)[1]
        for at, query in enumerate(queries):
            near = np.argsort(-(centroids @ query))[:probes]
            rows = np.flatnonzero(np.isin(lists, near))
            want = expected(oracle(index, vectors, query, rows), rows, 15)
            want += [-1] * (15 - len(want))
            assert index.search(query[None], 15, None, probes)[1][0].tolist() == want == together[at].tolist()


def test_filters_pass_over_rows(tmp_path: Path) -> None:
    vectors, queries = like_embeddings(700, 24), like_embeddings(10, 24, 1)
    for index in (made(tmp_path / "a", vectors), made(tmp_path / "b", vectors, unit(vectors[:6]))):
        for allowed in (np.arange(700) % 3 == 0, np.arange(700) > 690, np.zeros(700, bool)):
            rows = np.flatnonzero(allowed)
            together = index.search(queries, 20, allowed)
            for at, query in enumerate(queries):
                want = expected(oracle(index, vectors, query, rows), rows, 20)
                want += [-1] * (20 - len(want))
                scores, found = index.search(query[None], 20, allowed)
                assert found[0].tolist() == want == together[1][at].tolist()
                assert np.array_equal(np.isneginf(scores[0]), found[0] < 0)


def test_no_rows_and_equal_rows(tmp_path: Path) -> None:
    empty = made(tmp_path / "x", np.zeros((0, 8), np.float32))
    for count in (1, 9):
        assert empty.search(np.ones((count, 8), np.float32), 3)[1].tolist() == [[-1] * 3] * count
    same = made(tmp_path / "y", np.tile(like_embeddings(1, 8), (70, 1)))
    assert same.search(np.zeros((1, 8), np.float32), 5)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_a_file_that_is_cut_or_of_another_format_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "x", like_embeddings(100, 16))
    whole = (tmp_path / "x").read_bytes()
    for content in (whole[:-1], whole[:300], whole[:64], b"else" + whole[4:], b""):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StoreCorruptError, match="build the index again"):
            open_sketches(tmp_path / "x")


@pytest.mark.parametrize("kind", ["sketch", "ivf-sketch"])
def test_kinds_write_equal_files_and_find_what_is_near(tmp_path: Path, kind: str) -> None:
    vectors = like_embeddings(3000, 40)
    vectors.tofile(tmp_path / "v")
    file = VectorFile(tmp_path / "v", 40, "float32")
    for name in ("a", "b"):
        build_index(kind, file, 24, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    index, prefixes = read_index(tmp_path / "a"), unit(vectors[:, :24])
    queries = unit(prefixes[:50] + 0.05 * like_embeddings(50, 24, 1))
    exact = np.argsort(-(queries @ prefixes.T), axis=1)[:, :10]
    _, rows = index.search(queries, 60)
    assert np.mean([np.isin(e, r).mean() for e, r in zip(exact, rows, strict=True)]) > 0.97
    assert index.nbytes < (tmp_path / "a").stat().st_size < len(vectors) * (12 + 6) + BLOCK * 12 * 16 + 20_000


@pytest.fixture
def store(tmp_path: Path, encoder: Any, plan: Callable[..., Any]) -> Store:
    passages = [Passage(f"p{n}", (f"text {n // 2}",)) for n in range(300)]
    return build(tmp_path / "store", plan("L6-d8,L6-d24", kind="sketch"), lambda: passages, encoder)


def test_a_funnel_is_the_two_stages_in_numpy(store: Store, encoder: Any) -> None:
    queries = [f"question {n}" for n in range(9)]
    searcher = FunnelSearcher(store, encoder, Funnel.parse("L6-d8:40 > L6-d24:7", 6, 24))
    vectors = store.vectors(6).rows(slice(None), 24)
    index = store.index(Size(6, 8))
    small, full = encoder.begin(queries).at(Size(6, 8)), encoder.begin(queries).at(Size(6, 24))
    together = searcher.search(queries)
    for at, text in enumerate(queries):
        first = expected(oracle(index, unit(vectors[:, :8]), small[at], np.arange(300)), np.arange(300), 40)
        kept = np.sort(np.array(first))
        scores = vectors[kept].astype(np.float64) @ full[at]
        want = kept[np.lexsort((kept, -np.round(scores, 6)))][:7]
        for ranking in (searcher.search([text])[0], together[at]):
            assert ranking.rows.tolist() == want.tolist()
            np.testing.assert_allclose(ranking.scores, np.sort(scores)[::-1][:7], rtol=1e-5)


def test_a_funnel_that_keeps_more_than_there_is_equals_exact_search(store: Store, encoder: Any) -> None:
    searcher = FunnelSearcher(store, encoder, Funnel.parse("L6-d8:1000 > L6-d24:300", 6, 24))
    (ranking,) = searcher.search(["anything"])
    query = encoder.begin(["anything"]).at(Size(6, 24))[0]
    scores = store.vectors(6).rows(slice(None), 24) @ query
    assert sorted(ranking.rows.tolist()) == list(range(300))
    np.testing.assert_allclose(ranking.scores, np.sort(scores)[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("few", "knows"), [(0, True), (4, True), (4, False)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_large_files_are_read_and_copied_as_they_are(
    tmp_path: Path, dtype: str, few: int, knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not knows:
        monkeypatch.setattr("rag_ese.index.row_kernels.knows_what_is_in_memory", lambda file: False)
    like_embeddings(300, 24).astype(dtype).tofile(tmp_path / "v")
    rows = np.array([7, 0, 299, 7])
    mapped = [VectorFile(tmp_path / "v", 24, dtype).rows(rows, dim) for dim in (24, 8)]
    monkeypatch.setattr("rag_ese.index.vectors._LARGE", 1)
    monkeypatch.setattr("rag_ese.index.vectors._FEW", few)
    monkeypatch.setattr("rag_ese.index.row_kernels.PER_THREAD", 1)
    file = VectorFile(tmp_path / "v", 24, dtype)
    for dim, want in zip((24, 8), mapped, strict=True):
        assert file.rows(rows, dim).tobytes() == want.tobytes()
        assert file.rows(rows[:0], dim).shape == (0, dim)
    with pytest.raises(StoreCorruptError, match="does not hold 2 of 4 rows"):
        file.rows(np.array([7, 300, 299, 4000]), 24)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux says what it has in memory")
def test_rows_that_the_disk_holds_are_read_as_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like_embeddings(30_000, 24).tofile(tmp_path / "v")
    monkeypatch.setattr("rag_ese.index.vectors._LARGE", 1)
    file, rows = VectorFile(tmp_path / "v", 24, "float32"), np.arange(0, 30_000, 1000)
    asked: list[int] = []
    ask = row_kernels._ask
    monkeypatch.setattr(row_kernels, "_ask", lambda *given: (asked.append(int(given[-1].sum())), ask(*given)))
    expected = np.fromfile(tmp_path / "v", np.float32).reshape(-1, 24)[rows]
    for forgotten in (True, False):
        if forgotten:
            with (tmp_path / "v").open("rb+") as written:
                os.fsync(written.fileno())
                os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.rows(rows, 24).tobytes() == expected.tobytes()
    if not asked:
        pytest.skip("this file system keeps its files in memory, or cannot say what it has there")
    assert len(asked) == 1, "what is in memory is not asked for"


def test_a_file_that_was_cut_while_it_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like_embeddings(300, 24).tofile(tmp_path / "v")
    monkeypatch.setattr("rag_ese.index.vectors._LARGE", 1)
    file = VectorFile(tmp_path / "v", 24, "float32")
    (tmp_path / "v").write_bytes((tmp_path / "v").read_bytes()[:-1])
    with pytest.raises(StoreCorruptError, match="does not hold 1 of 4 rows"):
        file.rows(np.array([7, 0, 299, 7]), 24)


def test_where_reaches_the_sketches(store: Store, encoder: Any) -> None:
    query = encoder.begin(["anything"]).at(Size(6, 8))
    allowed = np.arange(300) % 7 == 0
    scores, rows = store.search(Size(6, 8), query, 20, allowed)
    everything = store.search(Size(6, 8), query, 300)[1][0]
    assert rows[0].tolist() == [row for row in everything.tolist() if row % 7 == 0][:20]
    assert np.all(np.diff(scores[0]) <= 0)


def test_a_size_that_the_store_lacks(store: Store, encoder: Any) -> None:
    with pytest.raises(ConfigError, match="keeps at least 1"):
        Funnel.parse("L6-d8:5 > L6-d24:9", 6, 24)
