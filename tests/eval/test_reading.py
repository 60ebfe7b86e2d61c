"""What reading costs, and the examples in the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rag_ese.eval.examples import choose, markdown
from rag_ese.eval.reading import Reading, price, read
from rag_ese.eval.reading_report import reading_table
from rag_ese.eval.results import SystemResult
from rag_ese.generator import CachedGenerator, ExtractiveReader, Prompt
from rag_ese.types import Answer, Passage, Question


def test_speed_counts_what_was_generated() -> None:
    answers = {str(number): Answer("x") for number in range(10)}
    assert Reading(answers, 5, 2.0).speed(4.0) == {
        "generated": 5,
        "per_second": 2.5,
        "share": 0.5,
    }  # 0.4 s and 0.4 s each
    assert Reading(answers, 0, 2.0).speed(4.0) == {"generated": 0, "per_second": None, "share": None}


def test_answers_from_the_cache_are_not_generated(tmp_path: object) -> None:
    generator = CachedGenerator(ExtractiveReader(), f"{tmp_path}/answers.sqlite")
    questions = [Question(str(number), f"Who is {number}?", "x") for number in range(3)]
    prompts = [Prompt(question.text, ()) for question in questions]
    assert read("row", questions, prompts, generator).generated == 3
    assert read("row", questions, prompts, generator).generated == 0


def test_price_per_million() -> None:
    assert price({"prompt_tokens": 2_000_000, "completion_tokens": 500_000}, 0.1, 0.4) == pytest.approx(0.4)
    assert price({}, 0.1, 0.4) == 0


def test_examples_right_ones_first() -> None:
    assert choose([0.0, 1.0, None, 0.5, 1.0, 1.0, 1.0, 0.0, 0.2]) == [1, 4, 5, 0, 3, 7]


PROMPT = Prompt("Who?", (Passage("A *b*", ("Ann Lee sang.", " She met ann lee.")), Passage("C", ("Annex.",))))
QUESTION = Question("1", "Who?", "Ann Lee")


def test_named_evidence_with_the_answer_marked() -> None:
    text = markdown(QUESTION, PROMPT, Answer("Ann Lee", (("A *b*", 1), ("A *b*", 7), ("Z", 0))), 1.0)
    assert "Answered 'Ann Lee', gold 'Ann Lee', F1 100." in text
    assert text.splitlines()[-1] == r"- A \*b\*: She met **ann lee**."


def test_where_no_evidence_is_named_the_answer_is_looked_for() -> None:
    assert markdown(QUESTION, PROMPT, Answer("Ann Lee"), 1.0).count("- A") == 2
    assert markdown(QUESTION, PROMPT, Answer("Ann"), 0.5).count("**Ann**") == 1  # not within a longer word
    assert "no sentence that was read holds the answer" in markdown(QUESTION, PROMPT, Answer("Bob"), 0.0)
    empty = markdown(QUESTION, PROMPT, Answer("", ()), 0.0)
    assert "Answered no answer" in empty and "no evidence was named" in empty


def test_tokens_and_price_per_row() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    answers = {str(number): Answer("" if number == 7 else "x", usage=usage) for number in range(20)}
    answers["3"] = Answer("x", usage=usage | {"dropped_passages": 4})
    row = SystemResult("L6-d64", "size", "L6-d64", 1, 0, None, {}, answers=answers)
    row.reading = {"generated": 20, "per_second": 2.0, "share": 0.255}
    results: Any = SimpleNamespace(config={"price_in": 1.0, "price_out": 10.0}, systems=[row])
    table = reading_table(results).splitlines()
    assert table[-1] == "| L6-d64 | 2.0 | 26% | 20 | 1 | 20,000 | 200 | 1,000 | 4 | 0.022 | 1.1 |"
    assert table[0].endswith("| price | price of 1,000 questions |")
    assert row.summary()["usage"] == {"prompt_tokens": 20_000, "completion_tokens": 200, "dropped_passages": 4}
    results.config = {"price_in": 0, "price_out": 0}
    assert "price" not in reading_table(results)
    row.answers = {"1": Answer("x")}  # a generator that counts no tokens
    assert reading_table(results).splitlines()[-1] == "| L6-d64 | 2.0 | 26% | 20 | 0 |"
