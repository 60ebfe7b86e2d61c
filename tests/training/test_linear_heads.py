"""Closed-form heads against the same computations written out with numpy.

Fitted heads are rounded to half precision, hence the tolerances near 1e-3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rag_ese.encoder.export import save_heads
from rag_ese.encoder.gates import TokenGate
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError
from rag_ese.training.fit_heads import FitConfig, main, pool_texts
from rag_ese.training.linear_heads import HeadSettings, _power, _ridge, fit_heads
from rag_ese.types import Float32s

HIDDEN, DEPTH, PAIRS, POOL = 6, 3, 80, 50
Pooled = dict[int, Float32s]


def pooled(count: int, seed: int, shift: float = 0.0) -> Pooled:
    """Random vectors at every layer, with unequal directions, a mean, and layers that depend on each other."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(count, HIDDEN)) * np.linspace(2, 0.5, HIDDEN) + shift
    found = {}
    for layer in range(1, DEPTH + 1):
        mixing = np.random.default_rng(layer).normal(size=(HIDDEN, HIDDEN))
        rows = np.tanh(rows @ mixing) * layer + 0.3 * draw.normal(size=rows.shape) + 0.2
        found[layer] = rows.astype(np.float32)
    return found


@pytest.fixture
def data() -> tuple[Pooled, Pooled, Pooled]:
    """Questions, their passages, and a pool."""
    passages = pooled(PAIRS, 1)
    noise = pooled(PAIRS, 2, shift=0.5)
    questions = {layer: (rows + 0.4 * noise[layer]).astype(np.float32) for layer, rows in passages.items()}
    return questions, passages, pooled(POOL, 3)


def apply(heads: ViewHeads, layer: int, rows: Pooled) -> np.ndarray:
    return heads(layer, {number: torch.from_numpy(each) for number, each in rows.items()}).numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def two_views(
    questions: Pooled, passages: Pooled, rows: Pooled, settings: HeadSettings, depth: int = DEPTH
) -> np.ndarray:
    """[m_n / mean length, sqrt(w) * N(m_v) / mean length], without the rotation, row by row."""
    difference = questions[settings.view].astype(float) - passages[settings.view].astype(float)
    covariance = sum(np.outer(each, each) for each in difference) / len(difference)
    values, vectors = np.linalg.eigh(covariance)
    values = values + settings.noise_floor * values.mean()
    whiten = sum(np.outer(vector, vector) / np.sqrt(value) for value, vector in zip(values, vectors.T, strict=True))
    deep = [*passages[depth].astype(float), *questions[depth].astype(float)]
    shallow = [*passages[settings.view].astype(float), *questions[settings.view].astype(float)]
    middle = np.mean(shallow, axis=0)
    deep_scale = np.mean([np.linalg.norm(row) for row in deep])
    shallow_scale = np.mean([np.linalg.norm(whiten @ (row - middle)) for row in shallow])
    return np.array(
        [
            [*(m / deep_scale), *(np.sqrt(settings.weight) * whiten @ (v - middle) / shallow_scale)]
            for m, v in zip(rows[depth].astype(float), rows[settings.view].astype(float), strict=True)
        ]
    )


@pytest.mark.parametrize("settings", [HeadSettings(), HeadSettings(view=2, weight=0.6, noise_floor=0.3)])
def test_the_rotation_leaves_inner_products_of_the_two_views(
    data: tuple[Pooled, Pooled, Pooled], settings: HeadSettings
) -> None:
    questions, passages, pool = data
    found = apply(fit_heads(*data, settings), DEPTH, pool)
    expected = two_views(questions, passages, pool, settings)
    assert found.shape == expected.shape == (POOL, 2 * HIDDEN)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=4e-3)


def test_dimensions_are_uncorrelated_and_their_energy_falls(data: tuple[Pooled, Pooled, Pooled]) -> None:
    _, passages, pool = data
    settings = HeadSettings(pool_weight=4.0)
    heads = fit_heads(*data, settings)
    of_pairs, of_pool = unit(apply(heads, DEPTH, passages)), unit(apply(heads, DEPTH, pool))
    moments = of_pairs.T @ of_pairs + settings.pool_weight * of_pool.T @ of_pool
    energy = np.diag(moments)
    assert np.abs(moments - np.diag(energy)).max() < 2e-3 * energy.sum()
    assert (np.diff(energy) < 1e-3 * energy.sum()).all()
    assert energy[0] > 10 * energy[-1]


def test_the_pools_weight_turns_the_axes_towards_the_pool(data: tuple[Pooled, Pooled, Pooled]) -> None:
    questions, passages, pool = data
    pool = {layer: (rows * np.linspace(0.1, 3, HIDDEN)).astype(np.float32) for layer, rows in pool.items()}
    energies = [
        (unit(apply(fit_heads(questions, passages, pool, HeadSettings(pool_weight=weight)), DEPTH, pool)) ** 2).sum(0)
        for weight in (0.0, 100.0)
    ]
    assert energies[1][0] > energies[0][0]
    assert (np.diff(energies[1]) < 0.01 * energies[1].sum()).all()


@pytest.mark.parametrize("strength", [1e-3, 0.5])
def test_ridge_is_least_squares_on_the_augmented_system(strength: float) -> None:
    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(40, 7)) @ draw.normal(size=(7, 7)) + 3, draw.normal(size=(40, 4)) - 1
    weight, bias = _ridge(inputs, targets, strength)
    centred = inputs - inputs.mean(axis=0)
    penalty = strength * np.trace(centred.T @ centred) / 7  # in units of the mean eigenvalue; 40 rows on either side
    augmented = np.vstack([centred, np.sqrt(penalty) * np.eye(7)])
    wanted = np.vstack([targets - targets.mean(axis=0), np.zeros((7, 4))])
    expected = np.linalg.lstsq(augmented, wanted, rcond=None)[0].T
    np.testing.assert_allclose(weight, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(bias, targets.mean(axis=0) - expected @ inputs.mean(axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("view", [1, 2])
def test_shallow_heads_predict_the_full_embedding(data: tuple[Pooled, Pooled, Pooled], view: int) -> None:
    settings = HeadSettings(view=view, ridge=0.01)
    heads = fit_heads(*data, settings)
    questions, passages, pool = data
    rows = {layer: np.concatenate([passages[layer], pool[layer], questions[layer]]) for layer in passages}
    targets = unit(apply(heads, DEPTH, rows))
    for layer in range(1, DEPTH):
        inputs = np.concatenate([rows[layer], rows[min(layer, view)]], axis=1).astype(float)
        centred = inputs - inputs.mean(axis=0)
        penalty = settings.ridge * np.trace(centred.T @ centred) / (2 * HIDDEN)
        augmented = np.vstack([centred, np.sqrt(penalty) * np.eye(2 * HIDDEN)])
        wanted = np.vstack([targets - targets.mean(axis=0), np.zeros((2 * HIDDEN, 2 * HIDDEN))])
        expected = centred @ np.linalg.lstsq(augmented, wanted, rcond=None)[0] + targets.mean(axis=0)
        np.testing.assert_allclose(apply(heads, layer, rows), expected, atol=5e-3)
        assert heads.layers_for(layer) == {layer, min(layer, view)}


def test_no_weight_ignores_the_shallow_view(data: tuple[Pooled, Pooled, Pooled]) -> None:
    questions, passages, pool = data
    heads = fit_heads(*data, HeadSettings(weight=0))
    found, deep = apply(heads, DEPTH, pool), pool[DEPTH].astype(float)
    np.testing.assert_allclose(unit(found) @ unit(found).T, unit(deep) @ unit(deep).T, atol=4e-3)
    changed = {**pool, 1: pool[1] * -7 + 1}
    np.testing.assert_array_equal(apply(heads, DEPTH, changed), found)
    weighted = fit_heads(questions, passages, pool, HeadSettings(weight=0.2))
    assert not np.allclose(apply(weighted, DEPTH, changed), apply(weighted, DEPTH, pool), atol=0.1)


def test_powers_of_a_matrix() -> None:
    draw = np.random.default_rng(0).normal(size=(5, 9))
    matrix = draw @ draw.T
    np.testing.assert_allclose(_power(matrix, 1.0, 0.0), matrix, atol=1e-9)
    half = _power(matrix, -0.5, 0.1)
    raised = matrix + 0.1 * np.trace(matrix) / 5 * np.eye(5)
    np.testing.assert_allclose(half @ raised @ half, np.eye(5), atol=1e-9)


def test_saved_and_read_back(data: tuple[Pooled, Pooled, Pooled], tmp_path: Path) -> None:
    heads = fit_heads(*data, HeadSettings(view=2))
    save_heads(heads, tmp_path / "new" / "heads")
    stored = load_file(tmp_path / "new" / "heads" / "heads.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert json.loads((tmp_path / "new" / "heads" / "elastic.json").read_text()) == {"format": 1, "view": 2}
    again = ViewHeads.from_state(2, stored)
    for layer in range(1, DEPTH + 1):
        np.testing.assert_array_equal(apply(again, layer, data[2]), apply(heads, layer, data[2]))


def test_a_view_that_the_model_lacks(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"pairs": "none.jsonl", "pool": "none.json", "out": tmp_path, "device": "cpu"}
    config = FitConfig(view=7, **settings)
    with pytest.raises(ConfigError, match="the view is layer 7, but embedded-raw has layers 1 to 6"):
        pool_texts(config, config.load_encoder())


def test_gates_that_the_model_has_stay_in_front_of_new_heads(folder: Path, tmp_path: Path) -> None:
    """What is fitted was pooled behind the gates, so the new heads must be served behind them, too."""
    noise = torch.Generator().manual_seed(0)
    gates = {n: TokenGate(torch.randn(1, 32, generator=noise).half(), torch.ones(1)) for n in range(1, 5)}
    old = {n: torch.randn(8, 64, generator=noise) for n in gates}
    save_heads(ViewHeads(1, old, {n: torch.zeros(8) for n in gates}, gates), folder)
    words = ["river", "town", "painter", "born", "flows", "through", "where", "which", "long", "word"]
    rows = [{"question": f"where was {a} {b}", "context": f"{a} {b} of the town"} for a in words for b in words]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FitConfig(pairs=str(data), pool=str(data), model=str(folder), out=tmp_path / "heads", device="cpu")
    main(config)
    state = load_file(tmp_path / "heads" / "heads.safetensors")
    for n, gate in gates.items():
        assert torch.equal(state[f"layer.{n}.gate.weight"].float(), gate.weight.float())
    assert state["layer.4.weight"].shape == (64, 64)
