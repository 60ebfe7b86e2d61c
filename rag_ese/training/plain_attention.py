"""Attention by plain products while an encoder of Hugging Face's library is trained in bfloat16 on a CPU.

Forward and backward together take two thirds of the time of a step with torch's fused attention (docs/log.md); in
float32 the fused one is faster.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rag_ese.encoder.attention import attend_plainly
from rag_ese.encoder.packed_block import FAMILY

_NAME = "rag_ese_plain"


def use_plain_attention(backbone: nn.Module) -> None:
    """Lets an encoder of the BERT family attend by `attend_plainly` where it drops nothing; leaves others alone."""
    if not any(type(module).__name__ in FAMILY and not module.is_decoder for module in backbone.modules()):
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    backbone.set_attn_implementation(_NAME)  # type: ignore[operator]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """In the library's terms: the result is B x T x heads x d."""
    if dropout:
        mixed, _ = sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **options)
        return mixed, None
    return attend_plainly(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None
