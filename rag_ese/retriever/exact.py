"""Certified exact search: the k best rows by full-width inner product, proven, at a fraction of the bytes.

Rows are looked at in a few rounds. In each, the first segment's codes give every row an upper bound of its score
(`exact_layout`); rows whose bound does not reach the k-th best score found so far are out for good, the others are
looked at in the next segments, and what is left is scored exactly, on the stored vectors themselves. No row is left out
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
from rag_ese.retriever.exact_layout import Layout, QueryPlan
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
        return f"dimensions looked at, share of {self.rows:,} rows: {', '.join(parts)}, {self.in_full * share:.3g}% all"


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
        at = {
            width: sum(each.looked_at[number] for each in searches) for number, width in enumerate(self.layout.widths)
        }
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

        segments = self.layout.segments
        parts = np.stack([np.concatenate(search.plan.parts) for search in searches])
        limits = [search.limit(-1) for search in searches]

        def block(at: int) -> list[tuple[Int64s, Float32s]]:
            size = min(_BLOCK, stop - at)
            decoded = np.empty((size, parts.shape[1]), np.float32)
            column = 0
            for segment in segments:
                decode(segment.codes[at : at + size], decoded[:, column : column + segment.codes.shape[1]])
                column += segment.codes.shape[1]
            table = parts @ decoded.T
            tails = segments[-1].tails[at : at + size]
            rows, bounds = np.empty(size, np.int64), np.empty(size, np.float32)
            found = []
            for number, search in enumerate(searches):
                count = keep_above(table[number], tails, search.plan.tails[-1], limits[number], rows, bounds)
                found.append((rows[:count] + at, bounds[:count].copy()))
            return found

        with threadpool_limits(1, "blas"):  # the blocks are what runs in parallel
            blocks = list(self._pool.map(block, range(start, stop, _BLOCK)))
        for search in searches:
            search.looked_at = [count + stop - start for count in search.looked_at]
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
        self.plan = QueryPlan.of(index.layout, query)
        self.ranking = Ranking(np.empty(0, np.int64), np.empty(0, np.float32))
        self.looked_at = [0] * len(index.layout.segments)
        self.in_full = 0
        self._lock = Lock()

    def limit(self, segment: int) -> float:
        """What a row's bound after `segment` must reach: the k-th best exact score so far, less the margin."""
        if len(self.ranking.rows) < self.k:
            return -np.inf
        return float(self.ranking.scores[-1]) - self.plan.slack[segment]

    def sift(self, start: int, stop: int) -> tuple[Int64s, Float32s]:
        """Of the rows start to stop those that all segments leave in, and their bounds after the last one."""
        from rag_ese.retriever.exact_kernels import narrow, scan_one

        first, *later = self.index.layout.segments
        here, plan = slice(start, stop), self.plan
        rows, scores = np.empty(stop - start, np.int64), np.empty(stop - start, np.float32)
        count = scan_one(
            first.codes[here], first.tails[here], plan.parts[0], plan.tails[0], self.limit(0), rows, scores
        )
        looked_at = [stop - start]
        for number, segment in enumerate(later, start=1):
            looked_at.append(count)
            codes, tails = segment.codes[here], segment.tails[here]
            part, tail = plan.parts[number], plan.tails[number]
            count = narrow(codes, tails, part, tail, self.limit(number), rows[:count], scores[:count])
        rows, scores = rows[:count], scores[:count]
        bounds = scores + self.index.layout.segments[-1].tails[here][rows] * np.float32(plan.tails[-1])
        with self._lock:
            self.looked_at = [old + new for old, new in zip(self.looked_at, looked_at, strict=True)]
        return rows + start, bounds

    def take(self, rows: Int64s, bounds: Float32s) -> None:
        """Scores the rows that the segments left in, the most promising first: they raise the limit for the others."""
        order = np.argsort(-bounds, kind="stable")
        rows, bounds = rows[order], bounds[order]
        step = max(2 * self.k, 32)
        while len(rows):
            reach = int(np.searchsorted(-bounds, -np.float32(self.limit(-1)), side="right"))
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
