"""Fits the linear heads of an elastic encoder in closed form: no gradient, seconds on a CPU.

Full depth: two views beside each other, [m_n, sqrt(w) * N(m_v)], rotated by the principal axes of passages so that the
energy sits in the first dimensions. N is a noise-whitening map for the shallow view v: the inverse square root of
E[(q - p)(q - p)^T] over matching question-passage pairs, which shrinks the directions along which a question differs
from its own passage (length, form, the gap between the two kinds of text) and keeps those that tell passages apart.
Shallower depths: ridge regression from their own two views to the full-depth embedding, so that all depths share one
space and a shallow query can be compared with a deep passage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rag_ese.encoder.heads import ViewHeads
from rag_ese.types import Float32s


@dataclass(frozen=True)
class HeadSettings:
    """How the heads are fitted. The defaults were chosen on HotpotQA training questions (docs/log.md)."""

    view: int = 1
    """The layer of the shallow view."""
    weight: float = 0.15
    """Its share in the inner product, relative to the deep view's; 0 leaves it out."""
    noise_floor: float = 0.03
    """Added to the noise covariance's eigenvalues, in units of their mean."""
    ridge: float = 0.001
    """Added to the ridge regression's covariance eigenvalues, in units of their mean."""
    pool_weight: float = 16.0
    """How often a passage of the pool counts in the principal axes, where a passage of the pairs counts once."""


def fit_heads(
    questions: Mapping[int, Float32s],
    passages: Mapping[int, Float32s],
    pool: Mapping[int, Float32s],
    settings: HeadSettings = HeadSettings(),
) -> ViewHeads:
    """Heads for every layer of `passages` (layer -> N x hidden pooled vectors; row i of `questions` matches row i).

    `pool` holds the pooled vectors of further passages, of the kind that will be searched: the axes follow them most.
    """
    layers = sorted(passages)
    rows = {
        layer: np.concatenate([passages[layer], pool[layer], questions[layer]]).astype(np.float64) for layer in layers
    }
    weight, bias = _two_views(questions, passages, settings)
    target = _unit(_views(rows, layers[-1], settings.view) @ weight.T + bias)
    of_pairs, of_pool, _ = np.split(target, np.cumsum([len(passages[layers[-1]]), len(pool[layers[-1]])]))
    axes = np.linalg.eigh(of_pairs.T @ of_pairs + settings.pool_weight * of_pool.T @ of_pool)[1][:, ::-1]
    weights, biases = {layers[-1]: axes.T @ weight}, {layers[-1]: axes.T @ bias}
    for layer in layers[:-1]:
        inputs = _views(rows, layer, min(layer, settings.view))
        weights[layer], biases[layer] = _ridge(inputs, target @ axes, settings.ridge)
    return ViewHeads(settings.view, _tensors(weights), _tensors(biases))


def _views(pooled: Mapping[int, np.ndarray], layer: int, view: int) -> np.ndarray:
    return np.concatenate([pooled[layer], pooled[view]], axis=1)


def _two_views(
    questions: Mapping[int, Float32s], passages: Mapping[int, Float32s], settings: HeadSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The full-depth map before its rotation: weight (2 hidden x 2 hidden) and bias."""
    deep, shallow = (
        np.concatenate([passages[layer], questions[layer]]).astype(np.float64)
        for layer in (max(passages), settings.view)
    )
    hidden = deep.shape[1]
    difference = (questions[settings.view] - passages[settings.view]).astype(np.float64)
    whitening = _power(difference.T @ difference / len(difference), -0.5, settings.noise_floor)
    middle = shallow.mean(axis=0)
    scale_deep = np.linalg.norm(deep, axis=1).mean()
    scale_shallow = np.linalg.norm((shallow - middle) @ whitening, axis=1).mean()
    share = np.sqrt(settings.weight) / scale_shallow
    weight = np.zeros((2 * hidden, 2 * hidden))
    weight[:hidden, :hidden] = np.eye(hidden) / scale_deep
    weight[hidden:, hidden:] = share * whitening
    return weight, np.concatenate([np.zeros(hidden), -share * whitening @ middle])


def _power(matrix: np.ndarray, exponent: float, floor: float) -> np.ndarray:
    """A symmetric positive matrix to a power, its eigenvalues raised by `floor` times their mean first."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, 0.0) + floor * np.trace(matrix) / len(matrix)
    return np.asarray((vectors * values**exponent) @ vectors.T)


def _ridge(inputs: np.ndarray, targets: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The linear map (weight, bias) from `inputs` to `targets` with the least squared error under an L2 penalty."""
    mean_in, mean_out = inputs.mean(axis=0), targets.mean(axis=0)
    centred = inputs - mean_in
    covariance = centred.T @ centred / len(centred)
    covariance[np.diag_indices_from(covariance)] += strength * np.trace(covariance) / len(covariance)
    weight = np.linalg.solve(covariance, centred.T @ (targets - mean_out) / len(centred)).T
    return weight, mean_out - weight @ mean_in


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _tensors(arrays: Mapping[int, np.ndarray]) -> dict[int, torch.Tensor]:
    """Rounded to half precision, as they are stored: what is measured is what is shipped."""
    return {layer: torch.from_numpy(array).to(torch.float16) for layer, array in arrays.items()}
