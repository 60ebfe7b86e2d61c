"""The loop of scoring rows by their codes, compiled by numba; `rag_ese.index.codes` says what it is for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np

_PER_THREAD = 1 << 21
"""Codes that make up for waking a thread, and for the waits where it has no core to run on."""


@contextmanager
def threads_for(codes: int) -> Iterator[None]:
    """Between 1 and the usual number of threads, by the work inside the block."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(before, codes // _PER_THREAD)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _score(codes: Any, rows: Any, weights: Any, base: Any, scores: Any) -> None:
    """base + codes[row] @ weights, for each of `rows`."""
    for at in numba.prange(len(rows)):
        some, total = codes[rows[at]], np.float32(0)
        for column in range(len(weights)):
            total += np.float32(some[column]) * weights[column]
        scores[at] = base + total


score = numba.njit(parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})(_score)
