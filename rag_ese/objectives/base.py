"""The base loss: what every objective applies at each size that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from rag_ese.errors import ConfigError
from rag_ese.objectives.angle import AnglE, CoSENT
from rag_ese.objectives.columns import Columns
from rag_ese.objectives.info_nce import InfoNCE
from rag_ese.objectives.options import check_options, pick

BaseLoss = Callable[[Columns, Tensor | None], Tensor]
"""(columns, labels) -> scalar."""

BASE_LOSSES: dict[str, type[InfoNCE] | type[CoSENT] | type[AnglE]] = {
    "info-nce": InfoNCE,
    "cosent": CoSENT,
    "angle": AnglE,
}


def required(base: BaseLoss | None, objective: str) -> BaseLoss:
    """The base loss; ConfigError for a batch without one, whose rows are not known to belong together."""
    if base is None:
        raise ConfigError(f"{objective} cannot learn from texts without pairs or scores: train on pairs, or take ese")
    return base


def base_loss(name: str, **options: Any) -> BaseLoss:
    """The base loss called `name`; ConfigError for an unknown name or option.

    >>> base_loss("info-nce", scale=50.0)
    InfoNCE(scale=50.0, symmetric=False, mask=True)
    """
    kind = pick("base loss", name, BASE_LOSSES)
    check_options(f"the base loss {name}", options, [field.name for field in fields(kind)])
    return kind(**options)
