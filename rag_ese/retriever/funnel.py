"""A funnel: search small first, keep some, re-rank those at larger sizes. One stage alone is a plain search."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from rag_ese.errors import ConfigError
from rag_ese.types import Size

_STAGE = re.compile(r"(?P<size>[^:>]+):(?P<keep>\d+)")


@dataclass(frozen=True)
class Stage:
    """A size, and how many passages are kept after it."""

    size: Size
    keep: int

    def __str__(self) -> str:
        return f"{self.size}:{self.keep}"


@dataclass(frozen=True)
class Funnel:
    """Stages in the order in which they run; each ranks what the one before it kept.

    >>> str(Funnel.parse("L3-d64:200 > 768:10", depth=6, width=768))
    'L3-d64:200 > L6-d768:10'
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        keeps = [stage.keep for stage in self.stages]
        if not keeps or min(keeps) < 1 or keeps != sorted(keeps, reverse=True):
            raise ConfigError(
                f"the funnel {str(self)!r} cannot run: every stage keeps at least 1 passage and at most as many as the "
                "stage before it"
            )
        for before, after in pairwise(self.stages):
            small, large = after.size, before.size
            if small != large and small.layers <= large.layers and small.dim <= large.dim:
                raise ConfigError(
                    f"the funnel {str(self)!r} is out of order: {small} comes after {large}, which knows more; put the "
                    "smaller size first"
                )

    def __str__(self) -> str:
        return " > ".join(map(str, self.stages))

    @classmethod
    def single(cls, size: Size, k: int) -> Funnel:
        """A plain search of one size."""
        return cls((Stage(size, k),))

    @classmethod
    def parse(cls, text: str, depth: int, width: int) -> Funnel:
        """Reads `L3-d64:200 > L6-d768:10`; sizes as `Size.parse` reads them for a model of `depth` and `width`."""
        stages = []
        for part in text.split(">"):
            match = _STAGE.fullmatch(part.strip())
            if not match:
                raise ConfigError(
                    f"cannot read the funnel stage {part.strip()!r}: write SIZE:KEEP stages joined by >, such as "
                    "'L3-d64:200 > L6-d768:10'"
                )
            stages.append(Stage(Size.parse(match["size"], depth, width), int(match["keep"])))
        return cls(tuple(stages))

    @property
    def keep(self) -> int:
        """How many passages come out at the end."""
        return self.stages[-1].keep
