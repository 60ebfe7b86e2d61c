"""Many queries at once: the first segment's 8-bit codes by matrix products of whole numbers, the rest row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rag_ese.retriever.exact_bounds import bounds_of
from rag_ese.retriever.exact_layout import Layout
from rag_ese.types import Float32s, Int64s

_SMALLEST, _LARGEST = 256, 16384  # rows of the first and of later blocks: the first finds thresholds for the rest
_ROOM = 4096  # candidates kept per query, or 8 per result


@dataclass(frozen=True)
class Sifted:
    """The rows that may be among a query's best (ascending), and how many were read at each width on the way."""

    rows: Int64s
    coded: tuple[int, ...]


def sift(kernels: Any, layout: Layout, queries: Float32s, k: int) -> list[Sifted | None]:
    """Candidates for each of `queries` (Q x d); None where there were too many to keep."""
    f, count = np.float32, layout.count
    rotated = queries.astype(np.float64) @ layout.rotation
    each = [bounds_of(layout, query, p) for query, p in zip(queries, rotated, strict=True)]
    size, room = len(queries), max(_ROOM, 8 * k)
    thresholds, highest = np.full(size, -np.inf, f), np.full((size, k), -np.inf, f)
    found, limits = np.empty((size, room), np.int64), np.empty((size, room), f)
    counts, coded = np.zeros(size, np.int64), np.zeros((size, len(layout.cuts)), np.int64)
    first_weights = np.stack([bounds.first_weights for bounds in each])
    scales, first_bases, bases, epsilons, norms = np.array(
        [[b.first_scale, b.first_base, b.base, b.epsilon, b.norm] for b in each], f
    ).T.copy()
    weights, tail_norms = np.stack([b.weights for b in each]), np.stack([b.tail_norms for b in each])
    start, rows = 0, _SMALLEST
    while start < count:
        end = min(start + rows, count)
        sums = whole_products(first_weights, layout.first[start:end])
        kernels.sift(
            sums,
            start,
            scales,
            first_bases,
            layout.codes,
            np.array(layout.cuts),
            weights,
            bases,
            epsilons,
            norms,
            layout.code_error,
            tail_norms,
            layout.tails,
            thresholds,
            highest,
            found,
            limits,
            counts,
            coded,
        )
        start, rows = end, min(2 * rows, _LARGEST)
    coded[:, 0] = np.maximum(coded[:, 0], count)
    return [
        Sifted(found[q, :n][limits[q, :n] >= thresholds[q]], tuple(coded[q].tolist())) if n >= 0 else None
        for q, n in enumerate(counts.tolist())
    ]


def whole_products(left: Any, right: Any) -> Any:
    """left @ right.T for 8-bit whole numbers of at most 127 in size (Q x d, N x d): Q x N, int32, without error."""
    import torch

    a, b = torch.from_numpy(left), torch.from_numpy(right)
    if a.shape[1] > 1 and _integers_are_exact():  # of single columns torch mistakes the order (2.13)
        return torch._int_mm(a, b.T).numpy()
    # Sums of up to 1040 products below 2**14 are whole numbers below 2**24, which float32 holds without error.
    total = torch.zeros(len(a), len(b), dtype=torch.int32)
    for start in range(0, a.shape[1], 1024):
        here = slice(start, start + 1024)
        total += (a[:, here].float() @ b[:, here].float().T).to(torch.int32)
    return total.numpy()


@cache
def _integers_are_exact() -> bool:
    """Whether 8-bit products add up without loss here: processors without the instruction may saturate at 16 bits."""
    import torch

    for sign in (1, -1):
        left, right = torch.full((64, 256), 127, dtype=torch.int8), torch.full((256, 256), 127 * sign, dtype=torch.int8)
        try:
            if not bool((torch._int_mm(left, right.T) == sign * 127 * 127 * 256).all()):
                return False
        except RuntimeError:
            return False
    return True
