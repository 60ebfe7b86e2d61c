"""Elastic heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rag_ese.encoder.checkpoint import load_checkpoint
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.export import save_heads
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError
from rag_ese.types import Size


def make(view: int = 2, width: int = 40, hidden: int = 32, depth: int = 4) -> ViewHeads:
    noise = torch.Generator().manual_seed(0)
    layers = range(1, depth + 1)
    weights = {layer: torch.randn(width, 2 * hidden, generator=noise) for layer in layers}
    return ViewHeads(view, weights, {layer: torch.randn(width, generator=noise) for layer in layers})


def test_no_head_needs_a_deeper_layer_than_its_own() -> None:
    heads = make(view=2)
    assert [heads.layers_for(layer) for layer in (1, 2, 3, 4)] == [{1}, {2}, {2, 3}, {2, 4}]


def test_a_head_maps_its_layer_beside_the_view() -> None:
    heads, pooled = make(view=2), {layer: torch.full((3, 32), float(layer)) for layer in (1, 2, 4)}
    for layer, view in ((1, 1), (2, 2), (4, 2)):
        weight = heads.weights[layer]
        expected = layer * weight[:, :32].sum(dim=1) + view * weight[:, 32:].sum(dim=1) + heads.biases[layer]
        torch.testing.assert_close(heads(layer, pooled), expected.expand(3, 40), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_heads_are_the_same(tmp_path: Path, folder: Path, half: bool) -> None:
    heads = make()
    if half:
        heads = ViewHeads.from_state(2, {name: tensor.half() for name, tensor in heads.state().items()})
    save_heads(heads, tmp_path / "heads")
    loaded = load_checkpoint(folder, torch.float32, tmp_path / "heads").head
    assert isinstance(loaded, ViewHeads)
    assert (loaded.view, loaded.width) == (2, 40)
    for name, tensor in heads.state().items():
        assert torch.equal(loaded.state()[name], tensor)
    assert (tmp_path / "heads" / "heads.safetensors").stat().st_size < (30_000 if half else 60_000)


def test_a_folders_own_heads_are_used(folder: Path) -> None:
    plain = ElasticEncoder.load(folder, "float32", "cpu")
    save_heads(make(), folder)
    elastic = ElasticEncoder.load(folder, "float32", "cpu")
    assert (plain.width, elastic.width) == (32, 40)
    pooled = elastic.pool_layers(["the river"], [2, 3])
    expected = make()(3, {layer: torch.from_numpy(rows) for layer, rows in pooled.items()})
    np.testing.assert_allclose(
        elastic.encode(["the river"], [Size(3, 40)], normalize=False)[Size(3, 40)], expected, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["layer.3.weight", "layer.3.bias"])
def test_a_missing_tensor_is_named(name: str) -> None:
    state = make().state()
    del state[name]
    with pytest.raises(ModelError, match=f"lack the tensor '{name}'"):
        ViewHeads.from_state(1, state)


@pytest.mark.parametrize("state", [{}, {"something": torch.ones(1)}, {"layer.x.weight": torch.ones(1)}])
def test_tensors_of_something_else(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError, match=r"need layer\.N\.weight and layer\.N\.bias"):
        ViewHeads.from_state(1, state)


@pytest.mark.parametrize("heads", [make(depth=3), make(hidden=16), make(depth=5)])
def test_heads_of_another_model_are_refused(tmp_path: Path, folder: Path, heads: ViewHeads) -> None:
    save_heads(heads, tmp_path / "heads")
    with pytest.raises(ModelError, match=r"do not fit the model.*it has layers 1 to 4 and needs 64 columns"):
        load_checkpoint(folder, torch.float32, tmp_path / "heads")
