"""Attention among the tokens of each text, for encoders on a CPU.

In bfloat16 torch's fused attention takes two to three times as long there as plain products with a softmax of one
exponential and one sum (docs/log.md); in float32, and for a single short text, it is the faster one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MANY_TOKENS = 96
"""In a batch, from which on plain products are faster in bfloat16."""
_LEAST, _MOST = 1e-36, 1e38
"""What the exponentials of a row may add up to, and what may come of it times the values: numbers of full precision."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """softmax(scaling * query key^T) value, by whatever is faster here. No dropout.

    Query, key and value are B x heads x T x d, and so is the result. The mask is B x 1 x T x T, True where the key is a
    token and False where it is padding, the same for every query; or None.
    """
    if query.dtype != torch.bfloat16 or query.shape[0] * query.shape[2] < _MANY_TOKENS:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return attend_plainly(query, key, value, mask, scaling)


def attend_plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """As `attend`, by plain products; gradients flow through it.

    exp(score) is taken as it is, without the row's maximum taken off first, and what the values give with it is divided
    by its sum; padding is left out of both by a product with 0. Where a number leaves the range (scores beyond 80 or
    so), torch's attention takes over.
    """
    shares = ((query * scaling) @ key.transpose(2, 3)).exp_()  # in place: fresh memory costs more than the exponential
    if mask is None:
        sums, tokens = shares.sum(dim=-1, keepdim=True), value
    else:
        is_token = mask[:, :, :1].transpose(2, 3).to(value.dtype)  # B x 1 x T x 1
        sums, tokens = shares @ is_token, value * is_token
    (least, most), (lowest, highest) = sums.detach().aminmax(), tokens.detach().aminmax()
    if least > _LEAST and float(most) * max(float(-lowest), float(highest), 1.0) < _MOST:
        return (shares @ tokens).div_(sums)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
