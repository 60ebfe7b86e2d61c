"""What passages carry beside their text: names and plain values, stored as a JSON line per passage and its offsets.

A store in which no passage has any has no such files.
"""

from __future__ import annotations

import json
import mmap
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from rag_ese.types import Metadata

METADATA, METADATA_OFFSETS = "metadata.jsonl", "metadata.offsets"
METADATA_FILES = (METADATA, METADATA_OFFSETS)


class MetadataWriter:
    """Writes one passage's metadata after the other; leaves no file behind where all were empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._position = 0
        self._lines = (folder / METADATA).open("wb")
        self._offsets = (folder / METADATA_OFFSETS).open("wb")
        self._offsets.write(np.int64(0).tobytes())

    def __enter__(self) -> MetadataWriter:
        return self

    def write(self, metadata: Metadata) -> None:
        line = json.dumps(dict(metadata), ensure_ascii=False).encode() + b"\n" if metadata else b""
        self._lines.write(line)
        self._position += len(line)
        self._offsets.write(np.int64(self._position).tobytes())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        self._offsets.close()
        if not self._position:
            for name in METADATA_FILES:
                (self._folder / name).unlink()


class MetadataFile:
    """The metadata of a store by row; {} everywhere where the store has no such file."""

    def __init__(self, folder: Path, count: int) -> None:
        self._count = count
        self._offsets: npt.NDArray[np.int64] | None = None
        if (folder / METADATA).exists():
            self._offsets = np.memmap(folder / METADATA_OFFSETS, np.int64, "r")
            with (folder / METADATA).open("rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __getitem__(self, row: int) -> Metadata:
        if self._offsets is None or self._offsets[row] == self._offsets[row + 1]:
            return {}
        found: Metadata = json.loads(self._lines[self._offsets[row] : self._offsets[row + 1]])
        return found

    @cached_property
    def all(self) -> list[Metadata]:
        """Every row's, read once and kept: what filters look at."""
        return [self[row] for row in range(self._count)]

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that any passage has."""
        return frozenset(name for row in self.all for name in row)
