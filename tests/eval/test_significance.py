"""The bootstrap against exact enumeration, the normal approximation and its own definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rag_ese.errors import ConfigError, DataError
from rag_ese.eval import significance
from rag_ese.eval.significance import bootstrap_mean, paired_difference


def normal(n: int, mean: float, seed: int = 0) -> list[float]:
    return [float(value) for value in np.random.default_rng(seed).normal(mean, 1.0, n)]


def test_agrees_with_the_enumeration_of_every_resample() -> None:
    differences = [0.5, -0.25, 0.125, 1.0]
    means = np.array([np.mean(choice) for choice in itertools.product(differences, repeat=4)])
    result = paired_difference(differences, [0.0] * 4, resamples=200_000)
    assert result.mean == pytest.approx(0.34375) and result.n == 4
    assert result.low == pytest.approx(np.quantile(means, 0.025)) and result.high == pytest.approx(
        np.quantile(means, 0.975)
    )
    assert result.p == pytest.approx(2 * np.mean(means <= 0), abs=0.003)


def test_interval_agrees_with_the_normal_approximation() -> None:
    values = normal(2000, 0.3)
    result = bootstrap_mean(values)
    half = 1.96 * np.std(values) / np.sqrt(2000)
    assert result.mean == pytest.approx(np.mean(values)) and result.p is None
    assert result.low == pytest.approx(result.mean - half, abs=0.1 * half)
    assert result.high == pytest.approx(result.mean + half, abs=0.1 * half)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        result = bootstrap_mean(normal(50, 0.0, seed), resamples=500, seed=seed)
        covered += result.low <= 0 <= result.high
    # 95% of 200 is 190, standard deviation 3; the percentile interval is slightly narrow at n = 50.
    assert 176 <= covered <= 199


def test_pairing_matters() -> None:
    b = normal(100, 0.0)
    a = [value + 0.1 + 0.01 * noise for value, noise in zip(b, normal(100, 0.0, 1), strict=True)]
    paired = paired_difference(a, b)
    assert paired.low > 0.09 and paired.high < 0.11
    assert paired.p == pytest.approx(2 / 10_001)
    shuffled = paired_difference(a, b[::-1])
    assert shuffled.low < 0 < shuffled.high and shuffled.p is not None and shuffled.p > 0.05


def test_swapping_the_systems_mirrors_the_result() -> None:
    a, b = normal(30, 0.2), normal(30, 0.0, 1)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert (backward.mean, backward.low, backward.high) == pytest.approx((-forward.mean, -forward.high, -forward.low))
    assert backward.p == forward.p


def test_equal_systems_do_not_differ() -> None:
    values = normal(20, 0.5)
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 1.0, 20)


def test_none_is_left_out_pairwise() -> None:
    a, b = [1.0, None, 0.5, 0.0, 1.0], [0.5, 1.0, None, 0.0, 0.0]
    kept = paired_difference([1.0, 0.0, 1.0], [0.5, 0.0, 0.0])
    assert paired_difference(a, b) == kept and kept.n == 3 and kept.mean == pytest.approx(0.5)
    assert bootstrap_mean([None, 1.0, 3.0]) == bootstrap_mean([1.0, 3.0])


def test_the_seed_decides() -> None:
    values = normal(40, 0.0)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_the_chunks_only_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(50, 0.1)
    drawn = []
    real = np.random.default_rng

    class Counting:
        def __init__(self, seed: int) -> None:
            self.generator = real(seed)

        def integers(self, high: int, size: tuple[int, int]) -> np.ndarray:
            drawn.append(size)
            return self.generator.integers(high, size=size)

    monkeypatch.setattr(significance, "_CHUNK", 1000)
    monkeypatch.setattr(np.random, "default_rng", Counting)
    chunked = bootstrap_mean(values, resamples=2010)
    assert sum(rows for rows, _ in drawn) == 2010 and all(rows * columns <= 1000 for rows, columns in drawn)
    monkeypatch.undo()
    whole = bootstrap_mean(values, resamples=2010)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high))


def test_errors() -> None:
    with pytest.raises(DataError, match="2 and 1 values cannot be paired"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="0 questions have a value"):
        paired_difference([1.0, None], [None, 1.0])
    with pytest.raises(DataError, match="0 questions"):
        bootstrap_mean([])
    with pytest.raises(DataError, match="1 of 2 values are not finite"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(ConfigError, match="0 resamples"):
        bootstrap_mean([1.0], resamples=0)
