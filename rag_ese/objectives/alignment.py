"""Bringing a small embedding close to a large one: by coordinates, by scores, or by direction. Targets get no gradient.

coordinates  MSE(s, t) + T * KL(softmax(t/T) || softmax(s/T)), softmax over coordinates (ESE, ICLR 2025)
scores       KL(softmax(cos_t / T) || softmax(cos_s / T)), softmax over the texts of the batch
             (question -> passage as in Starbucks, arXiv 2410.13230; here also passage -> passage and
             question -> question)
direction    1 - cos(s, t[:k]), k the width of s
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rag_ese.errors import ConfigError
from rag_ese.objectives.columns import Columns, detached, unit

PARTS = ("question-passage", "passage-passage", "question-question")
_HIDDEN = -1e4  # finite, so that a row with nothing left to compare is uniform on both sides and its divergence 0


def divergence(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """KL(softmax(target/T) || softmax(student/T)), mean over rows; both N x k."""
    return F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(target.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def coordinate_alignment(student: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """MSE + T * KL over coordinates, both N x k, not normalised."""
    return F.mse_loss(student, target.detach()) + temperature * divergence(student, target, temperature)


def embedding_alignment(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 - cosine between `student` (N x k) and the leading k dimensions of `teacher` (N x at least k).

    Meaningful where the teacher's coordinates are the student's: the same model before training, or its full depth.
    """
    dim = student.shape[1]
    if teacher.shape[1] < dim:
        raise ConfigError(f"the teacher has {teacher.shape[1]} dimensions, and {dim} are to be aligned with them")
    return 1 - (unit(student) * unit(teacher.detach()[:, :dim])).sum(dim=1).mean()


@dataclass(frozen=True)
class ScoreTarget:
    """The teacher's distributions over the texts of a batch, computed once for all sizes of the student."""

    log_probabilities: tuple[Tensor, ...]
    temperature: float
    parts: tuple[str, ...]

    @classmethod
    def of(cls, teacher: Columns, temperature: float = 0.05, parts: Sequence[str] = PARTS) -> ScoreTarget:
        """From the teacher's columns, B x any width each."""
        unknown = [part for part in parts if part not in PARTS]
        if unknown or not parts:
            raise ConfigError(f"cannot align the scores {unknown or 'of nothing'}: the parts are {', '.join(PARTS)}")
        return cls(tuple(_log_probabilities(detached(teacher), temperature, parts)), temperature, tuple(parts))

    def divergence(self, student: Columns) -> Tensor:
        """Mean over the parts and over the rows of KL(teacher || student)."""
        mine = _log_probabilities(student, self.temperature, self.parts)
        terms = [
            F.kl_div(s, t, reduction="batchmean", log_target=True)
            for s, t in zip(mine, self.log_probabilities, strict=True)
        ]
        return torch.stack(terms).mean()


def score_alignment(
    student: Columns, teacher: Columns, temperature: float = 0.05, parts: Sequence[str] = PARTS
) -> Tensor:
    """KL between the teacher's and the student's softmax of cosines; mean over `parts` and rows.

    Passages are all columns after the first: positives and hard negatives. A text is not compared with itself. The
    widths of student and teacher may differ.
    """
    return ScoreTarget.of(teacher, temperature, parts).divergence(student)


def _log_probabilities(columns: Columns, temperature: float, parts: Sequence[str]) -> list[Tensor]:
    questions, passages = unit(columns[0]), unit(torch.cat(list(columns[1:])))
    sides = {
        "question-passage": (questions, passages),
        "passage-passage": (passages, passages),
        "question-question": (questions, questions),
    }
    found = []
    for part in parts:
        left, right = sides[part]
        scores = left @ right.T / temperature
        if left is right:
            itself = torch.eye(len(left), dtype=torch.bool, device=left.device)
            scores = scores.masked_fill(itself, _HIDDEN)
        found.append(F.log_softmax(scores, dim=1))
    return found
