"""What the leading k dimensions of an embedding are compressed towards: its principal components, in three readings.

ESE (ICLR 2025) aligns m[:k] with the k principal components of m. Its code takes for that the left singular vectors,
times the singular values, of softmax(m^T m / sqrt(d)) of each batch; `batch_pca` is what the paper says; and
`RunningCovariance` is ours: one slowly moving basis, so that the target of a text does not turn from batch to batch.
No target carries a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rag_ese.errors import SizeError


@torch.no_grad()
def reference_target(m: Tensor, k: int, seed: int | None = None) -> Tensor:
    """The target of angle-emb 0.6.1: m U diag(S), with U, S the rank-k SVD of A = softmax_rows(m^T m / sqrt(d)).

    m is N x d, the target N x k. The SVD is randomised; with `seed` the draw is fixed and torch's own random state is
    left as it was. m is not centred.
    """
    _check(k, m.shape[1])
    similarity = torch.softmax(m.T @ m / math.sqrt(m.shape[1]), dim=1)
    if seed is None:
        left, values, _ = torch.svd_lowrank(similarity, q=k)
    else:
        with torch.random.fork_rng(devices=[m.device] if m.is_cuda else []):
            torch.manual_seed(seed)
            left, values, _ = torch.svd_lowrank(similarity, q=k)
    return m @ (left * values)


@torch.no_grad()
def batch_pca(m: Tensor, k: int) -> Tensor:
    """The k principal components of the rows of m (N x d): (m - mean) V, N x k, strongest first.

    Signs are fixed (the largest entry of each direction is positive). N rows have at most N - 1 components; where k is
    larger, the rest is 0.
    """
    _check(k, m.shape[1])
    centred = (m - m.mean(dim=0)).double()
    directions = _signed(torch.linalg.svd(centred, full_matrices=False)[2][:k].T)
    target = centred.new_zeros(len(m), k)
    target[:, : directions.shape[1]] = centred @ directions
    return target.to(m.dtype)


class RunningCovariance:
    """Mean and covariance of a stream of batches, with exponential forgetting, and their principal directions.

    `decay` is what a batch's weight is multiplied with at each later batch. A basis is kept for `refresh` updates. A
    new one is rotated within its own subspace towards the one before (orthogonal Procrustes), so that targets move no
    more than the subspace does; therefore only the first basis has its directions in order of variance.
    """

    def __init__(self, width: int, decay: float = 0.99, refresh: int = 20) -> None:
        self.width = width
        self.decay = decay
        self.refresh = refresh
        self._weight = torch.zeros((), dtype=torch.float64)
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)
        self._basis = torch.zeros(width, 0, dtype=torch.float64)
        self._age = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, m: Tensor) -> None:
        """Adds the rows of m (N x width)."""
        rows = m.detach().double()
        self._weight, self._sum, self._products = (
            self.decay * old.to(rows.device) + new
            for old, new in (
                (self._weight, torch.tensor(float(len(rows)), dtype=torch.float64, device=rows.device)),
                (self._sum, rows.sum(dim=0)),
                (self._products, rows.T @ rows),
            )
        )
        self._age = self._age + 1

    @property
    def mean(self) -> Tensor:
        """width, float64."""
        return self._sum / self._weight.clamp(min=1e-300)

    @property
    def covariance(self) -> Tensor:
        """width x width, float64."""
        return self._products / self._weight.clamp(min=1e-300) - torch.outer(self.mean, self.mean)

    @torch.no_grad()
    def basis(self, k: int) -> Tensor:
        """The k strongest principal directions as orthonormal columns (width x k, float64)."""
        _check(k, self.width)
        if self._basis.shape[1] == k and self._age < self.refresh:
            return self._basis.to(self._sum.device)
        found = _signed(torch.linalg.eigh(self.covariance)[1].flip(1)[:, :k]).contiguous()
        if self._basis.shape[1] == k:
            left, _, right = torch.linalg.svd(found.T @ self._basis.to(found.device))
            found = found @ left @ right
        self._basis, self._age = found, torch.zeros_like(self._age)
        return found

    @torch.no_grad()
    def target(self, m: Tensor, k: int) -> Tensor:
        """(m - mean) basis: N x k, in the precision of m."""
        mean = self.mean.to(m.device)
        return ((m.detach().double() - mean) @ self.basis(k).to(m.device)).to(m.dtype)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as plain tensors: a run that loads them goes on exactly as it would have."""
        return {
            "weight": self._weight,
            "sum": self._sum,
            "products": self._products,
            "basis": self._basis,
            "age": self._age,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `state_dict` gave."""
        self._weight, self._sum, self._products = (state[name].clone() for name in ("weight", "sum", "products"))
        self._basis, self._age = state["basis"].clone(), state["age"].clone()


def _signed(directions: Tensor) -> Tensor:
    """Columns turned so that the entry of the largest magnitude is positive; d x k."""
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -directions, directions)


def _check(k: int, width: int) -> None:
    if not 1 <= k <= width:
        raise SizeError(f"cannot compress {width} dimensions to {k}: choose between 1 and {width}")
