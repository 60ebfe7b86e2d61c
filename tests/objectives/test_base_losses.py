"""Base losses against loops over numbers, against sentence-transformers and against angle-emb."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from rag_ese.errors import ConfigError
from rag_ese.objectives import AnglE, AngleDifference, CoSENT, InBatchNegatives, InfoNCE, base_loss, scored_pairs

Make = Callable[..., list[Tensor]]
SEEDS = [0, 1, 2]
GRADED = torch.tensor([0.0, 3.2, 1.0, 5.0, 1.0, 2.4])
BINARY = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])


def numbers(columns: list[Tensor]) -> list[np.ndarray]:
    return [column.detach().numpy() for column in columns]


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def in_order(scores: list[float], labels: list[float]) -> float:
    pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if labels[i] < labels[j]]
    return math.log(1 + sum(math.exp(scores[i] - scores[j]) for i, j in pairs))


def info_nce(columns: list[np.ndarray], scale: float, identities: np.ndarray) -> float:
    questions, passages = columns[0], columns[1:]
    losses = []
    for i, question in enumerate(questions):
        total = 0.0
        for c, column in enumerate(passages):
            for j, passage in enumerate(column):
                if (c, j) == (0, i) or identities[j, c] != identities[i, 0]:
                    total += math.exp(scale * cosine(question, passage))
        losses.append(math.log(total) - scale * cosine(question, passages[0][i]))
    return float(np.mean(losses))


@pytest.mark.parametrize("seed", SEEDS)
def test_info_nce_is_the_written_out_sum(columns: Make, seed: int) -> None:
    batch = columns(seed)
    distinct = np.arange(12).reshape(6, 2)
    assert InfoNCE(7.0)(batch).item() == pytest.approx(info_nce(numbers(batch), 7.0, distinct))
    assert InfoNCE(7.0)(batch, torch.tensor(distinct)).item() == pytest.approx(InfoNCE(7.0)(batch).item())


@pytest.mark.parametrize("seed", SEEDS)
def test_info_nce_leaves_out_the_rows_own_passage_under_another_number(columns: Make, seed: int) -> None:
    batch = columns(seed)
    identities = np.array([[0, 9], [1, 0], [0, 8], [2, 7], [3, 2], [3, 1]])
    expected = info_nce(numbers(batch), 5.0, identities)
    assert InfoNCE(5.0)(batch, torch.tensor(identities)).item() == pytest.approx(expected)
    assert InfoNCE(5.0, mask=False)(batch, torch.tensor(identities)).item() > expected


def test_identities_of_positives_alone_leave_the_hard_negatives_in(columns: Make) -> None:
    batch = columns(0)
    positives = torch.tensor([0, 1, 0, 2, 3, 3])
    whole = np.stack([positives.numpy(), np.arange(100, 106)], axis=1)
    assert InfoNCE()(batch, positives).item() == pytest.approx(info_nce(numbers(batch), 20.0, whole))


def test_a_repeated_passage_counts_as_one(columns: Make) -> None:
    """With the second occurrence masked, a row's loss is what it is in a batch without that row."""
    questions, passages, *_ = columns(0, rows=3, count=2)
    twice = [torch.cat([questions, questions[:1]]), torch.cat([passages, passages[:1]])]
    masked = InfoNCE()(twice, torch.tensor([0, 1, 2, 0]))
    by_row = -torch.log_softmax(
        20 * torch.nn.functional.cosine_similarity(questions[:, None], passages[None], dim=2), 1
    )
    own = by_row.diagonal()
    others = -torch.log_softmax(
        20 * torch.nn.functional.cosine_similarity(questions[:, None], twice[1][None], dim=2), 1
    ).diagonal()
    assert masked.item() == pytest.approx(((2 * own[0] + others[1] + others[2]) / 4).item())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_info_nce_is_that_of_sentence_transformers(columns: Make, seed: int, count: int) -> None:
    batch = columns(seed, count=count)
    forward = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=20.0)
    both = MultipleNegativesRankingLoss(
        torch.nn.Identity(), 20.0, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    none = torch.empty(0)
    assert InfoNCE()(batch).item() == pytest.approx(forward.compute_loss_from_embeddings(batch, none).item())
    symmetric = InfoNCE(symmetric=True)(batch).item()
    assert symmetric == pytest.approx(both.compute_loss_from_embeddings(batch, none).item())
    assert symmetric != pytest.approx(InfoNCE()(batch).item())


@pytest.mark.parametrize("seed", SEEDS)
def test_cosent_is_the_written_out_sum(columns: Make, seed: int) -> None:
    first, second = columns(seed, count=2)
    x, y = numbers([first, second])
    scores = [4.0 * cosine(a, b) for a, b in zip(x, y, strict=True)]
    assert CoSENT(4.0)([first, second], GRADED).item() == pytest.approx(in_order(scores, GRADED.tolist()))


@pytest.mark.parametrize("seed", SEEDS)
def test_angle_is_the_sum_of_complex_quotients(columns: Make, seed: int) -> None:
    first, second = columns(seed, count=2)
    scores = []
    for x, y in zip(*numbers([first, second]), strict=True):
        z, w = x[:4] + 1j * x[4:], y[:4] + 1j * y[4:]
        products = z * w.conj() / (np.linalg.norm(z) * np.linalg.norm(w))
        scores.append(4.0 * abs(products.real.sum() + products.imag.sum()))
    assert AngleDifference(4.0)([first, second], GRADED).item() == pytest.approx(in_order(scores, GRADED.tolist()))


@pytest.mark.parametrize("seed", SEEDS)
def test_in_batch_negatives_are_the_written_out_sum(columns: Make, seed: int) -> None:
    first, second = columns(seed, count=2)
    texts = np.concatenate(numbers([first, second]))
    total = 0.0
    for i in range(12):
        partner = (i + 6) % 12
        if BINARY[i % 6] == 1:
            others = sum(math.exp(4 * cosine(texts[i], texts[j])) for j in range(12) if j != i)
            total += math.log(others) - 4 * cosine(texts[i], texts[partner])
    assert InBatchNegatives(4.0)([first, second], BINARY).item() == pytest.approx(total / 12)


def zigzag(columns: list[Tensor]) -> Tensor:
    return torch.stack(columns, dim=1).flatten(0, 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [(0.0, 1.0, 0.02), (0.0, 10.0, 1.0), (1.0, 0.5, 0.0), (2.0, 0.0, 3.0)])
def test_angle_is_that_of_angle_emb(angle_emb: Any, columns: Make, seed: int, weights: tuple[float, ...]) -> None:
    cos, ibn, angle = weights
    options = {"cosine_w": cos, "ibn_w": ibn, "cln_w": ibn, "angle_w": angle}
    pairs, triplets = [each.float().detach() for each in columns(seed, count=2)], columns(seed)
    triplets = [each.float().detach() for each in triplets]
    ours = AnglE(cos, ibn, angle)
    reference = angle_emb.AngleLoss(dataset_format="A", **options)(BINARY.repeat_interleave(2)[:, None], zigzag(pairs))
    assert ours(pairs, BINARY).item() == pytest.approx(reference.item(), rel=1e-4)
    reference = angle_emb.AngleLoss(dataset_format="C", **options)(torch.empty(0), zigzag(triplets))
    assert ours(triplets).item() == pytest.approx(float(reference), rel=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_graded_order_is_that_of_angle_emb(angle_emb: Any, columns: Make, seed: int) -> None:
    pairs = [each.float().detach() for each in columns(seed, count=2)]
    options = {"cosine_w": 1.0, "ibn_w": 0.0, "angle_w": 1.0, "dataset_format": "A"}
    reference = angle_emb.AngleLoss(**options)(GRADED.repeat_interleave(2)[:, None], zigzag(pairs))
    assert AnglE(1.0, 0.0, 1.0)(pairs, GRADED).item() == pytest.approx(reference.item(), rel=1e-4)


def test_angle_emb_makes_positives_of_unrelated_texts_for_graded_labels(angle_emb: Any, columns: Make) -> None:
    """Why ours has a threshold. Column 1 of label 3 and the partner 3 of label 1 are both number 3 there."""
    pairs = [each.float().detach() for each in columns(0, count=2)]
    labels = torch.tensor([3.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    reference = angle_emb.AngleLoss(dataset_format="A", cosine_w=0.0, angle_w=0.0)
    theirs = reference(labels.repeat_interleave(2)[:, None], zigzag(pairs)).item()
    assert InBatchNegatives()(pairs, labels).item() == pytest.approx(
        InBatchNegatives()(pairs, labels.clamp(max=1)).item()
    )
    assert theirs != pytest.approx(InBatchNegatives()(pairs, labels).item(), rel=1e-3)


def test_triplets_become_pairs(columns: Make) -> None:
    anchor, positive, one, two = columns(0, rows=2, count=4)
    first, second, labels = scored_pairs([anchor, positive, one, two], None)
    assert torch.equal(first, torch.cat([anchor, anchor, anchor]))
    assert torch.equal(second, torch.cat([positive, one, two]))
    assert labels.tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "loss", [InfoNCE(symmetric=True), CoSENT(), AnglE(1, 1, 1)], ids=["info-nce", "cosent", "angle"]
)
def test_order_of_the_batch_does_not_matter(columns: Make, loss: Callable[..., Tensor]) -> None:
    batch = columns(0, count=2)
    labels = torch.tensor([0, 1, 0, 2, 2, 4]) if isinstance(loss, InfoNCE) else BINARY
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    shuffled = loss([column[order] for column in batch], labels[order])
    assert shuffled.item() == pytest.approx(loss(batch, labels).item())


@pytest.mark.parametrize("name", ["info-nce", "cosent", "angle"])
def test_a_step_against_the_gradient_improves(columns: Make, name: str) -> None:
    batch = columns(0)
    loss = base_loss(name)
    before = loss(batch, None)
    before.backward()
    assert all(column.grad is not None and column.grad.isfinite().all() for column in batch)
    after = loss([column.detach() - 1e-4 * column.grad for column in batch if column.grad is not None], None)
    assert after < before


@pytest.mark.parametrize("name", ["cosent", "angle"])
def test_equal_labels_teach_no_order(columns: Make, name: str) -> None:
    batch = columns(0, count=2)
    loss = base_loss(name, **({"w_ibn": 0.0} if name == "angle" else {}))(batch, torch.ones(6))
    loss.backward()
    assert loss.item() == 0
    assert all(column.grad is not None and (column.grad == 0).all() for column in batch)


def test_refusals(columns: Make) -> None:
    pairs = columns(0, count=2)
    for name, message in [("mse", "info-nce, cosent, angle"), ("angles", "angle")]:
        with pytest.raises(ConfigError, match=message):
            base_loss(name)
    with pytest.raises(ConfigError, match="w_cos, w_ibn, w_angle, scale"):
        base_loss("angle", tau=3)
    with pytest.raises(ConfigError, match="scores as labels"):
        InfoNCE()(pairs, GRADED)
    with pytest.raises(ConfigError, match="3 passages a row, but the rows have 1"):
        InfoNCE()(pairs, torch.zeros(6, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="scored pairs or triplets"):
        CoSENT()(pairs)
    with pytest.raises(ConfigError, match="even number of dimensions, not 7"):
        AngleDifference()([column[:, :7] for column in pairs], BINARY)
    with pytest.raises(ConfigError, match="all weights"):
        AnglE(0, 0, 0)(pairs, BINARY)
