"""Certified exact search against FAISS and torch: the same vectors, the same queries, one run.

    python benchmarks/exact_search.py --index indexes/hotpotqa --data HOTPOTQA.json --count 200000

Vectors are those of an index folder, drawn with replacement, each with Gaussian noise of its own added (`--noise` is
the noise's length beside the vector's 1) and brought to unit length; `--count 0` takes them as they are. Queries are
the questions of `--data`, encoded as the index's passages were. Every contender's first rows are compared with those of
float32 brute force, which for ours must agree bit by bit in the scores too. Contenders run one after the other, since
each index holds the vectors once more: memory is that of twice the vectors and a third.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made import Search, bandwidth, noisy, timed
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.data.config import DataConfig
from rag_ese.encoder.config import EncoderConfig
from rag_ese.eval.cost import hardware, versions
from rag_ese.index import Store
from rag_ese.index.kinds import faiss_module, threads_for
from rag_ese.index.lexical import best
from rag_ese.retriever import ExactIndex
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s, Int64s, Size

PLAIN = "FAISS FlatIP"


class ExactConfig(DataConfig, EncoderConfig):
    """What is searched, and how often."""

    index: Path = Field(..., description="an index folder")
    count: int = Field(200_000, ge=0, description="vectors; 0: the index's own")
    noise: float = Field(0.4, ge=0, description="length of the noise added to each")
    queries: int = Field(100, ge=1, description="questions")
    batches: int = Field(3, ge=1, description="batches of --batch questions that are timed")
    batch: int = Field(64, ge=2, description="questions per batch")
    rounds: int = Field(1, ge=1, description="how often every question is timed alone")
    k: int = Field(10, ge=1, description="results per question")
    levels: str = Field("6,12", description="numbers of Panorama's levels; none: leave it out")
    threads: int = Field(0, ge=0, description="threads of FAISS, torch and ours (default: as they come)")
    seed: int = Field(0, description="seed of the draw and of the noise")


def contenders(config: ExactConfig, vectors: Float32s, ours: ExactIndex) -> Iterator[tuple[str, Search]]:
    """Each with its index, which is freed before the next one is made."""
    faiss, matrix = faiss_module(), torch.from_numpy(vectors)
    kinds = {PLAIN: "Flat"}
    for levels in filter(None, config.levels.replace("none", "").split(",")):
        kinds[f"FAISS FlatIPPanorama, {levels} levels"] = f"FlatIPPanorama{levels}"
    for name, kind in kinds.items():
        index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        yield name, partial(by_faiss, index, config.k)
        index.reset()
    yield (
        "torch matmul + topk",
        lambda queries: torch.topk(torch.from_numpy(queries) @ matrix.T, config.k).indices.numpy(),
    )
    yield "rag_ese exact", lambda queries: ours.search(queries, config.k)[1]


def by_faiss(index: Any, k: int, queries: Float32s) -> Int64s:
    """With the threads that suit a plain index; Panorama has them as they come."""
    with threads_for(index, len(queries)) if type(index).__name__ == "IndexFlatIP" else nullcontext():
        return index.search(queries, k)[1]  # type: ignore[no-any-return]


def measure(config: ExactConfig) -> None:
    if config.threads:
        import numba

        faiss_module().omp_set_num_threads(config.threads)
        torch.set_num_threads(config.threads)
        numba.set_num_threads(config.threads)
    store, encoder = Store(config.index), config.load_encoder()
    store.check_model(encoder.name, encoder.revision)
    layer = max(store.manifest.plan.layers)
    asked = [question.text for question in config.load(lambda text: None).questions[: config.queries]]
    queries = encoder.begin(asked).at(Size(layer, store.width)).astype(np.float32)
    stored = store.vectors(layer).rows(slice(None), store.width)
    vectors = noisy(stored, config.count, config.noise, config.seed) if config.count else stored
    began = time.perf_counter()
    ours = ExactIndex.build(vectors)
    built = time.perf_counter() - began
    expected = [best(products(vectors, query), config.k) for query in queries]
    draw = np.random.default_rng(config.seed)
    batches = [queries[draw.permutation(len(queries))[: config.batch]] for _ in range(config.batches)]
    batches = [np.resize(batch, (config.batch, batch.shape[1])) for batch in batches]
    alone: dict[str, list[float]] = {}
    together: dict[str, list[float]] = {}
    agreed = {}
    for name, search in contenders(config, vectors, ours):
        rows = [search(query[None])[0] for query in queries]
        agreed[name] = sum(np.array_equal(row, want.rows) for row, want in zip(rows, expected, strict=True))
        alone[name] = timed(search, [query[None] for query in queries] * config.rounds)
        search(batches[0])
        together[name] = timed(search, batches)
    console = Console(width=120, highlight=False)
    table = Table("", "one: p50 ms", "p99 ms", "ratio", f"{config.batch}: p50 ms", "worst ms", "ratio", "same rows")
    for name in agreed:
        one, many = np.array(alone[name]) * 1e3, np.array(together[name]) * 1e3
        ratios = [float(np.median(t[PLAIN]) / np.median(t[name])) for t in (alone, together)]
        cells = [f"{np.median(one):.2f}", f"{np.quantile(one, 0.99):.2f}", f"{ratios[0]:.1f}"]
        cells += [f"{np.median(many):.1f}", f"{many.max():.1f}", f"{ratios[1]:.1f}"]
        table.add_row(name, *cells, f"{agreed[name]} of {len(queries)}")
    console.print(table)
    scores, rows, touched = ours.search(queries, config.k)
    single = [ours.search(query[None], config.k) for query in queries]
    same = [
        all(np.array_equal(r, w.rows) and s.tobytes() == w.scores.tobytes() for r, s in ((r1, s1), (r2[0], s2[0])))
        for r1, s1, (s2, r2, _), w in zip(rows, scores, single, expected, strict=True)
    ]
    console.print(f"ours equals brute force bit by bit, alone and together: {sum(same)} of {len(queries)} queries")
    console.print(f"one at a time: {sum((each[2] for each in single[1:]), single[0][2])}")
    console.print(f"together: {touched}")
    rate = bandwidth(vectors)
    console.print(
        f"{len(vectors)} x {vectors.shape[1]}; memory {rate / 1e9:.1f} GB/s, so a full scan takes at least "
        f"{vectors.nbytes / rate * 1e3:.1f} ms and the sketch {ours.layout.sketch.nbytes / rate * 1e3:.1f} ms; built "
        f"in {built:.0f} s, {ours.layout.nbytes / vectors.nbytes:.0%} beside the vectors"
    )
    console.print(f"{hardware()['cpu']}, {hardware()['threads']} threads; {versions()}")


if __name__ == "__main__":
    run("benchmarks/exact_search", {"": Command(ExactConfig, measure, "certified exact search against FAISS")})
