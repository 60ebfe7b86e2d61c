"""Reads data files, plain or gzipped, whole or by line. Whatever is wrong with one becomes one DataError sentence."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from rag_ese.errors import DataError

_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"


def suffix(path: Path) -> str:
    """The file's kind without its compression: `.jsonl` for both a.jsonl and a.jsonl.gz."""
    return Path(path.name.removesuffix(".gz")).suffix


def fingerprint(path: Path) -> str:
    """The xxh3-64 hash of the file's bytes as they lie on the disk, as `xxh3:` and 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    with _readable(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return f"xxh3:{digest.hexdigest()}"


def read_json(path: Path) -> object:
    """The value in a .json or .json.gz file, read whole."""
    with _readable(path), _open(path) as file:
        content = file.read()
    return _parse(content.removeprefix(_BOM), path, 1)


def read_jsonl(path: Path) -> Iterator[tuple[int, object]]:
    """The values of a .jsonl or .jsonl.gz file with their 1-based line numbers, a line at a time. Skips blank lines."""
    number = 0
    with _readable(path, lambda: f" after line {number}"), _open(path) as file:
        # Lines are split as bytes: text mode would lose the number of a line that is not UTF-8.
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(_BOM) if number == 1 else line
            if content.strip():
                yield number, _parse(content, path, number)


def text(value: object, name: str, where: str) -> str:
    """Checks that a field is a string that can be written as UTF-8; `where` says whose field it is."""
    if not isinstance(value, str):
        shown = "missing" if value is None else f"of type {type(value).__name__}"
        raise DataError(f"{where}: the field {name!r} is {shown}, where a string is needed; correct the record")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the field {name!r} holds half of a surrogate pair at character {error.start + 1}, which is no "
            "text; write the character whole"
        ) from error
    return value


def texts(value: object, name: str, where: str) -> tuple[str, ...]:
    """Checks that a field is a list of strings."""
    if not isinstance(value, list | tuple):
        raise DataError(f"{where}: the field {name!r} is a {type(value).__name__}, where a list of strings is needed")
    return tuple(text(item, f"{name}[{position}]", where) for position, item in enumerate(value))


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parse(content: bytes, path: Path, line: int) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; convert the file to UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        remedy = "correct the line or download the file again"
        if error.msg == "Extra data" and suffix(path) == ".json":
            remedy = "a file with one object per line must be named .jsonl"
        raise DataError(
            f"{path}, line {line + error.lineno - 1}, column {error.colno}: malformed JSON ({error.msg}); {remedy}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, or brackets nested too deeply
        raise DataError(f"{path}, line {line}: JSON that cannot be read ({error}); correct the line") from error


@contextmanager
def _readable(path: Path, place: Callable[[], str] = str) -> Iterator[None]:
    """Turns the refusals of the file system and of gzip into one sentence each."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder; name the file in it") from error
    except gzip.BadGzipFile as error:
        raise DataError(f"{path} is not valid gzip{place()} ({error}); download it again") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut off or damaged{place()}; download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
