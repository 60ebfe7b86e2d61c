"""STS files: what is read, and the sentence that each wrong one gets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag_ese.data.files import fingerprint
from rag_ese.data.sts import SENTEVAL, load_sets, read_set, read_texts
from rag_ese.errors import ConfigError, DataError

HEADER = "subset\tscore\tsentence1\tsentence2"
ROWS = ["a\t4.200\tA dog runs .\tA dog is running .", 'a\t0\t"Quoted\tOne "quote', "b\t2.5\tÜber\u2028uns\tabout us"]


def write(folder: Path, name: str = "sts12.tsv", lines: list[str] | None = None, end: str = "\n") -> Path:
    path = folder / name
    path.write_bytes((end.join([HEADER, *(ROWS if lines is None else lines)]) + end).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_read(tmp_path: Path, end: str) -> None:
    found = read_set(write(tmp_path, end=end))
    assert found.name == "sts12" and len(found) == 3 and found.gold == (4.2, 0.0, 2.5)
    assert found.first == ("A dog runs .", '"Quoted', "Über\u2028uns")  # quotes are text, U+2028 ends no line
    assert found.second == ("A dog is running .", 'One "quote', "about us")
    assert found.revision == fingerprint(tmp_path / "sts12.tsv")


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "stsb_dev.tsv"
    path.write_text("\ufeffsentence2\tid\tsentence1\tscore\nb\t1\ta\t5\n\nd\t2\tc\t1")
    found = read_set(path)
    assert (found.first, found.second, found.gold) == (("a", "c"), ("b", "d"), (5.0, 1.0))


def test_sets_come_in_the_order_of_the_papers(tmp_path: Path) -> None:
    for name in SENTEVAL["test"] | SENTEVAL["dev"]:
        write(tmp_path, f"{name}.tsv")
    names = ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr_test"]
    assert [each.name for each in load_sets(tmp_path)] == names
    assert [each.name for each in load_sets(tmp_path, "dev")] == ["stsb_dev", "sickr_trial"]
    assert [each.name for each in load_sets(tmp_path, "test", ["stsb_test", "sts13"])] == ["sts13", "stsb_test"]
    assert list(SENTEVAL["test"].values()) == [3108, 1500, 3750, 3000, 1186, 1379, 4927]


def test_missing_files_and_sets(tmp_path: Path) -> None:
    for name in ["sts12", "sts14", "sts15", "sts16", "stsb_test"]:
        write(tmp_path, f"{name}.tsv")
    with pytest.raises(DataError, match=r"lacks sts13\.tsv, sickr_test\.tsv: add them, or choose"):
        load_sets(tmp_path)
    with pytest.raises(DataError, match=r"gone is not a folder: name the one that holds stsb_dev\.tsv"):
        load_sets(tmp_path / "gone", "dev")
    with pytest.raises(ConfigError, match="the dev split has no set 'sts12': choose among stsb_dev, sickr_trial"):
        load_sets(tmp_path, "dev", ["sts12"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b\t2\tonly one", "line 5: 3 columns where the header names 4; correct the line"),
        ("b\t2\tone\ttwo\tthree", "line 5: 5 columns where the header names 4"),
        ("b\thigh\tone\ttwo", "line 5: the score 'high' is not a number"),
        ("b\t\tone\ttwo", "line 5: the score '' is not a number"),
        ("b\tnan\tone\ttwo", "line 5: the score 'nan' is not finite"),
        ("b\t2\tone\t  ", "line 5: a sentence is empty"),
    ],
)
def test_wrong_rows(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, lines=[*ROWS, row])
    with pytest.raises(DataError) as caught:
        read_set(path)
    assert str(caught.value).startswith(f"{path}, {message}")


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sts12\.tsv holds no pairs"):
        read_set(write(tmp_path, lines=[]))
    with pytest.raises(DataError, match="every gold score is 3, so no rank correlation is defined"):
        read_set(write(tmp_path, lines=["a\t3\tone\ttwo", "a\t3.0\tthree\tfour"]))
    (tmp_path / "empty.tsv").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.tsv, line 1 names no column score"):
        read_set(tmp_path / "empty.tsv")
    (tmp_path / "latin.tsv").write_bytes(f"{HEADER}\n{ROWS[0]}\na\t1\tna\u00efve\tx\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.tsv, line 3: not UTF-8"):
        read_set(tmp_path / "latin.tsv")
    with pytest.raises(DataError, match=r"gone\.tsv does not exist"):
        read_set(tmp_path / "gone.tsv")


def test_texts_of_training_pairs(tmp_path: Path) -> None:
    rows = [
        {"premise": "p", "hypothesis": "h", "label": "neutral"},
        {"question": "q", "context": "c", "title": "t"},
        {"sentence1": "h", "sentence2": "s"},
    ]
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert read_texts(path) == ["p", "h", "q", "c", "s"]  # each once


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', "line 1: no pair of texts; it needs premise and hypothesis, or question and context, or"),
        ("[1]", "line 1: no pair of texts"),
        ('{"premise": "x"}', "line 1: the field 'hypothesis' is missing"),
    ],
)
def test_wrong_training_pairs(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        read_texts(tmp_path / "pairs.jsonl")
