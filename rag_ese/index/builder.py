"""Builds a store: passages to disk, one encode pass for all depths, one FAISS index per size, BM25, the manifest last.

Everything happens in a hidden folder beside the final one, which takes its name in one step at the end. Killed at any
moment, the same command goes on where it stopped: each step either left its whole result, or leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rag_ese.errors import StorageError, StoreError, StoreMismatchError, disk_errors
from rag_ese.index.kinds import build_index, factory_string
from rag_ese.index.lexical import FOLDER, build_bm25
from rag_ese.index.manifest import MANIFEST, FileEntry, Manifest, Plan, entry
from rag_ese.index.passages import IDS, OFFSETS, TEXTS, PassageFile, write_passages
from rag_ese.index.store import Store, index_file
from rag_ese.index.vectors import LayerEncoder, VectorFile, encode_passages, layers_of, vector_file
from rag_ese.progress import progress_bar
from rag_ese.types import Passage, Size

PLAN, LOCK, TIMING, DONE = "plan.json", "lock", "build.json", "passages.done"


def build(
    folder: Path,
    plan: Plan,
    passages: Callable[[], Iterable[Passage]],
    encoder: LayerEncoder,
    overwrite: bool = False,
) -> Store:
    """Builds the store `folder`, or goes on with an interrupted build of the same plan, or opens it if it is complete.

    Raises StoreMismatchError where `folder` holds, or began to hold, another plan (unless `overwrite`), StorageError
    where the disk refuses.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors("building the index in", folder):
        if folder.exists() and not overwrite:
            return _existing(folder, plan)
        partial.mkdir(parents=True, exist_ok=True)
        with _lock(partial):
            _start(partial, plan, overwrite)
            _fill(partial, plan, passages, encoder)
            _publish(partial, folder)
    return Store(folder)


def extend(folder: Path, sizes: Sequence[Size], encoder: LayerEncoder) -> Store:
    """Adds `sizes` to a store, encoding its passages at depths that it lacks. The store stays readable throughout."""
    store = Store(folder)
    store.check_model(encoder.name, encoder.revision)
    plan = store.manifest.plan
    new_sizes = [size for size in sizes if size not in store.sizes]
    if not new_sizes:
        return store
    layers = sorted({*layers_of(new_sizes)} - {*plan.layers})
    with disk_errors("extending the index in", folder), _lock(folder):
        if layers:
            partial = folder / f".extend-{'-'.join(map(str, layers))}"
            partial.mkdir(exist_ok=True)
            _encode(partial, store.passages, encoder, layers, plan)
            for layer in layers:
                os.replace(partial / vector_file(layer), folder / vector_file(layer))
            shutil.rmtree(partial)
        for size in new_sizes:
            _index(folder, size, plan)
        plan = plan.model_copy(
            update={
                "layers": tuple(sorted({*plan.layers, *layers})),
                "sizes": tuple(map(str, sorted({*store.sizes, *new_sizes}))),
            }
        )
        added = [*(vector_file(layer) for layer in layers), *(index_file(size) for size in new_sizes)]
        files = {**store.manifest.files, **_entries(folder, added)}
        Manifest(plan=plan, passages=len(store), files=dict(sorted(files.items()))).write(folder)
    return Store(folder)


def _existing(folder: Path, plan: Plan) -> Store:
    if not (folder / MANIFEST).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not an index: choose another --out or --name, or remove it")
    store = Store(folder)
    if difference := plan.difference(store.manifest.plan):
        raise StoreMismatchError(
            f"{folder} already holds another index ({difference}): choose another --name, or --overwrite"
        )
    return store


def _start(partial: Path, plan: Plan, overwrite: bool) -> None:
    """Notes the plan, or compares it with the one of the interrupted build."""
    file = partial / PLAN
    begun = Plan.model_validate_json(file.read_text()) if file.exists() else None
    difference = begun and plan.difference(begun)
    if difference and not overwrite:
        raise StoreMismatchError(
            f"{partial} holds an interrupted build of another index ({difference}): finish it with its own settings, "
            "choose another --name, or --overwrite"
        )
    if begun is None or difference:
        for path in partial.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        draft = file.with_suffix(".draft")
        draft.write_text(plan.model_dump_json())
        os.replace(draft, file)


def _fill(partial: Path, plan: Plan, passages: Callable[[], Iterable[Passage]], encoder: LayerEncoder) -> None:
    if not (partial / DONE).exists():
        write_passages(partial, passages())
        (partial / DONE).touch()
    rows = PassageFile(partial)
    _encode(partial, rows, encoder, plan.layers, plan)
    sizes = [Size.parse(size) for size in plan.sizes]
    for size in sizes:
        _index(partial, size, plan)
    if plan.bm25 and not (partial / FOLDER).exists():
        build_bm25(partial, rows)
    names = [TEXTS, OFFSETS, IDS, *map(vector_file, plan.layers), *map(index_file, sizes)]
    lexical = partial / FOLDER
    names += [path.relative_to(partial).as_posix() for path in lexical.rglob("*") if path.is_file()]
    Manifest(plan=plan, passages=len(rows), files=_entries(partial, sorted(names))).write(partial)


def _encode(
    partial: Path, rows: Sequence[Passage], encoder: LayerEncoder, layers: Sequence[int], plan: Plan
) -> None:
    began, done = time.perf_counter(), [0]
    with progress_bar(f"encoding at {', '.join(f'L{layer}' for layer in layers)}", len(rows)) as advance:

        def report(count: int) -> None:
            done[0] += count
            advance(count)

        encode_passages(partial, rows, encoder, layers, plan.stored, plan.shard, report)
    if not (partial / TIMING).exists():
        seconds = time.perf_counter() - began
        rate = {"passages": done[0], "seconds": round(seconds, 3), "machine": platform.processor() or platform.machine()}
        (partial / TIMING).write_text(json.dumps(rate, indent=1) + "\n")


def _index(folder: Path, size: Size, plan: Plan) -> None:
    path = folder / index_file(size)
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        return
    vectors = VectorFile(folder / vector_file(size.layers), plan.model.width, plan.stored)
    kind = factory_string(plan.kind, size.dim, len(vectors))
    try:
        with progress_bar(f"indexing {size} ({kind})", len(vectors)) as advance:
            build_index(plan.kind, vectors, size.dim, path, advance)
    except RuntimeError as error:  # how FAISS reports a failed write
        raise StorageError(f"writing {path} failed: {str(error).splitlines()[0]}") from error


def _entries(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    return {name: entry(folder / name) for name in names}


def _publish(partial: Path, folder: Path) -> None:
    """Gives the finished folder its name; what stood there before goes only after."""
    for name in (PLAN, DONE, LOCK, "progress.json"):
        (partial / name).unlink(missing_ok=True)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps a second process from building in the same folder. The lock goes with the process, however it ends."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"another process is building in {folder}: wait until it has finished") from error
        yield
