"""The first model against each other one: differences of the average over the sets, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rag_ese.eval.sts_bootstrap import interval, resampled_averages
from rag_ese.eval.sts_results import Difference, ModelScores
from rag_ese.eval.sts_scores import Floats
from rag_ese.progress import progress_bar
from rag_ese.types import Size

SizeCosines = dict[Size, dict[str, Floats]]
"""Size -> set -> the cosine of each pair."""

_SHALLOW_DIMS = (64, 128)
"""Widths at which the shallow layers are compared, beside the full one: each needs every layer resampled."""


def differences(
    models: Sequence[ModelScores],
    cosines: Sequence[SizeCosines],
    gold: Mapping[str, Floats],
    resamples: int,
    seed: int,
) -> list[Difference]:
    """First minus other: the last layer at every width that both have, the shallow average at 64, 128 and full."""
    if len(models) < 2:
        return []
    plans = [_plan(models[0], other) for other in models[1:]]
    needed: dict[tuple[int, Size], dict[str, Floats]] = {}
    for number, plan in enumerate(plans, 1):
        for _, _, own, others in plan:
            needed |= {(0, size): cosines[0][size] for size in own}
            needed |= {(number, size): cosines[number][size] for size in others}
    with progress_bar("resampling", len(needed) * len(gold)) as advance:
        drawn = resampled_averages(needed, gold, resamples, seed, advance)
    found = []
    for number, plan in enumerate(plans, 1):
        for layers, dim, own, others in plan:
            resampled = _mean(drawn, 0, own) - _mean(drawn, number, others)
            difference = _average(models[0], own) - _average(models[number], others)
            low, high = interval(resampled) or (None, None)
            found.append(Difference(models[number].name, layers, dim, difference, low, high))
    return found


Plan = list[tuple[str, str, list[Size], list[Size]]]
"""What is compared: layers, width, the sizes of the first model that are averaged, and those of the other."""


def _plan(first: ModelScores, other: ModelScores) -> Plan:
    widths = [(str(dim), dim, dim) for dim in first.dims if dim in other.dims and dim < max(first.width, other.width)]
    if first.width in first.dims and other.width in other.dims:
        widths.append(("full", first.width, other.width))
    plan: Plan = [("last", name, [Size(first.last, a)], [Size(other.last, b)]) for name, a, b in widths]
    if len(first.layers) > 1 and len(other.layers) > 1:
        for name, a, b in widths:
            if name == "full" or a in _SHALLOW_DIMS:
                own, others = ([Size(n, d) for n in m.layers[:-1]] for m, d in ((first, a), (other, b)))
                plan.append(("shallow", name, own, others))
    return plan


def _mean(drawn: Mapping[tuple[int, Size], Floats], number: int, sizes: Sequence[Size]) -> Floats:
    return np.asarray(np.mean([drawn[number, size] for size in sizes], axis=0))


def _average(model: ModelScores, sizes: Sequence[Size]) -> float:
    return float(np.mean([np.mean(list(model.scores[size].values())) for size in sizes]))
