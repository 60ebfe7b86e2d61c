"""How much a layer counts."""

from __future__ import annotations

import math
from collections.abc import Callable

Weighting = Callable[[int, int], float]
"""(layer, depth) -> weight; layers are 1-based."""


def inverse_log(layer: int, depth: int) -> float:
    """1 / (1 + ln i), as in ESE: shallow layers count more."""
    return 1 / (1 + math.log(layer))


def uniform(layer: int, depth: int) -> float:
    """1 for every layer."""
    return 1.0


def linear(layer: int, depth: int) -> float:
    """i / n: deeper layers count more."""
    return layer / depth


def last(layer: int, depth: int) -> float:
    """1 for the last layer, 0 for the others."""
    return float(layer == depth)


def shallow(layer: int, depth: int) -> float:
    """1 for every layer but the last, 0 for that one: it is the target, and keeps what it has."""
    return float(layer < depth)


WEIGHTINGS: dict[str, Weighting] = {
    "inverse-log": inverse_log,
    "uniform": uniform,
    "linear": linear,
    "last": last,
    "shallow": shallow,
}
