"""A store: passages, full-width vectors per depth, a FAISS index per size, BM25, the manifest that vouches for all."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rag_ese.errors import SizeError, StoreError, StoreMismatchError
from rag_ese.index.codes import Codes
from rag_ese.index.kinds import has_codes, read_index, threads_for, tune
from rag_ese.index.lexical import BM25, FOLDER
from rag_ese.index.manifest import Manifest, check_file
from rag_ese.index.metadata import METADATA_FILES
from rag_ese.index.order import best_first
from rag_ese.index.passages import IDS, OFFSETS, TEXTS, PassageFile
from rag_ese.index.row_scores import RowScores, VectorScores
from rag_ese.index.selection import search_selected
from rag_ese.index.vectors import VectorFile, vector_file
from rag_ese.index.where import Where, mask, ready
from rag_ese.types import Bools, Float32s, Int64s, Size


def index_file(size: Size) -> str:
    """The name of a size's FAISS index, relative to the store."""
    return f"faiss/{size}.faiss"


class Store:
    """A complete store, opened for reading. Files are mapped into memory, and checked when they are first used."""

    def __init__(self, folder: Path, verify: bool = True) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self._verify = verify
        self._indexes: dict[Size, Any] = {}
        self._codes: dict[Size, Codes] = {}
        self._vectors: dict[int, VectorFile] = {}
        for name, expected in self.manifest.files.items():
            check_file(folder, name, expected, content=False)

    def __len__(self) -> int:
        return self.manifest.passages

    @property
    def depth(self) -> int:
        return self.manifest.plan.model.depth

    @property
    def width(self) -> int:
        return self.manifest.plan.model.width

    @cached_property
    def sizes(self) -> list[Size]:
        """The sizes that have an index of their own."""
        return [Size.parse(size) for size in self.manifest.plan.sizes]

    @cached_property
    def passages(self) -> PassageFile:
        self._check(TEXTS, OFFSETS, IDS, *(name for name in METADATA_FILES if name in self.manifest.files))
        return PassageFile(self.folder)

    @cached_property
    def bm25(self) -> BM25:
        if not self.manifest.plan.bm25:
            raise StoreError(f"{self.folder} was built without BM25: build it again with --bm25")
        self._check(*(name for name in self.manifest.files if name.startswith(FOLDER + "/")))
        return BM25(self.folder)

    def check_model(self, name: str, revision: str) -> None:
        """Raises StoreMismatchError where `revision` is not the model that made the vectors."""
        built = self.manifest.plan.model
        if revision != built.revision:
            raise StoreMismatchError(
                f"{self.folder} was built with {built.name} at revision {built.revision}, but the model in use is "
                f"{name} at revision {revision}: use --model {built.name} as it was then, or build the index again"
            )

    def vectors(self, layer: int) -> VectorFile:
        """The full-width vectors at depth `layer`."""
        if layer not in self.manifest.plan.layers:
            raise SizeError(
                f"{self.folder} holds no vectors of layer {layer}: it has layers "
                f"{', '.join(map(str, self.manifest.plan.layers))}; add a size of that layer with python -m "
                "rag_ese.index extend"
            )
        if layer not in self._vectors:
            self._check(vector_file(layer))
            path = self.folder / vector_file(layer)
            self._vectors[layer] = VectorFile(path, self.width, self.manifest.plan.stored)
        return self._vectors[layer]

    def search(self, size: Size, queries: Float32s, k: int, where: Where | None = None) -> tuple[Float32s, Int64s]:
        """The `k` best rows per query at `size`, by its FAISS index: scores and rows, both queries x k, best first.

        Of the rows that `where` lets through, if it is given; there are fewer columns where it lets fewer than `k`
        through. Equal scores are in order of row; which of them come in at the `k`-th place is FAISS's choice. Rows are
        -1 where an approximate index, searched without a filter, found fewer than `k`.
        """
        index = self.index(size)
        queries = np.ascontiguousarray(queries)
        allowed = None if where is None else self.matching(where)
        if allowed is None or allowed.all():
            k = min(k, len(self))
            tune(index, k)
            with threads_for(index, len(queries)):
                scores, rows = index.search(queries, k)
        elif k := min(k, int(np.count_nonzero(allowed))):
            scores, rows = search_selected(index, self.vectors(size.layers), queries, k, allowed)
        else:
            scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        order = best_first(scores, rows)
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def matching(self, where: Where) -> Bools:
        """Which rows the filter lets through (passages, bool)."""
        if isinstance(where, np.ndarray):
            return ready(where, len(self))
        metadata = self.passages.metadata
        return mask(where, metadata.all, metadata.names)

    def index(self, size: Size) -> Any:
        """The FAISS index of `size`."""
        if size not in self.sizes:
            raise SizeError(
                f"{self.folder} holds no index of size {size}: it has {', '.join(map(str, self.sizes))}; add it with "
                f"python -m rag_ese.index extend {self.folder} --sizes {size}"
            )
        if size not in self._indexes:
            self._check(index_file(size))
            self._indexes[size] = read_index(self.folder / index_file(size))
        return self._indexes[size]

    def codes(self, size: Size) -> Codes | None:
        """The 8-bit codes of all rows at `size`, where its index is of kind sq8; no other index is opened for this."""
        if size not in self.sizes or not has_codes(self.manifest.plan.kind, size):
            return None
        if size not in self._codes:
            self._codes[size] = Codes(self.index(size))
        return self._codes[size]

    def row_scores(self, size: Size, exact: bool) -> RowScores:
        """What scores rows at `size`: vectors, or 8-bit codes where there are any and it need not be `exact`."""
        return (None if exact else self.codes(size)) or VectorScores(self.vectors(size.layers))

    def index_bytes(self, size: Size) -> int:
        return self.manifest.files[index_file(size)].bytes

    def vector_bytes(self, layer: int) -> int:
        return self.manifest.files[vector_file(layer)].bytes

    def bm25_bytes(self) -> int:
        return sum(entry.bytes for name, entry in self.manifest.files.items() if name.startswith(FOLDER + "/"))

    def verify(self) -> tuple[int, int]:
        """Reads every file and compares it with its checksum; returns the number of files, and of bytes read."""
        for name, expected in self.manifest.files.items():
            check_file(self.folder, name, expected)
        return len(self.manifest.files), sum(expected.bytes for expected in self.manifest.files.values())

    def _check(self, *names: str) -> None:
        if self._verify:
            for name in names:
                check_file(self.folder, name, self.manifest.files[name])
