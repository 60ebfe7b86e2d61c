"""From the scores of all windows of a question to one answer.

The candidates of all windows and one "no answer" share a softmax: a candidate's score is its part of it, so that
answers out of different passages compare. A span that stands in several windows has the sum of its parts. The answer is
the span whose words have the highest expected F1, if each candidate were right as often as its part says (minimum Bayes
risk): "the Eiffel Tower" is backed by "Eiffel Tower", and by the same words elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag_ese.reader.scoring import WindowScores
from rag_ese.reader.squad import word_f1
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


Span = tuple[int, int, int]
"""A passage, and the first and the last (inclusive) of its tokens."""
_COMPARED = 20
"""Spans that may become the answer: what the others have of the softmax changes no expectation."""


def decide(
    windows: Sequence[Window], scores: Sequence[WindowScores], closed: bool, words: Callable[[Span], Sequence[str]]
) -> Decision:
    """The best candidate of a question's windows; `closed` says whether it may, and then must, be yes or no.

    `words` are those of a span as F1 compares them. One window at least must hold a span or `closed` be true:
    ValueError otherwise.
    """
    top = max(0.0, *(each.total for each in scores))
    everything = math.exp(-top) + math.fsum(math.exp(each.total - top) for each in scores)
    parts: dict[Span | str, float] = {}
    strongest: dict[Span | str, tuple[float, Window]] = {}
    for window, each in zip(windows, scores, strict=True):
        for value, candidate in _candidates(window, each, closed):
            parts[candidate] = parts.get(candidate, 0.0) + math.exp(value - top)
            if candidate not in strongest or value > strongest[candidate][0]:
                strongest[candidate] = value, window
    # Where all parts round to 0, the scores still tell candidates apart.
    ranked = sorted(parts, key=lambda candidate: (-parts[candidate], -strongest[candidate][0]))
    spans = [each for each in ranked[:_COMPARED] if not isinstance(each, str)]
    best = _most_expected(spans, [parts[span] for span in spans], words) if spans else ranked[0]
    seen = tuple(stretch.passage for stretch in strongest[best][1].stretches)
    score = parts[best] / everything
    return Decision(score, seen, closed=best) if isinstance(best, str) else Decision(score, seen, *best)


def _most_expected(spans: Sequence[Span], parts: Sequence[float], words: Callable[[Span], Sequence[str]]) -> Span:
    """The first of `spans` whose words have the highest F1 with those of all, each as often as its part says."""
    said = [Counter(words(span)) for span in spans]
    expected = [sum(part * word_f1(mine, other) for part, other in zip(parts, said, strict=True)) for mine in said]
    return spans[expected.index(max(expected))]


def _candidates(window: Window, scores: WindowScores, closed: bool) -> list[tuple[float, Span | str]]:
    if closed:
        return [(scores.yes, "yes"), (scores.no, "no")]
    return [(value, window.locate(first, last)) for value, first, last in scores.spans]
