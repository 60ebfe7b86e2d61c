"""Weights between two models: `python -m rag_ese.training.interpolate --model BEFORE --to AFTER --share 0.3 --out DIR`.

(1 - share) * before + share * after, tensor by tensor. On the line between a model and its fine-tuned successor there
are often models that have most of what was gained and little of what was lost (WiSE-FT, arXiv 2109.01903). Both are
encoders, or both trained readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from rag_ese.cli import Command, run
from rag_ese.config import StrictModel
from rag_ese.encoder.delta import TRAINING_FILE
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ModuleHead, ViewHeads
from rag_ese.errors import ModelError
from rag_ese.reader.weights import READER_FILE, load_reader, save_reader
from rag_ese.training.weights import save_weights


class InterpolateConfig(StrictModel):
    """Two models of one architecture, and a point between them."""

    model: str = Field("embedded", description="the model at share 0: embedded, a folder or a hub name")
    to: str = Field(description="the model at share 1")
    share: float = Field(0.5, ge=0, le=1, description="how far to go from --model to --to")
    out: Path = Field(description="folder for the result, which every command takes")


def main(config: InterpolateConfig) -> None:
    if any((Path(each) / READER_FILE).exists() for each in (config.model, config.to)):
        _interpolate_readers(config)
        return
    before, after = (ElasticEncoder.load(name, "float32", "cpu") for name in (config.model, config.to))
    _move(_tensors(before), _tensors(after), config)
    save_weights(before, config.out)


def _interpolate_readers(config: InterpolateConfig) -> None:
    """The reader's record is that of the later one, with what was done to it."""
    before, after = (load_reader(Path(folder)) for folder in (config.model, config.to))
    _move(dict(before.model.named_parameters()), dict(after.model.named_parameters()), config)
    training = json.loads((Path(config.to) / TRAINING_FILE).read_text(encoding="utf-8"))
    done = {"share": config.share, "between": [str(config.model), str(config.to)]}
    save_reader(before, config.out, {**training, "interpolated": done})


def _move(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], config: InterpolateConfig) -> None:
    for name in sorted({*mine, *theirs}):
        if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
            raise ModelError(
                f"{config.model} and {config.to} cannot be interpolated: {name} is not in both, or not of one shape; "
                "take two models that were trained from the same start"
            )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.lerp_(theirs[name], config.share)


def _tensors(encoder: ElasticEncoder) -> dict[str, Tensor]:
    """All weights by name; the heads' are the encoder's own tensors, so that changing them changes it."""
    head = encoder.checkpoint.head
    heads = head.state() if isinstance(head, ViewHeads) else {}
    if isinstance(head, ModuleHead):
        heads = dict(head.modules.state_dict())
    return {**dict(encoder.checkpoint.blocks.model.named_parameters()), **{f"head.{k}": v for k, v in heads.items()}}


if __name__ == "__main__":
    run("rag_ese.training.interpolate", {"": Command(InterpolateConfig, main, "weights between two models")})
