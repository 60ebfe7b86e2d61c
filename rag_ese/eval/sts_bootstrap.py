"""Is one model better than another on STS, or was it the choice of pairs? Paired percentile bootstrap within each set.

The pairs of every set are drawn with replacement, the same draw for all models, and Spearman's correlation is computed
anew, ranks included; the figure is its mean over the sets. Efron and Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rag_ese.eval.sts_scores import Floats

Key = TypeVar("Key", bound=Hashable)

_ROWS = 16  # resamples at a time: what stays in the processor's cache is fastest


class Ranks:
    """The order of one column of scores, so that any resample of it is ranked without sorting again."""

    def __init__(self, scores: Floats) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # where a group of equal scores begins

    def grouped(self, counts: Floats) -> Floats:
        """Pairs x resamples, such as how often each pair was drawn, summed over groups of equal scores, in order."""
        ordered = counts[self.order]
        return ordered if len(self.starts) == len(ordered) else np.add.reduceat(ordered, self.starts, axis=0)

    def of(self, grouped: Floats) -> Floats:
        """The average rank, 1-based, of each group in each resample: groups x resamples."""
        return np.asarray(grouped.cumsum(axis=0) - (grouped - 1) / 2)

    def spread(self, ranks: Floats) -> Floats:
        """Group ranks back at their pairs: pairs x resamples."""
        sizes = np.diff(np.r_[self.starts, len(self.order)])
        output = np.empty((len(self.order), ranks.shape[1]))
        output[self.order] = np.repeat(ranks, sizes, axis=0)
        return output


def resampled_averages(
    cosines: Mapping[Key, Mapping[str, Floats]],
    gold: Mapping[str, Floats],
    resamples: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[Key, Floats]:
    """For every key (a model at a size) the mean Spearman over the sets in each resample, in points of 100.

    `cosines` is key -> set -> one cosine per pair. NaN where a resample's scores are all equal. `progress` is told how
    many correlations are done, set by set.
    """
    totals = {key: np.zeros(resamples) for key in cosines}
    for number, (name, scores) in enumerate(gold.items()):  # a generator per set: sets do not move each other's draws
        draw = np.random.default_rng([seed, number])
        columns = {key: Ranks(by_set[name]) for key, by_set in cosines.items()}
        truth = Ranks(scores)
        for start in range(0, resamples, _ROWS):
            rows = min(_ROWS, resamples - start)
            counts = _draw(draw, len(scores), rows)
            golden = truth.spread(truth.of(truth.grouped(counts)))
            for key, ranks in columns.items():
                totals[key][start : start + rows] += _correlation(ranks, counts, golden)
        if progress:
            progress(len(columns))
    return {key: 100 * total / len(gold) for key, total in totals.items()}


def interval(differences: Floats) -> tuple[float, float] | None:
    """The 95% percentile bounds of resampled differences, undefined resamples left out; None where none is left."""
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _draw(draw: np.random.Generator, pairs: int, rows: int) -> Floats:
    """How often each pair is drawn in each of `rows` resamples: pairs x rows, columns that sum to `pairs`."""
    chosen = draw.integers(pairs, size=(rows, pairs)) * rows + np.arange(rows)[:, None]
    return np.bincount(chosen.ravel(), minlength=pairs * rows).reshape(pairs, rows).astype(np.float64)


def _correlation(ranks: Ranks, counts: Floats, golden: Floats) -> npt.NDArray[np.float64]:
    """Pearson's correlation of the ranks in each resample; `golden` are the gold ranks at their pairs."""
    pairs = len(counts)
    mean = (pairs + 1) / 2
    grouped = ranks.grouped(counts)
    own = ranks.of(grouped) - mean
    weighted = counts * (golden - mean)
    covariance = np.einsum("gr,gr->r", own, ranks.grouped(weighted))
    spread = np.einsum("gr,gr->r", grouped, own**2) * np.einsum("pr,pr->r", weighted, golden - mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(covariance / np.sqrt(spread))
