"""An index behind a filter. Searchers work over it as over the index: rows keep their numbers, others are not found."""

from __future__ import annotations

import numpy as np

from rag_ese.index.lexical import best
from rag_ese.index.searchable import Lexical, Searchable
from rag_ese.index.where import Where
from rag_ese.index.wrapped import Wrapped
from rag_ese.types import Bools, Float32s, Int64s, Ranking, Size


class View(Wrapped):
    """The passages of `whole` that `where` lets through, e.g. View(store, {"year": {">=": 1990}}).

    The filter is applied before every search. BM25 weighs words by how rare they are in the whole index.
    """

    def __init__(self, whole: Searchable, where: Where) -> None:
        super().__init__(whole)
        self._mask = whole.matching(where)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._mask))

    @property
    def bm25(self) -> Lexical:
        return _Masked(self._whole.bm25, self._mask)

    def search(self, size: Size, queries: Float32s, k: int, where: Where | None = None) -> tuple[Float32s, Int64s]:
        return self._whole.search(size, queries, k, self._mask if where is None else self.matching(where))

    def matching(self, where: Where) -> Bools:
        return self._whole.matching(where) & self._mask


class _Masked:
    def __init__(self, lexical: Lexical, mask: Bools) -> None:
        self._lexical, self._mask = lexical, mask

    def scores(self, query: str) -> Float32s:
        return np.where(self._mask, self._lexical.scores(query), np.float32(0))

    def search(self, query: str, k: int) -> Ranking:
        return best(self.scores(query), k, above=0.0)
