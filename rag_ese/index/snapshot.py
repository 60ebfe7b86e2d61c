"""One generation of a living index, opened for reading: several stores as one, without what was deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_ese.errors import DataError, StoreCorruptError, StoreError
from rag_ese.index.generation import SegmentEntry, current
from rag_ese.index.manifest import Plan, check_file
from rag_ese.index.order import best_first
from rag_ese.index.passages import IDS
from rag_ese.index.row_scores import VectorScores
from rag_ese.index.store import Store
from rag_ese.index.vectors import Vectors
from rag_ese.index.where import Where, mask, ready
from rag_ese.index.words import WORD_FILES, LivingBM25, Words
from rag_ese.types import Bools, Float32s, Int64s, Passage, Size


def words_folder(name: str) -> str:
    """Where the word counts of a segment are, relative to the living index."""
    return f"words/{name}"


class Snapshot:
    """What a living index held when it was opened. Later changes do not show, and its files stay until it is dropped.

    Rows count through the segments, deleted passages included, so a row means the same in all later generations up to
    the next compaction; ids mean the same for ever.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generation, self._lease = current(folder)
        self.stores = [self._opened(entry) for entry in self.generation.segments]
        self.starts = np.cumsum([0, *map(len, self.stores)])
        self.passages = SegmentedPassages(self.stores, self.starts)
        self.live = np.ones(self.starts[-1], np.bool_)
        """Which rows are not deleted (bool)."""
        for name in self.generation.deleted:
            check_file(folder, name, self.generation.files[name])
            self.live[np.fromfile(folder / name, np.int64)] = False

    def _opened(self, entry: SegmentEntry) -> Store:
        store = Store(self.folder / entry.path)
        if (len(store), store.manifest.files[IDS].xxh3) != (entry.passages, entry.ids):
            raise StoreCorruptError(
                f"{store.folder} is not the index that {self.folder} was made of any more: put that one back"
            )
        return store

    def __len__(self) -> int:
        return int(np.count_nonzero(self.live))

    @property
    def plan(self) -> Plan:
        """How segments are built: as the first one was."""
        return self.stores[0].manifest.plan

    @property
    def depth(self) -> int:
        return self.stores[0].depth

    @property
    def width(self) -> int:
        return self.stores[0].width

    @cached_property
    def sizes(self) -> list[Size]:
        """The sizes that all segments have an index of."""
        return sorted(set.intersection(*({*store.sizes} for store in self.stores)))

    def check_model(self, name: str, revision: str) -> None:
        self.stores[0].check_model(name, revision)

    def index(self, size: Size) -> list[object]:
        """The FAISS index of every segment."""
        return [store.index(size) for store in self.stores]

    def vectors(self, layer: int) -> SegmentedVectors:
        return SegmentedVectors([store.vectors(layer) for store in self.stores], self.starts)

    def row_scores(self, size: Size, exact: bool) -> VectorScores:
        """By vectors: segments may be indexed in different ways, so their codes do not compare."""
        return VectorScores(self.vectors(size.layers))

    @cached_property
    def bm25(self) -> LivingBM25:
        if not self.generation.bm25:
            raise StoreError(f"{self.folder} was made of an index without BM25: build that one again with --bm25")
        words = []
        for entry in self.generation.segments:
            for name in WORD_FILES:
                name = f"{words_folder(entry.name)}/{name}"
                check_file(self.folder, name, self.generation.files[name])
            words.append(Words(self.folder / words_folder(entry.name)))
        return LivingBM25(words, self.live)

    def search(self, size: Size, queries: Float32s, k: int, where: Where | None = None) -> tuple[Float32s, Int64s]:
        """The `k` best living rows per query that `where` lets through: scores and rows, queries x k, best first.

        There are fewer columns where fewer passages can be found, and rows are -1 as in `Store.search`.
        """
        allowed = self.live if where is None else self.matching(where)
        k = min(k, int(np.count_nonzero(allowed)))
        scores = [np.empty((len(queries), 0), np.float32)]
        rows = [np.empty((len(queries), 0), np.int64)]
        for store, start, end in zip(self.stores, self.starts, self.starts[1:], strict=False):
            part_scores, part_rows = store.search(size, queries, k, allowed[start:end])
            scores.append(part_scores)
            rows.append(np.where(part_rows < 0, -1, part_rows + start))
        all_scores, all_rows = np.hstack(scores), np.hstack(rows)
        order = best_first(all_scores, all_rows, k)
        return np.take_along_axis(all_scores, order, 1), np.take_along_axis(all_rows, order, 1)

    def matching(self, where: Where) -> Bools:
        """Which rows live and are let through by the filter (rows of all segments, bool)."""
        if isinstance(where, np.ndarray):
            return ready(where, len(self.live)) & self.live
        metadata = [store.passages.metadata for store in self.stores]
        rows = [row for each in metadata for row in each.all]
        return mask(where, rows, frozenset[str]().union(*(each.names for each in metadata))) & self.live

    def verify(self) -> tuple[int, int]:
        """As `Store.verify`, of all segments, tombstones and word counts."""
        own = self.generation.files
        for name, expected in own.items():
            check_file(self.folder, name, expected)
        counts = [store.verify() for store in self.stores]
        counts.append((len(own), sum(expected.bytes for expected in own.values())))
        return sum(files for files, _ in counts), sum(size for _, size in counts)

    def rows_of(self, ids: Iterable[str], deleted: bool = False) -> dict[str, list[int]]:
        """The living rows of those `ids` that have any; with `deleted`, the rows that no longer live as well."""
        names = [*ids]
        found: dict[str, list[int]] = {}
        for store, start in zip(self.stores, self.starts, strict=False):
            for name, rows in store.passages.rows_of(names).items():
                kept = [int(start) + row for row in rows if deleted or self.live[start + row]]
                if kept:
                    found.setdefault(name, []).extend(kept)
        return found

    def passage(self, id: str) -> Passage:
        """The passage of an id. Raises DataError where there is none, or none any more."""
        rows = self.rows_of([id]).get(id)
        if not rows:
            raise DataError(f"{self.folder} holds no passage with the id {id!r}: ids are those of the passages")
        found: Passage = self.passages[rows[-1]]
        return found

    def __contains__(self, id: str) -> bool:
        return id in self.rows_of([id])


class SegmentedPassages(Sequence[Passage]):
    """The passages of all segments by row, deleted ones too."""

    def __init__(self, stores: Sequence[Store], starts: Int64s) -> None:
        self._stores, self._starts = stores, starts

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row):  # type: ignore[no-untyped-def]  # int -> Passage, slice -> list[Passage]
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        store, inner = self._place(row)
        return store.passages[inner]

    def id(self, row: int) -> str:
        store, inner = self._place(row)
        return store.passages.id(inner)

    def _place(self, row: int) -> tuple[Store, int]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        segment = int(np.searchsorted(self._starts, row, "right")) - 1
        return self._stores[segment], int(row - self._starts[segment])


class SegmentedVectors:
    """One depth's vectors of all segments by row."""

    def __init__(self, parts: Sequence[Vectors], starts: Int64s) -> None:
        self._parts, self._starts = parts, starts

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, rows: npt.NDArray[np.int64] | slice, dim: int) -> Float32s:
        """The vectors of `rows` at width `dim`: n x dim, float32, unit length."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        segments = np.searchsorted(self._starts, wanted, "right") - 1
        vectors = np.empty((len(wanted), dim), np.float32)
        for number in np.unique(segments):
            here = segments == number
            vectors[here] = self._parts[number].rows(wanted[here] - self._starts[number], dim)
        return vectors
