"""Files of records, whatever their kind: one JSON object per line, one JSON list, or tab-separated columns."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from rag_ese.data import files
from rag_ese.errors import DataError

ENDINGS = (".jsonl", ".json", ".tsv")


def read_source(path: Path) -> Iterator[tuple[str, object]]:
    """The records of a .jsonl, .json or .tsv file (or .gz of these), each with the place it stands at, for errors."""
    ending = files.suffix(path)
    if ending == ".jsonl":
        yield from ((f"{path}, line {number}", record) for number, record in files.read_jsonl(path))
    elif ending == ".tsv":
        yield from _rows(path)
    elif ending == ".json":
        content = files.read_json(path)
        if not isinstance(content, list):
            raise DataError(f"{path} holds a {type(content).__name__}, where a list of questions is needed")
        yield from ((f"{path}, question {position}", record) for position, record in enumerate(content, start=1))
    else:
        raise DataError(f"{path} has an unknown ending: data files end in {', '.join(ENDINGS)}, perhaps with .gz")


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """The lines of a table as objects keyed by its header; quotation marks mean nothing."""
    files.fingerprint(path)  # refuses what cannot be opened, in one sentence
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; convert the file to UTF-8") from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is cut off or not gzip ({error}); download it again") from error
    header, *lines = (line.rstrip("\r").split("\t") for line in text.split("\n"))
    for number, cells in enumerate(lines, start=2):
        where = f"{path}, line {number}"
        if cells == [""]:
            continue
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} columns where the header names {len(header)}; correct the line")
        yield where, dict(zip(header, cells, strict=True))
