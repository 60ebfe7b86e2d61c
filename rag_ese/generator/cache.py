"""Answers that were given once are not asked for again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from rag_ese.errors import StorageError, disk_errors
from rag_ese.generator.base import Generator, Prompt
from rag_ese.types import Answer, Evidence

_PATIENCE = 60.0
"""Seconds to wait for other processes."""


class CachedGenerator(Generator):
    """Keeps the answers of `generator` in the sqlite file `path`, each from the moment it arrives.

    An answer is found again by the generator's fingerprint and the prompt's full content: the question, every
    passage's title and sentences, their order. Identical prompts of one call are generated once. Several processes
    may share the file, and killing one loses no answer that it had received; keep it on a local disk (sqlite's
    write-ahead log does not work over network file systems). `hits` and `misses` add up to the prompts seen.
    Raises StorageError when the file is no such cache, is damaged, or cannot be written.
    """

    def __init__(self, generator: Generator, path: Path | str) -> None:
        self._generator, self._path = generator, Path(path)
        self.name, self.fingerprint = generator.name, generator.fingerprint
        self.hits = self.misses = 0
        with disk_errors("creating the folder", self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open():  # a file that cannot be used is better found now than after the first answer
            pass

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream: the known answers first, then the others as `generator` gives them."""
        waiting: dict[str, list[int]] = {}
        with self._open() as database:
            for position, prompt in enumerate(prompts):
                key = self._key(prompt)
                if key not in waiting and (answer := self._read(database, key)) is not None:
                    self.hits += 1
                    yield position, answer
                else:
                    waiting.setdefault(key, []).append(position)
            if not waiting:
                return
            self.misses += len(waiting)
            self.hits += sum(len(positions) - 1 for positions in waiting.values())
            missing = list(waiting.items())
            for number, answer in self._generator.stream([prompts[positions[0]] for _, positions in missing]):
                key, positions = missing[number]
                self._write(database, key, answer)
                yield from ((position, answer) for position in positions)

    def _key(self, prompt: Prompt) -> str:
        passages = [[passage.title, list(passage.sentences)] for passage in prompt.passages]
        content = json.dumps([self.fingerprint, prompt.question, passages])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def _read(self, database: sqlite3.Connection, key: str) -> Answer | None:
        with self._sqlite_errors():
            row = database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            text, facts, usage, *rest = json.loads(row[0])
            known = None if facts is None else tuple((title, number) for title, number in facts)
            return Answer(text, known, usage, Evidence(**rest[0]) if rest and rest[0] else None)
        except (ValueError, TypeError) as error:
            raise self._corrupt() from error

    def _write(self, database: sqlite3.Connection, key: str, answer: Answer) -> None:
        evidence = answer.evidence and asdict(answer.evidence)
        content = json.dumps([answer.text, answer.supporting_facts, answer.usage, evidence])
        with self._sqlite_errors():
            database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, content))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._sqlite_errors():
            # isolation_level None: every statement is its own transaction, so nothing is pending when we are killed
            connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        with closing(connection) as database:
            with self._sqlite_errors():
                _switch_to_wal(database)
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
            yield database

    @contextmanager
    def _sqlite_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"the answer cache {self._path} cannot be used ({error}): free space, let other processes "
                "finish or choose another file, then run the same command again"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._corrupt() from error

    def _corrupt(self) -> StorageError:
        return StorageError(
            f"the answer cache {self._path} is damaged or no cache: delete it and run the command again"
        )


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """Processes that create the file at the same moment are refused here at once, whatever the time-out: try again."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
