"""The loops of searching bits, compiled by numba; `rag_ese.index.bits` says what they are for.

Sums are whole numbers, so nothing depends on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic

from rag_ese.index.compiled import threads as threads

BLOCK = 64
"""Rows whose words stand together."""
PARTS = 64
"""Pieces that threads share; their codes are read once for all queries of a batch."""
PER_THREAD = 2000
"""Blocks that make up for waking a thread."""
LOWEST = -8 * 64
"""Per word of 64 dimensions: no sum is lower."""
_EVERY = 32  # of so many blocks one is looked at to guess a bound
_TOGETHER = 16  # blocks that are added up before their rows are looked at
_SMALL = 1024  # blocks, all of which are looked at
_ONE = np.uint64(1)


@intrinsic  # type: ignore[untyped-decorator]
def ones(_: Any, word: Any) -> Any:
    """How many bits of a word are 1."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ctpop(values[0])

    return word(word), generate


def _add_up(codes: Any, planes: Any, first: int, last: int, sums: Any) -> None:
    """The sums of the rows of some blocks (int16): of the query's numbers, over the bits of the row that are 1.

    `planes` are bits 0 to 3 of the numbers, in two's complement: 1, 2, 4 and -8 for each bit that both have.
    """
    wide = np.empty(BLOCK, np.uint64)
    for block in range(first, last):
        for row in range(BLOCK):
            wide[row] = 0
        for word in range(codes.shape[1]):
            a, b, c, d = planes[0, word], planes[1, word], planes[2, word], planes[3, word]
            for row in range(BLOCK):
                bits = codes[block, word, row]
                upper = (ones(bits & c) - (ones(bits & d) << _ONE)) << _ONE
                wide[row] += ones(bits & a) + ((ones(bits & b) + upper) << _ONE)
        for row in range(BLOCK):
            sums[block - first, row] = np.int16(wide[row])


def _mark(sums: Any, bound: Any, marks: Any) -> None:
    """1 for each row whose sum reaches `bound` (int16), else 0."""
    for block in range(len(sums)):
        for row in range(BLOCK):
            marks[block, row] = sums[block, row] >= bound


def _guess(codes: Any, planes: Any, count: int, allowed: Any, k: int, bounds: Any) -> None:
    """For each query a sum that, as far as some blocks tell, a few more than `k` of the allowed rows reach.

    Where all blocks are looked at, exactly the highest one that `k` rows reach, or the lowest possible.
    """
    every = 1 if allowed.size > 0 or len(codes) <= _SMALL else _EVERY
    share = k // every
    wanted = k if every == 1 else share + share // 8 + 4 * int(np.sqrt(share)) + 8
    lowest = LOWEST * codes.shape[1]
    for query in numba.prange(len(planes)):
        sums, heights = np.empty((1, BLOCK), np.int16), np.zeros(1 - 2 * lowest, np.int32)
        for block in range(0, len(codes), every):
            add_up(codes, planes[query], block, block + 1, sums)
            for row in range(min(BLOCK, count - block * BLOCK)):
                if allowed.size == 0 or allowed[block * BLOCK + row]:
                    heights[sums[0, row] - lowest] += 1
        at, reached = len(heights), 0
        while at > 0 and reached < wanted:
            at -= 1
            reached += heights[at]
        bounds[query] = at + lowest


def _scan(codes: Any, planes: Any, count: int, allowed: Any, bounds: Any, keys: Any, held: Any) -> None:
    """For every query a key for each allowed row whose sum reaches its bound, lower for higher sums and lower rows.

    `keys`: queries x parts x room. `held` (queries x parts): how many there are of a part, with those for which there
    was no room.
    """
    for part in numba.prange(PARTS):
        end = (part + 1) * len(codes) // PARTS
        sums, marks = np.empty((_TOGETHER, BLOCK), np.int16), np.zeros((_TOGETHER, BLOCK), np.uint8)
        for query in range(len(planes)):
            found = 0
            for first in range(part * len(codes) // PARTS, end, _TOGETHER):
                last = min(end, first + _TOGETHER)
                add_up(codes, planes[query], first, last, sums)
                mark(sums[: last - first], np.int16(bounds[query]), marks)
                found = gather(sums[: last - first], marks, first, count, allowed, keys[query, part], found)
            held[query, part] = found


def _gather(sums: Any, marks: Any, first: int, count: int, allowed: Any, keys: Any, found: int) -> int:
    """Writes the keys of the rows that are marked, from place `found` on; how many there are then."""
    eights = marks.view(np.uint64)
    for block in range(len(sums)):
        for eight in range(BLOCK // 8):
            if eights[block, eight] == 0:
                continue
            for row in range(8 * eight, 8 * eight + 8):
                number = (first + block) * BLOCK + row
                if marks[block, row] and number < count and (allowed.size == 0 or allowed[number]):
                    if found < len(keys):
                        keys[found] = (-np.int64(sums[block, row]) << 32) | number
                    found += 1
    return found


def _join(keys: Any, held: Any, found: Any) -> None:
    """The keys of all parts one after the other, for each query (queries x most)."""
    for query in range(len(keys)):
        total = 0
        for part in range(keys.shape[1]):
            for at in range(min(held[query, part], keys.shape[2])):
                found[query, total] = keys[query, part, at]
                total += 1


add_up = numba.njit(cache=True)(_add_up)
mark = numba.njit(cache=True)(_mark)
gather = numba.njit(cache=True)(_gather)
join = numba.njit(cache=True)(_join)
guess = numba.njit(parallel=True, cache=True)(_guess)
scan = numba.njit(parallel=True, cache=True)(_scan)
