"""`ese`, our default: every layer, several sizes, aligned by scores with the full model or with a teacher.

    L = f * c(n, d) + mean over the other cells (i, k) of w_i v_k c(i, k)  +  compress
    c(i, k) = base_weight * l(m_i[:k]) + align_weight * KL(p_t || p_(i,k)) + [k = d] embed_weight * (1 - cos(m_i, t))
    compress = compress_weight * mean over the layers of w_i D(m_i[:k'], P_k'(m_i))

w_i, v_k: weights of layers and sizes, brought to mean 1 over the cells; p: softmax of cosines over the batch (see
`alignment`); t: the teacher's embeddings, by default the deepest full-size ones of the batch, detached. D, P as in ESE.
Source: the two halves of ESE (ICLR 2025), with what its critics and Starbucks (arXiv 2410.13230) found to help.
Deviations from ESE:
- all blocks 1..n, never the embedding output; several sizes, so that quality does not fall off below a single k;
- the full size is trained, too, with weight f (`full_weight`);
- scores are aligned in place of coordinates: they do not depend on the rotation of a basis. The compression term is off
  by default; where it is on, its target is a running PCA, a PCA of the batch, or that of the reference code;
- the direction of the teacher's embedding is a target at full width alone: a prefix is free to arrange its own space;
- without a base loss (`base` None: unlabelled texts) what remains is distillation;
- with `sampled`, each step draws that many of the other cells uniformly; the expected loss is the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from rag_ese.errors import ConfigError
from rag_ese.objectives.alignment import PARTS, ScoreTarget, coordinate_alignment, embedding_alignment
from rag_ese.objectives.base import BaseLoss
from rag_ese.objectives.columns import Columns, LayerColumns, cut
from rag_ese.objectives.compression import RunningCovariance, batch_pca, reference_target
from rag_ese.objectives.options import check_dims, check_layers, pick
from rag_ese.objectives.weighting import WEIGHTINGS
from rag_ese.types import Size

SIZES = (32, 64, 128, 256)
"""Widths that are trained besides the full one, where the options name none."""

T = TypeVar("T")

COMPRESS = ("none", "running-pca", "batch-pca", "reference")


@dataclass(frozen=True, eq=False)
class ESE:
    """See the module; `cells` maps every size but the full one to its weight. Holds running bases per layer, if any."""

    full: Size
    cells: Mapping[Size, float]
    layer_weights: Mapping[int, float]
    base_depths: frozenset[int]
    full_weight: float
    base_weight: float
    align_weight: float
    embed_weight: float
    temperature: float
    align_parts: tuple[str, ...]
    compress: str
    compress_weight: float
    compress_size: int
    sampled: int | None
    running: dict[int, RunningCovariance] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        depth: int,
        width: int,
        layers: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
        weighting: str = "uniform",
        size_weights: Sequence[float] | None = None,
        full_weight: float = 1.0,
        base_weight: float = 1.0,
        align_weight: float = 1.0,
        embed_weight: float = 0.0,
        temperature: float = 0.05,
        align_parts: Sequence[str] = PARTS,
        base_depths: Sequence[int] | None = None,
        compress: str = "none",
        compress_weight: float = 1.0,
        compress_size: int | None = None,
        sampled: int | None = None,
    ) -> ESE:
        """`size_weights` stand beside `sizes`, in their order; `base_depths` are the layers that get the base loss."""
        pick("compression", compress, dict.fromkeys(COMPRESS))
        if not any((base_weight, align_weight, embed_weight)) and compress == "none":
            raise ConfigError("all weights of ese are 0: give at least base_weight, align_weight or embed_weight")
        if sampled is not None and sampled < 1:
            raise ConfigError(f"ese cannot draw {sampled} sizes a step: give sampled at least 1, or leave it out")
        chosen = check_layers(layers if layers is not None else range(1, depth + 1), depth)
        deepest = chosen[-1]
        by_layer = {layer: pick("weighting", weighting, WEIGHTINGS)(layer, deepest) for layer in chosen}
        by_dim = _size_weights(sizes if sizes is not None else [*SIZES, width], size_weights, width, sizes is None)
        full = Size(deepest, width)
        cells = {Size(layer, dim): w * v for layer, w in by_layer.items() for dim, v in by_dim.items() if w * v > 0}
        cells.pop(full, None)
        below = [dim for dim in by_dim if dim < width]
        size = compress_size if compress_size is not None else max(below, default=width)
        return cls(
            full,
            _mean_one(cells),
            _mean_one({layer: weight for layer, weight in by_layer.items() if weight > 0}),
            frozenset(check_layers(base_depths, depth) if base_depths is not None else chosen),
            full_weight,
            base_weight,
            align_weight,
            embed_weight,
            temperature,
            tuple(align_parts),
            compress,
            compress_weight,
            check_dims([size], width)[0],
            sampled,
        )

    def layers(self, depth: int) -> tuple[int, ...]:
        return tuple(sorted({self.full.layers, *self.layer_weights}))

    def __call__(
        self,
        embeddings: LayerColumns,
        base: BaseLoss | None,
        labels: Tensor | None,
        random: random.Random,
        teacher: Columns | None = None,
    ) -> dict[str, Tensor]:
        target = teacher if teacher is not None else embeddings[self.full.layers]
        scores = ScoreTarget.of(target, self.temperature, self.align_parts) if self.align_weight else None
        flat = torch.cat([column.detach() for column in target]) if self.embed_weight else None
        parts: dict[str, Tensor] = {}
        for size, weight in self._drawn(random):
            columns = cut(embeddings[size.layers], size.dim)
            if base is not None and self.base_weight and size.layers in self.base_depths:
                parts[f"base {size}"] = weight * self.base_weight * base(columns, labels)
            if teacher is None and size == self.full:
                continue  # nothing to align it with but itself
            if scores is not None:
                parts[f"align {size}"] = weight * self.align_weight * scores.divergence(columns)
            if flat is not None and size.dim == self.full.dim:
                distance = embedding_alignment(torch.cat(columns), flat)
                parts[f"embed {size}"] = weight * self.embed_weight * distance
        parts |= self._compression(embeddings, random)
        if not parts:
            raise ConfigError(
                "ese has nothing to learn from a batch without pairs or scores: give it a teacher, or more sizes"
            )
        return parts

    def state_dict(self) -> dict[str, Tensor]:
        return {
            f"L{layer}.{name}": tensor
            for layer, running in self.running.items()
            for name, tensor in running.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.running.clear()
        for layer in sorted({int(name[1:].split(".")[0]) for name in state}):
            own = {name.split(".", 1)[1]: tensor for name, tensor in state.items() if name.startswith(f"L{layer}.")}
            self._running(layer).load_state_dict(own)

    def _drawn(self, random: random.Random) -> list[tuple[Size, float]]:
        """The full size and the other cells of this step, each with its weight in the loss."""
        others = list(self.cells)
        if self.sampled is not None and self.sampled < len(others):
            others = sorted(random.sample(others, self.sampled))
        full = [(self.full, self.full_weight)] if self.full_weight else []
        return full + [(size, self.cells[size] / len(others)) for size in others]

    def _compression(self, embeddings: LayerColumns, random: random.Random) -> dict[str, Tensor]:
        if self.compress == "none":
            return {}
        parts = {}
        for layer, weight in self.layer_weights.items():
            m = torch.cat(list(embeddings[layer]))
            target = self._target(layer, m, random)
            aligned = coordinate_alignment(m[:, : self.compress_size], target)
            parts[f"compress L{layer}"] = self.compress_weight * weight / len(self.layer_weights) * aligned
        return parts

    def _target(self, layer: int, m: Tensor, random: random.Random) -> Tensor:
        if self.compress == "batch-pca":
            return batch_pca(m, self.compress_size)
        if self.compress == "reference":
            return reference_target(m, self.compress_size, random.getrandbits(32))
        running = self._running(layer)
        if torch.is_grad_enabled():  # a measurement on held-out rows does not move the basis
            running.update(m)
        return running.target(m, self.compress_size)

    def _running(self, layer: int) -> RunningCovariance:
        return self.running.setdefault(layer, RunningCovariance(self.full.dim))


def _size_weights(sizes: Sequence[int], weights: Sequence[float] | None, width: int, default: bool) -> dict[int, float]:
    """Each width with its weight; the default widths are cut to those that the model has."""
    dims = [dim for dim in dict.fromkeys(sizes) if not default or dim <= width]
    check_dims(dims, width)
    given = [1.0] * len(dims) if weights is None else list(weights)
    if len(given) != len(dims):
        raise ConfigError(f"ese was given {len(given)} size_weights for the {len(dims)} sizes {dims}: give as many")
    return dict(zip(dims, given, strict=True))


def _mean_one(weights: Mapping[T, float]) -> dict[T, float]:
    mean = sum(weights.values()) / max(1, len(weights))
    return {key: weight / mean for key, weight in weights.items()}
