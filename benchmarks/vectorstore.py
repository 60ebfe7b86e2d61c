"""What EseVectorStore itself costs, without an encoder: adding and replacing one by one, searching, filters.

    OMP_NUM_THREADS=1 python benchmarks/vectorstore.py

Random unit vectors; CPU time, since wall time on a shared machine says less. FlatIP of FAISS beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import faiss
import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pydantic import Field

from rag_ese.cli import Command, run
from rag_ese.config import StrictModel
from rag_ese.eval.cost import hardware
from rag_ese.integrations.langchain import EseVectorStore


class VectorStoreConfig(StrictModel):
    """How many documents, and how wide."""

    count: int = Field(40_000, ge=100, description="documents")
    dim: int = Field(384, ge=1, description="width of the vectors")
    queries: int = Field(50, ge=1, description="searches that are timed")
    seed: int = Field(0, description="seed of the vectors")


class Drawn(Embeddings):
    """The row of a table that a text names."""

    def __init__(self, table: np.ndarray) -> None:
        self._table = table

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._table[int(text)]  # type: ignore[no-any-return]


def cpu(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(config: VectorStoreConfig) -> None:
    table = np.random.default_rng(config.seed).normal(size=(config.count, config.dim)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    documents = [Document(str(row), metadata={"n": row % 7}, id=str(row)) for row in range(config.count)]
    store = EseVectorStore(Drawn(table))
    cuts = [0, config.count // 4, config.count // 2, config.count]
    for start, end in pairwise(cuts):
        some = documents[start:end]
        seconds = cpu(lambda some=some: [store.add_documents([each]) for each in some])
        print(f"adding one by one up to {len(store)}: {seconds / len(some) * 1e6:.0f} µs each")
    some = documents[:5000]
    seconds = cpu(lambda: [store.add_documents([each]) for each in some])
    print(f"replacing: {seconds / len(some) * 1e6:.0f} µs each")
    flat = faiss.IndexFlatIP(config.dim)
    flat.add(table)
    for name, search in (
        ("search of 10", lambda query: store.similarity_search_by_vector(query, 10)),
        ("of one in seven", lambda query: store.similarity_search_by_vector(query, 10, {"n": 3})),
        ("FAISS FlatIP", lambda query: flat.search(query[None], 10)),
    ):
        search(table[0])
        seconds = cpu(lambda search=search: [search(query) for query in table[: config.queries]])
        print(f"{name}: {seconds / config.queries * 1e3:.2f} ms")
    print(hardware()["cpu"])


if __name__ == "__main__":
    run("benchmarks/vectorstore", {"": Command(VectorStoreConfig, measure, "what EseVectorStore costs")})
