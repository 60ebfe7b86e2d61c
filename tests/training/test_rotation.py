"""The rotation: orthogonal, and better than principal axes where near passages differ in what varies little."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError, DataError
from rag_ese.training.rotate_heads import RotateConfig, main
from rag_ese.training.rotation import RotationSettings, fit_rotation

WIDTH = 16
QUICK = RotationSettings(widths=(4,), steps=80, questions=64, passages=300, lr=5e-3)


def clustered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Questions and passages in 30 far clusters (8 dimensions, much variance); 4 others tell their members apart."""
    centres = rng.normal(size=(30, 8))
    group = rng.integers(30, size=300)
    fine = rng.normal(size=(300, 4)) * 0.5
    passages = np.concatenate([centres[group] * 0.6, fine, rng.normal(size=(300, 4)) * 0.05], axis=1)
    questions = passages + rng.normal(size=passages.shape) * 0.02
    return questions.astype(np.float32), passages.astype(np.float32)


def divergence(questions: np.ndarray, passages: np.ndarray, width: int, sharpness: float) -> float:
    """KL(full || prefix) of the distributions over passages, mean over the questions; written out in numpy."""

    def log_softmax(scores: np.ndarray) -> np.ndarray:
        shifted = scores - scores.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        left, right = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (left, right))
        return sharpness * left.astype(np.float64) @ right.T

    full = log_softmax(cosines(questions, passages))
    prefix = log_softmax(cosines(questions[:, :width], passages[:, :width]))
    return float((np.exp(full) * (full - prefix)).sum(axis=1).mean())


def test_the_rotation_is_orthogonal_and_seeded() -> None:
    data = clustered(np.random.default_rng(0))
    rotation = fit_rotation(*data, QUICK)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(WIDTH), atol=2e-6)
    np.testing.assert_array_equal(rotation, fit_rotation(*data, QUICK))
    other = RotationSettings(**{**vars(QUICK), "seed": 1, "passages": 100})
    assert not np.array_equal(rotation, fit_rotation(*data, other))


def test_a_prefix_orders_unseen_passages_better_than_principal_axes_do() -> None:
    rng = np.random.default_rng(1)
    questions, passages = clustered(rng)
    unit = passages / np.linalg.norm(passages, axis=1, keepdims=True)
    axes = np.linalg.eigh(unit.T @ unit)[1][:, ::-1]
    learned = fit_rotation(questions[:200], passages[:200], QUICK)
    before = divergence(questions[200:] @ axes, passages[200:] @ axes, 4, 40)
    after = divergence(questions[200:] @ learned, passages[200:] @ learned, 4, 40)
    assert after < 0.8 * before


def test_without_steps_the_axes_are_the_principal_ones() -> None:
    questions, passages = clustered(np.random.default_rng(2))
    still = fit_rotation(questions, passages, RotationSettings(**{**vars(QUICK), "lr": 0.0}))
    unit = passages / np.linalg.norm(passages, axis=1, keepdims=True)
    energy = ((unit @ still) ** 2).sum(axis=0)
    np.testing.assert_allclose(energy, np.linalg.eigvalsh((unit.T @ unit).astype(np.float64))[::-1], rtol=1e-3)


def test_no_width_below_the_full_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 wide"):
        fit_rotation(*clustered(np.random.default_rng(0)), RotationSettings(widths=(16, 32)))


def test_rotated_heads_give_rotated_embeddings_at_every_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = ViewHeads(
        1,
        {layer: torch.randn(6, 8, generator=generator) for layer in (1, 2, 3)},
        {layer: torch.randn(6, generator=generator) for layer in (1, 2, 3)},
    )
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    pooled = {layer: torch.randn(5, 4, generator=generator) for layer in (1, 2, 3)}
    for layer in (1, 2, 3):
        torch.testing.assert_close(heads.rotated(rotation)(layer, pooled), heads(layer, pooled) @ rotation)


def write_pairs(path: Path, count: int) -> Path:
    nouns = ["amber", "bridge", "candle", "delta", "ember", "forest", "garden", "harbour", "island", "jungle"]
    names = [f"{nouns[i % 10]} number {i}" for i in range(count)]
    rows = [{"question": f"where is the {name}", "context": f"The {name} is in town {len(name)}."} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_keeps_the_full_size_and_changes_the_prefix(tmp_path: Path) -> None:
    texts = write_pairs(tmp_path / "pairs.jsonl", 40)
    out = tmp_path / "rotated"
    main(RotateConfig.model_validate({"texts": str(texts), "out": out, "steps": 3, "dtype": "float32"}))
    before, after = ElasticEncoder.load("embedded", "float32"), ElasticEncoder.load(str(out), "float32")
    sample = ["The harbour froze in winter.", "Candles were sold at the bridge.", "Nobody saw the island."]
    for layer in (2, 6):
        old, new = (each.encode_layers(sample, [layer])[layer] for each in (before, after))
        np.testing.assert_allclose(new @ new.T, old @ old.T, rtol=5e-3, atol=1e-2)  # heads are stored in half precision
        assert not np.allclose(new[:, :64], old[:, :64], atol=1e-2)


def test_a_model_without_linear_heads_is_refused(tmp_path: Path) -> None:
    texts = write_pairs(tmp_path / "pairs.jsonl", 4)
    with pytest.raises(ConfigError, match="no linear heads"):
        main(RotateConfig.model_validate({"model": "embedded-raw", "texts": str(texts), "out": tmp_path / "out"}))


def test_texts_that_are_all_excluded_are_refused(tmp_path: Path) -> None:
    texts = write_pairs(tmp_path / "pairs.jsonl", 4)
    options = {"texts": str(texts), "exclude": str(texts), "out": tmp_path / "out"}
    with pytest.raises(DataError, match="no row"):
        main(RotateConfig.model_validate(options))
    assert not (tmp_path / "out").exists()
