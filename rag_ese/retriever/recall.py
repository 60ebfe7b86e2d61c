"""Recall against the exact search: which rows are the best of all by the full vectors, and how many a ranking holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError, DataError
from rag_ese.index.row_scores import products
from rag_ese.index.store import Store
from rag_ese.retriever.searchers import rank
from rag_ese.types import Float32s, Int64s, Size

Float64s = npt.NDArray[np.float64]
_ROWS = 16384  # passages scored at a time
_QUERIES = 256  # queries scored at a time: 16 MB of scores
_MARGIN = 32  # rows beyond k whose products are taken again, since blocked sums differ in their last bits


def check_k(k: int, passages: int) -> None:
    """Raises ConfigError where a pool of `passages` has no `k` best."""
    if not 1 <= k <= passages:
        raise ConfigError(f"k {k} is not possible over a pool of {passages} passages: choose 1 to {passages}")


def exact_top(store: Store, queries: Float32s, size: Size, k: int) -> Int64s:
    """The `k` best rows per query by the stored vectors at `size`, whatever the index: queries x k, best first.

    The best are scored again the way funnels score (`rank`), so that rows with equal vectors stand in the same order in
    both. Raises DataError for a query vector that is not finite and ConfigError for a `k` above the pool.
    """
    check_k(k, len(store))
    if bad := int(np.count_nonzero(~np.isfinite(queries).all(axis=1))):
        raise DataError(
            f"{bad} of {len(queries)} query vectors at {size} are not finite, so nothing can be ranked: try --dtype "
            "float32"
        )
    parts = [_best(store, queries[at : at + _QUERIES], size, k) for at in range(0, len(queries), _QUERIES)]
    return np.concatenate(parts) if parts else np.empty((0, k), np.int64)


def recalls(found: Sequence[Int64s], exact: Int64s) -> Float64s:
    """The share of each query's exact rows that are among the rows found: one number per query, 0 to 1."""
    shares = [np.isin(best, rows).mean() for rows, best in zip(found, exact, strict=True)]
    return np.asarray(shares, dtype=np.float64)


def _best(store: Store, queries: Float32s, size: Size, k: int) -> Int64s:
    vectors = store.vectors(size.layers)
    wide = min(k + _MARGIN, len(store))
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(store), _ROWS):
        block = vectors.rows(slice(start, start + _ROWS), size.dim)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        keep = np.argpartition(-scores, min(wide, scores.shape[1]) - 1, axis=1)[:, :wide]
        scores, rows = np.take_along_axis(scores, keep, 1), np.take_along_axis(rows, keep, 1)
    again = [
        rank(near, products(vectors.rows(near, size.dim), query), k) for query, near in zip(queries, rows, strict=True)
    ]
    return np.stack([ranking.rows for ranking in again])
