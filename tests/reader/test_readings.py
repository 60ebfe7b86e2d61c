from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_ese.data.readings import Gold, occurrences, read_readings
from rag_ese.errors import DataError


def test_a_row_of_squad_has_the_place_of_its_answer(rows: Path) -> None:
    first = next(read_readings(rows))
    passage, start, end = first.gold[0]
    assert first.passages[passage].text[start:end] == "Paris"
    assert first.passages[0].title == "Person 0"
    assert next(read_readings(rows, titles=False)).passages[0].title == ""


def test_marked_places_are_taken_and_wrong_ones_looked_up(tmp_path: Path) -> None:
    row = {"question": "Who?", "context": "Bo met Bo.", "answers": [{"text": "Bo", "answer_start": 7}]}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row))
    assert [reading.gold for reading in read_readings(file)] == [(Gold(0, 7, 9),)]
    row["answers"] = [{"text": "Bo", "answer_start": 3}]
    file.write_text(json.dumps(row))
    assert [reading.gold for reading in read_readings(file)] == [(Gold(0, 0, 2), Gold(0, 7, 9))]


def test_hotpotqa_takes_the_supporting_sentence(hops: Path) -> None:
    readings = list(read_readings(hops))
    first = readings[0]
    passage, start, end = first.gold[0]
    assert len(first.passages) == 2 and first.passages[passage].title == "Father 0"
    assert first.passages[passage].text[start:end] == "Paris"
    assert [passage.title for passage in first.distractors] == ["Other 0"]
    assert readings[3].closed == "yes" and readings[3].gold == ()


def test_boolq_and_rows_that_do_not_hold_their_answer(tmp_path: Path) -> None:
    file = tmp_path / "b.jsonl"
    lines = [
        {"question": "is it", "title": "It", "context": "It is.", "answer": "yes"},
        {"question": "who", "context": "Nobody.", "answers": ["Bo"]},
        {"question": "who", "context": "Bo", "answers": ["Bo"], "granularity": "sentence"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [reading.closed for reading in read_readings(file)] == ["yes"]


def test_a_line_that_is_no_row(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1 is not an object"):
        list(read_readings(file))


def test_occurrences_are_whole_words_and_prefer_the_same_case() -> None:
    assert occurrences("an", "An ant, an aunt") == [(8, 10)]
    assert occurrences("AN", "An ant, an aunt") == [(0, 2), (8, 10)]
    assert occurrences("$5", "It cost $5.") == [(8, 10)]
    assert occurrences(" ", "a b") == []
