"""The living index: passages are added, deleted and replaced without building anew.

It is a list of immutable stores (segments) and of tombstones, named by one small file that is replaced by a rename.
That rename is the change: before it, or if the process ends before it, the index is what it was, and the same command
again goes on where it stopped. One writer at a time; readers need no lock and keep the generation that they opened.

    index = LivingIndex.create(Path("indexes/living"), Store(Path("indexes/mine")))   # nothing is copied
    index = index.add(passages, encoder)                                              # returns the next generation
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import xxhash

from rag_ese.errors import DataError, StoreError, disk_errors
from rag_ese.index.builder import build, build_from
from rag_ese.index.generation import (
    GENERATIONS,
    LIVING,
    Generation,
    SegmentEntry,
    generation_file,
    replace_file,
)
from rag_ese.index.kinds import KINDS, kind_for, must_be_trained
from rag_ese.index.lock import exclusive, leased
from rag_ese.index.manifest import DataEntry, FileEntry, Plan, entry
from rag_ese.index.passages import IDS
from rag_ese.index.snapshot import Snapshot, words_folder
from rag_ese.index.store import Store
from rag_ese.index.vectors import LayerEncoder, layers_of, vector_file
from rag_ese.index.where import Where
from rag_ese.index.words import WORD_FILES, build_words
from rag_ese.types import Int64s, Passage

_TOMBSTONE_FILES = 32
"""With so many files of tombstones, the next change writes them as one."""
_CHUNK = 8192
_OWN = ("words", GENERATIONS, f".{LIVING}.draft")  # what an interrupted `create` may leave


def is_living(folder: Path) -> bool:
    return (folder / LIVING).exists()


class LivingIndex(Snapshot):
    """A generation, and the changes that lead to the next: each returns the index after it, and leaves this one be."""

    @classmethod
    def create(cls, folder: Path, store: Store) -> Self:
        """Makes `store` the first segment of a living index in `folder`, which may be the store's own folder.

        The store is referred to, never copied, changed or removed. Where the index already is, it is opened. Raises
        StoreError where `folder` holds anything else, or another writer is at work.
        """
        if is_living(folder):
            return cls(folder)
        own = folder.resolve() == store.folder.resolve()
        if not own and folder.exists() and any(each.name not in _OWN for each in folder.iterdir()):
            raise StoreError(f"{folder} exists and is not a living index: choose another folder, or remove it")
        with disk_errors("making a living index in", folder):
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive(folder, "writing to"):
                if not is_living(folder):
                    path = os.path.relpath(store.folder.resolve(), folder.resolve())
                    bm25 = store.manifest.plan.bm25
                    first = Generation(number=1, segments=(), bm25=bm25, files={})
                    _with_segment(folder, first, "000001-first", path, store).publish(folder)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The current generation. Raises StoreError where `folder` holds no living index."""
        return cls(folder)

    def add(self, passages: Iterable[Passage], encoder: LayerEncoder) -> Self:
        """Adds passages as one new segment. One that is there already is replaced; if nothing differs, it is left.

        The passages are held in memory. Of several with the same id, the last is taken. Raises StoreMismatchError for
        an encoder of another revision.
        """
        with self._writing() as now:
            now.check_model(encoder.name, encoder.revision)  # before the passages are read
            return now._changed(passages, np.empty(0, np.int64), encoder)

    def delete(self, ids: Iterable[str] = (), where: Where | None = None) -> Self:
        """Deletes passages by id, and those that `where` lets through. Deleting again what was deleted does nothing.

        Raises DataError for ids that the index does not know; then nothing is deleted.
        """
        with self._writing() as now:
            rows = now._known(ids)
            if where is not None:
                rows = np.concatenate([rows, np.flatnonzero(now.matching(where))])
            return now._changed([], rows, None)

    def update(self, changes: Mapping[str, Passage], encoder: LayerEncoder) -> Self:
        """Replaces passages (id -> what takes its place) in one step. A passage of other words has another id."""
        with self._writing() as now:
            now.check_model(encoder.name, encoder.revision)
            return now._changed(changes.values(), now._known(changes), encoder)

    def compact(self) -> Self:
        """Merges all segments into one and drops the tombstones. Vectors are copied; nothing is encoded.

        Rows are numbered anew. Then `clean`s: files that an index which is still open reads are kept, this one's too,
        until the next `clean` after it is dropped. Raises StoreError where no passage is left.
        """
        with self._writing() as now:
            if len(now.stores) == 1 and not now.generation.deleted:
                now._clean()
                return now
            rows = np.flatnonzero(now.live)
            if not len(rows):
                raise StoreError(f"{self.folder} has no passage left to merge: add some first")
            name = f"{now.generation.number + 1:06}-merged"
            revision = xxhash.xxh3_64_hexdigest(now.generation.model_dump_json().encode())
            plan = now._plan(DataEntry(name="merged segments", revision=revision), now.plan.kind)
            store = build_from(
                self.folder / "segments" / name,
                plan,
                lambda: (now.passages[int(row)] for row in rows),
                lambda partial, _: now._copy_vectors(partial, plan.layers),
            )
            number, bm25 = now.generation.number + 1, now.generation.bm25
            empty = Generation(number=number, segments=(), bm25=bm25, files={})
            _with_segment(self.folder, empty, name, f"segments/{name}", store).publish(self.folder)
            merged = type(self)(self.folder)
            now._lease.release()
            merged._clean()
            return merged

    def clean(self) -> Self:
        """Removes files of old generations that no reader holds, and what interrupted changes left."""
        with self._writing() as now:
            now._clean()
            return now

    @contextmanager
    def _writing(self) -> Iterator[Self]:
        """The current generation, which is perhaps newer than this one, and the right to make the next."""
        with disk_errors("changing the index in", self.folder), exclusive(self.folder, "writing to"):
            yield type(self)(self.folder)

    def _known(self, ids: Iterable[str]) -> Int64s:
        names = [*dict.fromkeys(ids)]
        found = self.rows_of(names, deleted=True)
        if unknown := [name for name in names if name not in found]:
            raise DataError(
                f"{self.folder} does not know {len(unknown)} of {len(names)} ids, the first is {unknown[0]!r}: leave "
                "them out; ids are those of the passages, 16 hexadecimal digits"
            )
        return np.array([row for rows in found.values() for row in rows], np.int64)

    def _changed(self, passages: Iterable[Passage], gone: Int64s, encoder: LayerEncoder | None) -> Self:
        """The generation without the rows `gone` and with `passages`."""
        generation, number = self.generation, self.generation.number + 1
        batch = {passage.id: passage for passage in passages}
        there = self.rows_of(batch)
        leaving = {*gone.tolist()}
        for name, rows in there.items():
            if _content(self.passages[rows[-1]]) == _content(batch[name]) and rows[-1] not in leaving:
                del batch[name]
            elif rows[-1] in leaving and _content(self.passages[rows[-1]]) == _content(batch[name]):
                del batch[name]  # replaced by itself
                leaving -= {*rows}
            else:
                leaving |= {*rows}
        leaving = {row for row in leaving if self.live[row]}
        if not batch and not leaving:
            return self
        generation = generation.model_copy(update={"number": number})
        if batch:
            assert encoder
            generation = self._with_added(generation, [*batch.values()], encoder)
        if leaving:
            generation = self._with_deleted(generation, np.array(sorted(leaving), np.int64))
        generation.publish(self.folder)
        return type(self)(self.folder)

    def _with_added(self, generation: Generation, batch: Sequence[Passage], encoder: LayerEncoder) -> Generation:
        revision = xxhash.xxh3_64_hexdigest("\n".join(map(_content, batch)).encode())
        name = f"{generation.number:06}-{revision}"
        path = f"segments/{name}"
        kinds = self.plan.kind
        trained = any(must_be_trained(kind_for(kinds, size), size.dim, len(batch)) for size in self.sizes)
        # Lists, and codes, that a batch cannot fill.
        kind = "flat" if trained and (kinds not in KINDS or kinds == "pq4") else kinds
        plan = self._plan(DataEntry(name="added passages", revision=revision), kind)
        store = build(self.folder / path, plan, lambda: batch, encoder)
        return _with_segment(self.folder, generation, name, path, store)

    def _with_deleted(self, generation: Generation, rows: Int64s) -> Generation:
        name = f"deleted/{generation.number:06}.rows"
        kept = generation.deleted
        if len(kept) >= _TOMBSTONE_FILES:
            rows, kept = np.union1d(rows, np.flatnonzero(~self.live)), ()
        (self.folder / "deleted").mkdir(exist_ok=True)
        replace_file(self.folder / name, rows.astype(np.int64).tobytes())
        files = {file: each for file, each in generation.files.items() if file not in {*generation.deleted} - {*kept}}
        files[name] = entry(self.folder / name)
        return generation.model_copy(update={"deleted": (*kept, name), "files": files})

    def _plan(self, data: DataEntry, kind: str) -> Plan:
        """Segments are built as the first one was, at the sizes that all have; word counts take the place of BM25."""
        layers = {*self.plan.layers}.intersection(*(store.manifest.plan.layers for store in self.stores))
        layers |= {*layers_of(self.sizes)}
        changes = {"data": data, "kind": kind, "bm25": False, "layers": tuple(sorted(layers))}
        return self.plan.model_copy(update={**changes, "sizes": tuple(map(str, self.sizes))})

    def _copy_vectors(self, partial: Path, layers: Iterable[int]) -> None:
        (partial / "vectors").mkdir(exist_ok=True)
        for layer in layers:
            with (partial / vector_file(layer)).open("wb") as file:
                for store, start, end in zip(self.stores, self.starts, self.starts[1:], strict=False):
                    rows = np.flatnonzero(self.live[start:end])
                    for first in range(0, len(rows), _CHUNK):
                        file.write(store.vectors(layer).stored(rows[first : first + _CHUNK]).tobytes())
                file.flush()
                os.fsync(file.fileno())

    def _clean(self) -> None:
        """Removes what neither the current generation nor one that is held names."""
        kept = [self.generation]
        for file in sorted((self.folder / GENERATIONS).iterdir()):
            if file == generation_file(self.folder, self.generation.number):
                continue
            if file.suffix == ".json" and not file.name.startswith(".") and leased(file):
                kept.append(Generation.parse(file.read_bytes()))
            else:
                file.unlink()
        names = {f"segments/{segment.name}" for each in kept for segment in each.segments}
        names |= {words_folder(segment.name) for each in kept for segment in each.segments}
        names |= {name for each in kept for name in each.deleted}
        for part in ("segments", "words", "deleted"):
            for path in (self.folder / part).glob("*"):
                if f"{part}/{path.name}" not in names:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _with_segment(folder: Path, generation: Generation, name: str, path: str, store: Store) -> Generation:
    """The generation with one more segment; its words are counted, which is done again after an interruption."""
    files: dict[str, FileEntry] = {}
    if generation.bm25:
        words = words_folder(name)
        build_words(folder / words, store.passages)
        files = {f"{words}/{file}": entry(folder / words / file) for file in WORD_FILES}
    added = SegmentEntry(name=name, path=path, passages=len(store), ids=store.manifest.files[IDS].xxh3)
    return generation.model_copy(
        update={"segments": (*generation.segments, added), "files": {**generation.files, **files}}
    )


def _content(passage: Passage) -> str:
    """Two passages of equal content need not replace each other."""
    return json.dumps([passage.title, passage.sentences, dict(sorted(passage.metadata.items()))], ensure_ascii=False)
