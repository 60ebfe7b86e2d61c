"""2D Matryoshka (2DMSE; arXiv 2402.14776 v1, the first version of the ESE paper).

Each step draws one layer i of 1..n-1 and one size k, both uniformly, and takes

    L = l(m_n) + l(m_i) + T^2 * KL(softmax(m_n/T) || softmax(m_i/T)) + l(m_n[:k]) + l(m_i[:k]),  T = 1

with the softmax over coordinates. Deviations: m_n has no gradient inside the KL (as in sentence-transformers'
Matryoshka2dLoss), so that the last layer is not drawn towards the shallow one. A teacher is not used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rag_ese.errors import SizeError
from rag_ese.objectives.alignment import divergence
from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.mrl import halving
from rag_ese.objectives.options import check_depth, check_dims
from rag_ese.objectives.stateless import Stateless
from rag_ese.types import Size


@dataclass(frozen=True)
class TwoDMSE(Stateless):
    """One random layer and one random size besides the full model; `sizes` are those below the full width."""

    width: int
    sizes: tuple[int, ...]
    temperature: float = 1.0

    @classmethod
    def build(cls, depth: int, width: int, sizes: Sequence[int] | None = None, temperature: float = 1.0) -> TwoDMSE:
        check_depth("2dmse", depth)
        chosen = tuple(dim for dim in check_dims(sizes if sizes is not None else halving(width), width) if dim < width)
        if not chosen:
            raise SizeError(f"2dmse draws a size below the full width {width}, and none is given: name some in sizes")
        return cls(width, chosen, temperature)

    def layers(self, depth: int) -> tuple[int, ...]:
        return tuple(range(1, depth + 1))

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        base = required(base, "2dmse")
        last = max(embeddings)
        layer = random.choice([number for number in sorted(embeddings) if number < last])
        dim = random.choice(self.sizes)
        student, target = torch.cat(list(embeddings[layer])), torch.cat(list(embeddings[last]))
        parts = {
            f"base {Size(number, size)}": base(cut(embeddings[number], size), labels)
            for number in (last, layer)
            for size in (self.width, dim)
        }
        kl = divergence(student, target, self.temperature)
        return {**parts, f"align {Size(layer, self.width)}": self.temperature**2 * kl}
