"""Bits against numpy: the bits, the scores and the rows that they find, alone, together, filtered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError, StoreCorruptError
from rag_ese.index.bits import BitIndex, build_bits, open_bits
from rag_ese.index.kinds import build_index, new_index, read_index
from rag_ese.index.vectors import VectorFile
from rag_ese.types import Float32s, Int64s


def unit(vectors: np.ndarray) -> Float32s:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30), np.float32)


def like_embeddings(count: int, dim: int, seed: int = 0) -> Float32s:
    """Unit vectors with a decaying spectrum around a common mean."""
    draw = np.random.default_rng(seed)
    return unit(draw.normal(size=(count, dim)) * (np.arange(dim) + 1.0) ** -0.5 + 0.05)


def made(path: Path, vectors: Float32s, piece: int = 100) -> BitIndex:
    def pieces() -> Any:
        return (vectors[start : start + piece] for start in range(0, len(vectors), piece))

    build_bits(path, len(vectors), pieces, vectors)
    return open_bits(path)


def sums(index: BitIndex, vectors: Float32s, query: Float32s) -> Int64s:
    """The sum of every row, by the definition."""
    held = index._bits
    turned = np.einsum("i,ij->j", query, held.turn)
    whole = np.rint(turned / max(np.abs(turned).max() / np.float32(7), 1e-38)).astype(np.int64)
    return np.asarray(((vectors - held.mean) @ held.turn > 0) @ whole)


def expected(sums: Int64s, rows: Int64s, k: int) -> list[int]:
    best = rows[np.lexsort((rows, -sums[rows]))][:k].tolist()
    return [*best, *[-1] * (k - len(best))]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 700])
@pytest.mark.parametrize("dim", [1, 7, 64, 100, 192])
def test_rows_and_scores_are_those_of_the_definition(tmp_path: Path, count: int, dim: int) -> None:
    vectors, queries = like_embeddings(count, dim), like_embeddings(11, dim, 1)
    index = made(tmp_path / "x", vectors)
    held = index._bits
    signs = np.where((vectors - held.mean) @ held.turn > 0, held.spread, -held.spread)
    for k in {1, min(10, count), count}:
        together = index.search(queries, k)
        for at, query in enumerate(queries):
            alone, want = index.search(query[None], k), sums(index, vectors, query)
            assert alone[1][0].tolist() == expected(want, np.arange(count), k) == together[1][at].tolist()
            np.testing.assert_allclose(alone[0][0], together[0][at], rtol=1e-5, atol=1e-6)
            turned = np.einsum("i,ij->j", query, held.turn)
            scale = np.abs(turned).max() / 7
            means = signs @ (np.rint(turned / scale) * scale) + query @ held.mean
            np.testing.assert_allclose(alone[0][0], means[alone[1][0]], rtol=1e-4, atol=1e-5)


def test_a_large_pool_is_looked_at_in_part_and_found_in_whole(tmp_path: Path) -> None:
    """From 32,768 rows on the cut is guessed from every second row, and mended where that promises too much."""
    vectors, queries = like_embeddings(50_000, 24), like_embeddings(6, 24, 1)
    order = np.argsort(-(vectors @ queries[0]))
    twice = np.empty_like(vectors)
    twice[::3], twice[1::3], twice[2::3] = np.split(vectors[order], [16667, 33334])  # the sampled rows are the best
    for pool in (vectors, twice):
        index = made(tmp_path / "x", pool, piece=9999)
        for k in (1, 500, 20_000, 50_000):
            for query, row in zip(queries, index.search(queries, k)[1], strict=True):
                want = expected(sums(index, pool, query), np.arange(50_000), k)
                assert row.tolist() == want == index.search(query[None], k)[1][0].tolist()


def test_many_equal_rows_are_in_order_of_row(tmp_path: Path) -> None:
    vectors = np.repeat(like_embeddings(3, 16), 20_000, axis=0)[np.random.default_rng(0).permutation(60_000)]
    index = made(tmp_path / "x", vectors, piece=7000)
    query = like_embeddings(1, 16, 1)
    for k in (5, 30_000):
        assert index.search(query, k)[1][0].tolist() == expected(sums(index, vectors, query[0]), np.arange(60_000), k)


def test_filters_pass_over_rows(tmp_path: Path) -> None:
    vectors, queries = like_embeddings(40_000, 24), like_embeddings(5, 24, 1)
    index = made(tmp_path / "a", vectors, piece=4000)
    for allowed in (np.arange(40_000) % 3 == 0, np.arange(40_000) > 39_990, np.zeros(40_000, bool)):
        together = index.search(queries, 20, allowed)
        for at, query in enumerate(queries):
            want = expected(sums(index, vectors, query), np.flatnonzero(allowed), 20)
            scores, found = index.search(query[None], 20, allowed)
            assert found[0].tolist() == want == together[1][at].tolist()
            assert np.array_equal(np.isneginf(scores[0]), found[0] < 0)


def test_no_rows_and_a_query_without_length(tmp_path: Path) -> None:
    empty = made(tmp_path / "x", np.zeros((0, 8), np.float32))
    for count in (1, 9):
        assert empty.search(np.ones((count, 8), np.float32), 3)[1].tolist() == [[-1] * 3] * count
    same = made(tmp_path / "y", like_embeddings(70, 8))
    assert same.search(np.zeros((1, 8), np.float32), 5)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_a_file_that_is_cut_or_of_another_format_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "x", like_embeddings(100, 16))
    whole = (tmp_path / "x").read_bytes()
    for content in (whole[:-1], whole[:300], whole[:64], b"else" + whole[4:], b""):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StoreCorruptError, match="build the index again"):
            open_bits(tmp_path / "x")


def test_the_kind_writes_equal_files_and_finds_what_is_near(tmp_path: Path) -> None:
    vectors = like_embeddings(3000, 80)
    vectors.tofile(tmp_path / "v")
    file = VectorFile(tmp_path / "v", 80, "float32")
    for name in ("a", "b"):
        build_index("bits", file, 72, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    index, prefixes = read_index(tmp_path / "a"), unit(vectors[:, :72])
    queries = unit(prefixes[:50] + 0.05 * like_embeddings(50, 72, 1))
    exact = np.argsort(-(queries @ prefixes.T), axis=1)[:, :10]
    _, rows = index.search(queries, 300)
    assert np.mean([np.isin(e, r).mean() for e, r in zip(exact, rows, strict=True)]) > 0.95
    assert index.nbytes < (tmp_path / "a").stat().st_size < 3008 * 16 + 72 * 72 * 4 + 2000


def test_sums_of_more_dimensions_than_16_bits_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="5000 dimensions.*4096"):
        new_index("bits", 5000, 10)
