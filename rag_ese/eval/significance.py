"""Is one system better than another, or was it the choice of questions? Percentile bootstrap over questions.

Efron and Tibshirani 1993, chapters 13 and 16; Koehn 2004 (paired, for systems that answer the same questions).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError, DataError

Values = Sequence[float | None]
"""One value per question; None where a question has none."""

_CHUNK = 1 << 20  # numbers drawn at a time: 8 MB, whatever the numbers of questions and resamples


class Interval(NamedTuple):
    """A mean over `n` questions with its 95% bounds; `p` is two-sided, or None where nothing was compared."""

    mean: float
    low: float
    high: float
    p: float | None
    n: int


def paired_difference(a: Values, b: Values, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of a - b, question by question; questions for which either is None are left out.

    `p` is twice the smaller share of resampled means on either side of 0 (both shares count means of exactly 0), at
    most 1 and never 0: with the data themselves counted as a resample the smallest possible value is 2 / (resamples +
    1). Raises DataError for lists of unequal length and when no question is left.
    """
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} values cannot be paired: score both systems on the same questions")
    differences = _array([x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None])
    means = _resampled_means(differences, resamples, seed)
    smaller = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return _interval(differences, means, min(1.0, 2 * (int(smaller) + 1) / (resamples + 1)))


def bootstrap_mean(values: Values, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of one system's values with its 95% bounds; None values are left out. DataError when none is left."""
    array = _array([value for value in values if value is not None])
    return _interval(array, _resampled_means(array, resamples, seed), None)


def _array(values: list[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise DataError("0 questions have a value for this metric: nothing can be resampled; choose another metric")
    if not np.isfinite(array).all():
        raise DataError(
            f"{np.count_nonzero(~np.isfinite(array))} of {len(array)} values are not finite; check the metric"
        )
    return array


def _resampled_means(values: npt.NDArray[np.float64], resamples: int, seed: int) -> npt.NDArray[np.float64]:
    if resamples < 1:
        raise ConfigError(f"{resamples} resamples give no interval: choose 1 or more, for example 10000")
    generator = np.random.default_rng(seed)
    return np.concatenate(
        [
            values[generator.integers(len(values), size=(rows, len(values)))].mean(axis=1)
            for rows in _chunks(resamples, values)
        ]
    )


def _chunks(resamples: int, values: npt.NDArray[np.float64]) -> Iterator[int]:
    """How many resamples to draw at a time."""
    rows = max(1, _CHUNK // len(values))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)


def _interval(values: npt.NDArray[np.float64], means: npt.NDArray[np.float64], p: float | None) -> Interval:
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), p, len(values))
