"""Every error that rag_ese raises on purpose. Each message is one sentence: what was wrong, in numbers, and what to do.

RagEseError                     the command line prints the message and exits with 2
├── ConfigError                 an option or a configuration file
│   └── SizeError               an embedding size that cannot be read or that the model does not have
├── DataError                   questions or passages
│   └── HubUnreachableError     the data hub did not answer
├── ModelError                  an encoder's folder, modules or weights
├── StoreError                  an index folder
│   ├── StoreCorruptError       truncated or changed files
│   └── StoreMismatchError      built with another model, or with other settings
├── StorageError                the disk: full, read-only, not a folder
├── TrainingError               a training run that cannot go on
├── GeneratorError              a generator backend
└── MissingExtraError           an optional dependency that is not installed
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RagEseError(Exception):
    """The root of the tree; catch this to catch them all."""


class ConfigError(RagEseError):
    """An option or a configuration file that cannot be used."""


class SizeError(ConfigError):
    """A size that cannot be read, or that the model does not have."""


class DataError(RagEseError):
    """Questions or passages that cannot be used."""


class HubUnreachableError(DataError):
    """The data hub did not answer in time."""


class ModelError(RagEseError):
    """An encoder that cannot be loaded."""


class StoreError(RagEseError):
    """An index folder that cannot be used."""


class StoreCorruptError(StoreError):
    """An index folder whose files are missing, truncated or changed."""


class StoreMismatchError(StoreError):
    """An index folder that was built with another model or with other settings."""


class StorageError(RagEseError):
    """The disk said no: full, read-only, or not a folder."""


class TrainingError(RagEseError):
    """A training run that cannot go on: a loss that is not finite."""


class GeneratorError(RagEseError):
    """A generator backend that cannot be used or that failed."""


class MissingExtraError(RagEseError, ImportError):
    """An optional dependency is missing.

    >>> str(MissingExtraError("vllm", "the vLLM backend"))
    'the vLLM backend needs an optional dependency: in the folder of rag_ese run pip install -e ".[vllm]"'
    """

    def __init__(self, extra: str, what: str) -> None:
        remedy = f'in the folder of rag_ese run pip install -e ".[{extra}]"'
        super().__init__(f"{what} needs an optional dependency: {remedy}")
        self.extra = extra


_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOENT: "a folder on the way does not exist and cannot be made",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder, not a file",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reported an input/output error",
}


@contextmanager
def disk_errors(doing: str, path: Path | str) -> Iterator[None]:
    """Turns the system's refusals inside the block into a StorageError that says what was being done where."""
    try:
        yield
    except OSError as error:
        reason = _DISK.get(error.errno) if error.errno else _short_write(error)
        if reason is None:
            raise
        raise StorageError(
            f"{doing} {path} failed: {reason}; free space or choose another folder, then run the same command again"
        ) from error


def _short_write(error: OSError) -> str | None:
    """numpy's `tofile` reports a write that was cut short in words alone, without an error number."""
    return "the disk did not take all of it" if "requested and" in str(error) else None
