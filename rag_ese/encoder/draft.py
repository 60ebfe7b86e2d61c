"""A folder of several files that is there in whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_ese.errors import StorageError, disk_errors


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """A folder that takes the name `folder` when the block is done, and is gone when it fails."""
    if folder.exists():
        raise StorageError(f"{folder} exists already: give a folder that does not, or remove this one first")
    draft = folder.with_name(f".{folder.name}.draft")
    with disk_errors("writing the model to", folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def system_errors() -> Iterator[None]:
    """safetensors and tokenizers report what the system refused in words alone: gives it its number back."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), str(error)) from error
        raise
