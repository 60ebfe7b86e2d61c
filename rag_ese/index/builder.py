"""Builds a store: passages to disk, one encode pass for all depths, one FAISS index per size, BM25, the manifest last.

Everything happens in a hidden folder beside the final one, which takes its name in one step at the end. Killed at any
moment, the same command goes on where it stopped: each step either left its whole result, or leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rag_ese.errors import StoreError, StoreMismatchError, disk_errors
from rag_ese.index.kinds import build_index, factory_string, kind_for, new_index
from rag_ese.index.lexical import FOLDER, build_bm25
from rag_ese.index.lock import exclusive
from rag_ese.index.manifest import MANIFEST, FileEntry, Manifest, Plan, entry
from rag_ese.index.metadata import METADATA_FILES
from rag_ese.index.passages import IDS, OFFSETS, TEXTS, PassageFile, write_passages
from rag_ese.index.store import Store, index_file
from rag_ese.index.vectors import PROGRESS, LayerEncoder, VectorFile, encode_passages, layers_of, vector_file
from rag_ese.progress import progress_bar
from rag_ese.types import Passage, Size

PLAN, DONE = "plan.json", "passages.done"

WriteVectors = Callable[[Path, Sequence[Passage]], None]
"""Writes the vector files of all layers of a plan, for these passages, into an unfinished store."""


def build(
    folder: Path,
    plan: Plan,
    passages: Callable[[], Iterable[Passage]],
    encoder: LayerEncoder,
    overwrite: bool = False,
) -> Store:
    """Builds the store `folder`, or goes on with an interrupted build of the same plan, or opens it if it is complete.

    Raises StoreMismatchError where `folder` holds, or began to hold, another plan (unless `overwrite`), StoreError
    where it holds anything else or another process is building it, StorageError where the disk refuses.
    """

    def encode(partial: Path, rows: Sequence[Passage]) -> None:
        _encode(partial, rows, encoder, plan.layers, plan, timing_file(folder))

    return build_from(folder, plan, passages, encode, overwrite)


def build_from(
    folder: Path,
    plan: Plan,
    passages: Callable[[], Iterable[Passage]],
    write_vectors: WriteVectors,
    overwrite: bool = False,
) -> Store:
    """As `build`, with vectors that `write_vectors` brings: from an encoder, or from other stores."""
    partial = folder.with_name(f".{folder.name}.partial")
    with disk_errors("building the index in", folder):
        if _exists(folder) and not overwrite:
            return _existing(folder, plan)
        for size in map(Size.parse, plan.sizes):  # better refused now than after the encoding
            new_index(kind_for(plan.kind, size), size.dim, 0)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder, "building in"):
            if _exists(folder) and not overwrite:  # built while we came here
                return _existing(folder, plan)
            partial.mkdir(exist_ok=True)
            _start(partial, plan, overwrite)
            if not (partial / MANIFEST).exists():
                _fill(partial, plan, passages, write_vectors)
            _publish(partial, folder)
    return Store(folder)


def extend(folder: Path, sizes: Sequence[Size], encoder: LayerEncoder) -> Store:
    """Adds `sizes` to a store, encoding its passages at depths that it lacks. The store stays readable throughout."""
    store = Store(folder)
    store.check_model(encoder.name, encoder.revision)
    if {*sizes} <= {*store.sizes}:
        return store
    with disk_errors("extending the index in", folder), exclusive(folder, "building in"):
        _extend(Store(folder), sizes, encoder)
    return Store(folder)


def _extend(store: Store, sizes: Sequence[Size], encoder: LayerEncoder) -> None:
    folder, plan = store.folder, store.manifest.plan
    new_sizes = sorted({*sizes} - {*store.sizes})
    layers = sorted({*layers_of(new_sizes)} - {*plan.layers})
    # A depth's vectors are moved here when they are complete; the manifest may not know them yet.
    missing = [layer for layer in layers if not (folder / vector_file(layer)).exists()]
    if missing:
        partial = folder / f".extend-{'-'.join(map(str, missing))}"
        partial.mkdir(exist_ok=True)
        _encode(partial, store.passages, encoder, missing, plan)
        for layer in missing:
            os.replace(partial / vector_file(layer), folder / vector_file(layer))
    for partial in folder.glob(".extend-*"):
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


def _exists(folder: Path) -> bool:
    """Whether there is an index. Anything else in its place but an empty folder is refused: it is never replaced."""
    if (folder / MANIFEST).exists():
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not an index: choose another --out or --name, or remove it")
    return False


def _existing(folder: Path, plan: Plan) -> Store:
    store = Store(folder)
    built = store.manifest.plan
    if {*plan.sizes} <= {*built.sizes}:  # it was extended since, and holds all that is asked for
        plan = plan.model_copy(update={"layers": built.layers, "sizes": built.sizes})
    if difference := plan.difference(built):
        raise StoreMismatchError(
            f"{folder} already holds another index ({difference}): choose another --name, or --overwrite"
        )
    return store


def _start(partial: Path, plan: Plan, overwrite: bool) -> None:
    """Notes the plan, or compares it with the one of the interrupted build, if that had vectors that would be lost."""
    begun = _begun(partial)
    difference = begun and plan.difference(begun)
    if difference and not overwrite and (partial / PROGRESS).exists():
        raise StoreMismatchError(
            f"{partial} holds an interrupted build of another index ({difference}): finish it with its own settings, "
            "choose another --name, or --overwrite"
        )
    if begun is None or difference:
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        draft = partial / (PLAN + ".draft")
        draft.write_text(plan.model_dump_json())
        os.replace(draft, partial / PLAN)


def _begun(partial: Path) -> Plan | None:
    """The plan of the interrupted build; None where there was none or its note cannot be read."""
    if (partial / MANIFEST).exists():
        return Manifest.read(partial).plan
    try:
        return Plan.model_validate_json((partial / PLAN).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _fill(
    partial: Path,
    plan: Plan,
    passages: Callable[[], Iterable[Passage]],
    write_vectors: WriteVectors,
) -> None:
    if not (partial / DONE).exists():
        write_passages(partial, passages())
        (partial / DONE).touch()
    rows = PassageFile(partial)
    write_vectors(partial, rows)
    sizes = [Size.parse(size) for size in plan.sizes]
    for size in sizes:
        _index(partial, size, plan)
    if plan.bm25 and not (partial / FOLDER).exists():
        build_bm25(partial, rows)
    names = [TEXTS, OFFSETS, IDS, *map(vector_file, plan.layers), *map(index_file, sizes)]
    names += [name for name in METADATA_FILES if (partial / name).exists()]
    lexical = partial / FOLDER
    names += [path.relative_to(partial).as_posix() for path in lexical.rglob("*") if path.is_file()]
    Manifest(plan=plan, passages=len(rows), files=_entries(partial, sorted(names))).write(partial)


def _encode(
    partial: Path,
    rows: Sequence[Passage],
    encoder: LayerEncoder,
    layers: Sequence[int],
    plan: Plan,
    timing: Path | None = None,
) -> None:
    began = time.perf_counter()
    with progress_bar(f"encoding at {', '.join(f'L{layer}' for layer in layers)}", len(rows)) as advance:
        count = encode_passages(partial, rows, encoder, layers, plan.stored, plan.shard, advance)
    if count and timing:  # of an interrupted build, what was encoded after the interruption
        rate = {
            "passages": count,
            "seconds": round(time.perf_counter() - began, 3),
            "layers": list(layers),
            "machine": platform.processor() or platform.machine(),
        }
        timing.write_text(json.dumps(rate, indent=1) + "\n")


def _index(folder: Path, size: Size, plan: Plan) -> None:
    path = folder / index_file(size)
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        return
    vectors = VectorFile(folder / vector_file(size.layers), plan.model.width, plan.stored)
    kind = kind_for(plan.kind, size)
    name = factory_string(kind, size.dim, len(vectors))
    with progress_bar(f"indexing {size} ({name})", len(vectors)) as advance:
        build_index(kind, vectors, size.dim, path, advance)


def _entries(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    return {name: entry(folder / name) for name in names}


def _publish(partial: Path, folder: Path) -> None:
    """Gives the finished folder its name; what stood there before goes only after."""
    for name in (PLAN, DONE, PROGRESS):
        (partial / name).unlink(missing_ok=True)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def timing_file(folder: Path) -> Path:
    """Where it is noted how fast a store was built: beside it, because a store's own files depend on its plan alone."""
    whole = folder.resolve()
    return whole.with_name(f".{whole.name}.timing.json")
