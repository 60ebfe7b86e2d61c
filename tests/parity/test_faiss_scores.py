"""What FAISS answers against numpy's inner products, and our streamed index files against FAISS's own writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from rag_ese.index.kinds import factory_string
from rag_ese.index.vectors import VectorFile
from rag_ese.types import Float32s, Size

DIMS = (8, 33, 96)


def draw_vectors(rows: int, width: int = 96, seed: int = 0) -> Float32s:
    """Raw vectors in loose clusters, of various lengths: what an encoder gives before normalisation."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(20, width))
    vectors = centres[draw.integers(20, size=rows)] + 0.7 * draw.normal(size=(rows, width))
    return (vectors * draw.uniform(0.1, 10, size=(rows, 1))).astype(np.float32)


def prefixes(vectors: Float32s, dim: int) -> npt.NDArray[np.float64]:
    """Truncated first, normalised after, in float64."""
    cut = vectors[:, :dim].astype(np.float64)
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


def searched(
    store_of: Callable[..., Any], kind: str, dim: int, k: int, rows: int = 1500, queries: int = 20
) -> tuple[Float32s, npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Scores and rows that a store finds, and the exact score of every row."""
    vectors, asked = draw_vectors(rows), prefixes(draw_vectors(queries, seed=1), dim)
    store, _ = store_of({3: vectors}, f"L3-d{dim}", kind=kind)
    scores, found = store.search(Size(3, dim), asked.astype(np.float32), k)
    return scores, found, asked @ prefixes(vectors, dim).T


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("queries", [1, 20])  # FAISS multiplies large batches through BLAS, small ones itself
@pytest.mark.parametrize("kind", ["flat", "panorama"])
def test_exact_kinds_equal_numpy(store_of: Callable[..., Any], kind: str, dim: int, queries: int) -> None:
    scores, found, exact = searched(store_of, kind, dim, 50, queries=queries)
    assert np.abs(scores - np.take_along_axis(exact, found, 1)).max() < 1e-6
    assert np.abs(scores - -np.sort(-exact, axis=1)[:, :50]).max() < 1e-6


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(
    ("kind", "tolerance"),
    # Half precision errs by 2^-11 per value, relatively. 8 bits: half a step of 1/255 of a dimension's range; ranges
    # are below 2, and the errors of the dimensions mostly cancel in the sum.
    [("fp16", 2**-11), ("sq8", 0.01)],
)
def test_quantised_kinds_are_close(store_of: Callable[..., Any], kind: str, tolerance: float, dim: int) -> None:
    scores, found, exact = searched(store_of, kind, dim, 50)
    assert np.abs(scores - np.take_along_axis(exact, found, 1)).max() < tolerance
    assert np.abs(scores - -np.sort(-exact, axis=1)[:, :50]).max() < tolerance


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_approximate_kinds_find_most_with_exact_scores(store_of: Callable[..., Any], kind: str, dim: int) -> None:
    scores, found, exact = searched(store_of, kind, dim, 10)
    assert (found >= 0).all()
    assert np.abs(scores - np.take_along_axis(exact, found, 1)).max() < 1e-6
    best = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(found.tolist(), best.tolist(), strict=True)])
    # Of the graph a beam of 64 is searched, of the 38 lists (1500 / 39) 8; chance would find 10 of 1500.
    assert recall > 0.8


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("kind", "rows"), [("flat", 1), ("flat", 700), ("fp16", 700), ("sq8", 700)])
def test_streamed_files_are_faiss_files(
    store_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rows: int, dim: int
) -> None:
    monkeypatch.setattr("rag_ese.index.kinds._CHUNK", 256)  # several pieces
    store, _ = store_of({3: draw_vectors(rows)}, f"L3-d{dim}", kind=kind)
    vectors: VectorFile = store.vectors(3)
    own = faiss.index_factory(dim, factory_string(kind, dim, rows), faiss.METRIC_INNER_PRODUCT)
    own.train(vectors.rows(slice(None), dim))
    own.add(vectors.rows(slice(None), dim))
    faiss.write_index(own, str(tmp_path / "own.faiss"))
    assert (store.folder / f"faiss/L3-d{dim}.faiss").read_bytes() == (tmp_path / "own.faiss").read_bytes()


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_narrow_widths_are_normalised_after_truncation(store_of: Callable[..., Any], stored: str) -> None:
    vectors = draw_vectors(200)
    store, _ = store_of({3: vectors}, "L3-d8", stored=stored)
    for dim in (1, 8, 95, 96):
        found = store.vectors(3).rows(np.array([5, 3, 3, 199]), dim)
        assert np.abs(found - prefixes(vectors, dim)[[5, 3, 3, 199]]).max() < {"float32": 1e-6, "float16": 2e-3}[stored]
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_equal_scores_come_in_order_of_row(store_of: Callable[..., Any]) -> None:
    vectors = draw_vectors(300)
    vectors[100:200] = vectors[50]
    store, _ = store_of({3: vectors}, "L3-d8")
    query = prefixes(vectors, 8)[50:51].astype(np.float32)
    rows = store.search(Size(3, 8), query, 300)[1][0].tolist()
    assert rows[:101] == [50, *range(100, 200)]


def test_more_than_there_are(store_of: Callable[..., Any]) -> None:
    store, _ = store_of({3: draw_vectors(7)}, "L3-d8")
    query = prefixes(draw_vectors(1, seed=2), 8).astype(np.float32)
    assert sorted(store.search(Size(3, 8), query, 1000)[1][0].tolist()) == list(range(7))
