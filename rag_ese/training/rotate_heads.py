"""Rotates the heads of all depths: `python -m rag_ese.training.rotate_heads --model M --texts FILES --out DIR`."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field

from rag_ese.cli import Command, run
from rag_ese.data.training_rows import read_rows, without
from rag_ese.encoder.config import EncoderConfig
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError, DataError
from rag_ese.progress import progress_bar
from rag_ese.training.rotation import RotationSettings, fit_rotation
from rag_ese.training.weights import save_weights
from rag_ese.types import Float32s


class RotateConfig(EncoderConfig):
    """What is rotated, and on which texts the rotation is learned."""

    texts: str = Field(
        description="question-passage pairs (their pairing is not used): JSONL files, separated by commas"
    )
    exclude: str = Field("", description="evaluation files, separated by commas: what shares a text is left out")
    out: Path = Field(description="folder for the rotated model, which every command takes")
    steps: int = Field(RotationSettings.steps, ge=1, description="optimiser steps")
    seed: int = Field(RotationSettings.seed, description="of the questions and passages that each step draws")


def main(config: RotateConfig) -> None:
    encoder = config.load_encoder()
    head = encoder.checkpoint.head
    if not isinstance(head, ViewHeads):
        raise ConfigError(f"{config.model} has no linear heads to rotate: take a model that fit_heads or train made")
    questions, passages = _embeddings(config, encoder)
    settings = RotationSettings(steps=config.steps, seed=config.seed)
    with progress_bar("rotating", settings.steps) as advance:
        rotation = fit_rotation(questions, passages, settings, advance)
    exact = ElasticEncoder.load(config.model, "float32", "cpu", config.model_revision or None)
    exact.replace_head(head.to(exact.device).rotated(torch.from_numpy(rotation)))
    save_weights(exact, config.out)


def _embeddings(config: RotateConfig, encoder: ElasticEncoder) -> tuple[Float32s, Float32s]:
    """Full-size embeddings of all questions, and of all passages, each text once."""
    forbidden = [Path(name) for name in config.exclude.split(",") if name]
    rows = [row for name in config.texts.split(",") for row in read_rows(Path(name), "pairs")]
    rows, _ = without(rows, forbidden)
    questions = sorted({row.texts[0] for row in rows})
    passages = sorted({passage for row in rows for passage in row.texts[1:]})
    if not rows:
        raise DataError(f"no row of {config.texts} is left to learn a rotation from")
    with progress_bar("embedding", len(questions) + len(passages)) as advance:
        full = encoder.depth
        first = encoder.encode_layers(questions, [full], "query", progress=advance)[full]
        return first, encoder.encode_layers(passages, [full], "passage", progress=advance)[full]


if __name__ == "__main__":
    run(
        "rag_ese.training.rotate_heads",
        {"": Command(RotateConfig, main, "put into the leading dimensions what orders near passages")},
    )
