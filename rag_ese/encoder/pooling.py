"""From token states to one vector per text. Modes and order of concatenation are those of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rag_ese.errors import ModelError


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pick(hidden, mask.int().argmax(dim=1))


def _last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    positions = torch.arange(mask.shape[1], device=mask.device)
    return _pick(hidden, (mask * positions).argmax(dim=1))


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / _count(mask)


def _mean_sqrt(hidden: Tensor, mask: Tensor) -> Tensor:
    return _sum(hidden, mask) / _count(mask).sqrt()


def _weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return _sum(hidden.float(), weights) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.float().masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)


def _pick(hidden: Tensor, positions: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), positions].float()


def _sum(hidden: Tensor, weights: Tensor) -> Tensor:
    """Sums in float32 whatever the states' precision: a mean of 256 bfloat16 numbers would lose digits."""
    if bool((weights == 1).all()):
        return hidden.sum(dim=1, dtype=torch.float32)
    return (hidden * weights.unsqueeze(-1).to(hidden.dtype)).sum(dim=1, dtype=torch.float32)


def _count(mask: Tensor) -> Tensor:
    return mask.sum(dim=1, keepdim=True).clamp(min=1).float()


MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


@dataclass(frozen=True)
class Pooling:
    """Pools B x T x hidden states under a B x T mask to B x (modes * hidden), in float32, not normalised.

    `include_prompt=False` leaves the prompt's tokens out of the pooling (not out of the attention).
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown or not self.modes:
            raise ModelError(f"unknown pooling {unknown or 'with no mode'}: the modes are {', '.join(MODES)}")

    def __call__(self, hidden: Tensor, mask: Tensor, prompt_tokens: int = 0) -> Tensor:
        if prompt_tokens and not self.include_prompt:
            mask = mask.clone()
            mask[:, :prompt_tokens] = 0
        return torch.cat([MODES[mode](hidden, mask) for mode in self.modes], dim=1)


def modes_from_config(config: dict[str, object]) -> tuple[str, ...]:
    """The modes of a sentence-transformers pooling config, in its newer form (`pooling_mode`) or the older flags."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return (mode,) if isinstance(mode, str) else tuple(mode) if isinstance(mode, Sequence) else ()
    flags = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
    }
    return tuple(mode for flag, mode in flags.items() if config.get(flag)) or ("mean",)
