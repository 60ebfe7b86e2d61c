"""The rows of a table: every size, every funnel, BM25, and hybrids, each behind the same method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rag_ese.index import Store
from rag_ese.index.searchable import Searchable
from rag_ese.retriever import BM25Searcher, Funnel, FunnelSearcher, HopSearcher, HybridSearcher, Searcher
from rag_ese.retriever.exact_searcher import ExactSearcher
from rag_ese.retriever.search_plan import index_bytes
from rag_ese.retriever.searchers import QueryEncoder
from rag_ese.types import Size

Kind = Literal["size", "exact", "funnel", "BM25", "hybrid", "control", "hops", "bound"]


@dataclass(frozen=True)
class System:
    """A searcher, what it is, and the bytes that it searches (whole index) and may gather from (full vectors)."""

    name: str
    searcher: Searcher
    kind: Kind
    index_bytes: int
    vector_bytes: int = 0
    size: Size | None = None
    base: str = ""
    """Of two hops: the row of one hop."""


def systems(
    store: Store,
    searched: Searchable,
    encoder: QueryEncoder,
    sizes: Sequence[Size],
    funnels: Sequence[Funnel],
    depth: int,
    hybrids: bool,
    hybrid_weight: float,
    exact: bool = False,
) -> Iterator[System]:
    """One system per size, the certified search of the largest, the funnels, BM25 and hybrids if the store has BM25.

    `searched` is the store, or what stands for it where vectors are searched.
    """
    for size in sizes:
        searcher = FunnelSearcher(searched, encoder, Funnel.single(size, depth))
        yield System(searcher.name, searcher, "size", store.index_bytes(size), size=size)
    if exact:
        certified = ExactSearcher(store, encoder, max(sizes), depth)
        gathered = store.vector_bytes(max(sizes).layers)
        yield System(certified.name, certified, "exact", certified.index.layout.nbytes, gathered, max(sizes))
    for funnel in dict.fromkeys(funnels):
        vectors = sum(store.vector_bytes(layer) for layer in {stage.size.layers for stage in funnel.stages[1:]})
        searcher = FunnelSearcher(searched, encoder, funnel)
        yield System(str(funnel), searcher, "funnel", index_bytes(store, funnel), vectors, funnel.stages[-1].size)
    if not store.manifest.plan.bm25:
        return
    yield System(BM25Searcher.name, BM25Searcher(store, depth), "BM25", store.bm25_bytes())
    for size in sizes if hybrids else [max(sizes)]:
        wide = Funnel.single(size, max(depth, 200))
        hybrid = HybridSearcher(searched, encoder, wide, depth, hybrid_weight)
        read = store.index_bytes(size) + store.bm25_bytes()
        yield System(hybrid.name, hybrid, "hybrid", read, store.vector_bytes(size.layers), size)


def two_hops(rows: Sequence[System], store: Store) -> Iterator[System]:
    """Each row that searches as users would, with a second hop."""
    for row in rows:
        if row.kind in ("size", "funnel", "BM25", "hybrid"):
            searcher = HopSearcher(row.searcher, store.passages)
            yield replace(row, name=f"{row.name}, 2 hops", searcher=searcher, kind="hops", base=row.name)
