"""The inner loops of certified search, compiled by numba. They release the GIL and start no threads of their own.

Codes are signed bytes; the caller has multiplied each query coordinate by the step of its dimension, so that a dot
product with codes is one with the decoded vector. Sums may be reordered: the caller's margin holds for any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from rag_ese.errors import MissingExtraError
from rag_ese.types import Float32s, Int64s

try:
    from numba import njit
except ImportError as error:  # pragma: no cover - numba comes with the extras that bring faiss
    raise MissingExtraError("cpu", "certified exact search") from error

Codes = npt.NDArray[np.int8]
F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    return cast(F, njit(nogil=True, cache=True, fastmath={"reassoc", "contract"}, boundscheck=False)(function))


@_compiled
def scan_one(
    codes: Codes, tails: Float32s, query: Float32s, tail: float, threshold: float, rows: Int64s, scores: Float32s
) -> int:
    """Rows whose `code . query + tails * tail` reaches `threshold`: written to `rows` with their code products; count.

    codes: N x w; tails: N; query: w; rows and scores: N each, filled from the front.
    """
    found = 0
    for row in range(codes.shape[0]):
        total = np.float32(0.0)
        for j in range(codes.shape[1]):
            total += np.float32(codes[row, j]) * query[j]
        if total + tails[row] * tail >= threshold:
            rows[found] = row
            scores[found] = total
            found += 1
    return found


@_compiled
def decode(codes: Codes, out: Float32s) -> None:
    """The codes as float32, both n x w."""
    for row in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[row, j] = np.float32(codes[row, j])


@_compiled
def keep_above(
    products: Float32s, tails: Float32s, tail: float, threshold: float, rows: Int64s, bounds: Float32s
) -> int:
    """Positions whose `products + tails * tail` reaches `threshold`: written to `rows` with that bound; count."""
    found = 0
    for row in range(products.shape[0]):
        bound = products[row] + tails[row] * np.float32(tail)
        if bound >= threshold:
            rows[found] = row
            bounds[found] = bound
            found += 1
    return found


@_compiled
def narrow(
    codes: Codes, tails: Float32s, query: Float32s, tail: float, threshold: float, rows: Int64s, scores: Float32s
) -> int:
    """Adds the next segment's product to the scores of `rows`, in place, and moves those that still reach
    `threshold` to the front; returns how many do."""
    kept = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        total = scores[i]
        for j in range(codes.shape[1]):
            total += np.float32(codes[row, j]) * query[j]
        if total + tails[row] * tail >= threshold:
            rows[kept] = row
            scores[kept] = total
            kept += 1
    return kept
