"""From the scores of all windows of a question to one answer.

The candidates of all windows and one "no answer" share a softmax: a candidate's score is its part of it, so that
answers out of different passages compare. A span that stands in several windows has the sum of its parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rag_ese.reader.scoring import WindowScores
from rag_ese.reader.windows import Window


@dataclass(frozen=True)
class Decision:
    """The best candidate: tokens `first` to `last` (inclusive) of a passage, or `closed` (yes or no), which has none.

    `seen` are the passages of the window that gives it most, `score` its part of the softmax, between 0 and 1.
    """

    score: float
    seen: tuple[int, ...]
    passage: int = -1
    first: int = -1
    last: int = -1
    closed: str = ""


def decide(windows: Sequence[Window], scores: Sequence[WindowScores], closed: bool) -> Decision:
    """The best candidate of a question's windows; `closed` says whether it may, and then must, be yes or no.

    One window at least must hold a span or `closed` be true: ValueError otherwise.
    """
    top = max(0.0, *(each.total for each in scores))
    everything = math.exp(-top) + math.fsum(math.exp(each.total - top) for each in scores)
    parts: dict[tuple[int, int, int] | str, float] = {}
    strongest: dict[tuple[int, int, int] | str, tuple[float, Window]] = {}
    for window, each in zip(windows, scores, strict=True):
        for value, candidate in _candidates(window, each, closed):
            parts[candidate] = parts.get(candidate, 0.0) + math.exp(value - top)
            if candidate not in strongest or value > strongest[candidate][0]:
                strongest[candidate] = value, window
    # Where all parts round to 0, the scores still tell candidates apart.
    best = max(parts, key=lambda candidate: (parts[candidate], strongest[candidate][0]))
    seen = tuple(stretch.passage for stretch in strongest[best][1].stretches)
    score = parts[best] / everything
    return Decision(score, seen, closed=best) if isinstance(best, str) else Decision(score, seen, *best)


def _candidates(window: Window, scores: WindowScores, closed: bool) -> list[tuple[float, tuple[int, int, int] | str]]:
    if closed:
        return [(scores.yes, "yes"), (scores.no, "no")]
    return [(value, window.locate(first, last)) for value, first, last in scores.spans]
