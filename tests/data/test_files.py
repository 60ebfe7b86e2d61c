"""Every way in which a data file can be unreadable is one sentence that names the place and the remedy."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from rag_ese.data import files
from rag_ese.errors import DataError


def test_lines_are_numbered_from_one_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n"\xe2\x80\xa8"\n[3]')
    # U+2028 ends a line for str.splitlines, but not in JSON Lines.
    assert list(files.read_jsonl(path)) == [(1, {"a": 1}), (4, "\u2028"), (5, [3])]


def test_gzip_is_read_like_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n{"b": 2}\n'))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[1, 2]"))
    assert list(files.read_jsonl(tmp_path / "a.jsonl.gz")) == [(1, {"a": 1}), (2, {"b": 2})]
    assert files.read_json(tmp_path / "a.json.gz") == [1, 2]


def test_reads_a_stream_rather_than_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\nnot json\n')
    lines = files.read_jsonl(path)
    assert next(lines) == (1, {"a": 1})
    with pytest.raises(DataError, match="line 2"):
        next(lines)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": }\n', r"a\.jsonl, line 2, column 7: malformed JSON"),
        ("a.jsonl", b"{} {}\n", r"line 1, column 4: malformed JSON \(Extra data\); correct the line"),
        ("a.json", b'[\n  {"a": 1},\n  {"a" 2}\n]', r"a\.json, line 3, column 8: malformed JSON"),
        ("a.json", b"{}\n{}\n", r"line 2, column 1: .*one object per line must be named \.jsonl"),
        ("a.json", b"", r"a\.json, line 1, column 1: malformed JSON"),
        ("a.jsonl", b'{}\n"caf\xe9"\n', r"line 2: byte 0xe9 is not UTF-8"),
        ("a.json", b'[\n"caf\xe9"]', r"line 2: byte 0xe9 is not UTF-8"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.json", b"9" * 5000, "cannot be read"),
        ("a.jsonl.gz", b"{}\n", "is not valid gzip"),
        ("a.json.gz", gzip.compress(b"[" + b"1, " * 5000 + b"1]")[:-20], "cut off or damaged; download it again"),
    ],
)
def test_unreadable_content(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        list(files.read_jsonl(path)) if ".jsonl" in name else files.read_json(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_truncated_download_says_how_far_it_got(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    lines = b"".join(json.dumps({"text": hashlib.sha256(b"%d" % n).hexdigest()}).encode() + b"\n" for n in range(5000))
    path.write_bytes(gzip.compress(lines)[:-1000])
    read: list[int] = []
    with pytest.raises(DataError, match="cut off or damaged after line") as caught:
        read.extend(number for number, _ in files.read_jsonl(path))
    assert 0 < read[-1] < 5000 and f"after line {read[-1]};" in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="does not exist"):
        files.fingerprint(tmp_path / "none.json")
    with pytest.raises(DataError, match="is a folder"):
        files.read_json(tmp_path)


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first, copy, other = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    first.write_bytes(b"[1]")
    copy.write_bytes(b"[1]")
    other.write_bytes(b"[2]")
    assert files.fingerprint(first) == files.fingerprint(copy) != files.fingerprint(other)
    # The published xxh3-64 value of no bytes.
    other.write_bytes(b"")
    assert files.fingerprint(other) == "xxh3:2d06800538d394c2"
