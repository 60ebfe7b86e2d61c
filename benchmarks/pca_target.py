"""How informative the compression targets of ESE are, on the activations of a real encoder.

    python benchmarks/pca_target.py --texts squad_train_26k.jsonl.gz

The reference code (angle-emb 0.6.1) takes for principal components the singular vectors, times the singular values, of
softmax_rows(m^T m / sqrt(d)) of each batch. For that target, for PCA of the batch, for a PCA with a running covariance
and for the raw prefix, at several k:

effective dims   participation ratio of the target's energy over its coordinates: (sum e)^2 / sum e^2, of k at most
stable           cosine between the targets of the same text in two batches that share half of their texts
similarities     correlation of the targets' cosines with those of the full embeddings, within a batch
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from rag_ese.cli import Command, run
from rag_ese.data.training_rows import read_rows
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import DataError
from rag_ese.objectives.compression import RunningCovariance, batch_pca, reference_target

Target = Callable[[Tensor, int], Tensor]


class TargetConfig(EncoderConfig):
    """The encoder, its layer, and the texts."""

    model: str = Field("embedded-raw", description="the encoder whose activations are looked at")
    texts: Path = Field(description="question-passage pairs, JSONL; the passages are used")
    layer: int = Field(6, ge=1, description="depth")
    batch: int = Field(64, ge=8, description="texts in a batch")
    batches: int = Field(40, ge=2, description="pairs of batches")
    ks: str = Field("32,64,128", description="widths")
    length: float = Field(
        0.0, ge=0, description="length that every row is brought to (default: as the encoder gives it)"
    )
    seed: int = Field(0, description="of the batches")


def main(config: TargetConfig) -> None:
    encoder = config.load_encoder()
    passages = sorted({text for row in read_rows(config.texts, "pairs") for text in row.texts[1:]})
    needed = config.batch * config.batches
    if len(passages) < needed:
        raise DataError(f"{config.texts} has {len(passages)} passages, and {needed} are needed: lower --batches")
    chosen = random.Random(config.seed).sample(passages, needed)
    m = torch.from_numpy(encoder.encode_layers(chosen, [config.layer])[config.layer])
    if config.length:
        m = config.length * functional.normalize(m)
    first, second = m[::2].split(config.batch // 2), m[1::2].split(config.batch // 2)
    console = Console()
    _spectrum(console, m[: config.batch])
    table = Table(title=f"{config.model} L{config.layer}, {config.batches} pairs of batches of {config.batch}")
    for column in ("k", "target", "effective dims", "stable", "similarities"):
        table.add_column(column, justify="left" if column == "target" else "right")
    running = RunningCovariance(m.shape[1])
    for batch in m.split(config.batch):
        running.update(batch)
    targets: dict[str, Target] = {
        "raw prefix": lambda batch, k: batch[:, :k],
        "reference code": lambda batch, k: reference_target(batch, k, seed=0),
        "PCA of the batch": batch_pca,
        "PCA, running covariance": running.target,
    }
    for k in map(int, config.ks.split(",")):
        for name, target in targets.items():
            # Both batches begin with the same texts; what follows differs.
            shared = list(zip(first, second, torch.roll(m, config.batch, 0).split(config.batch // 2), strict=False))
            found = np.array([_measures(target, k, same, *rest) for same, *rest in shared])
            table.add_row(str(k), name, *(f"{value:.2f}" for value in found.mean(axis=0)))
    console.print(table)


def _spectrum(console: Console, m: Tensor) -> None:
    """The singular values of the reference code's matrix, for one batch."""
    values = torch.linalg.svdvals(torch.softmax(m.T @ m / math.sqrt(m.shape[1]), dim=1))
    console.print("singular values of softmax(m^T m / sqrt(d)): " + ", ".join(f"{v:.3f}" for v in values[:6].tolist()))


def _measures(target: Target, k: int, same: Tensor, one: Tensor, other: Tensor) -> tuple[float, float, float]:
    batch = torch.cat([same, one])
    mine, theirs = target(batch, k), target(torch.cat([same, other]), k)
    energy = mine.double().square().sum(dim=0)
    effective = float(energy.sum() ** 2 / energy.square().sum())
    stable = float(functional.cosine_similarity(mine[: len(same)], theirs[: len(same)]).mean())
    return effective, stable, _correlation(mine, batch)


def _correlation(target: Tensor, full: Tensor) -> float:
    """Pearson's r between the cosines of all pairs of rows."""
    above = torch.triu_indices(len(full), len(full), 1)
    cosines = [functional.normalize(each.double()) for each in (target, full)]
    pairs = torch.stack([(each @ each.T)[above[0], above[1]] for each in cosines])
    return float(torch.corrcoef(pairs)[0, 1])


if __name__ == "__main__":
    run("benchmarks/pca_target.py", {"": Command(TargetConfig, main, "compression targets on real activations")})
