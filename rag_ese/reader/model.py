"""The reader's network: a backbone, and one score for each span and for yes, no and no answer.

    score(i, j) = s_i + e_j + u_i . v_j / sqrt(d)        i <= j < i + LONGEST, both in one stretch

All candidates of a window, spans and the three closed ones, share one softmax: its loss is the negative logarithm of
what the right ones get together. A candidate's score less that of no answer compares across windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from rag_ese.reader.windows import Window

CLOSED = ("", "yes", "no")
"""The candidates that are no spans, in the order of their scores; "" is no answer."""
LONGEST = 32
"""Tokens of the longest answer."""


@dataclass(frozen=True)
class Inputs:
    """B windows, right-padded to T: ids, types, mask (B x T, int64) and owner (B x T, -1 where no answer is)."""

    ids: Tensor
    types: Tensor
    mask: Tensor
    owner: Tensor

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Inputs:
        longest = max(map(len, windows))
        fields = torch.zeros(4, len(windows), longest, dtype=torch.long)
        fields[3] = -1
        for row, window in enumerate(windows):
            size = len(window)
            for field, values in enumerate((window.ids, window.types, None, window.owner)):
                fields[field, row, :size] = 1 if values is None else torch.from_numpy(values)
        return cls(*fields)

    def to(self, device: torch.device) -> Inputs:
        return Inputs(*(each.to(device) for each in (self.ids, self.types, self.mask, self.owner)))


class SpanHeads(nn.Module):
    """Linear maps of the backbone's last states to scores."""

    def __init__(self, hidden: int, width: int = 64) -> None:
        super().__init__()
        self.ends = nn.Linear(hidden, 2)
        self.pair = nn.Linear(hidden, 2 * width)
        self.closed = nn.Linear(hidden, len(CLOSED))
        self.scale = 1 / math.sqrt(width)

    def forward(self, states: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Of states B x T x hidden: scores of spans (B x T x LONGEST: first token, length less 1), of CLOSED (B x 3).

        What is no span of one stretch scores -inf.
        """
        first, last = self.ends(states).unbind(-1)
        left, right = self.pair(states).chunk(2, dim=-1)
        pairs = left @ functional.pad(right, (0, 0, 0, LONGEST)).transpose(1, 2)
        scores = first.unsqueeze(2) + _from_each(last) + self.scale * _diagonals(pairs)
        allowed = (_from_each(owner, -1) == owner.unsqueeze(2)) & (owner.unsqueeze(2) >= 0)
        return scores.masked_fill(~allowed, float("-inf")), self.closed(states[:, 0])


def _from_each(values: Tensor, beyond: int = 0) -> Tensor:
    """Of values B x T those from each place on: B x T x LONGEST, filled up with `beyond`."""
    return functional.pad(values, (0, LONGEST - 1), value=beyond).unfold(1, LONGEST, 1)


def _diagonals(pairs: Tensor) -> Tensor:
    """Of pairs B x T x (T + LONGEST) the scores of places i and i + length: B x T x LONGEST."""
    count, tokens, width = pairs.shape
    return pairs.as_strided((count, tokens, LONGEST), (tokens * width, width + 1, 1))


def number_of(first: int, last: int) -> int:
    """The place of a span's score among all of a window, in a row."""
    return first * LONGEST + last - first


def span_of(number: int) -> tuple[int, int]:
    """The reverse of `number_of`.

    >>> span_of(number_of(7, 9))
    (7, 9)
    """
    first, more = divmod(number, LONGEST)
    return first, first + more


class ReaderModel(nn.Module):
    """A backbone of Hugging Face's library with SpanHeads."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = SpanHeads(int(backbone.config.hidden_size))  # type: ignore[arg-type, union-attr]

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """As SpanHeads.forward, in float32 whatever the backbone computes in."""
        output = self.backbone(input_ids=inputs.ids, token_type_ids=inputs.types, attention_mask=inputs.mask)
        with torch.autocast(inputs.ids.device.type, enabled=False):
            spans, closed = self.heads(output.last_hidden_state.float(), inputs.owner)
        return spans, closed


def load_backbone(path: Path) -> nn.Module:
    """The encoder in `path` in float32, without dropout and without its pooler."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model: nn.Module = AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    model.pooler = None  # type: ignore[assignment]  # never used here, and costs time
    return model


def loss(spans: Tensor, closed: Tensor, gold: Sequence[Sequence[int]]) -> Tensor:
    """The mean over B windows of -log of the share of the softmax that their `gold` candidates get together.

    `gold` has, for each window, numbers of candidates: `number_of` a span, T * LONGEST + place for one of CLOSED.
    """
    scores = torch.cat([spans.flatten(1), closed], dim=1)
    width = max(map(len, gold))
    chosen = torch.tensor([[*each, *[each[0]] * (width - len(each))] for each in gold], device=scores.device)
    real = torch.tensor([[place < len(each) for place in range(width)] for each in gold], device=scores.device)
    right = scores.gather(1, chosen).masked_fill(~real, float("-inf"))
    return (scores.logsumexp(1) - right.logsumexp(1)).mean()
