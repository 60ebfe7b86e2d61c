"""Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147).

    L = sum over sizes k of c_k * l(m_n[:k]),  c_k = 1, k halving from d downwards

Only the last layer is trained for its prefixes. Deviations: the paper halves down to 8 dimensions; so do we, but the
full width need not be a power of two (768 ends at 12). A teacher is not used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.options import check_dims
from rag_ese.objectives.stateless import Stateless
from rag_ese.types import Size

_SMALLEST = 8


def halving(width: int) -> tuple[int, ...]:
    """`width` and its halves of at least 8 dimensions, ascending.

    >>> halving(64)
    (8, 16, 32, 64)
    """
    return (*halving(width // 2), width) if width // 2 >= _SMALLEST else (width,)


@dataclass(frozen=True)
class MRL(Stateless):
    """The base loss at several widths of the last layer, all of weight 1."""

    sizes: tuple[int, ...]

    @classmethod
    def build(cls, depth: int, width: int, sizes: Sequence[int] | None = None) -> MRL:
        return cls(check_dims(sizes if sizes is not None else halving(width), width))

    def layers(self, depth: int) -> tuple[int, ...]:
        return (depth,)

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        base = required(base, "mrl")
        last = max(embeddings)
        return {f"base {Size(last, dim)}": base(cut(embeddings[last], dim), labels) for dim in self.sizes}
