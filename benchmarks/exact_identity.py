"""Whether certified exact search gives what brute force gives, question by question, bit by bit.

    python benchmarks/exact_identity.py --index indexes/hotpotqa --questions TRAIN.json.gz,TRAIN.jsonl.gz

Vectors are made from an index folder's (benchmarks/made.py). Brute force multiplies blocks of all vectors with all
questions and scores the best of them, 32 more than wanted, again as a re-ranking stage does (`retriever.recall`).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from made import encoded, noisy, questions
from pydantic import Field

from rag_ese.cli import Command, run
from rag_ese.encoder.config import EncoderConfig
from rag_ese.eval.cost import hardware, versions
from rag_ese.index import Store
from rag_ese.index.lexical import best
from rag_ese.retriever import ExactIndex
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s, Int64s, Ranking, Size

_BLOCK, _MARGIN = 16384, 32


class IdentityConfig(EncoderConfig):
    """What is compared."""

    index: Path = Field(..., description="an index folder with full-width vectors")
    questions: str = Field(..., description="files of training questions, separated by commas")
    count: int = Field(200_000, ge=100, description="vectors")
    noise: float = Field(0.4, ge=0, description="length of the noise added to each")
    queries: int = Field(10_000, ge=1, description="questions")
    k: int = Field(10, ge=1, description="results per question")
    seed: int = Field(0, description="seed of the draws")


def near(vectors: Float32s, queries: Float32s, wanted: int) -> Int64s:
    """The `wanted` best rows of all by products of matrices, in any order: Q x wanted."""
    scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = queries @ vectors[start : start + _BLOCK].T
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores, rows = np.hstack([scores, block]), np.hstack([rows, numbers])
        keep = np.argpartition(-scores, min(wanted, scores.shape[1]) - 1, axis=1)[:, :wanted]
        scores, rows = np.take_along_axis(scores, keep, 1), np.take_along_axis(rows, keep, 1)
    return np.sort(rows, axis=1)


def same(found: Ranking, expected: Ranking) -> bool:
    return np.array_equal(found.rows, expected.rows) and found.scores.tobytes() == expected.scores.tobytes()


def measure(config: IdentityConfig) -> None:
    encoder, store = config.load_encoder(), Store(config.index)
    store.check_model(encoder.name, encoder.revision)
    layer = max(store.manifest.plan.layers)
    asked = encoded(encoder, questions(config.questions, config.queries, config.seed), Size(layer, store.width))
    stored = store.vectors(layer).rows(slice(None), store.width)
    vectors = noisy(stored, config.count, config.noise, config.seed)
    index = ExactIndex.build(vectors)
    alone = together = 0
    seconds = {"brute force": 0.0, "one at a time": 0.0, "64 at a time": 0.0}

    def clocked(what: str, began: float) -> None:
        seconds[what] += time.perf_counter() - began

    for start in range(0, len(asked), 256):
        some = asked[start : start + 256]
        began = time.perf_counter()
        expected = []
        for query, rows in zip(some, near(vectors, some, config.k + _MARGIN), strict=True):
            chosen = best(products(vectors[rows], query), config.k)
            expected.append(Ranking(rows[chosen.rows], chosen.scores))
        clocked("brute force", began)
        began = time.perf_counter()
        single = [index.search(query[None], config.k) for query in some]
        clocked("one at a time", began)
        began = time.perf_counter()
        scores, rows, _ = index.search(some, config.k)
        clocked("64 at a time", began)
        alone += sum(same(Ranking(r[0], s[0]), want) for (s, r, _), want in zip(single, expected, strict=True))
        together += sum(same(Ranking(r, s), want) for r, s, want in zip(rows, scores, expected, strict=True))
    print(f"{len(vectors)} x {vectors.shape[1]}, {len(asked)} questions, k {config.k}")
    print(f"equal to brute force in rows and in every bit of score: {alone} alone, {together} in batches")
    print("; ".join(f"{what} {spent / len(asked) * 1e3:.2f} ms" for what, spent in seconds.items()))
    print(f"{hardware()['cpu']}, {versions()}")


if __name__ == "__main__":
    run("benchmarks/exact_identity", {"": Command(IdentityConfig, measure, "exact search against brute force")})
