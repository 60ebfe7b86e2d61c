"""Corpora are streams of passages; the pool has every distinct passage once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag_ese.data import corpus
from rag_ese.data.hotpotqa import HotpotQA
from rag_ese.errors import DataError
from rag_ese.types import Passage


def write(path: Path, *records: Any) -> Path:
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


RECORDS = (
    {"_id": "7", "title": "Lune", "text": "The Lune is a river. It is wet.", "metadata": {}},
    {"title": "Ouse", "sentences": ["The Ouse flows.", " It floods."]},
    {"title": "Tees", "text": ["The Tees flows.", " It falls."], "id": 3},
    {"title": "", "text": ""},
)
PASSAGES = [
    Passage("Lune", ("The Lune is a river.", " It is wet.")),
    Passage("Ouse", ("The Ouse flows.", " It floods.")),
    Passage("Tees", ("The Tees flows.", " It falls.")),
    Passage("", ()),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "beir/corpus.jsonl", "beir/corpus.jsonl.gz"])
def test_reads_files_and_beir_folders(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, *RECORDS)
    assert list(corpus.read(path)) == PASSAGES
    if "/" in name:
        assert list(corpus.read(path.parent)) == PASSAGES


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "No title."}, "line 2: the field 'title' is missing"),
        ({"title": "Lune"}, "line 2: the field 'text' is missing"),
        ({"title": "Lune", "text": 5}, "line 2: the field 'text' is of type int"),
        ({"title": "Lune", "sentences": ["a", 5]}, r"line 2: the field 'sentences\[1\]' is of type int"),
        ({"title": "\udc00", "text": "x"}, "line 2: the field 'title' holds half of a surrogate pair"),
        (["Lune", "text"], "line 2 is a list"),
    ],
)
def test_broken_lines(tmp_path: Path, record: Any, expected: str) -> None:
    passages = corpus.read(write(tmp_path / "a.jsonl", RECORDS[0], record))
    assert next(passages) == PASSAGES[0]  # read as a stream: the line before the broken one arrives
    with pytest.raises(DataError, match=expected):
        next(passages)


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
        next(corpus.read(tmp_path))
    with pytest.raises(DataError, match="unknown ending"):
        next(corpus.read(tmp_path / "corpus.tsv"))
    with pytest.raises(DataError, match="does not exist"):
        next(corpus.read(tmp_path / "corpus.jsonl"))


def test_pool_is_questions_first_and_distinct(tmp_path: Path) -> None:
    hotpot = HotpotQA([], [PASSAGES[1], Passage("Lune", ("Another text.",))], "test", "none")
    first = write(tmp_path / "a.jsonl", RECORDS[0], RECORDS[1], RECORDS[0])
    second = write(
        tmp_path / "b.jsonl", {"title": "Lune", "sentences": ["The Lune is a", " river. It is wet."]}, RECORDS[2]
    )
    passages = corpus.pool(hotpot, [first, second])
    assert isinstance(passages, Iterator)
    assert list(passages) == [*hotpot.passages, PASSAGES[0], PASSAGES[2]]


def test_an_empty_pool_is_an_error(tmp_path: Path) -> None:
    nothing = HotpotQA([], [], "test", "none")
    with pytest.raises(DataError, match=r"pool has 0 passages.*--corpus"):
        list(corpus.pool(nothing))
    assert list(corpus.pool(nothing, [write(tmp_path / "a.jsonl", RECORDS[0])])) == PASSAGES[:1]
