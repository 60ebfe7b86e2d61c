"""A rotation of the embedding that puts into its leading dimensions what orders near passages.

Principal axes put there what varies most over all texts. What a narrow search needs is what separates a question's
nearest passages from each other, and no label is needed to learn it: the full width's own scores say it.

    L(R) = sum over widths k of the mean over questions q of
           KL(softmax(t q C^T) || softmax(t cut(q R, k) cut(C R, k)^T)),   R^T R = 1

C are passages drawn anew at each step, `cut` truncates and normalises, t is sharp (40), so that near passages count.
R is orthogonal, R = R0 (1 + S)^-1 (1 - S) with S skew (Cayley) and R0 the principal axes of the passages: scores at
full width stay exactly as they were, whatever is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rag_ese.errors import ConfigError
from rag_ese.types import Float32s


@dataclass(frozen=True)
class RotationSettings:
    """How the rotation is learned. The defaults were chosen on HotpotQA training questions (docs/log.md)."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    """The prefixes that shall order passages as the full width does."""
    inverse_temperature: float = 40.0
    """Of the scores; larger looks at nearer passages only."""
    steps: int = 300
    questions: int = 512
    """Questions per step."""
    passages: int = 3000
    """Passages per step, drawn without replacement."""
    lr: float = 1e-3
    seed: int = 0


def fit_rotation(
    questions: Float32s,
    passages: Float32s,
    settings: RotationSettings = RotationSettings(),
    advance: Callable[[int], None] = lambda steps: None,
) -> Float32s:
    """An orthogonal matrix R (width x width) for embeddings (N x width each, of any length): the rotated one is x R."""
    width = passages.shape[1]
    widths = [each for each in settings.widths if each < width]
    if not widths:
        raise ConfigError(f"the embedding is {width} wide: give at least one width below that, not {settings.widths}")
    all_questions, all_passages = (functional.normalize(torch.from_numpy(each)) for each in (questions, passages))
    generator = torch.Generator().manual_seed(settings.seed)
    start = torch.linalg.eigh((all_passages.T @ all_passages).double())[1].flip(1).float()
    free = torch.zeros(width, width, requires_grad=True)
    optimiser = torch.optim.Adam([free])
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / 10) * (1 + math.cos(math.pi * step / settings.steps)) / 2
        query = all_questions[torch.randperm(len(all_questions), generator=generator)[: settings.questions]]
        pool = all_passages[torch.randperm(len(all_passages), generator=generator)[: settings.passages]]
        rotation = start @ _cayley(free)
        loss = _order_loss(query, pool, rotation, widths, settings.inverse_temperature)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        advance(1)
    # Rounding has let R drift from orthogonality by some 1e-6; the polar factor is the nearest orthogonal matrix.
    left, _, right = torch.linalg.svd((start @ _cayley(free)).detach().double())
    return np.asarray((left @ right).float().numpy())


def _cayley(free: Tensor) -> Tensor:
    """An orthogonal matrix without a reflection; the identity for a symmetric `free`."""
    skew, one = free - free.T, torch.eye(len(free))
    solved: Tensor = torch.linalg.solve(one + skew, one - skew)
    return solved


def _order_loss(questions: Tensor, passages: Tensor, rotation: Tensor, widths: list[int], sharpness: float) -> Tensor:
    target = functional.softmax(sharpness * questions @ passages.T, dim=1)
    query, pool = questions @ rotation, passages @ rotation
    loss = torch.zeros(())
    for width in widths:
        scores = functional.normalize(query[:, :width]) @ functional.normalize(pool[:, :width]).T
        loss = loss + functional.kl_div(functional.log_softmax(sharpness * scores, 1), target, reduction="batchmean")
    return loss
