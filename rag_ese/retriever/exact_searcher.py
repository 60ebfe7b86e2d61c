"""Certified exact search of a store, behind the interface of every searcher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.index.store import Store
from rag_ese.index.vectors import VectorFile
from rag_ese.retriever.exact import ExactIndex, Touched
from rag_ese.retriever.searchers import QueryEncoder
from rag_ese.types import Float32s, Int64s, Ranking, Size

_QUERIES = 1024  # encoded together


class PrefixRows:
    """The first `width` dimensions of a store's vectors, at unit length."""

    def __init__(self, file: VectorFile, width: int) -> None:
        self.width = width
        self._file = file

    def __len__(self) -> int:
        return len(self._file)

    def rows(self, rows: Int64s | slice, dim: int) -> Float32s:
        return self._file.rows(rows, dim)


class ExactSearcher:
    """The exact best `keep` passages at one size; the index is built on construction, in memory.

    `touched` adds up what all searches so far have read.
    """

    def __init__(self, store: Store, encoder: QueryEncoder, size: Size, keep: int) -> None:
        store.check_model(encoder.name, encoder.revision)
        if size.dim > store.width:
            raise ConfigError(
                f"the size {size} is wider than the {store.width} dimensions in {store.folder}: narrow it"
            )
        self.name, self.keep = f"{size} exact", keep
        self._encoder, self._size = encoder, size
        self.index = ExactIndex.build(PrefixRows(store.vectors(size.layers), size.dim))
        self.touched: Touched | None = None

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        rankings: list[Ranking] = []
        for start in range(0, len(queries), _QUERIES):
            vectors = self._encoder.begin(queries[start : start + _QUERIES]).at(self._size)
            scores, rows, touched = self.index.search(np.asarray(vectors, dtype=np.float32), self.keep)
            self.touched = self.touched + touched if self.touched else touched
            rankings += [Ranking(r, s) for r, s in zip(rows, scores, strict=True)]
        return rankings
