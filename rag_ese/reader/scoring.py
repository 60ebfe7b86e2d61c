"""Windows in, scored candidates out: batches of similar length across all questions of a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from rag_ese.encoder.batching import batches
from rag_ese.reader.model import CLOSED, Inputs, ReaderModel, span_of
from rag_ese.reader.windows import Window


@dataclass(frozen=True)
class WindowScores:
    """What a window says, each score less that of no answer.

    `total` is the logarithm of what all its candidates have together, spans, yes and no; `spans` are its best spans
    (score, first token, last token), best first.
    """

    total: float
    yes: float
    no: float
    spans: tuple[tuple[float, int, int], ...]


@torch.inference_mode()
def score_windows(
    model: ReaderModel, windows: Sequence[Window], budget: int, keep: int
) -> Iterator[tuple[int, WindowScores]]:
    """(place in `windows`, its scores) with the `keep` best spans, longest windows first; `budget` tokens a batch."""
    device = next(model.parameters()).device
    for places in batches([len(window) for window in windows], budget):
        spans, closed = model(Inputs.of([windows[place] for place in places]).to(device))
        none = closed[:, CLOSED.index("")]
        flat = spans.flatten(1) - none.unsqueeze(1)
        closed = closed - none.unsqueeze(1)
        total = torch.cat([flat, closed[:, 1:]], dim=1).logsumexp(1)
        best = flat.topk(min(keep, flat.shape[1]), dim=1)
        lines = zip(total.tolist(), closed.tolist(), best.values.tolist(), best.indices.tolist(), strict=True)
        for place, (together, each, values, numbers) in zip(places, lines, strict=True):
            found = [(value, *span_of(number)) for value, number in zip(values, numbers, strict=True)]
            real = tuple((value, first, last) for value, first, last in found if value > float("-inf"))
            yield place, WindowScores(together, each[1], each[2], real)
