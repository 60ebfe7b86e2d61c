"""Pooling, by hand; tests/parity/test_sentence_transformers.py has the comparison with sentence-transformers."""

from __future__ import annotations

import pytest
import torch

from rag_ese.encoder.pooling import Pooling, modes_from_config
from rag_ese.errors import ModelError

HIDDEN = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [90.0, 90.0]]])
MASK = torch.tensor([[1, 1, 0]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", (1, -4)),
        ("lasttoken", (3, -2)),
        ("max", (3, -2)),
        ("mean", (2, -3)),
        ("mean_sqrt_len_tokens", (4 / 2**0.5, -6 / 2**0.5)),
        ("weightedmean", (7 / 3, -8 / 3)),
    ],
)
def test_modes_by_hand(mode: str, expected: tuple[float, float]) -> None:
    assert Pooling((mode,))(HIDDEN, MASK)[0].tolist() == pytest.approx(expected)


def test_the_prompt_is_left_out_only_where_the_model_says_so() -> None:
    mask = torch.tensor([[1, 1, 1]])
    assert Pooling(("cls", "mean"), include_prompt=False)(HIDDEN, mask, prompt_tokens=2).tolist() == [[90.0] * 4]
    assert Pooling(("cls",))(HIDDEN, mask, prompt_tokens=2).tolist() == [[1, -4]]
    assert mask.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("mode", ["mean", "weightedmean"])
def test_half_precision_states_are_summed_in_float32(mode: str) -> None:
    hidden = torch.full((2, 2000, 1), 100.0, dtype=torch.float16)
    mask = torch.ones(2, 2000, dtype=torch.long)
    mask[1, 1500:] = 0
    assert Pooling((mode,))(hidden, mask).flatten().tolist() == pytest.approx([100, 100], rel=1e-4)


def test_configs_of_either_age() -> None:
    assert modes_from_config({"pooling_mode": "cls"}) == ("cls",)
    assert modes_from_config({"pooling_mode": ["mean", "max"]}) == ("mean", "max")
    assert modes_from_config({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}) == ("lasttoken",)
    assert modes_from_config({}) == ("mean",)


def test_an_unknown_mode_is_an_error_that_names_the_modes() -> None:
    with pytest.raises(ModelError, match=r"unknown pooling \['median'\]: the modes are cls, max, mean"):
        Pooling(("median",))
    with pytest.raises(ModelError, match="with no mode"):
        Pooling(())
