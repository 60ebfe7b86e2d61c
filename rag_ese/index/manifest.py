"""The manifest of a store: what it was built from, what it holds, the checksum of every file. It is written last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import xxhash

from rag_ese.config import StrictModel
from rag_ese.errors import StoreCorruptError, StoreError

MANIFEST = "manifest.json"


class FileEntry(StrictModel):
    """A file's length and the xxh3 hash (128 bits, hexadecimal) of its content."""

    bytes: int
    xxh3: str


class ModelEntry(StrictModel):
    """The encoder that made the vectors."""

    name: str
    revision: str
    dtype: str
    batch_tokens: int
    """The token budget of its batches, which decides how sums are rounded."""
    depth: int
    width: int


class DataEntry(StrictModel):
    """Where the passages came from; `fallback` says why that is a substitute, if it is one."""

    name: str
    revision: str
    fallback: str | None = None


class Plan(StrictModel):
    """Everything that determines the bytes of a store. Two stores of equal plans are equal files."""

    model: ModelEntry
    data: DataEntry
    layers: tuple[int, ...]
    sizes: tuple[str, ...]
    kind: str
    stored: Literal["float32", "float16"]
    shard: int
    bm25: bool

    def words(self) -> dict[str, str]:
        """The plan in words, part by part: equal words, equal vectors. Why the data are a substitute is left out."""
        return {name: _short(getattr(self, name)) for name in Plan.model_fields}

    def difference(self, other: Plan) -> str | None:
        """What differs from `other`, in words; None where nothing does."""
        theirs = other.words()
        for name, mine in self.words().items():
            if mine != theirs[name]:
                return f"{name} {theirs[name]} there, {mine} here"
        return None


def _short(value: object) -> str:
    if isinstance(value, ModelEntry):
        return f"{value.name}@{value.revision} ({value.dtype}, batches of {value.batch_tokens} tokens)"
    if isinstance(value, DataEntry):
        return f"{value.name}@{value.revision}"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


class Manifest(StrictModel):
    """The table of contents of a store. In its file a checksum of itself is added."""

    format: Literal[1] = 1
    metric: Literal["inner product of unit vectors, normalised after truncation"] = (
        "inner product of unit vectors, normalised after truncation"
    )
    plan: Plan
    passages: int
    files: dict[str, FileEntry]

    def write(self, folder: Path) -> None:
        """Puts the manifest in place in one step."""
        draft = folder / (MANIFEST + ".draft")
        with draft.open("w", encoding="utf-8") as file:
            content = self.model_dump(mode="json")
            file.write(json.dumps({**content, "checksum": checksum(content)}, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / MANIFEST)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises StoreError where there is no complete store, StoreCorruptError where the manifest cannot be read."""
        try:
            content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if content.pop("checksum") != checksum(content):
                raise ValueError("the checksum differs")
            return cls.model_validate(content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{folder} holds no complete index: build one with python -m rag_ese.index, or run the interrupted "
                "command again"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot read the manifest of {folder}: {error.strerror}") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:  # not JSON, not an object, not ours
            raise StoreCorruptError(f"the manifest of {folder} cannot be read: build the index again") from error


def checksum(content: dict[str, Any]) -> str:
    """Of what a table of contents says, as it stands in its file."""
    return xxhash.xxh3_128_hexdigest(json.dumps(content).encode())


def entry(file: Path) -> FileEntry:
    """Reads a whole file, a piece at a time."""
    hasher = xxhash.xxh3_128()
    size = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            hasher.update(chunk)
            size += len(chunk)
    return FileEntry(bytes=size, xxh3=hasher.hexdigest())


def check_file(folder: Path, name: str, expected: FileEntry, content: bool = True) -> None:
    """Raises StoreCorruptError where a file is absent, has another length, or (with `content`) another content."""
    path = folder / name
    if not path.is_file():
        raise StoreCorruptError(f"{path} is missing: build the index again")
    if (size := path.stat().st_size) != expected.bytes:
        raise StoreCorruptError(f"{path} has {size:,} bytes instead of {expected.bytes:,}: build the index again")
    if content and entry(path) != expected:
        raise StoreCorruptError(f"{path} has changed since it was built (checksum differs): build the index again")
