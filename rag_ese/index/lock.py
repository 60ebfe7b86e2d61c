"""Locks on folders: one writer at a time, and readers that keep what they read. They go with the process (flock)."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_ese.errors import StoreError


@contextmanager
def exclusive(folder: Path, doing: str) -> Iterator[None]:
    """Keeps a second process from changing `folder`; it is told what the first is doing there, "building in" it.

    The lock file lies beside the folder. Raises StoreError where another process has the lock.
    """
    whole = folder.resolve()
    path = whole.with_name(f".{whole.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError  # removed, and made again, between our opening and our locking it
        except (BlockingIOError, FileNotFoundError) as error:
            raise StoreError(f"another process is {doing} {folder}: wait until it has finished") from error
        try:
            yield
        finally:
            path.unlink()


class Lease:
    """A reader's hold on a file, until `release` or until nobody refers to it any more. Readers share it.

    Raises FileNotFoundError where the file is gone.
    """

    def __init__(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDONLY)
        self.release = weakref.finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def leased(file: Path) -> bool:
    """Whether any process, this one included, has a Lease on `file`."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
