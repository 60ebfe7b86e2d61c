"""What an objective is, and how one is had by name."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from rag_ese.objectives.base import BaseLoss
from rag_ese.objectives.columns import Columns, LayerColumns
from rag_ese.objectives.ese import ESE
from rag_ese.objectives.ese_code import ESECode
from rag_ese.objectives.ese_paper import ESEPaper
from rag_ese.objectives.mrl import MRL
from rag_ese.objectives.options import check_options, pick
from rag_ese.objectives.raw_ft import RawFT
from rag_ese.objectives.starbucks import Starbucks
from rag_ese.objectives.two_d_mse import TwoDMSE


class Objective(Protocol):
    """From the embeddings of a batch at several layers to a loss in named parts."""

    def layers(self, depth: int) -> tuple[int, ...]:
        """The layers that it needs, ascending; 0 is the embedding output."""

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        """Scalars whose sum is the loss, named like `base L6-d768`, `align L3-d64`, `compress L2`.

        `base` None: a batch whose rows are not known to belong together; only `ese` learns from it, with a teacher or
        from its own full size, the others raise ConfigError. `random` makes what is drawn at this step. `teacher` holds
        full-size embeddings of the same texts by a frozen model, of any width; None: the detached deepest full-size
        columns of the batch. Objectives whose papers have no teacher (raw-ft, mrl, 2dmse, ese-paper) do not use it.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers between steps, as plain tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state_dict` gave."""


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "raw-ft": RawFT.build,
    "mrl": MRL.build,
    "2dmse": TwoDMSE.build,
    "ese": ESE.build,
    "ese-paper": ESEPaper.build,
    "ese-code": ESECode.build,
    "starbucks": Starbucks.build,
}


def objective(name: str, depth: int, width: int, **options: Any) -> Objective:
    """The objective called `name` for a model of `depth` layers and `width` dimensions.

    ConfigError for an unknown name or option, SizeError for sizes that the model does not have.
    """
    build = pick("objective", name, OBJECTIVES)
    valid = [option for option in inspect.signature(build).parameters if option not in ("depth", "width")]
    check_options(f"the objective {name}", options, valid)
    return build(depth, width, **options)
