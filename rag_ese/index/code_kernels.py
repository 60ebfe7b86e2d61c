"""The loop of scoring rows by their codes, compiled by numba; `rag_ese.index.codes` says what it is for."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import prefetch
from rag_ese.index.compiled import threads as threads

PER_THREAD = 1 << 21
"""Codes that make up for waking a thread, and for the waits where it has no core to run on."""
_TOGETHER = 256
_AHEAD = 6  # rows between the one that is asked of memory and the one that is added up


def _score(codes: Any, rows: Any, owners: Any, weights: Any, bases: Any, scores: Any) -> None:
    """bases[owner] + codes[row] @ weights[owner], for each of `rows` and its owner.

    Rows lie far apart, so each is asked of memory before its turn: that halves the time.
    """
    width = codes.shape[1]
    for part in numba.prange((len(rows) + _TOGETHER - 1) // _TOGETHER):
        end = min(len(rows), (part + 1) * _TOGETHER)
        for at in range(part * _TOGETHER, end):
            if at + _AHEAD < end:
                prefetch(codes, rows[at + _AHEAD] * width, width)
            some, mine, total = codes[rows[at]], weights[owners[at]], np.float32(0)
            for column in range(width):
                total += np.float32(some[column]) * mine[column]
            scores[at] = bases[owners[at]] + total


score = numba.njit(parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})(_score)
