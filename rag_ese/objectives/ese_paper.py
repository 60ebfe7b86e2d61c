"""ESE as published (Espresso Sentence Embeddings, ICLR 2025; arXiv 2402.14776 v2).

    express   sum_{i<n} w_i * l(m_i[:k]) + l(m_n[:k]),                  w_i = 1 / (1 + ln i)
    compress  sum_{i<n} w_i * D(m_i[:k], P_k(m_i)) + D(m_n[:k], P_k(m_n))
    L = express + compress

P_k: the k principal components of the batch's embeddings at that layer; D: MSE + T * KL over coordinates; k = 128 and
T = 1.
Deviations and decisions, where the paper leaves room:
- the same w_i weigh both halves (as in the authors' code); P_k is a true, centred PCA with fixed signs;
- the PCA is of all texts of the batch, and of fewer than k + 1 texts its missing components are 0.
The full width is not trained, as published. `ese-code` is what the authors' code does instead. A teacher is not used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from rag_ese.objectives.alignment import coordinate_alignment
from rag_ese.objectives.base import BaseLoss, required
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.compression import batch_pca
from rag_ese.objectives.options import check_depth, check_dims
from rag_ese.objectives.stateless import Stateless
from rag_ese.objectives.weighting import inverse_log
from rag_ese.types import Size


@dataclass(frozen=True)
class ESEPaper(Stateless):
    """The published equations for one size `k`."""

    k: int
    temperature: float = 1.0

    @classmethod
    def build(cls, depth: int, width: int, k: int | None = None, temperature: float = 1.0) -> ESEPaper:
        check_depth("ese-paper", depth)
        return cls(check_dims([min(128, width) if k is None else k], width)[0], temperature)

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
        base = required(base, "ese-paper")
        last = max(embeddings)
        parts = {}
        for layer in sorted(embeddings):
            weight = 1.0 if layer == last else inverse_log(layer, last)
            m = torch.cat(list(embeddings[layer]))
            compress = coordinate_alignment(m[:, : self.k], batch_pca(m, self.k), self.temperature)
            parts[f"base {Size(layer, self.k)}"] = weight * base(cut(embeddings[layer], self.k), labels)
            parts[f"compress L{layer}"] = weight * compress
        return parts
