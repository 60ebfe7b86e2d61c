"""An index that stands before another one and passes on what it does not change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag_ese.index.row_scores import RowScores
from rag_ese.index.searchable import Lexical, Searchable
from rag_ese.index.vectors import Vectors
from rag_ese.index.where import Where
from rag_ese.types import Bools, Passage, Size


class Wrapped:
    """All of Searchable but `search`, as `whole` has it."""

    def __init__(self, whole: Searchable) -> None:
        self._whole = whole

    def __len__(self) -> int:
        return len(self._whole)

    @property
    def folder(self) -> Path:
        return self._whole.folder

    @property
    def width(self) -> int:
        return self._whole.width

    @property
    def sizes(self) -> list[Size]:
        return self._whole.sizes

    @property
    def passages(self) -> Sequence[Passage]:
        return self._whole.passages

    @property
    def bm25(self) -> Lexical:
        return self._whole.bm25

    def check_model(self, name: str, revision: str) -> None:
        self._whole.check_model(name, revision)

    def index(self, size: Size) -> object:
        return self._whole.index(size)

    def vectors(self, layer: int) -> Vectors:
        return self._whole.vectors(layer)

    def row_scores(self, size: Size, exact: bool) -> RowScores:
        return self._whole.row_scores(size, exact)

    def matching(self, where: Where) -> Bools:
        return self._whole.matching(where)
