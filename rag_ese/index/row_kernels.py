"""The loops of reading rows of a file or of its map, compiled by numba; `rag_ese.index.vectors` says when which.

Not for Windows, whose C library has no pread.
"""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np

from rag_ese.index.compiled import threads as threads

PER_THREAD = 500
"""Rows that make up for waking a thread."""
_AT_ONCE = getattr(os, "RWF_NOWAIT", 0)
"""Linux's flag for reading only what needs no disk; 0 where there is none."""
_SOON = getattr(os, "POSIX_FADV_WILLNEED", 0)
_external, _kinds = numba.types.ExternalFunction, numba.types
_pread = _external("pread", _kinds.intp(_kinds.int32, _kinds.voidptr, _kinds.uintp, _kinds.int64))
_preadv2 = _external("preadv2", _kinds.intp(_kinds.int32, _kinds.voidptr, _kinds.int32, _kinds.int64, _kinds.int32))
_fadvise = _external("posix_fadvise", _kinds.int32(_kinds.int32, _kinds.int64, _kinds.int64, _kinds.int32))


def knows_what_is_in_memory(file: int) -> bool:
    """Whether the system can say of this file what it would have to fetch from the disk."""
    if not _AT_ONCE:
        return False
    try:
        os.preadv(file, [bytearray(1)], 0, _AT_ONCE)
    except BlockingIOError:  # it would have to
        return True
    except OSError:
        return False
    return True


def read(file: int, rows: Any, row_bytes: int, target: Any, ask: bool) -> int:
    """Reads the beginning of each row into `target` (n x bytes, uint8); returns how many could not be read.

    With `ask`, which needs a file that `knows_what_is_in_memory`, the disk is asked for all that is not in memory
    before the first of it is waited for: it answers many questions in little more time than one.
    """
    late = np.ones(len(rows), np.bool_)
    if ask and _read_at_once(file, rows, row_bytes, target, late):
        _ask(file, rows, row_bytes, target.shape[1], late)
    return int(_read_late(file, rows, row_bytes, target, late)) if late.any() else 0


def _at_once(file: Any, rows: Any, row_bytes: Any, target: Any, late: Any) -> Any:
    """Reads what needs no disk, and says in `late` what is missing; returns how many are."""
    missing = 0
    for at in numba.prange(len(rows)):
        part = np.array([target[at].ctypes.data, target.shape[1]], np.uintp)  # C's iovec: address and length
        late[at] = _preadv2(file, part.ctypes, 1, rows[at] * row_bytes, _AT_ONCE) != target.shape[1]
        missing += late[at]
    return missing


def _asking(file: Any, rows: Any, row_bytes: Any, size: Any, late: Any) -> None:
    for at in range(len(rows)):
        if late[at]:
            _fadvise(file, rows[at] * row_bytes, size, _SOON)


def _waiting(file: Any, rows: Any, row_bytes: Any, target: Any, late: Any) -> Any:
    missed = 0
    for at in numba.prange(len(rows)):
        if late[at]:
            read = _pread(file, target[at].ctypes, np.uint64(target.shape[1]), rows[at] * row_bytes)
            missed += read != target.shape[1]
    return missed


def _copy(mapped: Any, rows: Any, target: Any) -> Any:
    """Copies the beginning of each row of a map (N x d) into `target` (n x columns); returns how many are not in it."""
    missed = 0
    for at in numba.prange(len(rows)):
        if 0 <= rows[at] < len(mapped):
            for column in range(target.shape[1]):
                target[at, column] = mapped[rows[at], column]
        else:
            missed += 1
    return missed


_read_at_once = numba.njit(parallel=True, cache=True)(_at_once)
_ask = numba.njit(cache=True)(_asking)
_read_late = numba.njit(parallel=True, cache=True)(_waiting)
copy = numba.njit(parallel=True, cache=True)(_copy)
