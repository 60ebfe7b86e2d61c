"""Writes an exported folder's model as an ONNX graph: token ids in, normalised sentence embeddings out."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.errors import MissingExtraError, ModelError

ONNX_FILE = "onnx/model.onnx"
OUTPUT = "sentence_embedding"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_PROTOBUF_LIMIT = 1_900_000_000
"""Bytes of weights that still fit into one ONNX file; more go to a file beside it."""


def require_onnx() -> None:
    """MissingExtraError where a package of the extra `onnx` is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        raise MissingExtraError("onnx", "writing an ONNX graph")


def write_onnx(encoder: ElasticEncoder, folder: Path, texts: Sequence[str]) -> float:
    """Writes onnx/model.onnx from the sentence-transformers folder `folder`; both axes of its inputs are dynamic.

    Returns the largest difference to that folder's vectors of `texts`, in batches that the graph was not traced with.
    """
    require_onnx()
    if encoder.checkpoint.prompts and not encoder.checkpoint.pooling.include_prompt:
        raise ModelError(
            f"{encoder.name} leaves the tokens of its prompts out of the pooling, which an ONNX graph of ids and mask "
            "cannot know: export it without --onnx"
        )
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    target = folder / ONNX_FILE
    target.parent.mkdir()
    _export(_Graph(model), _tokens(model, ["a text of some length", "another"]), target)
    graph = Graph(target)
    batches = [list(texts), list(texts[:1])]
    return max(float(np.abs(graph(_tokens(model, batch)) - model.encode(batch)).max()) for batch in batches)


class Graph:
    """An ONNX graph in onnxruntime."""

    def __init__(self, file: Path) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def __call__(self, inputs: dict[str, Tensor]) -> Any:
        """The embeddings (B x width, float32) of token ids and mask (B x T, int64)."""
        (vectors,) = self._session.run([OUTPUT], {name: tensor.numpy() for name, tensor in inputs.items()})
        return vectors


class _Graph(nn.Module):
    """The modules of a sentence-transformers model one after the other, on tensors alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.steps = nn.ModuleList(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            features["token_type_ids"] = token_type_ids
        for step in self.steps:
            features = step(features)
        return features[OUTPUT]


def _export(graph: nn.Module, inputs: dict[str, Tensor], target: Path) -> None:
    size = sum(each.numel() * each.element_size() for each in graph.parameters())
    try:
        with _quiet():
            torch.onnx.export(
                graph.eval(),
                kwargs=inputs,
                f=str(target),
                input_names=list(inputs),
                output_names=[OUTPUT],
                dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in inputs},
                dynamo=True,
                external_data=size > _PROTOBUF_LIMIT,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"torch cannot write this architecture as an ONNX graph: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what does not concern a text encoder: torchvision, and axes that share a name."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _tokens(model: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    found = model.preprocess(list(texts))
    return {name: found[name] for name in _INPUTS if name in found}
