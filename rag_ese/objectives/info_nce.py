"""InfoNCE over in-batch and hard negatives, the base loss for question -> passage data.

    l = mean_i -log( exp(s cos(q_i, p_i)) / sum_c exp(s cos(q_i, c)) ),  c over all positives and hard negatives

van den Oord et al. 2018 (arXiv 1807.03748); also known as multiple negatives ranking (Henderson et al. 2017).
Deviations: candidates that are the anchor's own passage under another row number are left out of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rag_ese.errors import ConfigError
from rag_ese.objectives.columns import Columns, unit


@dataclass(frozen=True)
class InfoNCE:
    """Scalar loss of (questions, passages, *hard negatives), each B x d.

    `labels`: None, or the passages' identities (integers). Shape B: of the positives. Shape B x (1+m): column 0 of the
    positives, the others of the m columns of hard negatives. With `mask`, a candidate of the same identity as the
    row's own positive is no negative of that row.
    `symmetric` averages with the loss of each positive against all questions.
    """

    scale: float = 20.0
    symmetric: bool = False
    mask: bool = True

    def __call__(self, columns: Columns, labels: Tensor | None = None) -> Tensor:
        if len(columns) < 2:
            raise ConfigError(f"info-nce needs questions and passages, and was given {len(columns)} column")
        questions, candidates = unit(columns[0]), unit(torch.cat(list(columns[1:])))
        scores = self.scale * (questions @ candidates.T)
        if self.mask and labels is not None:
            scores = scores.masked_fill(false_negatives(labels.to(scores.device), len(columns) - 2), -torch.inf)
        own = torch.arange(len(questions), device=scores.device)
        loss = F.cross_entropy(scores, own)
        if not self.symmetric:
            return loss
        return (loss + F.cross_entropy(scores[:, : len(questions)].T, own)) / 2


def false_negatives(identities: Tensor, negatives: int) -> Tensor:
    """B x B(1+m), true where a candidate is the same passage as the row's positive, the positive itself excepted.

    `identities` is B or B x (1+m) as in `InfoNCE`, m = `negatives`; candidates are in the order of the columns.
    """
    if identities.is_floating_point():
        raise ConfigError("info-nce was given scores as labels: train scored pairs with the base loss angle or cosent")
    identities = identities.reshape(len(identities), -1)
    if identities.shape[1] not in (1, 1 + negatives):
        raise ConfigError(
            f"info-nce was given identities of {identities.shape[1]} passages a row, but the rows have {1 + negatives}"
        )
    rows = len(identities)
    same = identities[:, :1] == identities.T.reshape(1, -1)
    same[:, :rows].fill_diagonal_(False)
    return F.pad(same, (0, rows * (1 + negatives) - same.shape[1]), value=False)
