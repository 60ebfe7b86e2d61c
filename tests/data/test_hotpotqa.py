"""HotpotQA's three forms give the same questions; broken records are errors that name the question."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_ese.data.hotpotqa import load, resolve_gold, sample
from rag_ese.errors import DataError
from rag_ese.types import Passage, Question

Make = Callable[..., dict[str, Any]]
Write = Callable[..., Path]


def columns(record: dict[str, Any]) -> dict[str, Any]:
    """The hub's form of a record."""
    titles, sentences = zip(*record["context"], strict=True)
    fact_titles, numbers = zip(*record["supporting_facts"], strict=True)
    return {
        **{key: value for key, value in record.items() if key != "_id"},
        "id": record["_id"],
        "context": {"title": list(titles), "sentences": list(sentences)},
        "supporting_facts": {"title": list(fact_titles), "sent_id": list(numbers)},
    }


def test_reads_a_question(record: Make, file: Write) -> None:
    hotpot = load(file(record()))
    bridge, lune, noise = hotpot.passages
    assert hotpot.questions == [
        Question(
            id="q1",
            text="Which river does Ada Bridge span?",
            answer="Lune",
            type="bridge",
            level="easy",
            gold=(bridge.id, lune.id),
            supporting_facts=(("Ada Bridge", 0), ("Lune", 0)),
        )
    ]
    assert bridge == Passage("Ada Bridge", ("Ada Bridge spans the Lune.", " It opened in 1901."))
    assert (lune.title, noise.title) == ("Lune", "Noise")
    assert hotpot.source.endswith("hotpot.json") and hotpot.revision.startswith("xxh3:") and hotpot.fallback is None


def test_all_forms_give_the_same(record: Make, file: Write, tmp_path: Path) -> None:
    records = [record("q1"), record("q2", context=[["Lune", ["Another Lune."]], ["Ada Bridge", ["Another."]]])]
    official = load(file(*records))
    for form in (records, [columns(each) for each in records]):
        lines = "".join(json.dumps(each) + "\n" for each in form).encode()
        contents = {
            "a.json": json.dumps(form).encode(),
            "a.json.gz": gzip.compress(json.dumps(form).encode()),
            "a.jsonl": lines,
            "a.jsonl.gz": gzip.compress(lines),
        }
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
            read = load(tmp_path / name)
            assert (read.questions, read.passages) == (official.questions, official.passages)


def test_passages_are_distinct_by_title_and_text(record: Make, file: Write) -> None:
    resplit = [["Lune", ["The Lune ", "is a river."]], ["Ada Bridge", ["A second text."]]]
    hotpot = load(file(record("q1"), record("q2", context=resplit)))
    assert [passage.title for passage in hotpot.passages] == ["Ada Bridge", "Lune", "Noise", "Ada Bridge"]
    assert hotpot.passages[1].sentences == ("The Lune is a river.",)


def test_gold_takes_both_texts_of_a_title_and_each_passage_once(record: Make, file: Write) -> None:
    context = [["Lune", ["One."]], ["Ada Bridge", ["Two."]], ["Lune", ["Three."]], ["Lune", ["One."]]]
    hotpot = load(file(record(context=context)))
    expected = (Passage("Lune", ("One.",)).id, Passage("Ada Bridge", ("Two.",)).id, Passage("Lune", ("Three.",)).id)
    assert hotpot.questions[0].gold == expected


def test_tolerates_what_published_files_have(record: Make, file: Write) -> None:
    odd = record(supporting_facts=[["Ada Bridge", 902], ["Lune", 0]], context=[["Ada Bridge", []], ["Lune", ["a", ""]]])
    del odd["type"], odd["level"]
    question = load(file(odd)).questions[0]
    assert question.supporting_facts[0] == ("Ada Bridge", 902)
    assert (len(question.gold), question.type, question.level) == (2, "", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"question": "  "}, r"question 2 \(bad\): the question is empty"),
        ({"question": None}, "'question' is missing"),
        ({"question": 3}, "'question' is of type int"),
        ({"question": "\ud800"}, "surrogate pair at character 1"),
        ({"_id": None}, "question 2: the field '_id' is missing"),
        ({"answer": None}, "no answer: HotpotQA's test split has no gold; use the validation"),
        ({"answer": ""}, "no answer"),
        ({"answer": ["Lune"]}, "'answer' is of type list"),
        ({"supporting_facts": []}, "no supporting facts: HotpotQA's test split"),
        ({"supporting_facts": None}, "no supporting facts"),
        ({"supporting_facts": [["Lune"]]}, "where a pair is needed"),
        ({"supporting_facts": [["Lune", "0"]]}, "'Lune' is '0', where 0 or more"),
        ({"supporting_facts": [["Lune", -1]]}, "'Lune' is -1"),
        ({"supporting_facts": [["Lune", True]]}, "'Lune' is True"),
        ({"supporting_facts": [["Severn", 0]]}, "'Severn' is not among its 3 context passages"),
        ({"context": []}, "0 context passages"),
        ({"context": None}, "'context' is missing"),
        ({"context": "text"}, "'context' is a str"),
        ({"context": [["Lune", "The Lune is a river."]]}, "\"context 'Lune'\" is a str, where a list of strings"),
        ({"context": [["Lune", [1]]]}, "is of type int"),
        ({"context": {"title": ["Lune"], "sentences": []}}, "two lists of one length, 'title' and 'sentences'"),
        ({"context": {"title": ["Lune"]}}, "two lists of one length"),
    ],
)
def test_broken_records(record: Make, file: Write, changes: dict[str, Any], expected: str) -> None:
    path = file(record("good"), {**record("bad"), **changes})
    with pytest.raises(DataError, match=expected) as caught:
        load(path)
    assert "question 2" in str(caught.value)


def test_duplicate_ids_empty_lists_and_wrong_shapes(record: Make, file: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"question 2: the question id 'q1' was used before"):
        load(file(record(), record()))
    with pytest.raises(DataError, match="holds 0 questions"):
        load(file())
    with pytest.raises(DataError, match="question 1 is a str"):
        load(file("text"))
    (tmp_path / "object.json").write_text('{"data": []}')
    with pytest.raises(DataError, match="holds a dict, where a list"):
        load(tmp_path / "object.json")
    with pytest.raises(DataError, match=r"end in \.json, \.jsonl"):
        load(tmp_path / "hotpot.csv")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)


def test_limit_is_a_seeded_sample_in_file_order_and_keeps_the_pool(record: Make, file: Write) -> None:
    path = file(*(record(f"q{n:02}", context=[["Lune", [str(n)]], ["Ada Bridge", [str(n)]]]) for n in range(40)))
    every = load(path)
    ten = load(path, limit=10)
    names = [question.id for question in ten.questions]
    assert len(set(names)) == 10 and names == sorted(names) and names != [f"q{n:02}" for n in range(10)]
    assert ten == load(path, limit=10, seed=0)
    assert names != [question.id for question in load(path, limit=10, seed=1).questions]
    assert {question.id for question in load(path, limit=5).questions} < set(names)
    assert len(ten.passages) == 80 and ten.passages == every.passages
    assert load(path, limit=1000).questions == every.questions
    with pytest.raises(DataError, match="limit of 0"):
        load(path, limit=0)


def test_limit_draws_every_question_equally_often(record: Make, file: Write) -> None:
    questions = load(file(*(record(f"q{n}") for n in range(8)))).questions
    counts = dict.fromkeys((question.id for question in questions), 0)
    for seed in range(2000):
        for question in sample(questions, 2, seed):
            counts[question.id] += 1
    # 2,000 draws of 2 in 8: 500 each, standard deviation 19.4.
    assert all(420 < count < 580 for count in counts.values()), counts


def test_fullwiki_takes_gold_from_the_pool_by_title(record: Make, file: Write) -> None:
    facts = [["Sam &amp; Cat", 0], ["Lune", 1], ["Lune", 0]]
    hotpot = load(file(record("q1", supporting_facts=facts), record("q2")), setting="fullwiki")
    assert hotpot.passages == [] and hotpot.questions[0].gold == ()
    sam, lune = Passage("Sam & Cat", ("A show.",)), Passage("Lune", ("A river.",))
    (first, second), missing = resolve_gold(hotpot.questions, iter([lune, Passage("Other", ("x",)), sam, lune]))
    assert first.gold == (sam.id, lune.id)
    assert missing == 1
    # The passage that is not there stays gold, so that it counts as not found.
    assert len(second.gold) == 2 and second.gold[1] == lune.id and second.gold[0] not in (sam.id, lune.id)


def test_unknown_setting(record: Make, file: Write) -> None:
    with pytest.raises(DataError, match="the settings are distractor and fullwiki"):
        load(file(record()), setting="wiki")  # type: ignore[arg-type]
