"""ESE as its reference implementation computes it (angle-emb 0.6.1), for reproduction.

    L = l(m_n) + l(m_n[:k]) + D(m_n[:k], P_k(m_n))
        + 1/(n-1) * sum_{i=0}^{n-2} (l(h_i[:k]) + D(h_i[:k], P_k(h_i))) / (1 + ln(1 + i))

h_0 is the embedding output and h_i = m_i for i >= 1: layer 0 is trained, and layer n-1 never is. P_k is
`reference_target`, of all texts of the batch; D is MSE + T * KL over coordinates; k = 128, T = 1. With a teacher, which
must be as wide as the student, KL(softmax(teacher) || softmax(m_n)) over coordinates is added.
Deviations: the randomised SVD draws from `random`, not from torch's global state, so that a run can be repeated.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from rag_ese.errors import ConfigError
from rag_ese.objectives.alignment import coordinate_alignment, divergence
from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.compression import reference_target
from rag_ese.objectives.options import check_depth, check_dims
from rag_ese.objectives.stateless import Stateless
from rag_ese.types import Size


@dataclass(frozen=True)
class ESECode(Stateless):
    """The arithmetic of angle-emb for one size `k`; `pca=False` leaves its compression terms out."""

    width: int
    k: int
    temperature: float = 1.0
    pca: bool = True

    @classmethod
    def build(cls, depth: int, width: int, k: int | None = None, temperature: float = 1.0, pca: bool = True) -> ESECode:
        check_depth("ese-code", depth)
        return cls(width, check_dims([min(128, width) if k is None else k], width)[0], temperature, pca)

    def layers(self, depth: int) -> tuple[int, ...]:
        return (*range(depth - 1), depth)

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        base = required(base, "ese-code")
        last = max(embeddings)
        parts = {_name(last, self.width): base(embeddings[last], labels)}
        for layer in (last, *range(last - 1)):
            weight = 1.0 if layer == last else 1 / (1 + math.log(1 + layer)) / (last - 1)
            short = weight * base(cut(embeddings[layer], self.k), labels)
            name = _name(layer, self.k)
            parts[name] = parts[name] + short if name in parts else short
            if self.pca:
                parts[f"compress L{layer}"] = weight * self._compress(embeddings[layer], random.getrandbits(32))
        if teacher is not None:
            parts[f"align {Size(last, self.width)}"] = self._align(embeddings[last], teacher)
        return parts

    def _compress(self, columns: Columns, seed: int) -> Tensor:
        m = torch.cat(list(columns))
        return coordinate_alignment(m[:, : self.k], reference_target(m, self.k, seed), self.temperature)

    def _align(self, columns: Columns, teacher: Columns) -> Tensor:
        if teacher[0].shape[1] != self.width:
            raise ConfigError(
                f"ese-code compares coordinates with its teacher's, which has {teacher[0].shape[1]} dimensions and not "
                f"{self.width}: choose a teacher as wide as the model, or the objective ese"
            )
        return divergence(torch.cat(list(columns)), torch.cat(list(teacher)), 1.0)


def _name(layer: int, dim: int) -> str:
    return f"base L{layer}-d{dim}"  # not a Size: the embedding output is layer 0 here
