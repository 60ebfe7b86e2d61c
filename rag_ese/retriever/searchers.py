"""Searchers: queries in, rankings out. A size, a funnel, BM25 and a hybrid are interchangeable behind one method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.index.lexical import best
from rag_ese.index.order import best_first
from rag_ese.index.row_scores import products
from rag_ese.index.searchable import Searchable
from rag_ese.retriever.funnel import Funnel
from rag_ese.types import Float32s, Int64s, Ranking, Size

HYBRID_WEIGHT = 0.5
"""BM25's share in a hybrid; chosen on HotpotQA training questions (docs/log.md)."""
_QUERIES = 1024  # encoded together, so that what a pass keeps between stages stays small


class QueryEncoding(Protocol):
    """Queries on their way through an encoder: embeddings at a size, deeper ones continuing from shallower ones."""

    def at(self, size: Size) -> Float32s: ...


class QueryEncoder(Protocol):
    """What a searcher needs of an encoder; `rag_ese.encoder.ElasticEncoder` is one."""

    name: str
    revision: str

    def begin(self, texts: Sequence[str]) -> QueryEncoding: ...


class Searcher(Protocol):
    """Finds passages for queries: one ranking per query, at most `keep` passages each."""

    name: str
    keep: int

    def search(self, queries: Sequence[str]) -> list[Ranking]: ...


class FunnelSearcher:
    """Coarse to fine: the first stage searches an index, later ones score what was kept by its gathered vectors.

    A stage in the middle, whose index has 8-bit codes, is scored by these; the last one always by the vectors.
    """

    def __init__(self, store: Searchable, encoder: QueryEncoder, funnel: Funnel) -> None:
        store.check_model(encoder.name, encoder.revision)
        store.index(funnel.stages[0].size)
        for stage in funnel.stages[1:]:
            store.vectors(stage.size.layers)
            if stage.size.dim > store.width:
                raise ConfigError(
                    f"the funnel stage {stage} is wider than the {store.width} dimensions in {store.folder}: narrow it"
                )
        self.name = str(funnel.stages[0].size) if len(funnel.stages) == 1 else str(funnel)
        self.keep = funnel.keep
        self._store, self._encoder, self._funnel = store, encoder, funnel

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        return [ranking for chunk in chunks(queries) for ranking in self.follow(self._encoder.begin(chunk))]

    def follow(self, encoding: QueryEncoding) -> list[Ranking]:
        """The rankings of queries whose encoding has begun; each stage takes it on to its own size."""
        rankings: list[Ranking] = []
        for rankings in self._stages(encoding):  # noqa: B007  (the last one is wanted)
            pass
        return rankings

    def trace(self, queries: Sequence[str]) -> list[list[Ranking]]:
        """What every stage kept, query by query: one ranking per stage, of which the last is what `search` returns."""
        return [
            list(stages)
            for chunk in chunks(queries)
            for stages in zip(*self._stages(self._encoder.begin(chunk)), strict=True)
        ]

    def _stages(self, encoding: QueryEncoding) -> Iterator[list[Ranking]]:
        """The rankings of all queries after each stage in turn."""
        first, *later = self._funnel.stages
        scores, rows = self._store.search(first.size, encoding.at(first.size), first.keep)
        rankings = [Ranking(r[r >= 0], s[r >= 0]) for r, s in zip(rows, scores, strict=True)]
        yield rankings
        for stage in later:
            last, size = stage is later[-1], stage.size
            shortlists = [ranking.rows for ranking in rankings]
            scored = self._store.row_scores(size, exact=last).scores(shortlists, encoding.at(size))
            rankings = rank_all(shortlists, scored, stage.keep)
            yield rankings

    def vectors(self, rows: Int64s, size: Size) -> Float32s:
        """The stored vectors of `rows` at `size`."""
        return self._store.vectors(size.layers).rows(rows, size.dim)


class BM25Searcher:
    """The lexical control."""

    name = "BM25"

    def __init__(self, store: Searchable, keep: int) -> None:
        self.keep = keep
        self._bm25 = store.bm25

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        return [self._bm25.search(query, self.keep) for query in queries]


class HybridSearcher:
    """Dense and lexical together: cosine + weight * BM25, the latter divided by the query's best BM25 score.

    The candidates are what the funnel keeps and the `pool` best of BM25; each is scored by both sides, whichever it
    came from.
    """

    def __init__(
        self,
        store: Searchable,
        encoder: QueryEncoder,
        funnel: Funnel,
        keep: int,
        weight: float = HYBRID_WEIGHT,
        pool: int = 200,
    ) -> None:
        self._dense = FunnelSearcher(store, encoder, funnel)
        self._size = funnel.stages[-1].size
        self._bm25, self._encoder = store.bm25, encoder
        self._weight, self._pool = weight, pool
        self.keep = keep
        self.name = f"{self._dense.name} + BM25"

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        return [ranking for chunk in chunks(queries) for ranking in self._search(chunk)]

    def _search(self, queries: Sequence[str]) -> list[Ranking]:
        encoding = self._encoder.begin(queries)
        rankings = self._dense.follow(encoding)
        vectors = encoding.at(self._size)
        return [self._fuse(*each) for each in zip(queries, vectors, rankings, strict=True)]

    def _fuse(self, query: str, vector: Float32s, dense: Ranking) -> Ranking:
        lexical = self._bm25.scores(query)
        rows = np.union1d(dense.rows, best(lexical, self._pool, above=0.0).rows)
        top = float(lexical.max(initial=0.0))
        share = lexical[rows] / top if top > 0 else np.zeros(len(rows), np.float32)
        scores = products(self._dense.vectors(rows, self._size), vector) + np.float32(self._weight) * share
        chosen = best(scores, self.keep)
        return Ranking(rows[chosen.rows], chosen.scores)


def rank(rows: Int64s, scores: Float32s, keep: int) -> Ranking:
    """The `keep` best of `rows` by score; equal scores in order of row, as in an exact search."""
    order = best_first(scores, rows, keep)
    return Ranking(rows[order], scores[order])


def rank_all(rows: Sequence[Int64s], scores: Sequence[Float32s], keep: int) -> list[Ranking]:
    """`rank` for each query; several that have as many rows are ranked in one go."""
    if len(rows) == 1 or len(set(map(len, rows))) != 1:
        return [rank(*each, keep) for each in zip(rows, scores, strict=True)]
    found, reached = np.stack(rows), np.stack(scores)
    order = best_first(reached, found, keep)
    ranked = np.take_along_axis(found, order, 1), np.take_along_axis(reached, order, 1)
    return [Ranking(*each) for each in zip(*ranked, strict=True)]


def chunks(queries: Sequence[str]) -> Iterator[Sequence[str]]:
    """The queries in pieces that are encoded together."""
    return (queries[start : start + _QUERIES] for start in range(0, len(queries), _QUERIES))
