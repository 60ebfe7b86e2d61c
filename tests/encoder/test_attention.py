"""Attention against its formula, in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rag_ese.encoder.attention import attend, attend_plainly

Draw = NDArray[np.float64]


def drawn(scale: float, shape: tuple[int, ...] = (2, 4, 24, 8)) -> tuple[Draw, Draw, Draw, NDArray[np.bool_]]:
    """Query, key, value and a mask under which one text is whole and the other shorter."""
    draw = np.random.default_rng(0)
    query, key, value = draw.normal(size=(3, *shape)) * np.array([scale, scale, 1]).reshape(3, 1, 1, 1, 1)
    mask = np.ones((shape[0], 1, shape[2], shape[2]), bool)
    mask[1, ..., shape[2] * 2 // 3 :] = False
    return query, key, value, mask


def expected(query: Draw, key: Draw, value: Draw, mask: NDArray[np.bool_] | None) -> Draw:
    scores = 0.5 * query @ key.transpose(0, 1, 3, 2)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(shares / shares.sum(-1, keepdims=True) @ value)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scale", [1, 60])  # 60: scores beyond the exponential's range, in both directions
@pytest.mark.parametrize("how", [attend, attend_plainly])
def test_attention_written_out(how: Callable[..., torch.Tensor], scale: float, masked: bool) -> None:
    query, key, value, mask = drawn(scale)
    assert (np.abs(0.5 * query @ key.transpose(0, 1, 3, 2)).max() > 800) == (scale == 60)
    inputs = [torch.from_numpy(each) for each in (query, key, value)]
    found = how(*inputs, torch.from_numpy(mask) if masked else None, 0.5)
    np.testing.assert_allclose(found.numpy(), expected(query, key, value, mask if masked else None), atol=1e-9)


@pytest.mark.parametrize("shape", [(2, 4, 24, 8), (2, 4, 96, 8)])  # below and above the number of tokens that decides
def test_attention_in_half_precision(shape: tuple[int, ...]) -> None:
    halves = [torch.from_numpy(each).to(torch.bfloat16) for each in drawn(1, shape)[:3]]
    mask = drawn(1, shape)[3]
    found = attend(*halves, torch.from_numpy(mask), 0.5)
    assert found.dtype == torch.bfloat16
    exact = expected(*(each.double().numpy() for each in halves), mask)
    np.testing.assert_allclose(found.double().numpy(), exact, atol=0.02)


@pytest.mark.parametrize("score", [85.0, 79.0, -82.0, -85.0, 120.0, -120.0])
def test_attention_at_the_ends_of_the_exponential(score: float) -> None:
    query, key = torch.full((1, 1, 3, 1), score), torch.ones(1, 1, 3, 1)
    value = torch.tensor([100.0, 200.0, 300.0]).reshape(1, 1, 3, 1)
    assert attend_plainly(query, key, value, None, 1.0).flatten().tolist() == pytest.approx([200.0] * 3)
    mask = torch.tensor([True, True, False]).expand(1, 1, 3, 3)
    assert attend_plainly(query, key, value, mask, 1.0).flatten().tolist() == pytest.approx([150.0] * 3)


def test_padding_of_any_score_changes_nothing() -> None:
    query, key, value, mask = (torch.from_numpy(each) for each in drawn(1))
    alone = attend_plainly(query, key, value, mask, 0.5)
    for far in (50.0, 1e4):  # within the exponential's range and beyond it
        key[1, :, 16:] = far
        np.testing.assert_allclose(attend_plainly(query, key, value, mask, 0.5), alone, atol=1e-12)


def test_gradients_are_those_of_torch() -> None:
    query, key, value, mask = (torch.from_numpy(each) for each in drawn(1))
    found = []
    for how in (
        lambda *given: attend_plainly(*given, mask, 0.5),
        lambda *given: torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=mask, scale=0.5),
    ):
        given = [each.clone().requires_grad_() for each in (query, key, value)]
        (how(*given) ** 2).sum().backward()
        found.append([np.asarray(each.grad, np.float32) for each in given])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
