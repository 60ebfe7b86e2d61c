"""Losses for scored pairs: CoSENT, and AnglE (Li & Li 2023, arXiv 2309.12871) with its three terms.

    ordered(s) = log(1 + sum over pairs of pairs with y_i < y_j of exp(s_i - s_j))
    CoSENT     = ordered(scale * cos(x, y))
    angle      = ordered(scale * |sum of the coordinates of z / w, divided by |z| / |w||)
    in-batch   = mean over the 2B texts of -log softmax(scale * cos)[partner], 0 for texts of unlike pairs
    AnglE      = w_cos * CoSENT + w_ibn * in-batch + w_angle * angle

z and w are the two vectors read as complex numbers, first half real, second half imaginary. Written out, the sum over
coordinates (real and imaginary parts together) is cos(x, y) + (b.c - a.d) / (|x| |y|) for x = (a, b), y = (c, d).

Defaults are those of angle-emb 0.6.1; ESE was published with w_ibn = 10, w_angle = 1, w_cos = 0.
Deviations from angle-emb 0.6.1:
- Labels at or above `threshold` make a positive pair. There labels are truncated to integers and multiplied with row
  numbers, which is the same for 0 and 1 but makes positives of unrelated texts for graded labels above 1.
- For triplets there is one weight for the in-batch term where angle-emb has two (ibn_w and cln_w, both 1 by default).
From the paper: there a like pair shall have the smaller angle; the code's quantity, followed here, is larger for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rag_ese.errors import ConfigError
from rag_ese.objectives.columns import Columns, unit
from rag_ese.objectives.info_nce import InfoNCE

Pairs = tuple[Tensor, Tensor, Tensor]
"""First texts (P x d), second texts (P x d), labels (P)."""


def scored_pairs(columns: Columns, labels: Tensor | None) -> Pairs:
    """Two columns and their labels as they are; for (anchor, positive, *negatives) the pairs (a, p, 1) and (a, n, 0).

    With more than two columns `labels` is not used.
    """
    if len(columns) > 2:
        first, second = torch.cat([columns[0]] * (len(columns) - 1)), torch.cat(list(columns[1:]))
        ones = torch.arange(len(second), device=second.device) < len(columns[0])
        return first, second, ones.to(second.dtype)
    if len(columns) < 2 or labels is None or labels.ndim != 1:
        raise ConfigError("the base losses angle and cosent need scored pairs or triplets: take info-nce for pairs")
    return columns[0], columns[1], labels.to(columns[0].device)


def ordered(scores: Tensor, labels: Tensor) -> Tensor:
    """log(1 + sum exp(s_i - s_j)) over y_i < y_j; scores and labels of shape P. 0 where all labels are equal."""
    gaps = (scores[:, None] - scores[None, :]).masked_fill(labels[:, None] >= labels[None, :], -torch.inf)
    return F.pad(gaps.flatten(), (1, 0)).logsumexp(dim=0)


@dataclass(frozen=True)
class CoSENT:
    """Order of the pairs' cosines. Columns (B x d each) and labels (B), or triplets."""

    scale: float = 20.0

    def __call__(self, columns: Columns, labels: Tensor | None = None) -> Tensor:
        first, second, scores = scored_pairs(columns, labels)
        return ordered(self.scale * (unit(first) * unit(second)).sum(dim=1), scores)


@dataclass(frozen=True)
class AngleDifference:
    """Order of the pairs' differences in the complex plane. Columns (B x d, d even) and labels (B), or triplets."""

    scale: float = 20.0

    def __call__(self, columns: Columns, labels: Tensor | None = None) -> Tensor:
        first, second, scores = scored_pairs(columns, labels)
        if first.shape[1] % 2:
            raise ConfigError(f"the angle loss needs an even number of dimensions, not {first.shape[1]}")
        first, second = unit(first), unit(second)
        (a, b), (c, d) = first.chunk(2, dim=1), second.chunk(2, dim=1)
        angles = (first * second).sum(dim=1) + (b * c - a * d).sum(dim=1)
        return ordered(self.scale * angles.abs(), scores)


@dataclass(frozen=True)
class InBatchNegatives:
    """Each text of a like pair against the 2B - 1 other texts; for triplets the mean of InfoNCE without and with n."""

    scale: float = 20.0
    threshold: float = 1.0

    def __call__(self, columns: Columns, labels: Tensor | None = None) -> Tensor:
        if len(columns) > 2:
            contrast = InfoNCE(self.scale)
            return (contrast(columns[:2]) + contrast(columns)) / 2
        first, second, scores = scored_pairs(columns, labels)
        texts = unit(torch.cat([first, second]))
        similarities = (self.scale * (texts @ texts.T)).masked_fill(
            torch.eye(len(texts), dtype=torch.bool, device=texts.device), -torch.inf
        )
        partner = torch.arange(len(texts), device=texts.device).roll(len(first))
        losses = F.cross_entropy(similarities, partner, reduction="none")
        return (losses * (scores >= self.threshold).repeat(2)).mean()


@dataclass(frozen=True)
class AnglE:
    """The weighted sum of the three terms; a term of weight 0 is not computed."""

    w_cos: float = 0.0
    w_ibn: float = 1.0
    w_angle: float = 0.02
    scale: float = 20.0

    def __call__(self, columns: Columns, labels: Tensor | None = None) -> Tensor:
        terms: list[tuple[float, Callable[[Columns, Tensor | None], Tensor]]] = [
            (self.w_cos, CoSENT(self.scale)),
            (self.w_ibn, InBatchNegatives(self.scale)),
            (self.w_angle, AngleDifference(self.scale)),
        ]
        weighted = [weight * term(columns, labels) for weight, term in terms if weight]
        if not weighted:
            raise ConfigError("all weights of the angle loss are 0: give at least one of w_cos, w_ibn and w_angle")
        return torch.stack(weighted).sum()
