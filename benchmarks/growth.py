"""What search costs as the pool grows: the funnel over sketches and certified exact search, with the same questions.

    python benchmarks/growth.py --index indexes/hotpotqa --questions TRAIN.json.gz,TRAIN.jsonl.gz --work /tmp/made

Vectors are made from an index folder's (benchmarks/made.py), stored in half precision and memory-mapped. At every count
the smallest shortlist is taken that finds `--recall` of the exact results on one half of the questions; the rest is
measured on the other half, one question at a time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from given import Given
from made import encoded, made_store, questions, timed
from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.encoder.config import EncoderConfig
from rag_ese.eval.cost import hardware, versions
from rag_ese.index import Store
from rag_ese.index.kinds import build_index
from rag_ese.retriever import ExactIndex, Funnel, FunnelSearcher, Stage
from rag_ese.retriever.exact_searcher import PrefixRows
from rag_ese.retriever.recall import exact_top, recalls
from rag_ese.retriever.searchers import QueryEncoder
from rag_ese.types import Float32s, Int64s, Size

_SHORTLISTS = (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 4000)


class GrowthConfig(EncoderConfig):
    """What is searched, and how often."""

    index: Path = Field(..., description="an index folder with full-width vectors")
    questions: str = Field(..., description="files of training questions, separated by commas")
    work: Path = Field(..., description="a folder for the made stores, each removed when it is done with")
    counts: str = Field("10000,100000,1000000,5000000", description="numbers of vectors")
    noise: float = Field(0.4, ge=0, description="length of the noise added to each")
    dim: int = Field(128, ge=1, description="width of the first stage")
    kind: str = Field("sketch", description="kind of index of the first stage")
    queries: int = Field(400, ge=20, description="questions, half of them to choose the shortlist on")
    recall: float = Field(0.99, gt=0, le=1, description="recall that the shortlist must reach")
    k: int = Field(10, ge=1, description="results per question")
    seed: int = Field(0, description="seed of the draws")


def funnel_row(
    config: GrowthConfig, store: Store, encoder: QueryEncoder, asked: Float32s, exact: Int64s
) -> tuple[str, ...]:
    """Builds the first stage's index once more, for the clock, and searches with the smallest shortlist that does."""
    layer, half = max(store.manifest.plan.layers), len(asked) // 2
    full, small = Size(layer, store.width), Size(layer, config.dim)
    began = time.perf_counter()
    build_index(config.kind, store.vectors(layer), config.dim, config.work / "again.faiss")
    built = time.perf_counter() - began
    for keep in _SHORTLISTS:
        searcher = FunnelSearcher(store, encoder, Funnel((Stage(small, keep), Stage(full, config.k))))
        rankings = searcher.follow(Given(asked[:half]))
        if recalls([ranking.rows for ranking in rankings], exact[:half]).mean() >= config.recall:
            break
    judged = [Given(asked[at : at + 1]) for at in range(half, len(asked))]
    found = [searcher.follow(each)[0].rows for each in judged]
    touched = f"{len(store)} rows at {config.kind} of {config.dim}, {keep} in full"
    size = store.index_bytes(small)
    return (f"{small}:{keep}", f"{built:.1f}", decimal(size), *figures(searcher.follow, judged, found, exact), touched)


def exact_row(config: GrowthConfig, store: Store, asked: Float32s, exact: Int64s) -> tuple[str, ...]:
    """Certified exact search, built straight into files."""
    vectors = PrefixRows(store.vectors(max(store.manifest.plan.layers)), store.width)
    began = time.perf_counter()
    index = ExactIndex.build(vectors, folder=config.work / f"{len(store)}-exact")
    built = time.perf_counter() - began
    judged = [asked[at : at + 1] for at in range(len(asked) // 2, len(asked))]
    found = [index.search(each, config.k) for each in judged]
    touched = sum((each[2] for each in found[1:]), found[0][2])
    numbers = figures(lambda each: index.search(each, config.k), judged, [each[1][0] for each in found], exact)
    return ("certified exact", f"{built:.1f}", decimal(index.layout.nbytes), *numbers, str(touched))


def figures(search: Callable[[Any], object], judged: list[Any], found: list[Int64s], exact: Int64s) -> tuple[str, ...]:
    """Median and 99th percentile of the milliseconds, and recall, on the second half of the questions."""
    times = np.array(timed(search, judged)) * 1e3
    recall = recalls(found, exact[-len(found) :]).mean()
    return (*(f"{np.quantile(times, q):.2f}" for q in (0.5, 0.99)), f"{recall:.4f}")


def measure(config: GrowthConfig) -> None:
    encoder, source, console = config.load_encoder(), Store(config.index), Console(width=200, highlight=False)
    source.check_model(encoder.name, encoder.revision)
    full = Size(max(source.manifest.plan.layers), source.width)
    asked = encoded(encoder, questions(config.questions, config.queries, config.seed), full)
    table = Table("vectors", "way", "built s", "beside vectors", "p50 ms", "p99 ms", "recall", "touched per question")
    for count in map(int, config.counts.split(",")):
        folder = config.work / str(count)
        store = made_store(folder, source, config.kind, [config.dim], count, config.noise, config.seed, "float16")
        exact = exact_top(store, asked, full, config.k)
        table.add_row(f"{count:,}", *funnel_row(config, store, encoder, asked, exact))
        table.add_row("", *exact_row(config, store, asked, exact))
        console.print(table, f"load average {os.getloadavg()[0]:.1f}")
        for path in (folder, config.work / f"{count}-exact"):
            shutil.rmtree(path)
    console.print(f"{hardware()['cpu']}; {versions()}")


if __name__ == "__main__":
    run("benchmarks/growth", {"": Command(GrowthConfig, measure, "cost as the pool grows")})
