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
def sift(
    codes: Codes,
    tails: Float32s,
    cuts: Int64s,
    query: Float32s,
    query_tails: Float32s,
    limits: Float32s,
    rows: Int64s,
    bounds: Float32s,
    looked_at: Int64s,
) -> int:
    """The rows whose upper bound reaches the limit at every cut, from narrow to wide; a row is left where it fails.

    codes: N x w; tails: N x cuts; query: w; query_tails and limits: one per cut. Survivors and their last bounds are
    written to rows and bounds (N each, filled from the front), their number is returned; looked_at counts, per cut, the
    rows that were read up to it.
    """
    found = 0
    for row in range(codes.shape[0]):
        total = np.float32(0.0)
        bound = np.float32(0.0)
        start = np.uint64(0)  # unsigned, so that no index can be negative and the loop becomes vector code
        inside = True
        for number in range(cuts.shape[0]):
            looked_at[number] += 1
            stop = np.uint64(cuts[number])
            for j in range(start, stop):
                total += np.float32(codes[row, j]) * query[j]
            start = stop
            bound = total + tails[row, number] * query_tails[number]
            if bound < limits[number]:
                inside = False
                break
        if inside:
            rows[found] = row
            bounds[found] = bound
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
    products: Float32s, tails: Float32s, query_tail: np.float32, limit: np.float32, rows: Int64s, bounds: Float32s
) -> int:
    """As `sift` at one cut, from products that are there already: products and tails have N entries."""
    found = 0
    for row in range(products.shape[0]):
        bound = products[row] + tails[row] * query_tail
        if bound >= limit:
            rows[found] = row
            bounds[found] = bound
            found += 1
    return found
