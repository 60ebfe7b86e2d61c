"""A batch as the objectives see it: columns of embeddings, at one layer or at several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

Columns = Sequence[Tensor]
"""(questions, passages, *hard negatives) or (first, second), each B x d, not normalised; row i belongs together."""

LayerColumns = Mapping[int, Columns]
"""Layer (1-based; 0 is the embedding output) -> the columns at that layer, full width, not normalised."""


def cut(columns: Columns, dim: int) -> list[Tensor]:
    """The leading `dim` dimensions: each B x dim."""
    return [column[:, :dim] for column in columns]


def detached(columns: Columns) -> list[Tensor]:
    """The same values without gradient."""
    return [column.detach() for column in columns]


def unit(vectors: Tensor) -> Tensor:
    """Rows brought to length 1; a zero row stays zero."""
    return F.normalize(vectors, dim=1)
