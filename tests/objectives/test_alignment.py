"""Alignments against loops over numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rag_ese.errors import ConfigError
from rag_ese.objectives.alignment import PARTS, coordinate_alignment, embedding_alignment, score_alignment

Make = Callable[..., list[Tensor]]
SEEDS = [0, 1, 2]


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def kl(target: np.ndarray, student: np.ndarray) -> float:
    return float(sum(p * np.log(p / q) for p, q in zip(target, student, strict=True)))


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    return np.asarray(left @ right.T / norms)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_coordinate_alignment_is_the_written_out_sum(columns: Make, seed: int, temperature: float) -> None:
    student, target = columns(seed, count=2)
    s, t = student.detach().numpy(), target.detach().numpy()
    rows = [kl(softmax(t[i] / temperature), softmax(s[i] / temperature)) for i in range(len(s))]
    expected = ((s - t) ** 2).mean() + temperature * np.mean(rows)
    assert coordinate_alignment(student, target, temperature).item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("part", PARTS)
def test_score_alignment_is_the_written_out_sum(columns: Make, seed: int, part: str) -> None:
    student, teacher = columns(seed, rows=5, width=4), columns(seed + 10, rows=5, width=9)
    total = 0.0
    sides = [(each[0].detach().numpy(), torch.cat(each[1:]).detach().numpy()) for each in (student, teacher)]
    (sq, sp), (tq, tp) = sides
    left, right = ("question", "passage") if part == "question-passage" else part.split("-")
    chosen = {"question": (sq, tq), "passage": (sp, tp)}
    student_scores = cosines(chosen[left][0], chosen[right][0]) / 0.3
    teacher_scores = cosines(chosen[left][1], chosen[right][1]) / 0.3
    for i in range(len(student_scores)):
        kept = [j for j in range(student_scores.shape[1]) if left != right or j != i]
        total += kl(softmax(teacher_scores[i, kept]), softmax(student_scores[i, kept]))
    expected = total / len(student_scores)
    assert score_alignment(student, teacher, 0.3, [part]).item() == pytest.approx(expected)


def test_score_alignment_is_the_mean_of_its_parts(columns: Make) -> None:
    student, teacher = columns(0), columns(1)
    single = [score_alignment(student, teacher, 0.1, [part]).item() for part in PARTS]
    assert score_alignment(student, teacher, 0.1).item() == pytest.approx(np.mean(single))


def test_scores_do_not_depend_on_rotation_or_length(columns: Make) -> None:
    student = columns(0)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    turned = [5 * column @ turn for column in student]
    assert score_alignment(student, turned).item() == pytest.approx(0, abs=1e-12)
    assert score_alignment(student, columns(1)).item() > 0.1
    assert coordinate_alignment(student[0], turned[0]).item() > 0.1


def test_the_order_of_the_batch_does_not_matter(columns: Make) -> None:
    student, teacher, order = columns(0), columns(1), torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = score_alignment([each[order] for each in student], [each[order] for each in teacher])
    assert shuffled.item() == pytest.approx(score_alignment(student, teacher).item())


def test_a_single_row_has_nothing_to_compare_and_stays_finite(columns: Make) -> None:
    student, teacher = columns(0, rows=1, count=2), columns(1, rows=1, count=2)
    loss = score_alignment(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert all(column.grad is not None and column.grad.isfinite().all() for column in student)


@pytest.mark.parametrize("seed", SEEDS)
def test_embedding_alignment_compares_with_the_prefix(columns: Make, seed: int) -> None:
    [student], [teacher] = columns(seed, width=3, count=1), columns(seed + 5, width=8, count=1)
    s, t = student.detach().numpy(), teacher.detach().numpy()[:, :3]
    assert embedding_alignment(student, teacher).item() == pytest.approx(1 - cosines(s, t).diagonal().mean())
    with pytest.raises(ConfigError, match="3 dimensions, and 8"):
        embedding_alignment(teacher, student)


def test_only_the_student_learns(columns: Make) -> None:
    student, teacher = columns(0), columns(1)
    loss = score_alignment(student, teacher)
    loss = loss + embedding_alignment(student[0], teacher[0]) + coordinate_alignment(student[1], teacher[1])
    loss.backward()
    assert all(column.grad is not None and column.grad.abs().sum() > 0 for column in student)
    assert all(column.grad is None for column in teacher)


def test_unknown_parts_are_refused(columns: Make) -> None:
    for parts in (["passage-question"], []):
        with pytest.raises(ConfigError, match="question-passage, passage-passage, question-question"):
            score_alignment(columns(0), columns(1), parts=parts)
