"""Compression targets: the reference's and numpy's, and how the running basis moves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rag_ese.errors import SizeError
from rag_ese.objectives.compression import RunningCovariance, batch_pca, reference_target

Make = Callable[..., list[Tensor]]
SEEDS = [0, 1, 2]


def stretched(seed: int, rows: int, scales: list[float]) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    plain = torch.randn(rows, len(scales), generator=draw, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(len(scales), len(scales), generator=draw, dtype=torch.float64))[0]
    return plain * torch.tensor(scales, dtype=torch.float64) @ turn + 3


@pytest.mark.parametrize("seed", SEEDS)
def test_reference_target_is_that_of_angle_emb(angle_emb: Any, columns: Make, seed: int) -> None:
    m = columns(seed, rows=12, width=16)[0].float()
    torch.manual_seed(seed)
    theirs = angle_emb.AngleESETrainer.pca_compress(SimpleNamespace(), m, 4)
    assert torch.allclose(reference_target(m, 4, seed=seed), theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(reference_target(m, 4, seed=seed + 1).abs(), theirs * 1.01, rtol=1e-4)


def test_a_seed_leaves_the_global_state_alone(columns: Make) -> None:
    m = columns(0)[0]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = reference_target(m, 2, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(reference_target(m, 2, seed=1), first)


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_pca_has_the_strongest_components_of_the_covariance(columns: Make, seed: int) -> None:
    m = columns(seed, rows=20, width=6)[0]
    rows = m.detach().numpy()
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    expected = (rows - rows.mean(0)) @ vectors[:, ::-1][:, :3]
    target = batch_pca(m, 3)
    assert np.allclose(np.abs(target.numpy()), np.abs(expected))
    assert np.allclose(target.numpy().var(0, ddof=1), values[::-1][:3])
    assert torch.allclose(batch_pca(m[torch.randperm(20, generator=torch.Generator().manual_seed(1))], 3).sort(0)[0],
                          target.sort(0)[0])  # fmt: skip


def test_batch_pca_of_a_small_batch_is_filled_with_zeros(columns: Make) -> None:
    m = columns(0, rows=3, width=8)[0]
    target = batch_pca(m, 5)
    assert target.shape == (3, 5)
    assert torch.allclose(target[:, 2:], torch.zeros(3, 3, dtype=torch.float64), atol=1e-12)
    assert target[:, :2].norm(dim=0).min() > 0.1
    assert not target.requires_grad


def test_running_covariance_is_the_weighted_one() -> None:
    batches = [stretched(seed, 5, [3, 2, 1, 0.5]) for seed in SEEDS]
    running = RunningCovariance(4, decay=0.5)
    for batch in batches:
        running.update(batch)
    rows, weights = torch.cat(batches).numpy(), np.repeat([0.25, 0.5, 1.0], 5)
    assert np.allclose(running.mean.numpy(), np.average(rows, axis=0, weights=weights))
    assert np.allclose(running.covariance.numpy(), np.cov(rows.T, aweights=weights, ddof=0))


def test_the_first_basis_is_the_pca_of_the_batch() -> None:
    m = stretched(0, 40, [5, 3, 2, 1, 0.5])
    running = RunningCovariance(5)
    running.update(m)
    assert torch.allclose(running.target(m, 3), batch_pca(m, 3))


def test_a_new_basis_spans_the_new_subspace_and_is_close_to_the_old_one() -> None:
    """Two directions of equal strength: eigenvectors turn at will from batch to batch, the aligned basis does not."""
    running = RunningCovariance(6, decay=0.5, refresh=1)
    running.update(stretched(0, 200, [4, 4, 4, 1, 1, 1]))
    before = running.basis(3)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))[0]
    small = torch.matrix_exp(0.02 * (turn - turn.T))
    running.update(stretched(0, 200, [4, 4.1, 3.9, 1, 1, 1]) @ small)
    after = running.basis(3)
    plain = torch.linalg.eigh(running.covariance)[1].flip(1)[:, :3]
    assert torch.allclose(after @ after.T, plain @ plain.T)
    assert torch.allclose(after.T @ after, torch.eye(3, dtype=torch.float64))
    assert (after - before).norm() <= min((plain * sign - before).norm() for sign in (1, -1)) + 1e-12
    assert (after - before).norm() < 0.2


def test_a_basis_is_kept_until_it_is_due() -> None:
    running = RunningCovariance(4, decay=0.1, refresh=3)
    seen = []
    for seed in range(4):
        running.update(stretched(seed, 30, [3, 2, 1, 0.5]))
        seen.append(running.basis(2))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])
    assert not torch.allclose(seen[2], seen[3])


def test_a_resumed_basis_goes_on_exactly() -> None:
    batches = [stretched(seed, 9, [3, 2, 1, 0.5]) for seed in range(7)]

    def run(running: RunningCovariance, part: list[Tensor]) -> list[Tensor]:
        found = []
        for batch in part:
            running.update(batch)
            found.append(running.target(batch, 2))
        return found

    whole = run(RunningCovariance(4, refresh=2), batches)
    first, second = RunningCovariance(4, refresh=2), RunningCovariance(4, refresh=2)
    run(first, batches[:4])
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    assert all(torch.equal(a, b) for a, b in zip(run(second, batches[4:]), whole[4:], strict=True))


def test_sizes_that_do_not_exist_are_refused(columns: Make) -> None:
    m = columns(0)[0]
    for k in (0, 9):
        for call in (reference_target, batch_pca, RunningCovariance(8).target):
            with pytest.raises(SizeError, match=f"8 dimensions to {k}: choose between 1 and 8"):
                call(m, k)
