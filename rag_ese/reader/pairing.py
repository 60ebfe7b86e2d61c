"""Which passages are read together: a question of two hops needs the second in the light of the first."""

from __future__ import annotations

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
    """At most `most` pairs of passages: linked ones first, then others, each by what its two passages merit together.

    `merit` is one number per passage, the higher the more likely it holds the answer or leads to it.
    """
    links = set(linked(question, passages))
    pairs = combinations(range(len(passages)), 2)
    ranked = sorted(pairs, key=lambda pair: (pair not in links, -merit[pair[0]] - merit[pair[1]], pair))
    return ranked[:most]
