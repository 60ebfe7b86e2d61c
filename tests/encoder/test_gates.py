"""Token gates: the formula, open gates, files, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.delta import ELASTIC_FILE, save_delta
from rag_ese.encoder.export import save_heads
from rag_ese.encoder.gates import TokenGate, open_gate
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError
from rag_ese.types import Size

TEXTS = ["where was the painter born", "the river flows through a town", "one word", ""]


def gate(seed: int = 0, hidden: int = 32) -> TokenGate:
    noise = torch.Generator().manual_seed(seed)
    return TokenGate(torch.randn(1, hidden, generator=noise), torch.randn(1, generator=noise))


def heads(gates: dict[int, TokenGate] | None = None) -> ViewHeads:
    noise = torch.Generator().manual_seed(1)
    weights = {layer: torch.randn(40, 64, generator=noise) for layer in range(1, 5)}
    return ViewHeads(2, weights, {layer: torch.randn(40, generator=noise) for layer in weights}, gates)


def gated() -> ViewHeads:
    return heads({layer: gate(layer) for layer in range(1, 5)})


def test_the_formula() -> None:
    states, one = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(2)), gate()
    h, w, b = states.double().numpy(), one.weight[0].double().numpy(), one.bias.double().numpy()
    weights = (1 + np.exp(3.0)) / (1 + np.exp(-(h @ w + b - 3)))
    np.testing.assert_allclose(one(states).numpy(), h * weights[..., None], rtol=1e-5, atol=1e-6)
    assert weights.max() < 1 + np.exp(3.0) and weights.max() / weights.min() > 100


def test_an_open_gate_changes_nothing(tiny: ElasticEncoder) -> None:
    states = torch.randn(2, 4, 32)
    torch.testing.assert_close(open_gate(32)(states), states)
    found = []
    for gates in (None, {layer: open_gate(32) for layer in range(1, 5)}):
        tiny.replace_head(heads(gates))
        found.append(tiny.encode(TEXTS, [Size(2, 40), Size(4, 16)]))
    for size, vectors in found[0].items():
        np.testing.assert_allclose(found[1][size], vectors, atol=1e-6)


def test_states_keep_their_precision() -> None:
    states = torch.randn(2, 4, 32)
    half = gate()(states.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), gate()(states), rtol=0.1, atol=0.05)


def test_glu_over_the_linear_form_is_the_gate() -> None:
    states, (weight, bias) = torch.randn(2, 4, 32), gate().as_linear()
    assert weight.shape == (64, 32)
    torch.testing.assert_close(torch.nn.GLU()(torch.nn.functional.linear(states, weight, bias)), gate()(states))


def test_each_layer_is_pooled_behind_its_own_gate(tiny: ElasticEncoder) -> None:
    """Against the pooled vectors of token states, one text at a time, in numpy."""
    tiny.replace_head(heads())
    states = {}
    for layer in (2, 4):
        tiny._head.weigh = lambda number, hidden, layer=layer: states.setdefault((number, layer), hidden)  # type: ignore
        tiny.pool_layers(TEXTS[:1], [layer])
    tiny.replace_head(gated())
    for layer, found in tiny.pool_layers(TEXTS[:1], [2, 4]).items():
        own = gate(layer)
        h = states[layer, layer][0].numpy()
        weights = (1 + np.exp(3.0)) / (1 + np.exp(-(h @ own.weight[0].numpy() + own.bias.numpy() - 3)))
        np.testing.assert_allclose(found[0], (h * weights[:, None]).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_gates_are_saved_turned_and_cut_with_the_heads(folder: Path, tmp_path: Path) -> None:
    save_heads(gated(), folder)
    assert json.loads((folder / ELASTIC_FILE).read_text())["format"] == 2
    loaded = ElasticEncoder.load(folder, "float32", "cpu")
    head = loaded.checkpoint.head
    assert isinstance(head, ViewHeads)
    for name, tensor in gated().state().items():
        assert torch.equal(head.state()[name], tensor)
    before = loaded.encode(TEXTS, [Size(3, 40)])[Size(3, 40)]
    turn = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(3)))[0]
    loaded.replace_head(head.rotated(turn))
    after = loaded.encode(TEXTS, [Size(3, 40)])[Size(3, 40)]
    np.testing.assert_allclose(after, before @ turn.numpy(), atol=1e-5)
    assert {*head.cut(Size(2, 8)).state()} == {
        f"layer.{layer}.{part}" for layer in (1, 2) for part in ("weight", "bias", "gate.weight", "gate.bias")
    }


def test_heads_without_gates_are_what_older_versions_read(folder: Path, tmp_path: Path) -> None:
    save_heads(heads(), folder)
    save_delta(tmp_path / "delta", heads(), {}, "x", "y")
    for path in (folder, tmp_path / "delta"):
        assert json.loads((path / ELASTIC_FILE).read_text())["format"] == 1
    save_delta(tmp_path / "delta", gated(), {}, "x", "y")
    assert json.loads((tmp_path / "delta" / ELASTIC_FILE).read_text())["format"] == 2
    (folder / ELASTIC_FILE).write_text('{"format": 3, "view": 1}')
    with pytest.raises(ModelError, match="has format 3, this version reads 1 and 2"):
        ElasticEncoder.load(folder)


def test_gates_that_do_not_fit(folder: Path) -> None:
    save_heads(heads({layer: gate(hidden=16) for layer in range(1, 5)}), folder)
    with pytest.raises(ModelError, match=r"token gates in .* do not fit .*\[\(1, 16\)\].* 32 wide"):
        ElasticEncoder.load(folder)


def test_a_missing_gate_is_named() -> None:
    state = gated().state()
    del state["layer.3.gate.bias"]
    with pytest.raises(ModelError, match=r"lack the tensor 'layer\.3\.gate\.bias'"):
        ViewHeads.from_state(2, state)
