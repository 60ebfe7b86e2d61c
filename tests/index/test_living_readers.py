"""One writer and many readers: every reader sees one generation, whole, whatever happens meanwhile."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import StoreError
from rag_ese.index import LivingIndex, build
from rag_ese.types import Passage, Size

SIZE = Size(2, 8)
QUERY = np.eye(1, 8, dtype=np.float32)


@pytest.fixture
def living(tmp_path: Path, encoder: Any, passages: Callable[[int], list[Passage]], plan: Callable[..., Any]) -> Any:
    return LivingIndex.create(tmp_path / "living", build(tmp_path / "store", plan(), lambda: passages(8), encoder))


def found(index: LivingIndex) -> frozenset[str]:
    """The ids of all passages, as a search finds them."""
    rows = index.search(SIZE, QUERY, 1000)[1][0]
    assert (rows >= 0).all() and len({*rows.tolist()}) == len(index)
    lexical = index.bm25.search("number", 1000).rows
    assert {*lexical.tolist()} == {*rows.tolist()}
    return frozenset(index.passages.id(int(row)) for row in rows)


def test_readers_during_writes(living: LivingIndex, encoder: Any, passages: Callable[[int], list[Passage]]) -> None:
    rows = passages(40)
    expected = {living.generation.number: frozenset(row.id for row in rows[:8])}
    seen: list[tuple[int, frozenset[str]]] = []
    failures: list[BaseException] = []
    finished = threading.Event()

    def read() -> None:
        try:
            while not finished.is_set():
                index = LivingIndex.open(living.folder)
                seen.append((index.generation.number, found(index)))
                seen.append((index.generation.number, found(index)))
        except BaseException as error:  # noqa: BLE001  (reported by the test)
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    index, ids = living, {row.id for row in rows[:8]}
    for step in range(6):
        more, gone = rows[8 + 4 * step : 12 + 4 * step], sorted(ids)[:2]
        index, ids = index.add(more, encoder), ids | {row.id for row in more}
        expected[index.generation.number] = frozenset(ids)
        index, ids = index.delete(gone), ids - {*gone}
        expected[index.generation.number] = frozenset(ids)
        if step % 2:
            index = index.compact()
            expected[index.generation.number] = frozenset(ids)
    finished.set()
    for reader in readers:
        reader.join()
    assert not failures, failures
    assert seen and all(expected[number] == names for number, names in seen)
    assert found(living) == expected[living.generation.number]  # open all the while
    assert found(LivingIndex.open(living.folder)) == ids


def test_a_writer_in_another_process(living: LivingIndex, passages: Callable[[int], list[Passage]]) -> None:
    program = (
        "import sys; from pathlib import Path; from rag_ese.index.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'writing to'): print('locked', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", program, str(living.folder)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="another process is writing to"):
            living.delete([passages(1)[0].id])
        assert len(found(LivingIndex.open(living.folder))) == 8  # to read needs no lock
        other.kill()
    assert len(living.delete([passages(1)[0].id])) == 7
