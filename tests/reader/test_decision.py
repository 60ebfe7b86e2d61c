from __future__ import annotations

import math

import numpy as np
import pytest

from rag_ese.reader.decision import decide
from rag_ese.reader.pairing import choose_pairs, linked
from rag_ese.reader.scoring import WindowScores
from rag_ese.reader.squad import score
from rag_ese.reader.windows import Cutter, Stretch
from rag_ese.types import Passage


def total(*scores: float) -> float:
    return float(np.log(np.sum(np.exp(scores))))


def distinct(span: tuple[int, int, int]) -> list[str]:
    """Words that no two spans share."""
    return [str(span)]


def test_one_softmax_over_all_windows(cutter: Cutter, passages: tuple[Passage, ...]) -> None:
    alone = cutter.window("Who?", passages, [Stretch(0, 0, 6)])
    other = cutter.window("Who?", passages, [Stretch(1, 0, 6)])
    both = cutter.window("Who?", passages, [Stretch(1, 0, 6), Stretch(0, 0, 6)])
    place, elsewhere = alone.place(0, 2, 3), both.place(0, 2, 3)
    strong = other.place(1, 1, 1)
    assert place and elsewhere and strong
    scores = [
        WindowScores(total(1.0, -1, -2), -1, -2, ((1.0, *place),)),
        WindowScores(total(1.6, -1, -1), -1, -1, ((1.6, *strong),)),
        WindowScores(total(1.5, 0.2, -3, 0), -3, 0, ((1.5, *elsewhere), (0.2, *strong_in(both)))),
    ]
    found = decide([alone, other, both], scores, closed=False, words=distinct)
    whole = 1 + sum(math.exp(value) for value in (1.0, -1, -2, 1.6, -1, -1, 1.5, 0.2, -3, 0))
    assert (found.passage, found.first, found.last) == (0, 2, 3)
    assert found.seen == (1, 0)
    assert found.score == pytest.approx((math.exp(1.0) + math.exp(1.5)) / whole)
    asked = decide([alone, other, both], scores, closed=True, words=distinct)
    assert asked.closed == "no" and asked.seen == (1, 0)
    assert asked.score == pytest.approx((math.exp(-2) + math.exp(-1) + math.exp(0)) / whole)


def strong_in(window: object) -> tuple[int, int]:
    place = window.place(1, 4, 5)  # type: ignore[attr-defined]
    assert place
    return int(place[0]), int(place[1])


def test_large_scores_do_not_overflow(cutter: Cutter, passages: tuple[Passage, ...]) -> None:
    window = cutter.window("Who?", passages, [Stretch(0, 0, 6)])
    first = window.place(0, 1, 1)
    assert first
    found = decide([window], [WindowScores(2000.0, 0, 0, ((2000.0, *first),))], closed=False, words=distinct)
    assert found.score == 1.0
    found = decide([window], [WindowScores(-2000.0, -3000, -3000, ((-2000.0, *first),))], closed=False, words=distinct)
    assert found.score == 0.0 and found.first == 1


def test_the_answer_has_the_highest_expected_f1(cutter: Cutter, passages: tuple[Passage, ...]) -> None:
    window = cutter.window("Who?", passages, [Stretch(0, 0, 6)])
    said = {(0, 1, 1): ["Oslo"], (0, 2, 3): ["old", "town"], (0, 3, 3): ["town"], (0, 2, 4): ["old", "town", "hall"]}
    shares = dict(zip(said, [0.3, 0.25, 0.2, 0.15], strict=True))
    spans = [(math.log(share), *window.place(*span)) for span, share in shares.items()]  # type: ignore[misc]
    scores = WindowScores(total(*(value for value, *_ in spans)), -9, -9, tuple(spans))
    found = decide([window], [scores], closed=False, words=said.__getitem__)
    expected = {
        mine: sum(share * score(" ".join(said[mine]), [" ".join(said[other])])[1] for other, share in shares.items())
        for mine in said
    }
    assert max(expected, key=expected.__getitem__) == (found.passage, found.first, found.last) == (0, 2, 3)
    assert found.score == pytest.approx(0.25 / (1 + sum(shares.values())))


def test_links_come_first_then_merit_and_rank(passages: tuple[Passage, ...]) -> None:
    assert linked("When?", passages) == [(0, 1), (0, 2)]
    assert linked("What have Béla and Oslo in common?", passages) == [(0, 1), (0, 2), (1, 2)]
    assert choose_pairs("When?", passages, [0.0, 1.0, 5.0], 3) == [(0, 2), (0, 1), (1, 2)]
    ahead = math.log(3 / 2)  # what the second of three gains by its rank over the third
    assert choose_pairs("When?", passages, [0.0, 1.0, 1.0 + ahead + 0.01], 1) == [(0, 2)]
    assert choose_pairs("When?", passages, [0.0, 1.0, 1.0 + ahead - 0.01], 1) == [(0, 1)]
    assert choose_pairs("When?", passages[:1], [0.0], 3) == []
