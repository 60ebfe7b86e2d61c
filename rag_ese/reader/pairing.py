"""Which passages are read together: a question of two hops needs the second in the light of the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from rag_ese.generator.spans import bare_title
from rag_ese.types import Passage

LINK = 2.0
"""What a link adds to the merit of a pair; chosen on held-out training questions (docs/log.md)."""


def linked(question: str, passages: Sequence[Passage]) -> list[tuple[int, int]]:
    """Pairs of passages of which one names the other's title, or whose titles the question names both."""
    titles = [bare_title(passage.title).lower() for passage in passages]
    texts = [passage.text.lower() for passage in passages]
    asked = [bool(title) and title in question.lower() for title in titles]
    return [
        (left, right)
        for left, right in combinations(range(len(passages)), 2)
        if (asked[left] and asked[right])
        or (titles[left] and titles[left] in texts[right])
        or (titles[right] and titles[right] in texts[left])
    ]


def choose_pairs(
    question: str, passages: Sequence[Passage], merit: Sequence[float], most: int
) -> list[tuple[int, int]]:
    """The `most` most promising pairs of passages, which come best first.

    A pair is promising by what its two passages merit, by their ranks and by a link between the two. `merit` is one
    number per passage, the logarithm of the odds that it holds the answer. The odds count 1 / rank times: a passage
    that only leads to the answer has none of its own, but was found early.
    """
    links = set(linked(question, passages))
    promise = [value - math.log(rank) for rank, value in enumerate(merit, 1)]
    pairs = combinations(range(len(passages)), 2)
    ranked = sorted(pairs, key=lambda pair: (-promise[pair[0]] - promise[pair[1]] - LINK * (pair in links), pair))
    return ranked[:most]
