"""SQuAD 1.1's official metrics (Rajpurkar et al. 2016, arXiv:1606.05250; the semantics of evaluate-v1.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, with single blanks.

    >>> normalise("The  Eiffel-Tower, in Paris")
    'eiffeltower in paris'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1) of the prediction, each the best over the right answers; values between 0 and 1.

    >>> score("in the Paris", ["Paris", "Lyon"])
    (0.0, 0.6666666666666666)
    """
    said = normalise(prediction)
    expected = [normalise(gold) for gold in golds]
    words, others = Counter(said.split()), [Counter(gold.split()) for gold in expected]
    return max(float(said == gold) for gold in expected), max(word_f1(words, other) for other in others)


def word_f1(said: Counter[str], expected: Counter[str]) -> float:
    """The harmonic mean of precision and recall of words, each counted as often as it stands there."""
    common = sum(min(count, expected[word]) for word, count in said.items())
    return 2 * common / (said.total() + expected.total()) if common else 0.0
