"""Certified exact search: the k best rows by full-width inner product, proven, at a fraction of the bytes.

Rows are looked at in a few rounds. In each, the codes up to the first cut give every row an upper bound
(`exact_layout`); rows whose bound does not reach the k-th best score found so far are out for good, the others are
read up to the next cut, and what is left is scored exactly, on the stored vectors themselves. No row is left out
without a proof, so the result is that of brute force with the same scoring function, ties in order of row included.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock

import numpy as np
from threadpoolctl import threadpool_limits

from rag_ese.errors import ConfigError, DataError
from rag_ese.index.store import Store
from rag_ese.index.vectors import VectorFile
from rag_ese.retriever.exact_layout import CodedQuery, Layout
from rag_ese.retriever.searchers import QueryEncoder, products
from rag_ese.types import Float32s, Int64s, Ranking, Size

WIDTHS = (64, 128, 256)
_FIRST = 4096  # rows of the first round at most, from which the first threshold comes
_SHARED = 1 << 14  # rows from which on a round of one query is shared between threads
_BLOCK = 4096  # rows that are decoded together for a batch of queries: they fit a core's cache
_BATCH = 8  # from this many queries on, the codes are multiplied with all of them at once


@dataclass(frozen=True)
class Touched:
    """How many rows were looked at, summed over the queries: at each width of the layout, and in full."""

    queries: int
    rows: int
    at: dict[int, int]
    in_full: int

    def __str__(self) -> str:
        share = 100 / max(1, self.queries * self.rows)
        parts = [f"{count * share:.3g}% to {width}" for width, count in self.at.items()]
        asked = f"{self.queries} queries" if self.queries != 1 else "a query"
        return (
            f"{asked} read, of {self.rows:,} rows, {', '.join(parts)} dimensions, {self.in_full * share:.3g}% in full"
        )


class ExactIndex:
    """Exact top-k over N vectors of width d that stay where they are (memory-mapped), by codes held in memory."""

    def __init__(self, vectors: VectorFile, dim: int | None = None, widths: Sequence[int] = WIDTHS) -> None:
        self.vectors, self.dim = vectors, dim or vectors.width
        cuts = tuple(width for width in widths if width < self.dim) or (self.dim,)
        self.layout = Layout.build(
            lambda start, stop: vectors.rows(slice(start, stop), self.dim), len(vectors), self.dim, cuts
        )

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Float32s, k: int) -> tuple[list[Ranking], Touched]:
        """The min(k, N) best rows for each query (Q x d), best first, equal scores in order of row.

        Raises ConfigError for k below 1 and for another width, DataError for a query that is not finite.
        """
        self._check(queries, k)
        searches = [_Search(self, np.ascontiguousarray(query, np.float32), min(k, len(self))) for query in queries]
        if len(self) and searches:
            for start, stop in self._rounds(k):
                if len(searches) < _BATCH:
                    for each in searches:
                        self._round(each, start, stop)
                else:
                    self._round_together(searches, start, stop)
        at = {int(cut): sum(int(each.looked_at[i]) for each in searches) for i, cut in enumerate(self.layout.cuts)}
        touched = Touched(len(searches), len(self), at, sum(each.in_full for each in searches))
        return [each.ranking for each in searches], touched

    def _check(self, queries: Float32s, k: int) -> None:
        if k < 1:
            raise ConfigError(f"cannot search for {k} passages: ask for at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ConfigError(f"queries of shape {queries.shape} do not fit vectors of {self.dim} dimensions")
        if bad := np.flatnonzero(~np.isfinite(queries).all(axis=1)).tolist():
            raise DataError(f"query {bad[0]} has a value that is not finite ({len(bad)} in all): encode it in float32")

    def _rounds(self, k: int) -> list[tuple[int, int]]:
        """A small round for a first threshold, a larger one for a good one, and the rest."""
        first = min(len(self), max(_FIRST, 4 * k))
        ends = [first, min(len(self), 16 * first), len(self)]
        starts = [0, *ends[:-1]]
        return [(start, stop) for start, stop in zip(starts, ends, strict=True) if start < stop]

    def _round(self, search: _Search, start: int, stop: int) -> None:
        """One query over rows start to stop, which the threads share."""
        edges = np.linspace(start, stop, (self._threads if stop - start > _SHARED else 1) + 1).astype(int).tolist()
        spans = list(pairwise(edges))
        parts = [search.sift(*spans[0])] if len(spans) == 1 else list(self._pool.map(lambda s: search.sift(*s), spans))
        search.take(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))

    def _round_together(self, searches: list[_Search], start: int, stop: int) -> None:
        """Many queries: blocks of codes are decoded once, up to the last cut, and multiplied with all queries."""
        from rag_ese.retriever.exact_kernels import decode, keep_above

        layout = self.layout
        coordinates = np.stack([search.coded.coordinates for search in searches])
        limits = [search.limits()[-1] for search in searches]

        def block(at: int) -> list[tuple[Int64s, Float32s]]:
            size = min(_BLOCK, stop - at)
            decoded = np.empty((size, coordinates.shape[1]), np.float32)
            decode(layout.codes[at : at + size], decoded)
            table = coordinates @ decoded.T
            tails = np.ascontiguousarray(layout.tails[at : at + size, -1])
            rows, bounds = np.empty(size, np.int64), np.empty(size, np.float32)
            found = []
            for number, search in enumerate(searches):
                count = keep_above(table[number], tails, search.coded.tails[-1], limits[number], rows, bounds)
                found.append((rows[:count] + at, bounds[:count].copy()))
            return found

        with threadpool_limits(1, "blas"):  # the blocks are what runs in parallel
            blocks = list(self._pool.map(block, range(start, stop, _BLOCK)))
        for search in searches:
            search.looked_at += stop - start
        merged = [[np.concatenate(pieces) for pieces in zip(*each, strict=True)] for each in zip(*blocks, strict=True)]
        list(self._pool.map(lambda pair: pair[0].take(*pair[1]), zip(searches, merged, strict=True)))

    @cached_property
    def _threads(self) -> int:
        from rag_ese.index.kinds import faiss_module

        return int(faiss_module().omp_get_max_threads())

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="exact")


class _Search:
    """One query: what it has found so far, and the score that a row must reach."""

    def __init__(self, index: ExactIndex, query: Float32s, k: int) -> None:
        self.index, self.query, self.k = index, query, k
        self.coded = CodedQuery.of(index.layout, query)
        self.ranking = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        self.looked_at = np.zeros(len(index.layout.cuts), np.int64)
        self.in_full = 0
        self._lock = Lock()

    def limits(self) -> Float32s:
        """What a row's bound must reach at each cut: the k-th best exact score so far, less what the bound may miss."""
        if len(self.ranking.rows) < self.k:
            return np.full(len(self.looked_at), -np.inf, np.float32)
        exact = float(self.ranking.scores[-1]) - self.coded.slack
        return np.nextafter(exact.astype(np.float32), np.float32(-np.inf))

    def sift(self, start: int, stop: int) -> tuple[Int64s, Float32s]:
        """Of the rows start to stop those that no cut rules out, and their last bounds."""
        from rag_ese.retriever.exact_kernels import sift

        layout, coded = self.index.layout, self.coded
        rows, bounds = np.empty(stop - start, np.int64), np.empty(stop - start, np.float32)
        looked_at = np.zeros(len(layout.cuts), np.int64)
        count = sift(
            layout.codes[start:stop],
            layout.tails[start:stop],
            layout.cuts,
            coded.coordinates,
            coded.tails,
            self.limits(),
            rows,
            bounds,
            looked_at,
        )
        with self._lock:
            self.looked_at += looked_at
        return rows[:count] + start, bounds[:count]

    def take(self, rows: Int64s, bounds: Float32s) -> None:
        """Scores the rows that no cut ruled out, the most promising first: they raise the limit for the others."""
        order = np.argsort(-bounds, kind="stable")
        rows, bounds = rows[order], bounds[order]
        step = max(2 * self.k, 32)
        while len(rows):
            reach = int(np.searchsorted(-bounds, -self.limits()[-1], side="right"))
            rows, bounds = rows[:reach], bounds[:reach]
            self._score(rows[:step])
            rows, bounds, step = rows[step:], bounds[step:], 4 * step

    def _score(self, rows: Int64s) -> None:
        """Exact scores of `rows`, merged into the ranking."""
        rows = np.sort(rows)
        self.in_full += len(rows)
        scores = products(self.index.vectors.rows(rows, self.index.dim), self.query)
        rows = np.concatenate([self.ranking.rows, rows])
        scores = np.concatenate([self.ranking.scores, scores])
        order = np.lexsort((rows, -scores))[: self.k]
        self.ranking = Ranking(rows[order], scores[order])


class ExactSearcher:
    """The exact ranking at one size of a store, without reading all of it; a `Searcher`."""

    def __init__(self, store: Store, encoder: QueryEncoder, size: Size, keep: int) -> None:
        store.check_model(encoder.name, encoder.revision)
        self.name, self.keep = f"{size} exact", keep
        self.index = ExactIndex(store.vectors(size.layers), size.dim)
        self.touched: Touched | None = None
        self._encoder, self._size = encoder, size

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        """As every searcher; `touched` then says how little was looked at."""
        rankings, self.touched = self.index.search(self._encoder.begin(queries).at(self._size), self.keep)
        return rankings
