"""Retrieval metrics against the textbook formulas written out, and the rules for what is missing."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import pytrec_eval

from rag_ese.errors import DataError, StorageError
from rag_ese.eval.retrieval import KS, score, write_trec_run
from rag_ese.types import Question


def question(name: str = "q", gold: tuple[str, ...] = ("g1", "g2"), answer: str = "Lune") -> Question:
    return Question(name, "?", answer, gold=gold)


def ndcg(ids: list[str], gold: set[str]) -> float:
    gain = sum(1 / math.log2(rank + 1) for rank, name in enumerate(ids[:10], 1) if name in gold)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(len(gold), 10) + 1))


def reciprocal_rank(ids: list[str], gold: set[str]) -> float:
    return next((1 / rank for rank, name in enumerate(ids[:10], 1) if name in gold), 0.0)


def average_precision(ids: list[str], gold: set[str]) -> float:
    precisions = [len(gold & set(ids[:rank])) / rank for rank, name in enumerate(ids[:10], 1) if name in gold]
    return sum(precisions) / len(gold)


def test_random_rankings_agree_with_the_formulas() -> None:
    draw = random.Random(0)
    names = [f"{n:02}" for n in range(40)]
    questions, rankings = [], {}
    for n in range(300):
        questions.append(question(f"q{n}", gold=tuple(draw.sample(names, draw.randrange(1, 14)))))
        rankings[f"q{n}"] = draw.sample(names, draw.choice([0, 1, 7, 10, 25]))
    values = score(rankings, questions, depth=100)
    for row, each in enumerate(questions):
        ids, gold = rankings[each.id], set(each.gold)
        assert values["ndcg@10"][row] == pytest.approx(ndcg(ids, gold))
        assert values["mrr@10"][row] == pytest.approx(reciprocal_rank(ids, gold))
        assert values["map@10"][row] == pytest.approx(average_precision(ids, gold))
        for k in KS:
            assert values[f"support_recall@{k}"][row] == pytest.approx(len(gold & set(ids[:k])) / len(gold))
            assert values[f"both_gold@{k}"][row] == float(gold <= set(ids[:k]))


def test_by_hand() -> None:
    values = score({"q": ["x", "g2", "y", "g1"]}, [question()], depth=5)
    assert values["support_recall@2"] == [0.5] and values["both_gold@2"] == [0.0]
    assert values["support_recall@5"] == [1.0] and values["both_gold@5"] == [1.0]
    deep = score({"q": ["x", "g2", "y", "g1"]}, [question()], depth=10)
    assert deep["mrr@10"] == [0.5]
    assert deep["map@10"] == [pytest.approx((1 / 2 + 2 / 4) / 2)]
    assert deep["ndcg@10"] == [pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))]


def test_rank_order_wins_over_the_order_of_names() -> None:
    # trec_eval sorts ties by name, descending: with equal scores "z" would come first.
    values = score({"q": ["a", "z"]}, [question(gold=("a",))], depth=10)
    assert values["mrr@10"] == [1.0] and values["ndcg@10"] == [1.0]


def test_gold_beyond_rank_ten_does_not_count_for_the_cut_metrics() -> None:
    ids = [f"x{n}" for n in range(10)] + ["g1", "g2"]
    values = score({"q": ids}, [question()], depth=20)
    assert values["mrr@10"] == values["map@10"] == values["ndcg@10"] == [0.0]
    assert values["both_gold@10"] == [0.0] and values["both_gold@20"] == [1.0]


def test_a_question_without_a_ranking_counts_zero_in_its_place() -> None:
    questions = [question("absent"), question("there"), question("empty")]
    values = score({"there": ["g1", "g2"], "empty": []}, questions, depth=100, passage_text=lambda name: "lune")
    for metric in ("ndcg@10", "mrr@10", "map@10", "support_recall@2", "both_gold@100", "answer_hit@2"):
        assert values[metric] == [0.0, 1.0, 0.0], metric
    assert score({}, questions, depth=10)["ndcg@10"] == [0.0, 0.0, 0.0]


def test_deeper_than_retrieved_is_none() -> None:
    values = score({"q": ["g1", "g2", "x", "y", "z"]}, [question()], depth=5, passage_text=lambda name: "lune")
    for metric, column in values.items():
        k = int(metric.split("@")[1])
        assert (column == [None]) == (k > 5), metric
    # A pool smaller than the depth is no reason: everything was retrieved.
    assert score({"q": ["g1", "g2"]}, [question()], depth=100)["both_gold@100"] == [1.0]


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("Lune", "The river, the LUNE.", 1.0),
        ("Lune", "Lunedale is a valley.", 0.0),  # token boundaries
        ("the River Lune", "A river, Lune!", 1.0),
        ("River Lune", "The Lune is a river.", 0.0),
        ("1,802 m", "It rises to 1802 m above", 1.0),
        ("yes", "yes", None),
        ("No.", "no", None),
        ("The", "the", None),
    ],
)
def test_answer_hit(answer: str, text: str, expected: float | None) -> None:
    texts = {"x": "nothing", "y": "nothing", "g1": text}
    values = score({"q": ["x", "y", "g1"]}, [question(answer=answer)], 10, texts.__getitem__)
    assert values["answer_hit@2"] == [None if expected is None else 0.0]
    assert values["answer_hit@5"] == values["answer_hit@10"] == [expected]


def test_no_text_no_answer_hit() -> None:
    assert not any(metric.startswith("answer_hit") for metric in score({}, [question()], depth=10))


def test_what_cannot_be_scored_is_an_error() -> None:
    with pytest.raises(DataError, match=r"question q has 0 gold passages; .*resolve_gold"):
        score({}, [question(gold=())], depth=10)
    with pytest.raises(DataError, match="names 1 passages twice"):
        score({"q": ["x", "g1", "x"]}, [question()], depth=10)


def test_trec_run_has_six_columns_and_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a.run"
    rankings = {"q1": ["a", "z", "m"], "q2": ["b"]}
    write_trec_run(path, "L6-d128", rankings)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["q1 Q0 a 1 3 L6-d128", "q1 Q0 z 2 2 L6-d128"] and len(lines) == 4
    with path.open() as file:
        run = pytrec_eval.parse_run(file)
    assert {name: sorted(scores, key=scores.__getitem__, reverse=True) for name, scores in run.items()} == rankings


def test_trec_run_refuses_blanks_and_broken_places(tmp_path: Path) -> None:
    for name, rankings in (
        ("my run", {"q": ["a"]}),
        ("run", {"q 1": ["a"]}),
        ("run", {"q": ["a b"]}),
        ("", {"q": ["a"]}),
    ):
        with pytest.raises(DataError, match="cannot stand in a TREC run"):
            write_trec_run(tmp_path / "a.run", name, rankings)
    assert not (tmp_path / "a.run").exists()
    with pytest.raises(StorageError, match="it is a folder"):
        write_trec_run(tmp_path, "run", {"q": ["a"]})
