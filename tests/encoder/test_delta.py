"""A delta folder is a model: it changes just what it holds, and belongs to one base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.delta import DELTA_FILE, ELASTIC_FILE, save_delta
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError, StorageError
from rag_ese.types import Size

TEXTS = ["The river flows through the town.", "Where was the painter born?"]
CHANGED = "encoder.layer.0.output.dense.weight"


def heads(width: int = 20) -> ViewHeads:
    """Heads for the tiny model: 4 layers of 32 dimensions, rounded to half precision as they are stored."""
    draw = torch.Generator().manual_seed(0)
    weights = {layer: torch.randn(width, 64, generator=draw).half().float() for layer in range(1, 5)}
    return ViewHeads(1, weights, {layer: torch.zeros(width) for layer in weights})


@pytest.fixture
def delta(folder: Path, tmp_path: Path) -> Path:
    base = ElasticEncoder.load(folder, "float32", "cpu")
    weight = dict(base.checkpoint.blocks.model.named_parameters())[CHANGED]
    save_delta(tmp_path / "delta", heads(), {CHANGED: weight + 0.25}, str(folder), base.revision)
    return tmp_path / "delta"


def test_it_loads_as_its_base_with_other_weights(folder: Path, delta: Path) -> None:
    base, trained = (ElasticEncoder.load(path, "float32", "cpu") for path in (folder, delta))
    before, after = (dict(each.checkpoint.blocks.model.named_parameters()) for each in (base, trained))
    assert [name for name in before if not torch.equal(before[name], after[name])] == [CHANGED]
    assert torch.allclose(after[CHANGED], before[CHANGED] + 0.25, atol=1e-3)
    assert (trained.width, trained.depth) == (20, 4) and trained.revision != base.revision
    assert np.abs(trained.encode(TEXTS, [Size(1, 8)])[Size(1, 8)]).max() > 0


def test_without_changed_weights_only_the_heads_differ(folder: Path, tmp_path: Path) -> None:
    base = ElasticEncoder.load(folder, "float32", "cpu")
    save_delta(tmp_path / "heads", heads(), {}, str(folder), base.revision)
    assert not (tmp_path / "heads" / DELTA_FILE).exists()
    found = ElasticEncoder.load(tmp_path / "heads", "float32", "cpu").encode_layers(TEXTS, [3])[3]
    pooled = base.pool_layers(TEXTS, [1, 3])
    expected = heads()(3, {layer: torch.from_numpy(each) for layer, each in pooled.items()}).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_another_base_is_refused(folder: Path, delta: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    with pytest.raises(ModelError, match=r"were trained from revision .* of their base model, but"):
        ElasticEncoder.load(delta)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [(CHANGED, (2, 2), "which the base has in another shape"), ("no.such", (2, 2), "which the base does not have")],
)
def test_weights_that_do_not_fit(delta: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    save_file({name: torch.zeros(shape)}, delta / DELTA_FILE)
    with pytest.raises(ModelError, match=message):
        ElasticEncoder.load(delta)


def test_damaged_files(delta: Path) -> None:
    (delta / DELTA_FILE).write_bytes(b"short")
    with pytest.raises(ModelError, match="cannot load the trained weights"):
        ElasticEncoder.load(delta)
    (delta / ELASTIC_FILE).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        ElasticEncoder.load(delta)


def test_a_base_that_would_go_round_in_circles(delta: Path) -> None:
    about = json.loads((delta / ELASTIC_FILE).read_text())
    (delta / ELASTIC_FILE).write_text(json.dumps({**about, "base": "embedded"}))
    with pytest.raises(ModelError, match="names the base 'embedded'"):
        ElasticEncoder.load(delta)


def test_stored_in_half_precision(delta: Path) -> None:
    assert {each.dtype for each in load_file(delta / DELTA_FILE).values()} == {torch.float16}


def test_a_refusing_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"not a folder|in the way"):
        save_delta(tmp_path / "file", heads(), {}, "base", "r")
