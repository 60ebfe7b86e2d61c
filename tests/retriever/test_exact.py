"""Certified exact search against brute force with the same scoring function, on data made to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_ese.errors import ConfigError, DataError
from rag_ese.index import build
from rag_ese.index.lexical import best
from rag_ese.index.vectors import VectorFile
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.retriever.exact import ExactIndex, ExactSearcher
from rag_ese.retriever.exact_layout import CodedQuery
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s, Passage, Size


def stored(folder: Path, vectors: np.ndarray) -> VectorFile:
    file = folder / f"{len(vectors)}.vec"
    file.write_bytes(np.ascontiguousarray(vectors, np.float32).tobytes() or b"")
    return VectorFile(file, vectors.shape[1], "float32")


def unit(vectors: np.ndarray) -> Float32s:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-30), dtype=np.float32)


def assert_exact(index: ExactIndex, vectors: Float32s, queries: Float32s, k: int) -> None:
    for asked in (queries, *(query[None] for query in queries)):  # together, and one at a time
        for query, ranking in zip(asked, index.search(asked, k)[0], strict=True):
            expected = best(products(vectors, query), k)
            np.testing.assert_array_equal(ranking.rows, expected.rows)
            np.testing.assert_array_equal(ranking.scores, expected.scores)


def spread(rng: np.random.Generator, count: int, width: int) -> Float32s:
    """Unit vectors whose energy falls off, as that of embeddings does."""
    return unit(rng.normal(size=(count, width)) / np.sqrt(np.arange(1, width + 1)))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_equal_to_brute_force(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(0)
    vectors = spread(rng, 40_000, 96)
    index = ExactIndex(stored(tmp_path, vectors), widths=(16, 32, 64))
    assert_exact(index, vectors, spread(rng, 12, 96), k)


def test_ties_duplicates_zero_rows_and_negative_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    some = spread(rng, 50, 32)
    vectors = np.concatenate([some, some[::-1], np.zeros((20, 32), np.float32), -some, some, some[:1].repeat(300, 0)])
    index = ExactIndex(stored(tmp_path, vectors), widths=(8, 16))
    queries = np.concatenate([some[:6], -some[:6], np.zeros((1, 32), np.float32)])
    assert_exact(index, vectors, queries, 7)
    assert_exact(index, np.asarray(vectors), queries, 10_000)  # more than there are
    opposite = stored(tmp_path, -np.abs(some))
    assert_exact(ExactIndex(opposite, widths=(8,)), opposite.rows(slice(0, None), 32), np.abs(some[:3]), 5)


def test_rows_that_differ_only_in_the_tail(tmp_path: Path) -> None:
    """Nothing can be left out early here: all leading dimensions are the same, the order stands in the last ones."""
    rng = np.random.default_rng(2)
    vectors = np.zeros((6000, 48))
    vectors[:, 0] = 1
    vectors[:, 40:] = rng.normal(size=(6000, 8)) * 1e-3
    index = ExactIndex(stored(tmp_path, unit(vectors)), widths=(8, 16))
    assert_exact(index, unit(vectors), unit(vectors[:9] + rng.normal(size=(9, 48)) * 1e-3), 10)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_small_arrays(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    count, width = data.draw(st.integers(0, 40)), data.draw(st.integers(2, 12))
    values = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-8, 1e4, -3e-3])
    numbers = data.draw(st.lists(values, min_size=(count + 9) * width, max_size=(count + 9) * width))
    table = np.array(numbers, np.float32).reshape(count + 9, width)
    vectors, queries = table[:count], table[count:]
    if not count:
        return
    index = ExactIndex(stored(tmp_path_factory.mktemp("any"), vectors), widths=(1, 3, 8))
    assert_exact(index, index.vectors.rows(slice(0, None), width), queries, data.draw(st.integers(1, 50)))


def test_bounds_hold_for_every_row_and_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = spread(rng, 500, 64)
    layout = ExactIndex(stored(tmp_path, vectors), widths=(8, 24)).layout
    for query in spread(rng, 20, 64):
        coded = CodedQuery.of(layout, query)
        truth = vectors.astype(np.float64) @ query.astype(np.float64)
        for number, cut in enumerate(layout.cuts):
            score = layout.codes[:, :cut].astype(np.float64) @ coded.coordinates[:cut].astype(np.float64)
            bound = score + layout.tails[:, number] * coded.tails[number] + coded.slack[number]
            assert (bound >= truth).all()
            assert bound.mean() - truth.mean() < 1.1  # and they are not merely large


def test_little_is_looked_at_where_the_energy_comes_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng.normal(size=(30_000, 64)) * 0.7 ** np.arange(64))
    index = ExactIndex(stored(tmp_path, vectors), widths=(8, 32))
    _, touched = index.search(vectors[:3] + np.float32(0.01), 10)
    assert touched.at[8] == 3 * 30_000
    assert touched.at[32] < 0.2 * touched.at[8] and 30 <= touched.in_full < 0.01 * touched.at[8]


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    vectors = spread(np.random.default_rng(5), 10, 16)
    index = ExactIndex(stored(tmp_path, vectors), widths=(8,))
    with pytest.raises(ConfigError, match="0 passages"):
        index.search(vectors[:1], 0)
    with pytest.raises(ConfigError, match="16 dimensions"):
        index.search(vectors[:1, :8], 3)
    broken = vectors[:2].copy()
    broken[1, 3] = np.nan
    with pytest.raises(DataError, match="query 1"):
        index.search(broken, 3)
    with pytest.raises(ConfigError, match="growing"):
        ExactIndex(stored(tmp_path, vectors), widths=(8, 4))


def test_a_searcher_finds_what_a_flat_index_finds(tmp_path: Path, encoder: Any, plan: Callable[..., Any]) -> None:
    passages = [Passage(f"P{i}", (f"word{i % 7} word{i % 11}", f" and {i}")) for i in range(60)]
    store = build(tmp_path / "store", plan("L4-d24,L6-d24"), lambda: passages, encoder)
    queries = ["word3", "word5 word6", "and 12"]
    searcher = ExactSearcher(store, encoder, Size(6, 24), 5)
    flat = FunnelSearcher(store, encoder, Funnel.single(Size(6, 24), 5))
    assert searcher.name == "L6-d24 exact"
    for mine, theirs in zip(searcher.search(queries), flat.search(queries), strict=True):
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-6)
    assert searcher.touched is not None and "60 rows" in str(searcher.touched)
