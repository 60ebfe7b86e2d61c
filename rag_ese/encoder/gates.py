"""Token gates: how much each token counts in the pooling at a depth, read off the token's own state.

A mean over tokens counts function words as much as names. The last blocks of a sentence encoder make up for it, by
bringing all tokens close to the sentence's meaning; the first ones have not done so yet. A gate lets a shallow depth
weight its tokens itself:

    g(h) = (1 + e^3) sigmoid(w . h + b - 3)

about e^(w . h + b) where that is small, never above 21, and 1 for w = b = 0, where pooling is what it is without gates.
The weights are not divided by their sum: for a text of T tokens the pooled vector is the mean of g(h_t) h_t. That is
what sentence-transformers can say with modules of its own, a Dense over the token states with torch's GLU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

OFFSET = 3.0
SCALE = 1 + math.exp(OFFSET)


@dataclass(frozen=True, eq=False)
class TokenGate:
    """`weight` (1 x hidden) and `bias` (1) of the gate of one depth."""

    weight: Tensor
    bias: Tensor

    def __call__(self, hidden: Tensor) -> Tensor:
        """B x T x hidden states, each times its weight; of the same precision."""
        score = functional.linear(hidden, self.weight.to(hidden.dtype), self.bias.to(hidden.dtype))
        return hidden * (SCALE * torch.sigmoid(score.float() - OFFSET)).to(hidden.dtype)

    def to(self, device: torch.device) -> TokenGate:
        return TokenGate(self.weight.to(device), self.bias.to(device))

    def as_linear(self) -> tuple[Tensor, Tensor]:
        """Weight (2 hidden x hidden) and bias of the linear map that `torch.nn.GLU` turns into the gated states.

        GLU(x) = x[:d] * sigmoid(x[d:]): SCALE times the state itself, then the score for every dimension alike.
        """
        hidden = self.weight.shape[1]
        weight = torch.cat([SCALE * torch.eye(hidden), self.weight.cpu().float().expand(hidden, hidden)])
        bias = torch.cat([torch.zeros(hidden), (self.bias.cpu().float() - OFFSET).expand(hidden)])
        return weight, bias


def open_gate(hidden: int) -> TokenGate:
    """The gate that counts every token once, with which training begins."""
    return TokenGate(torch.zeros(1, hidden), torch.zeros(1))
