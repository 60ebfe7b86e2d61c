"""Where a funnel loses a question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rag_ese.eval.losses import FATES, count_losses, fate
from rag_ese.types import Question, Ranking

INDEXED = {*"abcdefgh"} | {f"n{n}" for n in range(20)}
NOISE = [f"n{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("gold", "stages", "f1", "expected"),
    [
        ("ab", [["a", "b", "c"], ["b", "a"]], None, "kept"),
        ("ab", [["a", "b", "c"], ["b", "a"]], 0.5, "kept"),
        ("ab", [["a", "b", "c"], ["b", "a"]], 0.49, "unanswered"),
        ("ab", [["a", "b", "c"], ["b", "c"]], 1.0, "reranked"),
        ("ab", [["a", "c", "d"], ["a", "c"]], 1.0, "cut"),
        ("az", [["a", "c", "d"], ["c"]], 1.0, "not_indexed"),  # the first fate counts
        ("ab", [["b", "c", "d"], ["c"]], 0.0, "cut"),
        ("ab", [["a", "b", "c"], ["a", "c"], ["a"]], None, "reranked"),  # lost at the second of three stages
        ("a", [[*NOISE, "a"], [*NOISE[:9], "a"]], None, "kept"),
        ("a", [[*NOISE, "a"], [*NOISE[:10], "a"]], None, "reranked"),  # the eleventh
        ("a", [[*NOISE[:9], "a"]], None, "kept"),
        ("a", [[*NOISE[:10], "a"]], None, "cut"),  # a single stage has no re-ranking
        ("a", [[], []], None, "cut"),
    ],
)
def test_fates(gold: str, stages: list[list[str]], f1: float | None, expected: str) -> None:
    assert fate(gold, INDEXED, stages, f1) == expected


def test_every_question_is_counted_once(store_of: Callable[..., Any]) -> None:
    store, _ = store_of({6: np.eye(8, 24, dtype=np.float32)}, "L6-d24")
    names = [store.passages.id(row) for row in range(8)]
    gold = [(names[0], names[1]), (names[2], "absent"), (names[0], names[7]), (names[0], names[3]), (names[1],)]
    questions = [Question(str(n), "?", "!", gold=each) for n, each in enumerate(gold)]
    first, last = np.arange(6), np.arange(3)
    trace = [Ranking(rows, rows.astype(np.float32)) for rows in (first, last)]
    counts = count_losses(store, questions, [trace] * 5, [1.0, 1.0, 1.0, 1.0, 0.0])
    assert counts == {"not_indexed": 1, "cut": 1, "reranked": 1, "unanswered": 1, "kept": 1}
    assert list(counts) == list(FATES)
    assert count_losses(store, questions, [trace] * 5)["kept"] == 2
