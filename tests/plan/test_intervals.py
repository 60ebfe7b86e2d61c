"""The promised interval: against its definition, at its edges, and in a simulation of many plans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from rag_ese.errors import DataError
from rag_ese.plan.candidates import Candidate, severity
from rag_ese.plan.intervals import intervals, share_bounds
from rag_ese.retriever import Funnel, Stage
from rag_ese.types import Size

COARSE, FULL = Size(2, 8), Size(6, 32)


@pytest.mark.parametrize(("count", "n"), [(0, 200), (3, 200), (100, 200), (199, 200), (200, 200), (0, 1)])
def test_the_bounds_of_a_share_are_where_the_tails_are(count: int, n: int) -> None:
    low, high = (float(bound) for bound in share_bounds(count, n))
    if count:
        assert binom.sf(count - 1, n, low) == pytest.approx(0.025)
    else:
        assert low == 0
    if count < n:
        assert binom.cdf(count, n, high) == pytest.approx(0.025)
    else:
        assert high == 1


def test_nothing_lost_is_not_nothing_to_lose() -> None:
    perfect = np.ones((2, 200))
    low, high = intervals(perfect, [1.0, 0.1])
    possible = 1 - 0.025 ** (1 / 200)  # the share of which none is seen among 200 once in forty times
    assert low == pytest.approx([1 - possible, 1 - 0.1 * possible]) and high.tolist() == [1, 1]
    fewer, _ = intervals(np.ones((1, 50)))
    assert fewer[0] < low[0]


def test_many_losses_are_left_to_the_bootstrap() -> None:
    recalls = np.random.default_rng(0).beta(4, 2, size=(1, 2000))
    low, high = intervals(recalls)
    error = 1.96 * recalls.std() / 2000**0.5
    assert low[0] == pytest.approx(recalls.mean() - error, abs=0.001)
    assert high[0] == pytest.approx(recalls.mean() + error, abs=0.001)


def test_the_severity_of_others_counts_only_where_losses_are_rare() -> None:
    rare, often = np.ones((1, 300)), np.ones((1, 300))
    rare[0, :2], often[0, :30] = 0.8, 0.8
    for recalls, depends in ((rare, True), (often, False)):
        assert (intervals(recalls, 1.0)[0] < intervals(recalls, 0.2)[0]).all() == depends


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_what_is_no_recall(bad: float) -> None:
    with pytest.raises(DataError, match="recalls from 0 to 1"):
        intervals(np.array([[1.0, bad]]))


def coverage(population: npt.NDArray[np.float64], n: int, repeats: int, seed: int) -> npt.NDArray[np.float64]:
    """Per system (population: systems x queries, of one chain with growing cuts), how often the truth is inside."""
    draw = np.random.default_rng(seed)
    truth = population.mean(axis=1)
    inside = np.zeros(len(population))
    for repeat in range(repeats):
        sample = population[:, draw.integers(population.shape[1], size=n)]
        chain = [
            Candidate(Funnel((Stage(COARSE, 10 + cut), Stage(FULL, 10))), recalls) for cut, recalls in enumerate(sample)
        ]
        low, high = intervals(sample, severity((COARSE, FULL), chain), 400, repeat)
        inside += (low <= truth + 1e-12) & (truth <= high + 1e-12)
    return inside / repeats


@pytest.mark.parametrize("share", [0.003, 0.02, 0.2])
def test_coverage_when_losses_are_total(share: float) -> None:
    """The hardest case for a bounded mean: few queries, and they lose everything."""
    population = (np.arange(10_000) >= share * 10_000).astype(np.float64)[None]
    assert coverage(population, 100, 300, 1).min() >= 0.93


@pytest.mark.parametrize("noise", [0.3, 0.6])
@pytest.mark.parametrize("n", [60, 200])
def test_coverage_over_a_synthetic_store(n: int, noise: float) -> None:
    """Recall@10 of a coarse search at growing shortlists, from vectors: at least 9 of 10 intervals hold the truth."""
    draw = np.random.default_rng(5)
    scale = np.linspace(1.0, noise, 24)
    passages = draw.normal(size=(500, 24)) * scale
    queries = passages[draw.integers(500, size=4000)] + 0.7 * draw.normal(size=(4000, 24)) * scale
    exact = np.argsort(-(queries @ passages.T), axis=1)[:, :10]
    order = np.argsort(-(queries[:, :12] @ passages[:, :12].T), axis=1)
    places = np.take_along_axis(np.argsort(order, axis=1), exact, 1)
    cuts = (10, 15, 20, 30, 50, 70, 100, 150)
    population = np.stack([(places < cut).mean(axis=1) for cut in cuts])
    assert population[0].mean() < 0.9 and population[-1].mean() > 0.95  # from much lost to hardly anything
    assert coverage(population, n, 500, 11).min() >= 0.9
