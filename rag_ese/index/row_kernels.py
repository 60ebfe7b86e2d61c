"""The loops of reading rows of a file or of its map, compiled by numba; `rag_ese.index.vectors` says when which.

Not for Windows, whose C library has no pread.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import threads as threads

PER_THREAD = 500
"""Rows that make up for waking a thread."""
_pread = numba.types.ExternalFunction(
    "pread", numba.types.intp(numba.types.int32, numba.types.voidptr, numba.types.uintp, numba.types.int64)
)


def _read(file: Any, rows: Any, row_bytes: Any, target: Any) -> Any:
    """Reads the beginning of each row into `target` (n x bytes, uint8); returns how many could not be read."""
    missed = 0
    for at in numba.prange(len(rows)):
        if _pread(file, target[at].ctypes, np.uint64(target.shape[1]), rows[at] * row_bytes) != target.shape[1]:
            missed += 1
    return missed


def _copy(mapped: Any, rows: Any, target: Any) -> Any:
    """Copies the beginning of each row of a map (N x d) into `target` (n x columns); returns how many are not in it."""
    missed = 0
    for at in numba.prange(len(rows)):
        if 0 <= rows[at] < len(mapped):
            for column in range(target.shape[1]):
                target[at, column] = mapped[rows[at], column]
        else:
            missed += 1
    return missed


read = numba.njit(parallel=True, cache=True)(_read)
copy = numba.njit(parallel=True, cache=True)(_copy)
