"""Files of arrays that are read through the memory map: a line that says what they hold, then .npy arrays in a row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rag_ese.errors import StoreCorruptError

_LINE = 64


def first_line(name: str) -> bytes:
    """The line for a format of this name, as bytes of a fixed number."""
    return f"rag_ese {name}\n".encode().ljust(_LINE)


def begins_with(path: Path, line: bytes) -> bool:
    """Whether the file is of the format that `line` names."""
    with path.open("rb") as file:
        return file.read(_LINE) == line


@contextmanager
def write_arrays(
    path: Path, line: bytes, arrays: Sequence[npt.NDArray[Any]], last: tuple[int, ...], dtype: type
) -> Iterator[npt.NDArray[Any]]:
    """Writes `arrays`, then one of zeros of shape `last`, which the block fills through the map that it is given."""
    kind, size = np.dtype(dtype), int(np.prod(last))
    with path.open("wb") as file:
        file.write(line)
        for array in arrays:
            np.lib.format.write_array(file, array, allow_pickle=False)
        np.lib.format.write_array_header_1_0(file, {"descr": kind.str, "fortran_order": False, "shape": last})
        offset = file.tell()
        file.truncate(offset + size * kind.itemsize)
    if not size:  # a file of no bytes cannot be mapped
        yield np.zeros(last, kind)
        return
    array = np.memmap(path, kind, "r+", offset, last)
    yield array
    array.flush()


def map_arrays(path: Path, line: bytes, count: int) -> list[npt.NDArray[Any]]:
    """The `count` arrays of a file. StoreCorruptError where it is of another format, or cut short."""
    try:
        with path.open("rb") as file:
            if file.read(_LINE) != line:
                raise ValueError("another format")
            return [_mapped(file, path) for _ in range(count)]
    except (OSError, ValueError) as error:
        raise unreadable(path) from error


def unreadable(path: Path) -> StoreCorruptError:
    return StoreCorruptError(f"the index file {path} cannot be read: build the index again")


def _mapped(file: BinaryIO, path: Path) -> Any:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    offset, size = file.tell(), int(np.prod(shape)) * dtype.itemsize
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError("the file is cut short")
    file.seek(size, os.SEEK_CUR)
    if not size:
        return np.zeros(shape, dtype)
    # Copy on write, since the compiled loops are specialised for writable arrays; nothing is written.
    return np.memmap(path, dtype, "c", offset, shape).view(np.ndarray)
