"""Certified exact search against FAISS and torch, on the same vectors, in one run.

    python benchmarks/exact_search.py --index indexes/NAME --questions FILE --rows 1000000

The vectors are those of an index, at its full size; beyond their number, rows are drawn again and perturbed by Gaussian
noise of a relative length of 0.4, then brought to unit length. Contenders: FAISS FlatIP; FAISS FlatIPPanorama on the
vectors as they are and on our rotation of them; torch's matrix product with top-k; ours. Single queries and batches of
64, each contender in turn. Every answer of ours is compared with brute force by the same scoring function.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.data import load_hotpotqa
from rag_ese.encoder.config import EncoderConfig
from rag_ese.index import Store
from rag_ese.index.kinds import faiss_module
from rag_ese.index.lexical import best
from rag_ese.index.vectors import VectorFile
from rag_ese.retriever.exact import ExactIndex
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s

K = 10
NOISE = 0.4
Contender = Callable[[Float32s], Any]


class ExactConfig(EncoderConfig):
    """The vectors, the queries, how many."""

    index: Path = Field(description="an index folder, whose full-size vectors are used")
    questions: Path = Field(description="a HotpotQA file, whose questions are the queries")
    rows: int = Field(200_000, ge=1, description="vectors in all")
    queries: int = Field(200, ge=64, description="single queries per contender")
    check: int = Field(100, ge=0, description="queries that are compared with brute force")
    seed: int = Field(0, description="of the drawn rows and of the noise")


def main(config: ExactConfig) -> None:
    console = Console(width=120)
    queries = _queries(config)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.vec"
        _write_rows(config, file)
        vectors = VectorFile(file, queries.shape[1], "float32")
        rows = vectors.rows(slice(0, None), vectors.width)
        started = time.perf_counter()
        ours = ExactIndex(vectors)
        console.print(f"our index: {time.perf_counter() - started:.0f} s to build, {ours.layout.bytes / 1e6:,.0f} MB")
        _limits(console, rows)
        table = Table(min_width=110, title=f"{len(rows):,} x {vectors.width}, top {K}, {os.cpu_count()} cores")
        for column in ("search", "one query, p50 ms", "p99 ms", "against FlatIP", "64 queries, ms", "against FlatIP"):
            table.add_column(column, justify="left" if column == "search" else "right")
        flat: tuple[float, float] | None = None
        for name, search in _contenders(rows, ours):
            search(queries[:2])
            search(queries[:64])
            single = np.array([_timed(search, query[None]) for query in queries])
            batch = min(_timed(search, queries[:64]) for _ in range(3))
            p50, p99 = np.percentile(single, [50, 99])
            flat = flat or (p50, batch)
            figures = (f"{p50:.1f}", f"{p99:.1f}", f"{flat[0] / p50:.1f}x", f"{batch:.0f}", f"{flat[1] / batch:.1f}x")
            table.add_row(name, *figures)
        console.print(table)
        found, touched = ours.search(queries[: config.check], K)
        same = 0
        for query, ranking in zip(queries, found, strict=False):
            expected = best(products(rows, query), K)
            same += bool((expected.rows == ranking.rows).all() and (expected.scores == ranking.scores).all())
        console.print(f"identical to brute force, rows and scores: {same} of {len(found)} queries")
        console.print(str(touched))


def _queries(config: ExactConfig) -> Float32s:
    texts = [question.text for question in load_hotpotqa(str(config.questions)).questions][: config.queries]
    encoder = config.load_encoder()
    vectors = encoder.encode_layers(texts, [encoder.depth], "query")[encoder.depth]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _write_rows(config: ExactConfig, file: Path) -> None:
    store = Store(config.index)
    real = store.vectors(store.depth).rows(slice(0, None), store.width)
    rng = np.random.default_rng(config.seed)
    with file.open("wb") as stream:
        stream.write(real[: config.rows].tobytes())
        for start in range(len(real), config.rows, 65536):
            drawn = real[rng.integers(len(real), size=min(65536, config.rows - start))]
            drawn = drawn + rng.normal(0, NOISE / store.width**0.5, drawn.shape).astype(np.float32)
            stream.write((drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32).tobytes())


def _contenders(rows: Float32s, ours: ExactIndex) -> list[tuple[str, Contender]]:
    faiss = faiss_module()
    width = rows.shape[1]

    def built(factory: str, vectors: Float32s) -> Any:
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(vectors), 65536):
            index.add(np.ascontiguousarray(vectors[start : start + 65536]))
        return index

    def on_threads(index: Any, turn: Float32s | None = None) -> Contender:
        def search(queries: Float32s) -> Any:
            return index.search(queries if turn is None else queries @ turn, K)

        return search

    matrix = torch.from_numpy(rows)
    rotation = ours.layout.rotation
    panorama = f"FlatIPPanorama{max(1, width // 64)}"
    return [
        ("FAISS FlatIP", on_threads(built("Flat", rows))),
        ("torch, matmul + topk", lambda queries: torch.topk(torch.from_numpy(queries) @ matrix.T, K)),
        ("FAISS Panorama", on_threads(built(panorama, rows))),
        ("FAISS Panorama, rotated", on_threads(built(panorama, rows @ rotation), rotation)),
        ("rag_ese exact", lambda queries: ours.search(queries, K)),
    ]


def _timed(search: Contender, queries: Float32s) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    search(queries)
    return 1000 * (time.perf_counter() - started)


def _limits(console: Console, rows: Float32s) -> None:
    matrix = torch.from_numpy(rows)
    bandwidth = min(_timed(lambda _: matrix.sum(), rows) for _ in range(3))
    one = torch.randn(2048, 2048)
    gemm = min(_timed(lambda _: one @ one, rows) for _ in range(3))
    console.print(
        f"limits: {rows.nbytes / 1e6 / bandwidth:.1f} GB/s read by a sum over all vectors, so FlatIP cannot be below "
        f"{bandwidth:.0f} ms; {2 * 2048**3 / 1e6 / gemm:.0f} GFLOP/s in float32 products"
    )


if __name__ == "__main__":
    run("benchmarks/exact_search.py", {"": Command(ExactConfig, main, "certified exact search, measured")})
