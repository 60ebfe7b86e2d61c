"""Documents and their vectors in memory: one writer at a time, readers without a lock.

Rows are only ever appended. A row that is deleted or replaced is marked with the generation in which it died, so a
reader, who looks at one generation, sees all of a change or nothing of it. When most rows are dead, those that live
move to new arrays; a reader of the old ones is not disturbed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from langchain_core.documents import Document

from rag_ese.errors import DataError, StoreMismatchError
from rag_ese.index.lexical import best
from rag_ese.index.row_scores import products
from rag_ese.integrations.langchain.masks import Filter, Masks
from rag_ese.types import Bools, Float32s, Int64s, Ranking

_ALIVE = np.iinfo(np.int64).max
_LEAST = 1024
"""Fewer dead rows than this are never worth a move."""
_GATHER = 4
"""Rows that are at most 1 / 4 of all are gathered and scored; of more, all are scored and some left out."""


@dataclass(frozen=True)
class Generation:
    """What a reader sees: the first `count` rows, but for those that died in `number` or before."""

    vectors: Float32s
    """capacity x width, unit length (a zero vector stays zero); rows from `count` on are not filled."""
    died: Int64s
    """capacity; the generation in which a row died."""
    documents: list[Document]
    masks: Masks
    count: int = 0
    number: int = 0
    dead: int = 0

    def __len__(self) -> int:
        return self.count - self.dead

    @property
    def live(self) -> Int64s:
        """The rows that live, in order of addition."""
        return np.flatnonzero(self._allowed(None))

    def search(self, query: Float32s, k: int, where: Filter | None = None) -> Ranking:
        """The `k` living rows with the highest cosine to `query` (width) of those that `where` lets through."""
        if not len(self):
            return Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        if len(query) != self.vectors.shape[1]:
            raise StoreMismatchError(
                f"the query has {len(query)} dimensions, but the store's vectors have {self.vectors.shape[1]}: "
                "use the embeddings that the store was filled with"
            )
        query = unit(query[None])[0]
        rows = self._nearest(query, k, where)
        scores = products(self.vectors[rows], query)  # the same for a row whichever rows it was searched among
        order = np.lexsort((rows, -scores))
        return Ranking(rows[order], np.clip(scores[order], -1, 1))

    def _nearest(self, query: Float32s, k: int, where: Filter | None) -> Int64s:
        vectors = self.vectors[: self.count]
        if where is None and not self.dead:
            return best(vectors @ query, k).rows
        allowed = self._allowed(where)
        rows = np.flatnonzero(allowed)
        if len(rows) * _GATHER <= self.count:
            return rows[best(vectors[rows] @ query, k).rows]
        return best(np.where(allowed, vectors @ query, -np.inf), k).rows  # never a row at minus infinity

    def _allowed(self, where: Filter | None) -> Bools:
        alive: Bools = self.died[: self.count] > self.number
        return alive if where is None else alive & self.masks.of(where, self.documents, self.count)


class Table:
    """The current generation, and the changes that lead to the next."""

    def __init__(self, vectors: Float32s | None = None, documents: Sequence[Document] = ()) -> None:
        """Takes over unit vectors (n x width), which may be mapped from a file, and their documents with ids."""
        given = np.empty((0, 0), np.float32) if vectors is None else vectors
        died = np.full(len(given), _ALIVE, np.int64)
        masks = Masks()
        masks.note(documents)
        self.now = Generation(given, died, [*documents], masks, len(documents))
        self._rows = {document.id: row for row, document in enumerate(documents)}
        self._lock = threading.Lock()

    def add(self, documents: Sequence[Document], vectors: Float32s) -> None:
        """Adds documents, which have ids, with their vectors (n x width), and replaces those with the same ids.

        All become visible at once. Raises StoreMismatchError where the width is not that of the rows that are there,
        DataError for a vector that is not finite.
        """
        if not len(documents):
            return
        if not np.isfinite(vectors).all():
            raise DataError("the embeddings hold a value that is not finite: look at the texts, or use float32")
        last = {document.id: row for row, document in enumerate(documents)}  # of equal ids the last
        chosen = sorted(last.values())
        kept, fresh = [documents[row] for row in chosen], unit(vectors[chosen])
        with self._lock:
            now = _with_room(self.now, len(kept), fresh.shape[1])
            end = now.count + len(kept)
            now.vectors[now.count : end] = fresh
            now.died[now.count : end] = _ALIVE
            now.documents.extend(kept)
            now.masks.note(kept)
            gone = [self._rows[document.id] for document in kept if document.id in self._rows]
            self._rows.update((document.id, now.count + number) for number, document in enumerate(kept))
            self._publish(replace(now, count=end), gone)

    def delete(self, ids: Sequence[str] | None = None) -> None:
        """Deletes documents by id, or all. Ids that are not there are passed over."""
        with self._lock:
            names = [*self._rows] if ids is None else [*dict.fromkeys(ids)]
            self._publish(self.now, [self._rows.pop(name) for name in names if name in self._rows])

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents of those ids that are there, in the order of `ids`."""
        with self._lock:
            return [self.now.documents[self._rows[name]] for name in ids if name in self._rows]

    def _publish(self, now: Generation, gone: Sequence[int]) -> None:
        number = now.number + 1
        now.died[list(gone)] = number  # readers of the generation before still see these rows
        now = replace(now, number=number, dead=now.dead + len(gone))
        if now.dead == now.count or now.dead > max(_LEAST, now.count // 2):
            now = self._moved(now)
        self.now = now

    def _moved(self, now: Generation) -> Generation:
        rows = now.live
        documents = [now.documents[row] for row in rows]
        self._rows = {document.id: row for row, document in enumerate(documents)}
        died = np.full(len(rows), _ALIVE, np.int64)
        return Generation(now.vectors[rows], died, documents, Masks(now.masks), len(rows), now.number)


def _with_room(now: Generation, more: int, width: int) -> Generation:
    """The generation in arrays that hold `more` rows more; capacity at least doubles, so that adding stays linear."""
    if now.count and now.vectors.shape[1] != width:
        raise StoreMismatchError(
            f"the new vectors have {width} dimensions, but the store's have {now.vectors.shape[1]}: use the embeddings "
            "that the store was filled with"
        )
    needed = now.count + more
    if needed <= len(now.vectors) and now.vectors.flags.writeable and now.vectors.shape[1] == width:
        return now
    capacity = max(needed, 2 * now.count)
    vectors, died = np.empty((capacity, width), np.float32), np.empty(capacity, np.int64)
    if now.count:
        vectors[: now.count] = now.vectors[: now.count]
        died[: now.count] = now.died[: now.count]
    return replace(now, vectors=vectors, died=died)


def unit(vectors: Float32s) -> Float32s:
    """Rows brought to length 1; a zero row stays zero."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(lengths > 0, lengths, 1), dtype=np.float32)
