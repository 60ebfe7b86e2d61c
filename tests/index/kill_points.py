"""Run as a program: does a job again and again, each time killed one file operation later, and finishes it each time.

It forks before FAISS has started any thread, so that a job costs milliseconds instead of the imports. Prints one JSON
object. Usage: python kill_points.py JOB KIND FOLDER [STEP]
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import FakeEncoder, contents, make_passages, make_plan

from rag_ese.cli import guarded
from rag_ese.index import LivingIndex, Store, build, extend
from rag_ese.types import Passage, Size

PASSAGES = 11
MORE = [Size(2, 16), Size(4, 8), Size(5, 24)]


class Clock:
    """Counts what a job does to the disk and to its inputs, and kills the process at the `fatal`-th count."""

    def __init__(self, folder: Path, fatal: int) -> None:
        self.count, self.fatal, self.folder = 0, fatal, str(folder)
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(("open", "os.", "fcntl")) and any(self.folder in str(each) for each in arguments[:2]):
            self.tick()

    def tick(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class TickingEncoder(FakeEncoder):
    clock: Clock

    def encode_layers(self, *args, **options):  # type: ignore[no-untyped-def]
        self.clock.tick()
        return super().encode_layers(*args, **options)


def build_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        encoder = TickingEncoder()
        encoder.clock = clock

        def passages() -> Iterator[Passage]:
            for passage in make_passages(PASSAGES):
                clock.tick()
                yield passage

        build(folder, make_plan(kind=kind), passages, encoder)

    return job


def extend_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        encoder = TickingEncoder()
        encoder.clock = clock
        extend(folder, MORE, encoder)

    return job


def overwrite_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        encoder = TickingEncoder()
        encoder.clock = clock
        build(folder, make_plan("L3-d8", kind=kind), lambda: make_passages(PASSAGES), encoder, overwrite=True)

    return job


def add_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        encoder = TickingEncoder()
        encoder.clock = clock
        labelled = replace(make_passages(PASSAGES)[3], metadata={"year": 1990})
        LivingIndex.open(folder).add([labelled, *make_passages(PASSAGES + 6)[PASSAGES:]], encoder)

    return job


def delete_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        LivingIndex.open(folder).delete([passage.id for passage in make_passages(PASSAGES)[2:5]])

    return job


def compact_job(kind: str, folder: Path) -> Callable[[Clock], None]:
    def job(clock: Clock) -> None:
        LivingIndex.open(folder).compact().clean()

    return job


LIVING = {"add": add_job, "delete": delete_job, "compact": compact_job}


def make_living(job: str, kind: str, folder: Path) -> None:
    """What a job of LIVING starts with; it is made in the folder of the store."""
    LivingIndex.create(folder, Store(folder))
    if job == "compact":
        add_job(kind, folder)(Clock(folder, -1))
        delete_job(kind, folder)(Clock(folder, -1))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but those that say how long something took, and locks that nobody has."""
    beside = (".timing.json", ".lock")
    return {name: content for name, content in contents(folder).items() if not name.endswith(beside)}


def forked(action: Callable[[], int | None]) -> int:
    """The exit code of `action` in a process of its own; negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            code = action() or 0
        except BaseException:  # noqa: BLE001  (nothing may leave this process but through the next line)
            traceback.print_exc()
            code = 99
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(job: str, kind: str, root: Path, step: int) -> dict[str, object]:
    """Kills `job` at every `step`-th count, finishes it, and compares the files with those of an unbroken run."""
    jobs = {"build": build_job, "extend": extend_job, "overwrite": overwrite_job, **LIVING}

    before = root / "before" / "store"
    if job != "build":
        assert forked(lambda: build_job(kind, before)(Clock(root, -1))) == 0
    if job in LIVING:
        assert forked(lambda: make_living(job, kind, before)) == 0

    def prepare(folder: Path) -> None:
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
        if before.exists():
            shutil.copytree(before, folder)

    unbroken = root / "unbroken" / "store"
    prepare(unbroken)
    assert forked(lambda: jobs[job](kind, unbroken)(Clock(root, -1))) == 0
    expected = files_of(unbroken)
    killed, fatal, code = 0, 1, -signal.SIGKILL
    folder = root / "broken" / "store"

    def run(fatal: int) -> int:
        return forked(lambda: jobs[job](kind, folder)(Clock(folder.parent, fatal)))

    while code == -signal.SIGKILL:
        prepare(folder)
        code = run(fatal)
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        if job == "extend":
            assert forked(lambda: read(folder)) == 0, f"not readable after {fatal}"
        if job in LIVING:
            assert forked(lambda: read_living(job, folder)) == 0, f"not readable after {fatal}"
        assert run(-1) == 0, f"not finished after {fatal}"
        found = files_of(folder)
        assert found == expected, (fatal, {name for name, _ in found.items() ^ expected.items()})
        left = sorted(path.name for path in folder.parent.iterdir() if path != folder)
        assert {*left} <= {".store.lock", ".store.old", ".store.timing.json"}, (fatal, left)
        fatal += step
    return {"killed": killed, "files": len(expected)}


def read(folder: Path) -> None:
    store = Store(folder)
    store.verify()
    for size in store.sizes:
        assert store.search(size, store.vectors(size.layers).rows(slice(0, 2), size.dim), 3)[1][:, 0].tolist() == [0, 1]


def read_living(job: str, folder: Path) -> None:
    index = LivingIndex.open(folder)
    index.verify()
    before, after = {"add": (11, 17), "delete": (11, 8), "compact": (14, 14)}[job]
    assert len(index) in (before, after)
    for size in index.sizes:
        rows = index.search(size, index.vectors(size.layers).rows(slice(0, 2), size.dim), 99)[1]
        assert {*rows[0].tolist()} == {row for row in range(len(index.live)) if index.live[row]}


def full_disk(kind: str, root: Path) -> dict[str, object]:
    """Builds with a limit on the size of files, which every write hits somewhere, then without."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail with EFBIG instead
    unbroken, folder = root / "unbroken" / "store", root / "full" / "store"
    assert forked(lambda: build_job(kind, unbroken)(Clock(root, -1))) == 0
    expected = contents(unbroken)
    refused: dict[str, int] = {}
    limits = sorted({size - 1 for size in map(len, expected.values())} | {0, 50, 200, 500, 1000, 1500, 2000})
    for limit in limits:
        shutil.rmtree(folder.parent, ignore_errors=True)
        reading, writing = os.pipe()

        def limited(limit: int = limit, writing: int = writing) -> int:
            os.dup2(writing, 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            return guarded(lambda: build_job(kind, folder)(Clock(folder, -1)))

        code = forked(limited)
        os.close(writing)
        with os.fdopen(reading) as said:
            message = said.read()
        if limit < max(map(len, expected.values())):
            assert code == 2, (limit, code, message)
            assert not folder.exists()
            refused[message] = limit
        assert forked(lambda: build_job(kind, folder)(Clock(folder, -1))) == 0
        assert contents(folder) == expected, limit
    return {"refused": refused}


if __name__ == "__main__":
    job, kind, root, *step = sys.argv[1:]
    result = full_disk(kind, Path(root)) if job == "full" else kills(job, kind, Path(root), int(step[0]))
    sys.stdout.write(json.dumps(result))
