"""The table of contents of a living index: which segments and tombstones make up a generation.

NAME/living.json               the current generation; the rename that replaces it is the change
NAME/generations/000007.json   the same content for every generation that has readers; a reader holds a lease on it
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from rag_ese.config import StrictModel
from rag_ese.errors import StoreCorruptError, StoreError
from rag_ese.index.lock import Lease
from rag_ese.index.manifest import FileEntry, checksum

LIVING, GENERATIONS = "living.json", "generations"
_ATTEMPTS = 1000


class SegmentEntry(StrictModel):
    """A store: its name, where it is relative to the living index, and what tells it from another in that place."""

    name: str
    path: str
    passages: int
    ids: str
    """The xxh3 hash of its passages.ids."""


class Generation(StrictModel):
    """What a living index holds between two changes. Immutable, like every file that it names."""

    format: Literal[1] = 1
    number: int
    segments: tuple[SegmentEntry, ...]
    deleted: tuple[str, ...] = ()
    """Files of tombstones: numbers of rows (int64), counted over all segments in their order."""
    bm25: bool
    files: dict[str, FileEntry]
    """The tombstones and the word counts; segments have manifests of their own."""

    def publish(self, folder: Path) -> None:
        """Makes this the current generation."""
        (folder / GENERATIONS).mkdir(exist_ok=True)
        content = self.model_dump(mode="json")
        text = json.dumps({**content, "checksum": checksum(content)}, indent=1) + "\n"
        for file in (generation_file(folder, self.number), folder / LIVING):
            replace_file(file, text.encode())

    @classmethod
    def read(cls, folder: Path) -> Generation:
        """The current generation. Raises StoreError where there is no living index, StoreCorruptError for garbage."""
        try:
            return cls.parse((folder / LIVING).read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{folder} is not a living index: make one of a store with python -m rag_ese.index add"
            ) from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise StoreCorruptError(
                f"{folder / LIVING} cannot be read: copy the newest file of {folder / GENERATIONS} in its place"
            ) from error

    @classmethod
    def parse(cls, text: bytes) -> Generation:
        content = json.loads(text)
        if content.pop("checksum") != checksum(content):
            raise ValueError("the checksum differs")
        return cls.model_validate(content)


def generation_file(folder: Path, number: int) -> Path:
    return folder / GENERATIONS / f"{number:06}.json"


def current(folder: Path) -> tuple[Generation, Lease]:
    """The current generation and a lease on it: none of its files is removed before the lease ends."""
    for _ in range(_ATTEMPTS):
        generation = Generation.read(folder)
        try:
            lease = Lease(generation_file(folder, generation.number))
        except FileNotFoundError:
            continue  # succeeded and removed between the two lines
        if Generation.read(folder).number == generation.number:
            return generation, lease
        lease.release()
    raise StoreCorruptError(f"{generation_file(folder, generation.number)} is missing: copy {folder / LIVING} there")


def replace_file(file: Path, content: bytes) -> None:
    """Puts a small file in place in one step."""
    draft = file.with_name(f".{file.name}.draft")
    with draft.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)
