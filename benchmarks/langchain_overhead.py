"""What the LangChain layer adds to one query: EseRetriever.invoke against the searcher that it calls, interleaved.

    python benchmarks/langchain_overhead.py                         # the bundled sample, L6-d768
    python benchmarks/langchain_overhead.py --size L2-d64           # a cheaper search, so a larger share

Both read the k passages from the disk; the layer adds LangChain's callbacks and the making of Documents. Medians over
all questions and rounds, and the median of the differences between the two halves of each pair.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from langchain_core.documents import Document
from pydantic import Field
from rich.console import Console

from rag_ese.cli import Command, run
from rag_ese.data import load_sample
from rag_ese.encoder import ElasticEncoder
from rag_ese.eval.cost import hardware, versions
from rag_ese.index import DataEntry, Store, build
from rag_ese.indexing import StoreConfig, make_plan
from rag_ese.integrations.langchain import EseEmbeddings, EseRetriever, EseVectorStore
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.types import Size


class OverheadConfig(StoreConfig):
    """What is searched, and how often."""

    bm25: bool = Field(False, description="also build the BM25 index, which is not searched here")
    size: str = Field("L6-d768", description="the size to search")
    k: int = Field(10, ge=1, description="number of documents")
    rounds: int = Field(5, ge=1, description="rounds over the 188 questions")


def measure(config: OverheadConfig) -> None:
    sample, encoder = load_sample(), ElasticEncoder.load("embedded")
    size = Size.parse(config.size, encoder.depth, encoder.width)
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(config, DataEntry(name="sample", revision="1"), encoder, [size])
        store = build(Path(folder) / "index", plan, lambda: sample.passages, encoder)
        retriever = EseRetriever(index=str(store.folder), encoder=encoder, k=config.k)
        bare, layered = bare_search(store, encoder, size, config.k), retriever.invoke
        questions = [question.text for question in sample.questions] * config.rounds
        say("retriever", *pairs(questions, bare, layered))
    embeddings = EseEmbeddings(size=str(size), encoder=encoder)
    documents = [Document(passage.full, id=passage.id) for passage in sample.passages]
    vectors = encoder.encode([document.page_content for document in documents], [size])[size]
    ours = EseVectorStore(embeddings)
    ours.add_embedded(documents, vectors)
    say("vector store", *pairs(questions, bare_product(vectors, encoder, size, config.k), searched(ours, config.k)))
    console.print(f"{hardware()}; {versions()}", markup=False)


def bare_search(store: Store, encoder: ElasticEncoder, size: Size, k: int) -> Callable[[str], object]:
    searcher = FunnelSearcher(store, encoder, Funnel.single(size, k))
    return lambda question: [store.passages[row] for row in searcher.search([question])[0].rows.tolist()]


def bare_product(vectors: np.ndarray, encoder: ElasticEncoder, size: Size, k: int) -> Callable[[str], object]:
    def search(question: str) -> object:
        scores = vectors @ encoder.encode([question], [size], "query")[size][0]
        rows = np.argpartition(-scores, k)[:k]
        return rows[np.argsort(-scores[rows])]

    return search


def searched(store: EseVectorStore, k: int) -> Callable[[str], object]:
    return lambda question: store.similarity_search(question, k=k)


def pairs(
    questions: list[str], bare: Callable[[str], object], layered: Callable[[str], object]
) -> tuple[list[float], list[float]]:
    """Milliseconds of both for every question; which goes first alternates."""
    times: dict[Callable[[str], object], list[float]] = {bare: [], layered: []}
    for number, question in enumerate([*questions[:20], *questions]):
        for function in (bare, layered) if number % 2 else (layered, bare):
            began = time.perf_counter()
            function(question)
            times[function].append(1000 * (time.perf_counter() - began))
    return times[bare][20:], times[layered][20:]


def say(what: str, bare: list[float], layered: list[float]) -> None:
    added = median(after - before for before, after in zip(bare, layered, strict=True))
    console.print(
        f"{what}: bare {median(bare):.2f} ms, through LangChain {median(layered):.2f} ms; "
        f"added {added:.3f} ms, {100 * added / median(bare):.1f}%"
    )


console = Console(soft_wrap=True, highlight=False)

if __name__ == "__main__":
    run("langchain_overhead", {"": Command(OverheadConfig, measure, "what the LangChain layer adds to one query")})
