"""Passage files (title and text, one JSON object per line) as streams, and the pool they make with HotpotQA's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from rag_ese.data import files
from rag_ese.data.hotpotqa import HotpotQA
from rag_ese.data.sentences import split
from rag_ese.errors import DataError
from rag_ese.types import Metadata, Passage

_IN_FOLDER = ("corpus.jsonl", "corpus.jsonl.gz")


def read(path: Path) -> Iterator[Passage]:
    """Passages of a .jsonl[.gz] file, or of a BEIR folder (its corpus.jsonl[.gz]), in file order, one line in memory.

    A line is an object with `title` and either `text` or `sentences`, and perhaps `metadata`, an object of strings,
    numbers, true and false (null is left out). Other fields (BEIR's `_id`, for example) are ignored. `text` may be a
    string, which is split into sentences, or a list of sentences as in HotpotQA's own Wikipedia dump. Blank titles and
    texts are kept: some BEIR corpora have them. Raises DataError with the file and the line.
    """
    file = _file(path)
    if files.suffix(file) != ".jsonl":
        raise DataError(f"{path} has an unknown ending; a corpus is a .jsonl or .jsonl.gz file, or a BEIR folder")
    for number, record in files.read_jsonl(file):
        yield _passage(record, f"{file}, line {number}")


def pool(hotpot: HotpotQA, corpora: Sequence[Path] = ()) -> Iterator[Passage]:
    """The passages of the questions, then those of the corpora, each distinct title and text once.

    Streams: what it remembers is one 8-byte integer per passage. Raises DataError when there is not a single passage,
    as in the fullwiki setting without a corpus.
    """
    seen: set[int] = set()
    for source in (hotpot.passages, *map(read, corpora)):
        for passage in source:
            key = int(passage.id, 16)
            if key not in seen:
                seen.add(key)
                yield passage
    if not seen:
        raise DataError(
            "the pool has 0 passages: questions of the fullwiki setting bring none; name the file of Wikipedia "
            "abstracts with --corpus, or use the distractor setting"
        )


def fingerprint(path: Path) -> str:
    """The hash of a corpus's file, as `files.fingerprint` gives it."""
    return files.fingerprint(_file(path))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise DataError(f"the folder {path} has no {' or '.join(_IN_FOLDER)}; name a .jsonl file or a BEIR folder")


def _passage(record: object, where: str) -> Passage:
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is a {type(record).__name__}, where an object with 'title' and 'text' is needed")
    title = files.text(record.get("title"), "title", where)
    metadata = _metadata(record.get("metadata"), where)
    for name in ("sentences", "text"):
        if isinstance(record.get(name), list):
            return Passage(title, files.texts(record[name], name, where), metadata)
    return Passage(title, split(files.text(record.get("text"), "text", where)), metadata)


def _metadata(value: object, where: str) -> Metadata:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: the field 'metadata' is a {type(value).__name__}, where an object is needed")
    for name, each in value.items():
        files.text(name, "metadata", where)
        if isinstance(each, str):
            files.text(each, f"metadata.{name}", where)
        elif not (each is None or isinstance(each, bool | int) or (isinstance(each, float) and isfinite(each))):
            raise DataError(
                f"{where}: the field 'metadata.{name}' is {json.dumps(each)[:40]}, where a string, a finite number, "
                "true or false is needed; correct the record or leave the field out"
            )
    return {name: each for name, each in value.items() if each is not None}
