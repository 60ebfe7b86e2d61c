"""Gradients by chunks are those of the whole batch, at several layers at once, with dropout, and over processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rag_ese.training.gradient_cache import backward

LAUNCH = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
PROGRAM = Path(__file__).with_name("two_processes.py")


def network(dropout: float = 0.0) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout)), nn.Linear(8, 8)])


def loss(chunks: Sequence[Mapping[int, Tensor]]) -> dict[str, Tensor]:
    """Couples every text with every other one, at both layers."""
    whole = {layer: torch.cat([chunk[layer] for chunk in chunks]) for layer in chunks[0]}
    return {f"L{layer}": (each @ each.T).logsumexp(dim=1).mean() for layer, each in whole.items()}


def gradients(net: nn.ModuleList, sizes: Sequence[int], cached: bool) -> tuple[list[Tensor], dict[str, float]]:
    inputs = torch.randn(sum(sizes), 5, generator=torch.Generator().manual_seed(1)).split(list(sizes))

    def embed(part: Tensor) -> dict[int, Tensor]:
        first = net[0](part)
        return {1: first, 2: net[1](first)}

    net.zero_grad()
    torch.manual_seed(7)
    parts = backward([lambda part=part: embed(part) for part in inputs], loss, cached)
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None], parts


def test_the_cache_changes_no_gradient() -> None:
    net = network()
    (plain, parts), (cached, again) = gradients(net, [12], False), gradients(net, [5, 4, 3], True)
    assert again == pytest.approx(parts) and len(plain) == len(cached) == 4
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other)
    assert max(float(each.abs().max()) for each in plain) > 1e-3


def test_dropout_is_the_same_in_both_passes() -> None:
    net = network(dropout=0.5)
    (plain, _), (cached, _) = gradients(net, [5, 4, 3], False), gradients(net, [5, 4, 3], True)
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_without_restoring_would_differ() -> None:
    net = network(dropout=0.5)
    first, _ = gradients(net, [12], False)
    torch.manual_seed(8)
    inputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    net.zero_grad()
    hidden = net[0](inputs)
    sum(loss([{1: hidden, 2: net[1](hidden)}]).values()).backward()
    assert not torch.allclose(first[0], net[0][0].weight.grad)


def test_a_layer_without_a_loss_needs_no_gradient() -> None:
    net = network()

    def only_first(chunks: Sequence[Mapping[int, Tensor]]) -> dict[str, Tensor]:
        return {"L1": loss(chunks)["L1"]}

    hidden = torch.ones(2, 5)
    backward([lambda: {1: net[0](hidden), 2: net[1](net[0](hidden))}], only_first, True)
    assert net[1].weight.grad is None and net[0][0].weight.grad is not None


def test_two_processes_make_the_gradient_of_one(tmp_path: Path) -> None:
    out = tmp_path / "gradients.pt"
    command = [sys.executable, *LAUNCH, str(PROGRAM), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    expected, _ = gradients(network(), [12], False)
    for one, other in zip(torch.load(out, weights_only=True), expected, strict=True):
        torch.testing.assert_close(one, other)
