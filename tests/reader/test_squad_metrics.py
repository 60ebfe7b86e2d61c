"""The metrics against the official definition, written out step by step."""

from __future__ import annotations

import random
import re
import string

import pytest

from rag_ese.reader.squad import score


def by_hand(prediction: str, gold: str) -> tuple[float, float]:
    def words(text: str) -> list[str]:
        kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    said, right = words(prediction), words(gold)
    left, common = list(right), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if common == 0:
        return float(said == right), 0.0
    precision, recall = common / len(said), common / len(right)
    return float(said == right), 2 * precision * recall / (precision + recall)


def test_against_the_definition() -> None:
    draw = random.Random(0)
    vocabulary = ["the", "a", "an", "The", "yes", "no", "cat's", "dog,", "U.S.", "–", "then", "1,000", "one"]
    for _ in range(500):
        prediction, *golds = (" ".join(draw.choices(vocabulary, k=draw.randint(0, 5))) for _ in range(3))
        each = [by_hand(prediction, gold) for gold in golds]
        expected = max(one[0] for one in each), max(one[1] for one in each)
        assert score(prediction, golds) == pytest.approx(expected)
