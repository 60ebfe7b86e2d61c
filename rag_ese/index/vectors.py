"""The full-width vectors of a store: one raw file per depth, row-major, unit length; narrower widths are prefixes."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag_ese.errors import DataError, StoreCorruptError
from rag_ese.types import Float32s, Passage, Size

PROGRESS = "progress.json"
DTYPES = {"float32": np.float32, "float16": np.float16}


class LayerEncoder(Protocol):
    """What the index needs of an encoder; `rag_ese.encoder.ElasticEncoder` is one."""

    name: str
    revision: str
    depth: int
    width: int

    def encode_layers(
        self, texts: Sequence[str], layers: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> dict[int, Float32s]: ...


class Vectors(Protocol):
    """Full-width unit vectors of one depth, by row."""

    def __len__(self) -> int: ...

    def rows(self, rows: npt.NDArray[np.int64] | slice, dim: int) -> Float32s:
        """The vectors of `rows` at width `dim`: n x dim, float32, unit length."""


def vector_file(layer: int) -> str:
    """The name of a depth's file, relative to the store."""
    return f"vectors/L{layer}.vec"


def encode_passages(
    folder: Path,
    passages: Sequence[Passage],
    encoder: LayerEncoder,
    layers: Sequence[int],
    dtype: str,
    shard: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Encodes `passages` at all `layers` in one pass, `shard` passages at a time, into `folder`; returns how many.

    Killed at any moment and called again, it goes on after the last shard that is wholly on disk, and the files end up
    the same: a shard is always encoded as a whole, so batches do not depend on where an earlier run stopped.
    """
    (folder / "vectors").mkdir(exist_ok=True)
    row_bytes = encoder.width * np.dtype(DTYPES[dtype]).itemsize
    files = [(folder / vector_file(layer)).open("ab") for layer in layers]
    try:
        done = _rows_done(folder)
        if any(file.tell() < done * row_bytes for file in files):
            done = 0  # a file that was there is gone; to lengthen it with zeros would pass for vectors
        if progress and done:
            progress(done)
        for file in files:
            file.truncate(done * row_bytes)
        for start in range(done, len(passages), shard):
            rows = passages[start : start + shard]
            vectors = encoder.encode_layers([passage.full for passage in rows], layers, progress=progress)
            for layer, file in zip(layers, files, strict=True):
                file.write(_unit(vectors[layer], start).astype(DTYPES[dtype]).tobytes())
                file.flush()
                os.fsync(file.fileno())
            _note_rows(folder, start + len(rows))
    finally:
        for file in files:
            file.close()
    return len(passages) - done


def _rows_done(folder: Path) -> int:
    file = folder / PROGRESS
    return int(json.loads(file.read_text())["rows"]) if file.exists() else 0


def _note_rows(folder: Path, rows: int) -> None:
    draft = folder / (PROGRESS + ".draft")
    draft.write_text(json.dumps({"rows": rows}))
    os.replace(draft, folder / PROGRESS)


def _unit(vectors: Float32s, first_row: int) -> Float32s:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        row = first_row + int(np.flatnonzero(~np.isfinite(norms))[0])
        raise DataError(f"the encoder gave a vector that is not finite for passage {row}: try --dtype float32")
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


_LARGE = 1 << 30
"""Bytes of a file from which on a query's rows are hardly ever those of another one."""
_FEW = 1000
"""Rows of a large file that are read; more are copied from the map, whose pages soon have all been met."""


class VectorFile:
    """One depth's vectors, memory-mapped: rows are read when asked for, cut to a width and brought to unit length."""

    def __init__(self, path: Path, width: int, dtype: str) -> None:
        self.width, self._path = width, path
        self._map: npt.NDArray[np.floating] = np.memmap(path, DTYPES[dtype], "r").reshape(-1, width)

    def __len__(self) -> int:
        return len(self._map)

    def stored(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.floating]:
        """The vectors of `rows` as they are on the disk: full width, in the precision of the file."""
        return np.asarray(self._map[rows])

    def rows(self, rows: npt.NDArray[np.int64] | slice, dim: int) -> Float32s:
        """The vectors of `rows` at width `dim`: n x dim, float32, unit length."""
        alone = not isinstance(rows, slice) and len(rows) > 0 and self._map.nbytes >= _LARGE
        by_row = alone and (kernels := _row_kernels())
        raw = self._gathered(kernels, rows, dim) if by_row else self._map[rows, :dim]
        cut = np.asarray(raw, dtype=np.float32)
        if dim == self.width and self._map.dtype == np.float32:
            return cut
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        return np.asarray(cut / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)

    def _gathered(self, kernels: Any, rows: Any, dim: int) -> npt.NDArray[np.floating]:
        """As `_map[rows, :dim]`. Few are read: that is faster than mapping a page for each row that is met once."""
        kind = self._map.dtype
        found = np.empty((len(rows), dim), kind)
        with kernels.threads(len(rows) // kernels.PER_THREAD):
            if len(rows) <= _FEW:
                size = self.width * kind.itemsize
                missed = kernels.read(self._file, rows, size, found.view(np.uint8), self._asks)
            else:
                plain = np.dtype(f"u{kind.itemsize}")  # no compiled loop knows half precision
                missed = kernels.copy(np.asarray(self._map).view(plain), rows, found.view(plain))
        if missed:
            raise StoreCorruptError(
                f"{self._path} does not hold {missed} of {len(rows)} rows that were asked for: build the index again"
            )
        return found

    @cached_property
    def _asks(self) -> bool:
        """Whether rows that lie on the disk alone can be asked for before they are waited for."""
        return bool(_row_kernels().knows_what_is_in_memory(self._file))

    @cached_property
    def _file(self) -> int:
        """The file, open for as long as this object lives, and not read ahead."""
        file = os.open(self._path, os.O_RDONLY)
        weakref.finalize(self, os.close, file)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        return file


def _row_kernels() -> Any:
    """The loop that reads by row; None where it cannot run, and rows are mapped."""
    if not hasattr(os, "pread"):
        return None
    try:
        from rag_ese.index import row_kernels
    except ImportError:
        return None
    return row_kernels


def layers_of(sizes: Sequence[Size]) -> list[int]:
    """The depths that `sizes` need, shallowest first."""
    return sorted({size.layers for size in sizes})
