"""The loops of searching sketches, compiled by numba; `rag_ese.index.sketch` says what they are for.

Sums are whole numbers, so nothing depends on the order in which they are taken, or on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import threads as threads

BLOCK = 64
"""Rows that a sketch keeps together."""
_WIDE = np.uint64(BLOCK)
_LEAST = np.int32(np.iinfo(np.int32).min)
"""Stands for the sum of a place that holds no row, or none that is allowed."""
_LOW, _FOUR = np.uint8(15), np.uint8(4)
PER_THREAD = 500
"""Blocks that make up for waking a thread."""


def _add_up(block: Any, weights: Any, sums: Any, part: Any) -> None:
    """Adds weights times codes of a block (pairs of coordinates x 64 rows) to the `sums` of its rows, side by side.

    Weights are whole numbers up to 127 in size and codes up to 15, so 16 products fit in the 16 bits of `part`.
    """
    pairs = block.shape[0]
    for first in range(0, pairs, 8):
        for row in range(BLOCK):
            part[row] = 0
        for pair in range(first, min(first + 8, pairs)):
            low, high = weights[pair, 0], weights[pair, 1]
            for row in range(BLOCK):
                code = block[pair, row]
                part[row] += np.int16(low * np.int16(code & _LOW)) + np.int16(high * np.int16(code >> _FOUR))
        for row in range(BLOCK):
            sums[row] += np.int32(part[row])


def _close(sums: Any, block: Any, fill: Any, rows: Any, allowed: Any) -> Any:
    """Puts the sums of places without an allowed row to _LEAST; returns the highest. An empty `allowed` allows all."""
    if allowed.size > 0:
        for place in range(fill):
            if not allowed[rows[block * _WIDE + np.uint64(place)]]:
                sums[place] = _LEAST
    for place in range(fill, BLOCK):
        sums[place] = _LEAST
    peak = _LEAST
    for place in range(BLOCK):
        peak = max(peak, sums[place])
    return peak


def _peaks(sketch: Any, fills: Any, rows: Any, allowed: Any, weights: Any, blocks: Any, peaks: Any) -> None:
    """The highest sum of each of `blocks`, by all threads."""
    for at in numba.prange(len(blocks)):
        # Made here, where it is known that they overlap with nothing, so that the loops over rows are vectorised.
        sums, part, block = np.zeros(BLOCK, np.int32), np.empty(BLOCK, np.int16), np.uint64(blocks[at])
        add_up(sketch[block], weights, sums, part)
        peaks[at] = close(sums, block, fills[block], rows, allowed)


def _collect(
    sketch: Any,
    fills: Any,
    rows: Any,
    allowed: Any,
    weights: Any,
    blocks: Any,
    peaks: Any,
    k: int,
    found: Any,
    best: Any,
) -> None:
    """The `k` rows with the highest sums into `found` and `best`: best first, lower rows first among equals.

    The k-th highest peak is a sum that k rows reach, so only blocks whose peak reaches it are added up once more.
    """
    least = np.int32(_LEAST + 1)
    if len(blocks) > k:
        least = max(least, np.partition(peaks, len(blocks) - k)[len(blocks) - k])
    keys, n = np.empty(BLOCK * np.sum(peaks >= least), np.int64), 0
    for at in range(len(blocks)):
        if peaks[at] < least:
            continue
        sums, part, block = np.zeros(BLOCK, np.int32), np.empty(BLOCK, np.int16), np.uint64(blocks[at])
        add_up(sketch[block], weights, sums, part)
        close(sums, block, fills[block], rows, allowed)
        for place in range(BLOCK):
            if sums[place] >= least:  # one number to order by: the sum, then the row from the end
                keys[n] = np.int64(sums[place]) * 2**32 + (2**31 - 1 - rows[block * _WIDE + np.uint64(place)])
                n += 1
    top = keys[:n]
    if n > k:
        top = np.partition(top, n - k)[n - k :]
    top = np.sort(top)[::-1]
    for at in range(len(top)):
        best[at] = top[at] >> 32
        found[at] = 2**31 - 1 - (top[at] & 0xFFFFFFFF)


def _search_each(
    sketch: Any,
    fills: Any,
    rows: Any,
    allowed: Any,
    weights: Any,
    blocks: Any,
    ends: Any,
    k: int,
    found: Any,
    best: Any,
) -> None:
    """Many queries, each by one thread: query q looks through blocks[ends[q] : ends[q + 1]]."""
    for query in numba.prange(len(ends) - 1):
        mine = blocks[ends[query] : ends[query + 1]]
        peaks = np.empty(len(mine), np.int32)
        for at in range(len(mine)):
            sums, part, block = np.zeros(BLOCK, np.int32), np.empty(BLOCK, np.int16), np.uint64(mine[at])
            add_up(sketch[block], weights[query], sums, part)
            peaks[at] = close(sums, block, fills[block], rows, allowed)
        collect(sketch, fills, rows, allowed, weights[query], mine, peaks, k, found[query], best[query])


def _nearness(centroids: Any, query: Any, near: Any) -> None:
    """The inner product of each centroid with the query; on this thread, which a product of matrices would not be."""
    for at in range(centroids.shape[0]):
        some, total = centroids[at], np.float32(0)
        for column in range(centroids.shape[1]):
            total += some[column] * query[column]
        near[at] = total


add_up = numba.njit(_add_up, inline="always")
close = numba.njit(_close)
nearness = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz"})(_nearness)
peaks_of = numba.njit(parallel=True, cache=True)(_peaks)
collect = numba.njit(cache=True)(_collect)
search_each = numba.njit(parallel=True, cache=True)(_search_each)
