"""The ONNX graph gives the encoder's vectors for batches of other shapes than the one it was traced with."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.batching import pad
from rag_ese.encoder.export import export
from rag_ese.encoder.gates import TokenGate
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.onnx_export import Graph
from rag_ese.encoder.pooling import Pooling
from rag_ese.errors import MissingExtraError, ModelError
from rag_ese.types import Size

packages = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra onnx",
)
TEXTS = ["where was the painter born", "the river", "", "which long passage of word and word not one two " * 3]


def elastic(encoder: ElasticEncoder, gated: bool) -> ElasticEncoder:
    noise = torch.Generator().manual_seed(5)
    weights = {layer: torch.randn(40, 64, generator=noise) for layer in range(1, 5)}
    biases = {layer: torch.randn(40, generator=noise) for layer in weights}
    gates = {layer: TokenGate(torch.randn(1, 32, generator=noise), torch.ones(1)) for layer in weights}
    encoder.replace_head(ViewHeads(1, weights, biases, gates if gated else None))
    return encoder


@packages
@pytest.mark.parametrize(
    ("heads", "size"),
    [("plain", Size(3, 16)), ("plain", Size(1, 40)), ("none", Size(2, 20)), ("gated", Size(3, 16))],
)
def test_other_batches_than_the_traced_one(tiny: ElasticEncoder, tmp_path: Path, heads: str, size: Size) -> None:
    encoder = tiny if heads == "none" else elastic(tiny, heads == "gated")
    done = export(encoder, tmp_path / "out", size, onnx=True)
    assert done.onnx_difference is not None and done.onnx_difference < 1e-5
    file = tmp_path / "out" / "onnx" / "model.onnx"
    about = importlib.import_module("onnx").load(file).graph
    assert [each.name for each in about.output] == ["sentence_embedding"]
    inputs = {each.name: [axis.dim_param for axis in each.type.tensor_type.shape.dim] for each in about.input}
    assert set(inputs) >= {"input_ids", "attention_mask"} and all(
        len(axes) == 2 and all(axes) for axes in inputs.values()
    )
    graph = Graph(file)
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:2] * 5, TEXTS[3:]):
        found = graph(_inputs(encoder, texts, set(inputs)))
        np.testing.assert_allclose(found, encoder.encode(texts, [size])[size], atol=1e-5)
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


@packages
def test_prompts_that_are_not_pooled_cannot_be_said_in_a_graph(tiny: ElasticEncoder, tmp_path: Path) -> None:
    tiny.checkpoint.prompts = {"query": "query "}
    tiny.checkpoint.pooling = tiny._pooling = Pooling(("mean",), include_prompt=False)
    with pytest.raises(ModelError, match="export it without --onnx"):
        export(tiny, tmp_path / "out", Size(2, 20), onnx=True)
    assert not (tmp_path / "out").exists()


def test_without_the_packages(tiny: ElasticEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(MissingExtraError, match="an ONNX graph"):
        export(tiny, tmp_path / "out", Size(2, 20), onnx=True)
    assert not (tmp_path / "out").exists()


def _inputs(encoder: ElasticEncoder, texts: list[str], names: set[str]) -> dict[str, torch.Tensor]:
    inputs = pad(encoder.tokenize(texts, "passage"), 0, torch.device("cpu"))
    return {
        **inputs,
        **({"token_type_ids": torch.zeros_like(inputs["input_ids"])} if "token_type_ids" in names else {}),
    }
