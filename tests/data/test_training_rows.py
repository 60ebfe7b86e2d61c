"""Rows for training out of every form of file, and what is kept out of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_ese.data.pairs import distinct_passages, parse, read_pairs
from rag_ese.data.training_rows import Row, free_of, kind_of, read_rows, without
from rag_ese.errors import ConfigError, DataError

SQUAD = {"question": "Who built it?", "title": "Ada_Bridge", "context": "Ada Bridge was built by Lee."}
NLI = {"premise": "A man sleeps.", "hypothesis": "A person sleeps.", "label": "entailment"}
SCORED = {"sentence1": "One.", "sentence2": "Two.", "label": 0}
TRIPLET = {"anchor": "a", "positive": "p", "negative": "n"}

Write = Callable[..., Path]


@pytest.fixture
def lines(tmp_path: Path) -> Write:
    """lines(*records, name=...) writes one JSON object per line; strings as they are; gzipped if the name says so."""

    def write(*records: Any, name: str = "rows.jsonl") -> Path:
        content = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in records).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_pairs_have_the_title_in_front_and_their_negatives_behind(lines: Write, name: str) -> None:
    untitled = {"question": "q", "context": "c", "title": None, "negatives": ["T\nn1", "n2"]}
    sentence = {**SQUAD, "granularity": "sentence"}
    rows = list(read_rows(lines(SQUAD, sentence, untitled, name=name)))
    assert rows == [
        Row(("Who built it?", "Ada Bridge\nAda Bridge was built by Lee."), ("query", "passage"), None),
        Row(("q", "c", "T\nn1", "n2"), ("query", "passage", "passage", "passage"), None),
    ]


def test_every_gold_passage_of_hotpotqa_is_a_pair_with_the_others_as_negatives(file: Write, record: Any) -> None:
    path = file(record(), record("q2", question="And?", supporting_facts=[["Noise", 0]]))
    bridge, lune = "Ada Bridge\nAda Bridge spans the Lune. It opened in 1901.", "Lune\nThe Lune is a river."
    noise = "Noise\nNothing of use."
    assert [row.texts for row in read_rows(path)] == [
        ("Which river does Ada Bridge span?", bridge, noise),
        ("Which river does Ada Bridge span?", lune, noise),
        ("And?", noise, bridge, lune),
    ]


def test_one_nli_triplet_for_each_premise_with_both_labels(lines: Write) -> None:
    def nli(premise: str, hypothesis: str, label: str) -> dict[str, str]:
        return {"premise": premise, "hypothesis": hypothesis, "label": label}

    path = lines(
        nli("both", "no", "contradiction"),
        nli("only", "yes", "entailment"),
        nli("both", "maybe", "neutral"),
        nli("both", "yes", "entailment"),
        nli("both", "second yes", "entailment"),
        nli("both", "second no", "contradiction"),
        nli("torn", "same", "entailment"),
        nli("torn", "same", "contradiction"),
    )
    assert list(read_rows(path)) == [Row(("both", "yes", "no"), ("query", "query", "query"))]
    scores = [(row.texts[1], row.label) for row in read_rows(path, "scored")]
    assert scores[:4] == [("no", 0.0), ("yes", 1.0), ("maybe", 0.5), ("yes", 1.0)]


@pytest.mark.parametrize("name", ["set.tsv", "set.tsv.gz"])
def test_scored_pairs_of_tables_and_lines(lines: Write, name: str) -> None:
    table = lines("genre\tscore\tsentence1\tsentence2", 'news\t4.75\tA "b\tC', "news\t0\tD\tE\r", name=name)
    assert [(*row.texts, row.label) for row in read_rows(table)] == [('A "b', "C", 4.75), ("D", "E", 0.0)]
    assert next(read_rows(lines(SCORED))) == Row(("One.", "Two."), ("query", "query"), 0.0)


def test_kinds(lines: Write) -> None:
    kinds = [kind_of(list(read_rows(lines(each)))) for each in (SQUAD, TRIPLET, SCORED)]
    assert kinds == ["pairs", "triplets", "scored"]
    with pytest.raises(DataError, match=r"line 1 has the fields of pairs, not of scored"):
        list(read_rows(lines(SQUAD), "scored"))
    with pytest.raises(ConfigError, match="unknown kind of rows 'tripels'"):
        list(read_rows(lines(SQUAD), "tripels"))


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (SQUAD, {"question": "q"}, "the field 'context' is missing"),
        (SQUAD, {**SQUAD, "question": " "}, "the field 'question' is empty"),
        (SQUAD, {**SQUAD, "negatives": "n"}, "the field 'negatives' is a str"),
        (SQUAD, {**SQUAD, "answers": 5}, "the field 'answers' is a int"),
        (SQUAD, ["q", "c"], "is not an object"),
        (SQUAD, "{", "malformed JSON"),
        (NLI, {**NLI, "label": "entails"}, "the label 'entails' is not one of entailment, neutral, contradiction"),
        (NLI, {**NLI, "hypothesis": None}, "the field 'hypothesis' is missing"),
        (TRIPLET, {"anchor": "a", "positive": "p"}, "the field 'negative' is missing"),
        (SCORED, {**SCORED, "label": "high"}, "the field 'label' is 'high', where a finite number is needed"),
        (SCORED, {**SCORED, "label": float("nan")}, "the field 'label' is nan"),
        (SCORED, {**SCORED, "label": True}, "the field 'label' is True"),
        (SCORED, {"sentence1": "a", "sentence2": "b"}, "the field 'label' is missing"),
    ],
)
def test_a_bad_row_is_named_by_its_line(lines: Write, good: Any, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl, line 3.*{message}") as raised:
        list(read_rows(lines(good, "", bad)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.tsv", "score\tsentence1\tsentence2\n1\ta\tb\n1\ta", "line 3: 2 columns where the header names 3"),
        ("set.tsv", "score\tsentence1\tsentence2\nx\ta\tb", "line 2: the field 'score' is 'x'"),
        ("set.tsv", "a\tb\n1\t2", "line 2 has no question and context"),
        ("set.csv", "a", "unknown ending"),
        ("set.jsonl", "", "holds 0 rows"),
        ("set.json", "{}", "holds a dict"),
    ],
)
def test_a_file_that_cannot_be_used(lines: Write, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_rows(lines(content, name=name)))
    with pytest.raises(DataError, match=r"none\.tsv does not exist"):
        list(read_rows(Path("none.tsv")))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["a", "a", "b"], ("a", "b")),
        ([{"text": "a", "answer_start": 1}, {"text": "b"}], ("a", "b")),
        ({"text": ["a"], "answer_start": [1]}, ("a",)),
        ("['a', \"it's\"]", ("a", "it's")),
        ("{'text': ['a'], 'answer_start': [3]}", ("a",)),
        ("1969", ("1969",)),
        ("__import__('os').getcwd()", ("__import__('os').getcwd()",)),
        (None, ()),
        ([], ()),
    ],
)
def test_answers_in_every_published_form(answers: Any, expected: tuple[str, ...]) -> None:
    assert parse({**SQUAD, "answers": answers}, "here")[0].answers == expected


def test_pairs_for_fitting(lines: Write) -> None:
    other = {"question": "Which?", "context": "A text."}
    pairs = list(read_pairs(lines(SQUAD, {**SQUAD, "question": "When?"}, other)))
    assert distinct_passages(pairs) == [("Which?", "A text."), (pairs[0])]


def row(*texts: str) -> Row:
    return Row(texts, ("query", *["passage"] * (len(texts) - 1)), None)


def test_rows_that_an_evaluation_file_holds_are_left_out(lines: Write, file: Write, record: Any) -> None:
    hotpot = file(record())
    pool = lines({"title": "Held", "text": "A held-out text."}, name="pool.jsonl.gz")
    kept = [
        row("Who?", "Ada Bridge\nAnother text about it."),
        row("Who?", "The Lune"),
        row("Which river does Ada Bridge cross?", "T\nx"),
    ]
    dropped = [
        row("WHICH river does Ada  Bridge span", "T\nx"),  # the question, but for case, blanks and marks
        row("q", "Lune\nThe Lune is a river."),
        row("q", "The Lune is a river"),  # without its title
        row("q", "Some other title\nThe Lune is a river."),
        row("q", "Held\nA held out text."),
        row("q", "c", "Nothing of use."),  # of its only negative nothing is left
    ]
    mixed = row("q", "c", "Nothing of use.", "fine", "Lune\nThe Lune is a river.")
    rows, count = without([*dropped, *kept, mixed], [hotpot, pool])
    assert (rows, count) == ([*kept, row("q", "c", "fine")], len(dropped))
    assert without(dropped, []) == (dropped, 0)
    assert free_of([*dropped, *kept, mixed], [hotpot, pool]) == kept


def test_other_kinds_of_evaluation_files(lines: Write) -> None:
    table = lines("score\tsentence1\tsentence2", "1\tA dog.\tA cat.", name="sts.tsv")
    nli = lines({**NLI, "label": "neutral"}, name="nli.jsonl")
    rows = [Row(("a cat", "x"), ("query", "query"), 1.0), Row(("x", "a person sleeps"), ("query", "query"), 1.0)]
    assert without(rows, [table]) == (rows[1:], 1)
    assert without(rows, [table, nli]) == ([], 2)
