"""What searchers need of an index: a store, a living index, and either of them behind a filter, all have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rag_ese.index.row_scores import RowScores
from rag_ese.index.vectors import Vectors
from rag_ese.index.where import Where
from rag_ese.types import Bools, Float32s, Int64s, Passage, Ranking, Size


class Lexical(Protocol):
    """BM25: a score per row (float32), and the best rows."""

    def scores(self, query: str) -> Float32s: ...

    def search(self, query: str, k: int) -> Ranking: ...


class Searchable(Protocol):
    """Passages in rows, searchable at sizes and by words. Not every row need be one that a search can find."""

    @property
    def folder(self) -> Path: ...

    @property
    def width(self) -> int: ...

    @property
    def sizes(self) -> list[Size]: ...

    @property
    def passages(self) -> Sequence[Passage]: ...

    @property
    def bm25(self) -> Lexical: ...

    def __len__(self) -> int:
        """How many passages a search can find."""

    def check_model(self, name: str, revision: str) -> None: ...

    def index(self, size: Size) -> object:
        """Something that is there if `size` can be searched; raises SizeError if not."""

    def vectors(self, layer: int) -> Vectors: ...

    def row_scores(self, size: Size, exact: bool) -> RowScores:
        """What scores single rows at `size`: their vectors, or what is faster where that need not be `exact`."""

    def search(self, size: Size, queries: Float32s, k: int, where: Where | None = None) -> tuple[Float32s, Int64s]: ...

    def matching(self, where: Where) -> Bools:
        """Which rows the filter lets through."""
