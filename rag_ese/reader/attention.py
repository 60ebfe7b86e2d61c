"""Attention for short windows on a CPU: plain products, and a softmax of one exponential and one sum.

On windows of 150 tokens it is faster than torch's fused attention, and than the library's plain one (docs/log.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

_NAME = "rag_ese_plain"
_FAR = 1e30
"""Sums up to here leave room for the products with the values."""


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """softmax(scaling * query key^T + mask) value.

    Query, key and value are B x heads x T x d, the mask B x 1 x T x T or None; the result is B x T x heads x d. No
    dropout.

    exp(score) is taken as it is, and what the values give with it is divided by its sum. Trained scores lie far within
    the exponential's range (-87 to 88 in float32 and bfloat16); where a sum comes near its ends, torch's softmax takes
    over.
    """
    shares = _scores(query, key, mask, scaling).exp_()  # in place: fresh memory would cost more than the exponential
    sums = shares.sum(dim=-1, keepdim=True)
    least, most = sums.aminmax()
    if least > 1 / _FAR and most < _FAR:
        mixed = (shares @ value).div_(sums)
    else:
        mixed = torch.softmax(_scores(query, key, mask, scaling), dim=-1) @ value
    return mixed.transpose(1, 2).contiguous(), None


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    scores = (query * scaling) @ key.transpose(2, 3)
    return scores if mask is None else scores.add_(mask)


def use_plain_attention(backbone: nn.Module) -> None:
    """Lets a backbone of Hugging Face's library attend by `attend`."""
    AttentionInterface.register(_NAME, attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    backbone.set_attn_implementation(_NAME)  # type: ignore[operator]
