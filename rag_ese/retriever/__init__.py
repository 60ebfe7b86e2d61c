"""Retrieval: one size, a coarse-to-fine funnel, certified exact search, BM25, or dense and lexical together."""

from rag_ese.retriever.exact import ExactIndex, Touched
from rag_ese.retriever.exact_searcher import ExactSearcher
from rag_ese.retriever.funnel import Funnel, Stage
from rag_ese.retriever.hops import HopSearcher
from rag_ese.retriever.search_plan import SearchPlan
from rag_ese.retriever.searchers import BM25Searcher, FunnelSearcher, HybridSearcher, Searcher

__all__ = [
    "BM25Searcher",
    "ExactIndex",
    "ExactSearcher",
    "Funnel",
    "FunnelSearcher",
    "HopSearcher",
    "HybridSearcher",
    "SearchPlan",
    "Searcher",
    "Stage",
    "Touched",
]
