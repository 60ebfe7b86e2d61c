"""The loop of scoring rows by their codes, compiled by numba; `rag_ese.index.codes` says what it is for."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import threads as threads

PER_THREAD = 1 << 21
"""Codes that make up for waking a thread, and for the waits where it has no core to run on."""


def _score(codes: Any, rows: Any, weights: Any, base: Any, scores: Any) -> None:
    """base + codes[row] @ weights, for each of `rows`."""
    for at in numba.prange(len(rows)):
        some, total = codes[rows[at]], np.float32(0)
        for column in range(len(weights)):
            total += np.float32(some[column]) * weights[column]
        scores[at] = base + total


score = numba.njit(parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})(_score)
