"""Starbucks (arXiv 2410.13230): a fixed diagonal of sizes, all trained at every step.

    L = 1/|S| * sum over (i, k) in S of [ l(m_i[:k]) + KL(p_full || p_(i,k)) ]

p: softmax of cosine / T of each question over the passages of the batch; the full model is detached and is not aligned
with itself. S by default has up to six pairs at even distances in depth, halving in width below the largest power of
two: for 12 layers and 768 dimensions (2,32) (4,64) (6,128) (8,256) (10,512) (12,768), as in the paper.
Deviations: the mean over S, so that the loss does not grow with the number of pairs; T = 0.05, as in the base loss.
A given teacher takes the place of the full model and then aligns that, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rag_ese.errors import SizeError
from rag_ese.objectives.alignment import ScoreTarget
from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.options import check_size
from rag_ese.objectives.stateless import Stateless
from rag_ese.types import Size

_PAIRS, _SMALLEST = 6, 8


def diagonal(depth: int, width: int) -> tuple[Size, ...]:
    """Sizes that grow in both directions, up to the full model.

    >>> [str(size) for size in diagonal(12, 768)]
    ['L2-d32', 'L4-d64', 'L6-d128', 'L8-d256', 'L10-d512', 'L12-d768']
    """
    count = min(_PAIRS, depth)
    power = 1 << (width - 1).bit_length()  # the smallest power of two that is not below the width
    dims = [min(width, max(_SMALLEST, power >> step)) for step in range(count - 1, 0, -1)]
    depths = [round(depth * number / count) for number in range(1, count + 1)]
    return tuple(Size(layers, dim) for layers, dim in zip(depths, [*dims, width], strict=True))


@dataclass(frozen=True)
class Starbucks(Stateless):
    """Base loss and score alignment on each of `pairs`."""

    pairs: tuple[Size, ...]
    full: Size
    temperature: float = 0.05
    align_weight: float = 1.0

    @classmethod
    def build(
        cls,
        depth: int,
        width: int,
        pairs: Sequence[str | Size] | None = None,
        temperature: float = 0.05,
        align_weight: float = 1.0,
    ) -> Starbucks:
        chosen = diagonal(depth, width) if pairs is None else pairs
        sizes = tuple(sorted({check_size(pair, depth, width) for pair in chosen}))
        if not sizes:
            raise SizeError("starbucks needs at least one pair: write for example L2-d32")
        return cls(sizes, Size(depth, width), temperature, align_weight)

    def layers(self, depth: int) -> tuple[int, ...]:
        return tuple(sorted({size.layers for size in (*self.pairs, self.full)}))

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        base = required(base, "starbucks")
        target = ScoreTarget.of(
            teacher if teacher is not None else embeddings[self.full.layers], self.temperature, ["question-passage"]
        )
        parts = {}
        for size in self.pairs:
            columns = cut(embeddings[size.layers], size.dim)
            parts[f"base {size}"] = base(columns, labels) / len(self.pairs)
            if self.align_weight and (teacher is not None or size != self.full):
                parts[f"align {size}"] = self.align_weight * target.divergence(columns) / len(self.pairs)
        return parts
