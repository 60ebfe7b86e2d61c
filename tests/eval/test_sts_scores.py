"""STS scores against their definitions written out, and the bootstrap against scipy on the resampled pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from rag_ese.data.sts import PairSet
from rag_ese.errors import DataError
from rag_ese.eval import sts_bootstrap
from rag_ese.eval.controls import pca_rotation, random_rotation
from rag_ese.eval.sts_bootstrap import interval, resampled_averages
from rag_ese.eval.sts_compare import differences
from rag_ese.eval.sts_results import ModelScores
from rag_ese.eval.sts_scores import Sentences, prefix_cosines, spearman, unit
from rag_ese.types import Size


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def pairs(name: str, first: str, second: str) -> PairSet:
    return PairSet(name, tuple(first), tuple(second), tuple(map(float, range(len(first)))), "r")


def test_each_sentence_stands_once() -> None:
    sentences = Sentences.of([pairs("x", "aab", "bca"), pairs("y", "dc", "ad")])
    assert sorted(sentences.texts) == ["a", "b", "c", "d"]
    for name, first, second in [("x", "aab", "bca"), ("y", "dc", "ad")]:
        sides = ["".join(sentences.texts[place] for place in side) for side in sentences.places[name]]
        assert sides == [first, second]


def test_cosines_are_cut_first_and_normalised_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ese.eval.sts_scores._CHUNK", 3)
    vectors = normal(6, 8).astype(np.float32)
    first, second = np.array([0, 1, 2, 3, 0, 4, 5]), np.array([1, 2, 3, 3, 5, 0, 2])
    for dim, row in zip([1, 3, 8], prefix_cosines(vectors, first, second, [1, 3, 8]), strict=True):
        for a, b, cosine in zip(first, second, row, strict=True):
            x, y = vectors[a, :dim].astype(float), vectors[b, :dim].astype(float)
            assert cosine == pytest.approx(x @ y / np.sqrt(x @ x) / np.sqrt(y @ y), abs=1e-12)
    vectors[0, :3] = 0
    assert prefix_cosines(vectors, first, second, [3])[0, 0] == 0
    cut = Sentences.of([pairs("x", "ab", "bc")]).cosines(vectors, [2, 8])
    assert cut.keys() == {2, 8} and cut[2]["x"].shape == (2,)


def test_spearman_has_average_ranks_for_ties() -> None:
    cosines, gold = np.array([0.1, 0.5, 0.5, 0.2, 0.9]), [1.0, 2.0, 4.0, 2.0, 2.0]
    written_out = np.corrcoef([1, 3.5, 3.5, 2, 5], [1, 3, 5, 3, 3])[0, 1]
    assert spearman(cosines, gold, "x") == pytest.approx(100 * written_out)
    with pytest.raises(DataError, match=r"^embedded at L1-d2, x: all 3 cosines are 0.5, so no rank correlation"):
        spearman(np.full(3, 0.5), [1.0, 2.0, 3.0], "embedded at L1-d2, x")


def test_pca_rotation_orders_variance_and_keeps_inner_products() -> None:
    spread = np.array([0.1, 3.0, 0.5, 1.0])
    hidden, _ = np.linalg.qr(normal(4, 4, seed=1))
    vectors = (normal(5000, 4) * spread) @ hidden.T + 7  # a mean that must not be taken for an axis
    rotation = pca_rotation(vectors.astype(np.float32))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(np.cov((vectors @ rotation).T), np.diag([9, 1, 0.25, 0.01]), atol=0.5, rtol=0)
    variances = np.var(vectors @ rotation, axis=0)
    assert (np.diff(variances) < 0).all() and variances == pytest.approx([9, 1, 0.25, 0.01], rel=0.1)
    for axis, wanted in zip(rotation.T, hidden[:, [1, 3, 2, 0]].T, strict=True):
        assert abs(axis @ wanted) == pytest.approx(1, abs=1e-2) and axis[np.abs(axis).argmax()] > 0
    np.testing.assert_allclose((vectors @ rotation) @ (vectors @ rotation).T, vectors @ vectors.T, rtol=1e-9)


def test_random_rotation() -> None:
    rotation = random_rotation(5, 3)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(5), atol=1e-12)
    assert (rotation == random_rotation(5, 3)).all() and not np.allclose(rotation, random_rotation(5, 4))
    # Uniform: the mean is 0 and the mean square 1/d in every place, which plain QR misses on the diagonal.
    many = np.array([random_rotation(3, seed) for seed in range(3000)])
    assert many.mean(axis=0) == pytest.approx(np.zeros((3, 3)), abs=0.05)
    assert (many**2).mean(axis=0) == pytest.approx(np.full((3, 3), 1 / 3), abs=0.03)


def test_rotations_keep_the_full_size_and_change_the_prefix() -> None:
    vectors = normal(60, 12).astype(np.float32)
    first, second = np.arange(30), np.arange(30, 60)
    before = prefix_cosines(vectors, first, second, [4, 12])
    for rotation in (pca_rotation(unit(vectors)), random_rotation(12, 0)):
        after = prefix_cosines(vectors @ rotation, first, second, [4, 12])
        np.testing.assert_allclose(after[1], before[1], atol=1e-12)
        assert np.abs(after[0] - before[0]).max() > 0.1
    with pytest.raises(DataError, match=r"at least 2 finite vectors, got an array of shape \(1, 12\)"):
        pca_rotation(vectors[:1])


def test_unit() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def tied(pairs: int, seed: int) -> np.ndarray:
    return np.round(normal(pairs, seed=seed), 1)


def test_resampled_correlations_are_those_of_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every resample is drawn out pair by pair and ranked by scipy; with ties, without, and over two sets."""
    monkeypatch.setattr(sts_bootstrap, "_ROWS", 7)
    drawn: dict[int, list[np.ndarray]] = {}
    real = sts_bootstrap._draw

    def noted(draw: np.random.Generator, count: int, rows: int) -> np.ndarray:
        counts = real(draw, count, rows)
        drawn.setdefault(count, []).append(counts)
        return counts

    monkeypatch.setattr(sts_bootstrap, "_draw", noted)
    gold = {"x": tied(40, 0), "y": tied(25, 1)}
    cosines = {
        "smooth": {name: scores + normal(len(scores), seed=2) for name, scores in gold.items()},
        "tied": {name: np.round(scores + normal(len(scores), seed=3)) for name, scores in gold.items()},
    }
    found = resampled_averages(cosines, gold, 20)
    for key, by_set in cosines.items():
        expected = np.zeros(20)
        for name, scores in gold.items():
            counts = np.concatenate(drawn[len(scores)], axis=1).astype(int)
            assert counts.shape == (len(scores), 20) and (counts.sum(axis=0) == len(scores)).all()
            for resample, times in enumerate(counts.T):
                rows = np.repeat(np.arange(len(scores)), times)
                expected[resample] += 50 * spearmanr(by_set[name][rows], scores[rows]).statistic
        np.testing.assert_allclose(found[key], expected, atol=1e-9)


def test_the_interval_is_that_of_every_resample() -> None:
    gold, cosines = np.array([1.0, 2, 3, 4]), np.array([0.1, 0.3, 0.2, 0.9])
    every = []
    for choice in itertools.product(range(4), repeat=4):
        a, b = rankdata(gold[[*choice]]), rankdata(cosines[[*choice]])
        every.append(100 * np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else np.nan)
    found = resampled_averages({"m": {"x": cosines}}, {"x": gold}, 40_000)["m"]
    assert np.isnan(found).mean() == pytest.approx(np.isnan(every).mean(), abs=0.005)  # all four the same pair
    assert np.nanmean(found) == pytest.approx(np.nanmean(every), abs=0.5)
    assert interval(found) == pytest.approx(tuple(np.nanquantile(every, [0.025, 0.975])))
    assert interval(np.array([np.nan])) is None


def test_the_draw_depends_on_the_seed_and_not_on_what_is_asked() -> None:
    gold = {"x": tied(30, 0)}
    one, two = ({"x": normal(30, seed=seed)} for seed in (1, 2))
    alone = resampled_averages({"a": one}, gold, 50)["a"]
    np.testing.assert_array_equal(resampled_averages({"b": two, "a": one}, gold, 50)["a"], alone)
    assert not np.allclose(resampled_averages({"a": one}, gold, 50, seed=1)["a"], alone)


def model(
    name: str, width: int, dims: list[int], cosines: dict[Size, dict[str, np.ndarray]], gold: dict
) -> ModelScores:
    scores = {size: {s: spearman(c, gold[s], s) for s, c in by_set.items()} for size, by_set in cosines.items()}
    return ModelScores(name, "r", "float32", 3, width, [1, 2, 3], dims, scores, {}, {})


def test_differences() -> None:
    gold = {"x": normal(300), "y": normal(200, seed=1)}

    def made(noise: float, dims: list[int], seed: int) -> dict[Size, dict[str, np.ndarray]]:
        sizes = [Size(layer, dim) for layer in (1, 2, 3) for dim in dims]
        return {
            size: {n: g + noise * normal(len(g), seed=seed + hash(size) % 999) for n, g in gold.items()}
            for size in sizes
        }

    cosines = [made(0.3, [64, 100, 128], 5), made(3.0, [64, 100], 7), made(0.3, [64, 100, 128], 5)]
    models = [
        model("good", 128, [64, 100, 128], cosines[0], gold),
        model("bad", 100, [64, 100], cosines[1], gold),
        model("same", 128, [64, 100, 128], cosines[2], gold),
    ]
    found = {(each.other, each.layers, each.dim): each for each in differences(models, cosines, gold, 200, 0)}
    last, shallow = [("last", "64"), ("last", "100"), ("last", "full")], [("shallow", "64"), ("shallow", "full")]
    assert [key[1:] for key in found if key[0] == "bad"] == last + shallow
    full = found["bad", "last", "full"]
    mine, other = (np.mean([*m.scores[Size(3, d)].values()]) for m, d in ((models[0], 128), (models[1], 100)))
    assert full.difference == pytest.approx(mine - other) and full.difference > 20
    assert full.low is not None and full.high is not None and 0 < full.low < full.difference < full.high
    shallow_full = found["bad", "shallow", "full"].difference
    means = [
        [np.mean([*m.scores[Size(n, d)].values()]) for n in (1, 2)] for m, d in ((models[0], 128), (models[1], 100))
    ]
    assert shallow_full == pytest.approx(np.mean(means[0]) - np.mean(means[1]))
    equal = found["same", "last", "full"]
    assert (equal.difference, equal.low, equal.high) == (0, 0, 0)
    assert differences(models[:1], cosines[:1], gold, 100, 0) == []
