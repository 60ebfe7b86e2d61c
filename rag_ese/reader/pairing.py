"""Which passages are read together: a question of two hops needs the second in the light of the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from rag_ese.generator.spans import bare_title
from rag_ese.types import Passage


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
    """At most `most` pairs of passages, which come best first: linked ones, then others, each by promise.

    A pair promises what its two passages merit, and the more the earlier they were found. `merit` is one number per
    passage, the logarithm of the odds that it holds the answer; these count 1 / rank times, since a passage that only
    leads to the answer has none of its own.
    """
    links = set(linked(question, passages))
    promise = [value - math.log(rank) for rank, value in enumerate(merit, 1)]
    pairs = combinations(range(len(passages)), 2)
    ranked = sorted(pairs, key=lambda pair: (pair not in links, -promise[pair[0]] - promise[pair[1]], pair))
    return ranked[:most]
