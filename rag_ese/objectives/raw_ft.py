"""RAW-FT: the base loss at one size, and nothing else.

    L = l(m_n)                 by default: the control with the same data and backbone as every elastic objective
    L = l(m_i[:k])             with size="L2-d64": the separately trained small model

Deviations: none; it is the plain fine-tuning that papers compare with. A teacher is not used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor

from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.options import check_size
from rag_ese.objectives.stateless import Stateless
from rag_ese.types import Size


@dataclass(frozen=True)
class RawFT(Stateless):
    """The base loss at `size`."""

    size: Size

    @classmethod
    def build(cls, depth: int, width: int, size: str | Size | None = None) -> RawFT:
        return cls(check_size(size or Size(depth, width), depth, width))

    def layers(self, depth: int) -> tuple[int, ...]:
        return (self.size.layers,)

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        base = required(base, "raw-ft")
        columns = cut(embeddings[self.size.layers], self.size.dim)
        return {f"base {self.size}": base(columns, labels)}
