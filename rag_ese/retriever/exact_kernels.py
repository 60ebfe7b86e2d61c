"""The loops of certified exact search, compiled by numba; `rag_ese.retriever.exact` says what they are for.

Sums of float32 are taken in whatever order is fastest: the bounds hold for every order. What reaches a comparison is
never NaN or infinite, which `rag_ese.retriever.exact` sees to.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import threads as threads

_FAST = {"contract", "reassoc", "nsz"}
_LOW, _FOUR = np.uint8(15), np.uint8(4)


def _scan(
    sketch: Any,
    weights: Any,
    scale: Any,
    base: Any,
    head: Any,
    errors: Any,
    tail: Any,
    tails: Any,
    upper: Any,
    peaks: Any,
) -> None:
    """Upper bounds of all rows from the sketch, and the highest of each block of 64 rows.

    Weights are whole numbers up to 127 and codes up to 15, so 16 products fit in 16 bits, and the sums are exact.
    """
    count, pairs = len(errors), sketch.shape[1]
    for block in numba.prange(sketch.shape[0]):
        sums = np.zeros(64, np.int32)
        for first in range(0, pairs, 8):
            part = np.zeros(64, np.int16)
            for pair in range(first, min(first + 8, pairs)):
                low, high = weights[pair, 0], weights[pair, 1]
                for row in range(64):
                    code = sketch[block, pair, row]
                    part[row] += np.int16(low * np.int16(code & _LOW)) + np.int16(high * np.int16(code >> _FOUR))
            for row in range(64):
                sums[row] += np.int32(part[row])
        start, end = block * 64, min(block * 64 + 64, count)
        limits, missed, rest = upper[start:end], errors[start:end], tails[start:end]
        peak = np.float32(-np.inf)
        for row in range(end - start):
            limits[row] = np.float32(sums[row]) * scale + base + head * missed[row] + tail * rest[row]
            peak = max(peak, limits[row])
        peaks[block] = peak


def _bound(
    row: Any,
    codes: Any,
    cuts: Any,
    weights: Any,
    base: Any,
    epsilon: Any,
    norm: Any,
    errors: Any,
    tail_norms: Any,
    tails: Any,
    threshold: Any,
) -> tuple[Any, Any, int]:
    """Bounds of one row from the 8-bit codes, segment by segment until it is under the threshold or at full width.

    Lower bound (-inf for a row that was given up), upper bound, number of segments that were read.
    """
    count, last = len(errors), len(cuts) - 1
    total, slack, start, bound = base, norm * errors[row] + epsilon, 0, np.float32(0)
    for segment in range(last + 1):
        end = cuts[segment]
        offset = count * start + row * (end - start)
        some, factors = codes[offset : offset + end - start], weights[start:end]  # plain indices make plain loops
        part = np.float32(0)
        for column in range(end - start):
            part += np.float32(some[column]) * factors[column]
        total += part
        bound = total + slack
        if segment == last:
            return total - slack, bound, segment + 1
        bound += tail_norms[segment] * tails[segment, row]
        if bound < threshold:
            return np.float32(-np.inf), bound, segment + 1
        start = end
    return np.float32(-np.inf), bound, last + 1


def _refine(
    rows: Any,
    codes: Any,
    cuts: Any,
    weights: Any,
    base: Any,
    epsilon: Any,
    norm: Any,
    errors: Any,
    tail_norms: Any,
    tails: Any,
    threshold: Any,
    lower: Any,
    upper: Any,
    depth: Any,
) -> None:
    """`_bound` of each of `rows`."""
    for at in numba.prange(len(rows)):
        lower[at], upper[at], depth[at] = bound(
            rows[at], codes, cuts, weights, base, epsilon, norm, errors, tail_norms, tails, threshold
        )


def _sift(
    sums: Any,
    start: Any,
    scales: Any,
    first_bases: Any,
    codes: Any,
    cuts: Any,
    weights: Any,
    bases: Any,
    epsilons: Any,
    norms: Any,
    errors: Any,
    tail_norms: Any,
    tails: Any,
    thresholds: Any,
    highest: Any,
    found: Any,
    limits: Any,
    counts: Any,
    coded: Any,
) -> None:
    """For each query the rows of a block that may be among its best, from the block's `sums` (Q x R) over first codes.

    `highest` (Q x k) are the best lower bounds so far, `thresholds` the least of them. Rows go to `found` with their
    upper bounds in `limits`, as many as `counts`; a query whose list is full gets the count -1 and is left alone.
    """
    room = found.shape[1]
    for query in numba.prange(sums.shape[0]):
        threshold, n = thresholds[query], counts[query]
        tail, norm, scale, first_base = tail_norms[query, 0], norms[query], scales[query], first_bases[query]
        highs = np.empty(64, np.float32)
        for piece in range(0, sums.shape[1], 64):
            stop = min(piece + 64, sums.shape[1])
            size, first = stop - piece, start + piece
            some, missed, rest = sums[query, piece:stop], errors[first : first + size], tails[0, first : first + size]
            above = np.int32(0)
            for at in range(size):
                highs[at] = np.float32(some[at]) * scale + first_base + norm * missed[at] + tail * rest[at]
                above += np.int32(highs[at] >= threshold)
            if above == 0 or n < 0:
                continue
            for at in range(size):
                row = first + at
                if highs[at] < threshold or n < 0:
                    continue
                low, limit, depth = bound(
                    row,
                    codes,
                    cuts,
                    weights[query],
                    bases[query],
                    epsilons[query],
                    norm,
                    errors,
                    tail_norms[query],
                    tails,
                    threshold,
                )
                for segment in range(depth):
                    coded[query, segment] += 1
                if limit < threshold:
                    continue
                least = np.argmin(highest[query])
                if low > highest[query, least]:
                    highest[query, least] = low
                    threshold = max(threshold, highest[query].min())
                if n == room:
                    n = 0
                    for old in range(room):
                        if limits[query, old] >= threshold:
                            found[query, n], limits[query, n] = found[query, old], limits[query, old]
                            n += 1
                if n == room:
                    n = -1
                else:
                    found[query, n], limits[query, n] = row, limit
                    n += 1
        thresholds[query], counts[query] = threshold, n


bound = numba.njit(cache=True, fastmath=_FAST)(_bound)
scan = numba.njit(parallel=True, cache=True, fastmath=_FAST)(_scan)
refine = numba.njit(parallel=True, cache=True, fastmath=_FAST)(_refine)
sift = numba.njit(parallel=True, cache=True, fastmath=_FAST)(_sift)
