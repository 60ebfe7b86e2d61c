"""Blocks of the BERT family (BERT, RoBERTa, XLM-R) for inference on a CPU: the library's, in fewer and faster steps.

Weights are packed once, in the layout that oneDNN computes in; torch's linear maps pack them anew in every call, and in
float32 may not use oneDNN at all. Query, key and value are one product; GELU and the residual sums are part of the
products before them. What the library does for training and many architectures between those steps is left out: it
takes longer than the products where one short question is encoded. Figures: docs/log.md, "Packed blocks".
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from rag_ese.encoder.attention import attend

FAMILY = {"BertLayer", "RobertaLayer", "XLMRobertaLayer"}
"""The library's classes of blocks; RoBERTa's and XLM-R's are BERT's under other names."""

Forward = Callable[..., Any]


def packed_forward(block: nn.Module) -> Forward:
    """The forward of `block`, by packed weights wherever that is possible, and else its own.

    It is possible in inference mode on a CPU for blocks of the BERT family with plain linear maps. Weights that have
    changed since the last call are packed again; they are kept twice, packed and as they are.
    """
    own = block.forward
    returns = inspect.signature(type(block).forward).return_annotation
    if type(block).__name__ not in FAMILY or returns not in (Tensor, "torch.Tensor"):
        return own
    packed: PackedBlock | None = None

    def forward(hidden: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        nonlocal packed
        if not (torch.is_inference_mode_enabled() and _fits(hidden, attention_mask)):
            return own(hidden, attention_mask, *args, **kwargs)
        if packed is None or packed.outdated:
            packed = PackedBlock(block) if _is_plain(block) else None
        return packed(hidden, attention_mask) if packed else own(hidden, attention_mask, *args, **kwargs)

    return forward


def pack_blocks(model: nn.Module) -> None:
    """Lets all blocks of the BERT family in `model` run by packed weights from now on, where that is possible."""
    for module in model.modules():
        if type(module).__name__ in FAMILY:
            module.forward = packed_forward(module)


class PackedBlock:
    """The block with the weights that it has now."""

    def __init__(self, block: Any) -> None:
        inner, outer = block.attention.self, block.attention.output
        self._heads, self._scaling = inner.num_attention_heads, inner.scaling
        self._norms = outer.LayerNorm, block.output.LayerNorm
        self._modules = [(parent._modules, name, module) for parent, name, module in _linear_maps(block)]
        maps = [(module.weight, module.bias) for _, _, module in self._modules]
        self._qkv = _pack(torch.cat([weight for weight, _ in maps[:3]]), torch.cat([bias for _, bias in maps[:3]]))
        self._out, self._up, self._down = (_pack(*each) for each in maps[3:])
        self._weights = [
            (module._parameters, name, parameter, parameter._version, parameter.data_ptr())
            for _, _, module in self._modules
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]

    @property
    def outdated(self) -> bool:
        """Whether a linear map or a weight is another one by now, or has been written to."""
        return any(kept[name] is not module for kept, name, module in self._modules) or any(
            kept[name] is not weight or weight._version != version or weight.data_ptr() != place
            for kept, name, weight, version, place in self._weights
        )

    def __call__(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """B x T x hidden states to those after the block; the mask is the library's, B x 1 x T x T, True for tokens."""
        linear = torch.ops.mkldnn._linear_pointwise
        rows, tokens, _ = hidden.shape
        parts = linear(hidden, *self._qkv, "none", [], "").view(rows, tokens, 3, self._heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        mixed = attend(query, key, value, mask, self._scaling).transpose(1, 2).reshape(rows, tokens, -1)
        hidden = _normalized(self._norms[0], linear.binary(mixed, hidden, *self._out, "add"))
        inner = linear(hidden, *self._up, "gelu", [], "none")
        return _normalized(self._norms[1], linear.binary(inner, hidden, *self._down, "add"))


def _pack(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach()), bias.detach()


def _normalized(norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
    return torch.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _linear_maps(block: Any) -> list[tuple[nn.Module, str, Any]]:
    """The six linear maps of a block in the order in which they run: parent, name, module."""
    inner = block.attention.self
    parents = [(inner, name) for name in ("query", "key", "value")]
    parents += [(each, "dense") for each in (block.attention.output, block.intermediate, block.output)]
    return [(parent, name, getattr(parent, name)) for parent, name in parents]


def _is_plain(block: Any) -> bool:
    """Whether the block is what `PackedBlock` computes: no adapters, no decoder, and GELU; and whether it can follow
    changes of the weights, which torch does not count where they were made in inference mode."""
    maps = [module for _, _, module in _linear_maps(block)]
    linear = all(type(module) is nn.Linear and module.bias is not None for module in maps)
    gelu = type(block.intermediate.intermediate_act_fn).__name__ == "GELUActivation"
    counted = not any(weight.is_inference() for module in maps for weight in module.parameters())
    return linear and gelu and counted and not block.is_decoder


def _fits(hidden: Tensor, mask: Tensor | None) -> bool:
    masked = mask is None or (mask.dtype == torch.bool and mask.ndim == 4)
    return masked and hidden.device.type == "cpu" and has_kernels(hidden.dtype)


@cache
def has_kernels(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's packed products, in `dtype`, on this processor; they are no public API."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        one = torch.eye(16, dtype=dtype)
        weight, bias = _pack(one, one[0])
        linear = torch.ops.mkldnn._linear_pointwise
        found = linear.binary(linear(one, weight, bias, "gelu", [], "none"), one, weight, bias, "add")
        expected = nn.functional.gelu(one + bias) + bias + one
        return bool(torch.allclose(found.float(), expected.float(), atol=1e-5 if dtype == torch.float32 else 0.05))
    except (AttributeError, RuntimeError):  # no such product, or not for this precision or processor
        return False
