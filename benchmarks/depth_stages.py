"""What a shallow query costs: every depth of the query against every depth of the passages, and funnels of both kinds.

    python benchmarks/depth_stages.py --index indexes/hotpotqa-study --data DEV.json

The index must hold the vectors of each depth in --layers. Symmetric search has both sides at one depth, so that a
shallow index is as quick to build as to query; asymmetric search has passages at full depth, encoded once, and a query
that stops early. Time is that of encoding one query, text to vector. Scores are exact inner products of the vectors.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.data.config import DataConfig
from rag_ese.encoder.config import EncoderConfig
from rag_ese.eval.cost import hardware, versions
from rag_ese.eval.retrieval import score
from rag_ese.index import Store
from rag_ese.indexing import read_layers
from rag_ese.retriever.searchers import products, rank
from rag_ese.types import Float32s, Int64s, Question, Size

_KEEP = 10
_BLOCK = 128  # questions scored together


class DepthConfig(DataConfig, EncoderConfig):
    """What is compared."""

    index: Path = Field(..., description="an index folder with vectors at every depth of --layers")
    layers: str = Field("2,3,4,6", description="depths of the query and of the passages")
    dims: str = Field("64,128,768", description="widths")
    shortlist: int = Field(200, ge=1, description="passages that the first stage of a funnel keeps")
    limit: int | None = Field(None, ge=1, description="questions (default: all)")
    seed: int = Field(0, description="seed of the sample of --limit")


class Depths:
    """One pool and its questions, each at several depths."""

    def __init__(self, config: DepthConfig) -> None:
        self.store, self.encoder = Store(config.index), config.load_encoder()
        self.store.check_model(self.encoder.name, self.encoder.revision)
        self.layers = read_layers(config.layers)
        hotpot = config.load(lambda text: None, config.limit, config.seed)
        self.questions = hotpot.questions
        self.full = Size(max(self.layers), self.store.width)
        encoding = self.encoder.begin([question.text for question in self.questions])
        self.queries = {layer: encoding.at(Size(layer, self.store.width)) for layer in self.layers}

    def first(self, query_layer: int, size: Size, keep: int) -> list[Int64s]:
        """The rows that queries of one depth find among passages at `size`, best first."""
        passages = self.store.vectors(size.layers).rows(slice(None), size.dim)
        queries = prefix(self.queries[query_layer], size.dim)
        found: list[Int64s] = []
        for start in range(0, len(queries), _BLOCK):
            scores = queries[start : start + _BLOCK] @ passages.T
            near = np.argpartition(-scores, keep, axis=1)[:, :keep]
            order = np.argsort(-np.take_along_axis(scores, near, 1), axis=1, kind="stable")
            found.extend(np.take_along_axis(near, order, 1).astype(np.int64))
        return found

    def reranked(self, found: list[Int64s]) -> list[Int64s]:
        """The shortlists in the order of the full size."""
        vectors = self.store.vectors(self.full.layers)
        queries = self.queries[self.full.layers]
        return [
            rank(rows, products(vectors.rows(rows, self.full.dim), query), _KEEP).rows
            for query, rows in zip(queries, found, strict=True)
        ]

    def quality(self, found: list[Int64s]) -> str:
        """nDCG@10 / both-gold@10, in points."""
        rankings = {
            question.id: [self.store.passages[int(row)].id for row in rows[:_KEEP]]
            for question, rows in zip(self.questions, found, strict=True)
        }
        values = score(rankings, self.questions, _KEEP)
        return " / ".join(f"{100 * mean(values[name]):.1f}" for name in ("ndcg@10", "both_gold@10"))

    def milliseconds(self, layer: int, questions: list[Question]) -> float:
        """Median time of one query, from text to its vector at this depth."""
        seconds = []
        for question in questions:
            began = time.perf_counter()
            self.encoder.begin([question.text]).at(Size(layer, self.store.width))
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds)) * 1e3


def prefix(vectors: Float32s, dim: int) -> Float32s:
    """The leading dimensions at unit length."""
    cut = vectors[:, :dim]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)


def mean(values: list[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


def measure(config: DepthConfig) -> None:
    depths = Depths(config)
    dims = [int(dim) for dim in config.dims.split(",")]
    console = Console(width=120, highlight=False)
    console.print(f"{len(depths.questions)} questions, {len(depths.store):,} passages; nDCG@10 / both-gold@10")
    table = Table("query", "passages", *(f"d{dim}" for dim in dims), "query ms")
    times = {layer: depths.milliseconds(layer, depths.questions[:100]) for layer in depths.layers}
    for query in depths.layers:
        for passage in depths.layers:
            cells = [depths.quality(depths.first(query, Size(passage, dim), _KEEP)) for dim in dims]
            table.add_row(f"L{query}", f"L{passage}", *cells, f"{times[query]:.1f}")
    console.print(table)
    full, keep = depths.full, config.shortlist
    table = Table(
        f"first stage, {keep} kept, re-ranked at {full}", *(f"d{dim}" for dim in dims if dim < full.dim), "query ms"
    )
    for layer in depths.layers:
        for passages in sorted({layer, full.layers}):
            sizes = [Size(passages, dim) for dim in dims if dim < full.dim]
            cells = [depths.quality(depths.reranked(depths.first(layer, size, keep))) for size in sizes]
            table.add_row(f"query L{layer}, passages L{passages}", *cells, f"{times[layer]:.1f}")
    console.print(table)
    console.print(f"{hardware()['cpu']}, {hardware()['threads']} threads; {versions()}")


if __name__ == "__main__":
    run("benchmarks/depth_stages", {"": Command(DepthConfig, measure, "depths of query and passages")})
