"""Time: an estimate that says which funnels are worth timing, and the measurement by the searcher that serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rag_ese.index import Store
from rag_ese.index.row_scores import RowScores, products
from rag_ese.plan.candidates import Vectors
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.retriever.recall import Float64s, recalls
from rag_ese.retriever.search_plan import Latency
from rag_ese.retriever.searchers import QueryEncoder, rank
from rag_ese.types import Float32s, Int64s, Size

_TRIES = 11
_WARM_UP = 5


class Given:
    """One query whose vectors are known: an encoding that takes no time."""

    def __init__(self, vectors: Vectors, query: int) -> None:
        self._vectors, self._query = vectors, query

    def at(self, size: Size) -> Float32s:
        return self._vectors[size][self._query : self._query + 1]


def encode(encoder: QueryEncoder, texts: Sequence[str], sizes: Iterable[Size]) -> dict[Size, Float32s]:
    """The embeddings of `texts` at every size, one text at a time: as they are served, not as a batch rounds them."""
    rows: dict[Size, list[Float32s]] = {size: [] for size in sorted(sizes)}
    for text in texts:
        encoding = encoder.begin([text])
        for size, vectors in rows.items():
            vectors.append(encoding.at(size))
    return {size: np.concatenate(vectors) for size, vectors in rows.items()}


@dataclass(frozen=True)
class Costs:
    """Median milliseconds of the pieces of a search, for one query: good enough to put funnels in order."""

    encoding: Mapping[int, float]
    """Up to each depth."""
    searching: Mapping[Size, float]
    reranking: float
    """Per row, at full width."""
    coded: Mapping[Size, float]
    """Per row, of sizes whose 8-bit codes score it."""
    width: int

    def of(self, funnel: Funnel) -> float:
        """The estimate for a funnel."""
        deepest = max(stage.size.layers for stage in funnel.stages)
        total = self.encoding[deepest] + self.searching[funnel.stages[0].size]
        for before, stage in zip(funnel.stages, funnel.stages[1:], strict=False):
            by_vectors = self.reranking * stage.size.dim / self.width
            row = by_vectors if stage is funnel.stages[-1] else self.coded.get(stage.size, by_vectors)
            total += row * before.keep
        return total


def estimate(
    store: Store, encoder: QueryEncoder, texts: Sequence[str], vectors: Vectors, sizes: Iterable[Size], wide: int
) -> Costs:
    """Times the pieces over some queries; first stages and re-ranking with `wide` rows."""
    full = max(store.sizes)
    tries = range(min(_TRIES, len(texts)))
    near = {q: store.search(full, vectors[full][q : q + 1], wide)[1][0] for q in tries}

    def rerank(query: int) -> None:
        rows = near[query][near[query] >= 0]
        rank(rows, products(store.vectors(full.layers).rows(rows, full.dim), vectors[full][query]), 1)

    def search(size: Size) -> Callable[[int], object]:
        return lambda query: store.search(size, vectors[size][query : query + 1], wide)

    def encoding(size: Size) -> Callable[[int], object]:
        return lambda query: encoder.begin([texts[query]]).at(size)

    def coded(size: Size, codes: RowScores) -> Callable[[int], object]:
        return lambda query: codes.scores([np.maximum(near[query], 0)], vectors[size][query : query + 1])

    sizes = list(sizes)
    deepest = {size.layers: size for size in sorted([*sizes, full])}
    return Costs(
        {layer: _median(encoding(size), tries) for layer, size in deepest.items()},
        {size: _median(search(size), tries) for size in sizes},
        _median(rerank, tries) / wide,
        {size: _median(coded(size, codes), tries) / wide for size in sizes if (codes := store.codes(size))},
        full.dim,
    )


@dataclass(frozen=True)
class Measured:
    """A funnel as it was served: recall per query, and time."""

    funnel: Funnel
    recalls: Float64s
    latency: Latency


def measure(
    store: Store, encoder: QueryEncoder, funnel: Funnel, texts: Sequence[str], vectors: Vectors, exact: Int64s
) -> Measured:
    """Searches for every query, alone, once from its text and once from its vectors."""
    searcher = FunnelSearcher(store, encoder, funnel)
    for text in texts[:_WARM_UP]:
        searcher.search([text])
    found, whole, search = [], [], []
    for query, text in enumerate(texts):
        began = time.perf_counter()
        searcher.search([text])
        encoded = time.perf_counter()
        found += [ranking.rows for ranking in searcher.follow(Given(vectors, query))]
        whole.append(1000 * (encoded - began))
        search.append(1000 * (time.perf_counter() - encoded))
    p50, p99 = (round(float(value), 3) for value in np.percentile(whole, [50, 99]))
    bare50, bare99 = (round(float(value), 3) for value in np.percentile(search, [50, 99]))
    latency = Latency(p50_ms=p50, p99_ms=p99, search_p50_ms=bare50, search_p99_ms=bare99, queries=len(texts))
    return Measured(funnel, recalls(found, exact), latency)


def _median(work: Callable[[int], object], tries: Iterable[int]) -> float:
    times = []
    for query in tries:
        began = time.perf_counter()
        work(query)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
