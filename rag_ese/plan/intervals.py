"""How sure a mean recall is: 95% intervals that also hold where hardly any query, or none, lost anything.

Recall per query is 1 for most queries and less for a few. The percentile bootstrap (Efron and Tibshirani 1993) is right
where those few are many enough. Where none was seen it answers [1, 1], however small the sample, and where some were
seen it is too narrow: a resample cannot hold a loss that the sample lacks. So a second interval is taken, and the wider
end on each side counts.

The second one splits the mean loss in two: the share of queries that lose something, and what such a query loses.
The share is a binomial proportion with exact bounds (Clopper and Pearson 1934): with none of 200 it may still be 1.8%.
The severity is the mean of the losses seen. Where fewer than ENOUGH were seen, losses of size `severity` make up the
number. Nothing in the sample can bound that size, so it is 1 (all is lost: the interval then needs no assumption)
unless the caller knows better. The planner does: the same sizes with a smaller shortlist lose at more queries, and more
at each, so their losses stand in (`candidates.severity`). How uncertain a mean of many losses is, is left to the
bootstrap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, norm
from scipy.stats import t as student

from rag_ese.errors import DataError
from rag_ese.retriever.recall import Float64s
from rag_ese.types import Float32s

ENOUGH = 10
"""Losses that are enough to know their mean size."""
_TAIL = 0.025
_COLUMNS = 64  # systems resampled at a time
_DRAWS = 1 << 20  # queries drawn at a time


def share_bounds(count: npt.ArrayLike, n: int) -> tuple[Float64s, Float64s]:
    """Exact 95% bounds of a proportion of which `count` of `n` were seen (Clopper and Pearson 1934)."""
    seen = np.asarray(count, dtype=np.float64)
    low = np.where(seen > 0, beta.ppf(_TAIL, np.maximum(seen, 1), n - seen + 1), 0.0)
    high = np.where(seen < n, beta.ppf(1 - _TAIL, seen + 1, np.maximum(n - seen, 1)), 1.0)
    return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)


def intervals(
    recalls: Float64s, severity: npt.ArrayLike = 1.0, resamples: int = 10_000, seed: int = 0
) -> tuple[Float64s, Float64s]:
    """The 95% bounds of the mean of each row of `recalls`, systems x queries: two arrays, one number per system.

    `severity`, one number or one per system, is how much a query is thought to lose that loses anything, where too few
    such queries were seen. Raises DataError for values that are no recalls.
    """
    if not recalls.size or not ((recalls >= 0) & (recalls <= 1)).all():
        raise DataError(f"{recalls.size} values hold something else than recalls from 0 to 1: nothing can be estimated")
    bootstrap_low, bootstrap_high = _bootstrap(recalls, resamples, seed)
    losses = 1 - recalls
    seen = (losses > 0).sum(axis=1)
    share_low, share_high = share_bounds(seen, recalls.shape[1])
    total = losses.sum(axis=1)
    made_up = np.maximum(ENOUGH - seen, 0)
    worst = (total + made_up * np.asarray(severity)) / np.maximum(seen, ENOUGH)
    mean_loss = total / np.maximum(seen, 1)
    return np.minimum(bootstrap_low, 1 - share_high * worst), np.maximum(bootstrap_high, 1 - share_low * mean_loss)


def _bootstrap(recalls: Float64s, resamples: int, seed: int) -> tuple[Float64s, Float64s]:
    """Percentile bounds with the tails that a sample of this size needs; all systems see the same resamples.

    A resampled mean varies too little by (n - 1) / n, and knows nothing of Student's t: the "expanded percentile"
    interval of Hesterberg 2015 (What Teachers Should Know About the Bootstrap) takes tails that make up for both.
    """
    n = recalls.shape[1]
    counts = _resamples(n, resamples, seed)
    tail = norm.cdf(-np.sqrt(n / (n - 1)) * student.ppf(1 - _TAIL, n - 1)) if n > 1 else 0.0
    bounds = [
        np.quantile(counts @ recalls[at : at + _COLUMNS].T / n, [tail, 1 - tail], axis=0)
        for at in range(0, len(recalls), _COLUMNS)
    ]
    low, high = np.clip(np.concatenate(bounds, axis=1), 0.0, 1.0)
    return low, high


def _resamples(n: int, resamples: int, seed: int) -> Float32s:
    """How often each of `n` queries is taken: resamples x n."""
    draw = np.random.default_rng(seed)
    rows = max(1, _DRAWS // n)
    counts = np.empty((resamples, n), np.float32)
    for start in range(0, resamples, rows):
        part = counts[start : start + rows]
        taken = draw.integers(n, size=part.shape) + n * np.arange(len(part))[:, None]
        part[:] = np.bincount(taken.ravel(), minlength=part.size).reshape(part.shape)
    return counts
