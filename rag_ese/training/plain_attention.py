"""Attention by plain products while a backbone of Hugging Face's library is trained on a CPU.

Its backward pass takes half the time of torch's fused one there (docs/log.md).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rag_ese.encoder.attention import attend_plainly

_NAME = "rag_ese_plain"


def use_plain_attention(backbone: nn.Module) -> None:
    """Lets an encoder of the BERT family attend by `attend_plainly`, without dropout of attention."""
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    backbone.set_attn_implementation(_NAME)  # type: ignore[operator]


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """In the library's terms: the result is B x T x heads x d."""
    return attend_plainly(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None
