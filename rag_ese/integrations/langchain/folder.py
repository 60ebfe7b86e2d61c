"""A vector store on disk: raw vectors, one JSON line per document, and a small file that vouches for both.

NAME/store.json            the current files with their checksums; the rename that replaces it is the change
NAME/000003/vectors.f32    unit vectors, row-major, float32
NAME/000003/documents.jsonl
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from langchain_core.documents import Document

from rag_ese.config import StrictModel
from rag_ese.errors import DataError, StoreCorruptError, StoreError, StoreMismatchError, disk_errors
from rag_ese.index.generation import replace_file
from rag_ese.index.lock import exclusive
from rag_ese.index.manifest import FileEntry, check_file, checksum, entry
from rag_ese.integrations.langchain.table import Generation, Table

CONTENTS, VECTORS, DOCUMENTS = "store.json", "vectors.f32", "documents.jsonl"
_NUMBER = re.compile(r"\d{6,}")
_ATTEMPTS = 1000


class Contents(StrictModel):
    """The table of contents. In its file a checksum of itself is added."""

    format: Literal[1] = 1
    number: int
    count: int
    width: int
    embeddings: str | None
    """The fingerprint of the embeddings, where they have one."""
    files: dict[str, FileEntry]

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """Raises StoreError where there is no store, StoreCorruptError where the file is not as it was written."""
        try:
            content = json.loads((folder / CONTENTS).read_bytes())
            if content.pop("checksum") != checksum(content):
                raise ValueError("the checksum differs")
            return cls.model_validate(content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{folder} holds no saved vector store: write one with EseVectorStore.save") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StoreCorruptError(f"{folder / CONTENTS} cannot be read: save the vector store again") from error


def save_table(now: Generation, folder: Path, fingerprint: str | None) -> None:
    """Writes the living rows; a kill or a full disk leaves the store that was there."""
    rows = now.live
    lines = [_line(now.documents[row]) for row in rows]  # before anything is written
    with disk_errors("saving the vector store", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, "saving to"):
            number = _next(folder)
            part = folder / f"{number:06}"
            part.mkdir()
            with (part / VECTORS).open("wb") as file:
                for start in range(0, len(rows), 8192):
                    file.write(now.vectors[rows[start : start + 8192]].tobytes())
                file.flush()
                os.fsync(file.fileno())
            with (part / DOCUMENTS).open("wb") as file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            files = {f"{part.name}/{name}": entry(part / name) for name in (VECTORS, DOCUMENTS)}
            width = int(now.vectors.shape[1])
            contents = Contents(number=number, count=len(rows), width=width, embeddings=fingerprint, files=files)
            content = contents.model_dump(mode="json")
            text = json.dumps({**content, "checksum": checksum(content)}, indent=1) + "\n"
            replace_file(folder / CONTENTS, text.encode())
            for other in _parts(folder):
                if other != part:
                    shutil.rmtree(other)


def load_table(folder: Path, fingerprint: str | None) -> Table:
    """The table that was saved. Another process may save meanwhile: then the newer one is read."""
    for _ in range(_ATTEMPTS):
        contents = Contents.read(folder)
        if fingerprint and contents.embeddings and fingerprint != contents.embeddings:
            raise StoreMismatchError(
                f"{folder} was filled with {contents.embeddings}, but the embeddings in use are {fingerprint}: use "
                "those, or fill a new store"
            )
        try:
            return _opened(folder, contents)
        except (StoreCorruptError, FileNotFoundError):
            if Contents.read(folder).number == contents.number:
                raise
    raise StoreError(f"{folder} is being saved all the time: load it when there is a pause")


def _opened(folder: Path, contents: Contents) -> Table:
    for name, expected in contents.files.items():
        check_file(folder, name, expected)
    part = folder / f"{contents.number:06}"
    documents = []
    with (part / DOCUMENTS).open("rb") as file:
        for line in file:
            id, text, metadata = json.loads(line)
            documents.append(Document(text, id=id, metadata=metadata))
    if not contents.count:
        return Table()
    return Table(np.memmap(part / VECTORS, np.float32, "r").reshape(-1, contents.width), documents)


def _next(folder: Path) -> int:
    """A number that no part has; a folder that is neither empty nor a vector store is refused."""
    strange = [each.name for each in folder.iterdir() if not _NUMBER.fullmatch(each.name)]
    if strange and CONTENTS not in strange and strange != [f".{CONTENTS}.draft"]:
        raise StoreError(
            f"{folder} holds other files, such as {strange[0]}: save the vector store to a folder of its own"
        )
    return max((int(each.name) for each in _parts(folder)), default=0) + 1


def _parts(folder: Path) -> list[Path]:
    return [each for each in folder.iterdir() if _NUMBER.fullmatch(each.name) and each.is_dir()]


def _line(document: Document) -> bytes:
    if not _survives(document.metadata):
        raise DataError(
            f"the metadata of document {document.id!r} would not come back from JSON as they are: use strings, finite "
            "numbers, true, false, None, lists, and dictionaries with string keys"
        )
    return json.dumps([document.id, document.page_content, document.metadata]).encode() + b"\n"


def _survives(value: Any) -> bool:
    """Whether JSON gives back what it was given."""
    if isinstance(value, dict):
        return all(type(name) is str and _survives(each) for name, each in value.items())
    if isinstance(value, list):
        return all(map(_survives, value))
    return value is None or type(value) in (str, bool, int) or (type(value) is float and bool(np.isfinite(value)))
