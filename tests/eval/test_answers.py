"""Scores of whole runs: missing answers count, evidence that was never named does not."""

from __future__ import annotations

import pytest

from rag_ese.eval.answers import METRICS, AnswerScores, joint, normalise, score, score_answer
from rag_ese.types import Answer, Question

FACTS = (("Ada Bridge", 0), ("Lune", 0))
QUESTIONS = [
    Question("q1", "?", "River Lune", supporting_facts=FACTS),
    Question("q2", "?", "yes", supporting_facts=FACTS),
    Question("q3", "?", "1901", supporting_facts=FACTS),
]


def test_values_stand_in_the_order_of_the_questions() -> None:
    answers = {"q3": Answer("1901"), "q1": Answer("the Lune")}
    values = score(answers, QUESTIONS)
    assert tuple(values) == METRICS and len(METRICS) == 12
    assert values["em"] == [0.0, 0.0, 1.0]
    assert values["f1"] == [pytest.approx(2 / 3), 0.0, 1.0]
    assert values["precision"] == [1.0, 0.0, 1.0]
    assert values["recall"] == [0.5, 0.0, 1.0]
    backwards = score(answers, QUESTIONS[::-1])
    assert all(backwards[metric] == values[metric][::-1] for metric in METRICS)


def test_a_system_without_evidence_has_none_and_not_zero() -> None:
    for answers in ({"q1": Answer("x"), "q2": Answer("yes"), "q3": Answer("1901")}, {}):
        values = score(answers, QUESTIONS)
        for metric in METRICS[4:]:
            assert values[metric] == [None, None, None]
        assert None not in values["em"]


def test_in_a_system_that_names_evidence_what_is_missing_counts_zero() -> None:
    answers = {"q1": Answer("River Lune", (("Lune", 0),)), "q2": Answer("yes")}
    values = score(answers, QUESTIONS)
    assert values["sp_em"] == [0.0, 0.0, 0.0]
    assert values["sp_f1"] == [pytest.approx(2 / 3), 0.0, 0.0]
    assert values["sp_precision"] == [1.0, 0.0, 0.0]
    assert values["sp_recall"] == [0.5, 0.0, 0.0]
    assert values["joint_em"] == [0.0, 0.0, 0.0]
    assert values["joint_f1"] == [pytest.approx(2 / 3), 0.0, 0.0]
    assert values["em"] == [1.0, 1.0, 0.0]


def test_naming_nothing_is_naming_evidence() -> None:
    values = score({"q1": Answer("River Lune", ())}, QUESTIONS[:1])
    assert (values["sp_em"], values["sp_f1"], values["joint_f1"]) == ([0.0], [0.0], [0.0])


def test_answers_to_other_questions_are_ignored() -> None:
    answers = {"q1": Answer("River Lune", FACTS), "elsewhere": Answer("x", FACTS)}
    values = score(answers, QUESTIONS[:1])
    assert all(values[metric] == [1.0] for metric in METRICS)


def test_joint_f1_is_of_the_products() -> None:
    answer, supporting = AnswerScores(1.0, 0.0, 0.5, 1.0), AnswerScores(0.0, 0.0, 1.0, 0.25)
    assert joint(answer, supporting) == pytest.approx(AnswerScores(0.0, 1 / 3, 0.5, 0.25))


def test_the_docstrings_are_true() -> None:
    assert normalise("The  Charlotte-Hornets, a team") == "charlottehornets team"
    assert score_answer("Charlotte Hornets", "the Hornets") == pytest.approx(AnswerScores(0.0, 2 / 3, 0.5, 1.0))
