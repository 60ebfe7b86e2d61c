"""The passages of a store on disk: one JSON line each, their offsets and ids beside them, read through a memory map."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_ese.errors import DataError
from rag_ese.index.metadata import MetadataFile, MetadataWriter
from rag_ese.types import Int64s, Passage

TEXTS, OFFSETS, IDS = "passages.jsonl", "passages.offsets", "passages.ids"
_ID = re.compile("[0-9a-f]{16}")
EMPTY_POOL = "the pool has no passage: give questions with contexts, or --corpus with at least one passage"


def write_passages(folder: Path, passages: Iterable[Passage], progress: Callable[[int], None] | None = None) -> int:
    """Streams `passages` to `folder` and returns how many there were. Holds one passage at a time."""
    count = position = 0
    files = [(folder / name).open("wb") for name in (TEXTS, OFFSETS, IDS)]
    with files[0] as texts, files[1] as offsets, files[2] as ids, MetadataWriter(folder) as metadata:
        offsets.write(np.int64(0).tobytes())
        for passage in passages:
            line = json.dumps([passage.title, *passage.sentences], ensure_ascii=False).encode() + b"\n"
            texts.write(line)
            position += len(line)
            offsets.write(np.int64(position).tobytes())
            ids.write(bytes.fromhex(passage.id))
            metadata.write(passage.metadata)
            count += 1
            if progress:
                progress(1)
    if not count:
        raise DataError(EMPTY_POOL)
    return count


class PassageFile(Sequence[Passage]):
    """The passages of a store by row. Nothing but the passages asked for is read into memory."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.memmap(folder / OFFSETS, np.int64, "r")
        self._ids = np.memmap(folder / IDS, np.dtype((np.void, 8)), "r")
        self.metadata = MetadataFile(folder, len(self._ids))
        with (folder / TEXTS).open("rb") as file:
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row):  # type: ignore[no-untyped-def]  # int -> Passage, slice -> list[Passage]
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        title, *sentences = json.loads(self._texts[self._offsets[row] : self._offsets[row + 1]])
        return Passage(title, tuple(sentences), self.metadata[row])

    def id(self, row: int) -> str:
        """The id of the passage in `row`, without reading the passage."""
        return bytes(self._ids[row]).hex()

    def rows_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """The rows of each of the `ids` that is there, in ascending order. The ids are sorted once, 16 bytes a row."""
        numbers, order = self._sorted
        found = {}
        for name in ids:
            number = np.uint64(int(name, 16)) if _ID.fullmatch(name) else None
            if number is not None:
                rows = order[np.searchsorted(numbers, number) : np.searchsorted(numbers, number, "right")]
                if len(rows):
                    found[name] = rows.tolist()
        return found

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.uint64], Int64s]:
        numbers = np.asarray(self._ids).view(">u8").astype(np.uint64)
        order = np.argsort(numbers, kind="stable").astype(np.int64)
        return numbers[order], order

    def text_bytes(self) -> int:
        return len(self._texts)
