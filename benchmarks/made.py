"""What the search benchmarks share: vectors made from real ones, real questions, stores of them, and the clock.

A made vector is one of an index folder's, drawn with replacement, with Gaussian noise of its own added (`noise` is its
length beside the vector's 1) and brought to unit length.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rag_ese.data.sources import read_source
from rag_ese.errors import DataError
from rag_ese.index import Store
from rag_ese.index.builder import build_from
from rag_ese.index.kinds import faiss_module
from rag_ese.index.manifest import DataEntry
from rag_ese.index.vectors import DTYPES, vector_file
from rag_ese.retriever.searchers import QueryEncoder
from rag_ese.types import Float32s, Int64s, Passage, Size

Search = Callable[[Float32s], Int64s]
"""Queries (Q x d) to rows (Q x k)."""
_ROWS = 16384
_PAUSE = 0.3
"""Seconds."""


def noisy_pieces(vectors: Float32s, count: int, noise: float, seed: int) -> Iterator[Float32s]:
    """`count` rows drawn from `vectors`, perturbed, unit length, some at a time; more rows begin as fewer do."""
    draw = np.random.default_rng(seed)
    for start in range(0, count, _ROWS):
        rows = vectors[draw.integers(0, len(vectors), min(_ROWS, count - start))]
        shift = draw.standard_normal(rows.shape, dtype=np.float32)
        rows = rows + noise * shift / np.linalg.norm(shift, axis=1, keepdims=True)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def noisy(vectors: Float32s, count: int, noise: float, seed: int) -> Float32s:
    """All of `noisy_pieces` in one array."""
    made = np.empty((count, vectors.shape[1]), np.float32)
    for number, piece in enumerate(noisy_pieces(vectors, count, noise, seed)):
        made[number * _ROWS : number * _ROWS + len(piece)] = piece
    return made


def made_store(
    folder: Path, source: Store, kind: str, dims: Sequence[int], count: int, noise: float, seed: int, stored: str
) -> Store:
    """A store of made vectors of the deepest layer in `folder`, indexes of `kind` at `dims`; opened if it is there."""
    layer = max(source.manifest.plan.layers)
    name = f"{source.folder.name}, {count} drawn with noise {noise:g}, seed {seed}"
    plan = source.manifest.plan.model_copy(
        update={
            "data": DataEntry(name=name, revision=name),
            "layers": (layer,),
            "sizes": tuple(f"L{layer}-d{dim}" for dim in dims),
            "kind": kind,
            "stored": stored,
            "bm25": False,
        }
    )

    def write(partial: Path, rows: Sequence[Passage]) -> None:
        file = partial / vector_file(layer)
        file.parent.mkdir(exist_ok=True)
        for sibling in folder.parent.glob(f"*/{vector_file(layer)}"):
            other = Store(sibling.parent.parent).manifest.plan
            if (other.data, other.stored) == (plan.data, plan.stored):  # of another kind: the same vectors
                os.link(sibling, file)
                return
        vectors = source.vectors(layer).rows(slice(None), source.width)
        with file.open("wb") as out:
            for piece in noisy_pieces(vectors, count, noise, seed):
                out.write(piece.astype(DTYPES[stored]).tobytes())

    passages = (Passage(str(row), (str(row),)) for row in range(count))
    build_from(folder, plan, lambda: passages, write)
    return Store(folder, verify=False)


def questions(paths: str, count: int, seed: int) -> list[str]:
    """`count` different questions of HotpotQA files or JSONL files with a `question`, drawn with `seed`."""
    texts: dict[str, None] = {}
    for path in paths.split(","):
        for where, record in read_source(Path(path)):
            if not isinstance(record, dict) or "question" not in record:
                raise DataError(f"{where}: there is no question: give HotpotQA files or JSONL with one per line")
            texts[str(record["question"])] = None
    order = np.random.default_rng(seed).permutation(len(texts))[:count]
    known = list(texts)
    return [known[at] for at in order]


def encoded(encoder: QueryEncoder, texts: Sequence[str], size: Size) -> Float32s:
    """Question vectors of unit length (Q x dim)."""
    vectors = np.asarray(encoder.begin(texts).at(size), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def truncating(vectors: Float32s, dim: int, factory: str) -> Any:
    """FAISS's index of `vectors` that takes their first `dim` dimensions, brings them to unit length and keeps codes.

    `factory`: the codes, as faiss.index_factory reads them.
    """
    faiss = faiss_module()
    inner = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(inner, faiss.IndexIVF):
        inner.cp.max_points_per_centroid, inner.cp.niter = 40, 10
    index = faiss.IndexPreTransform(inner)
    index.prepend_transform(faiss.NormalizationTransform(dim, 2.0))
    index.prepend_transform(faiss.RemapDimensionsTransform(vectors.shape[1], dim, False))
    index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // 165_000)]))
    for start in range(0, len(vectors), 65536):
        index.add(np.ascontiguousarray(vectors[start : start + 65536]))
    return index


def timed(search: Callable[[Any], object], queries: Sequence[Any]) -> list[float]:
    """Seconds for each."""
    seconds = []
    for query in queries:
        began = time.perf_counter()
        search(query)
        seconds.append(time.perf_counter() - began)
    return seconds


def in_turns(searches: dict[str, Search], queries: Float32s, burst: int) -> dict[str, list[float]]:
    """Seconds per query, one at a time; all take turns at `burst` queries, so that what disturbs one disturbs all.

    A turn begins with a pause, in which the threads of the one before stop waiting for work, and with a search that is
    not timed: it meets the caches of another.
    """
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for start in range(0, len(queries), burst):
        turn = [queries[at : at + 1] for at in range(start, min(start + burst, len(queries)))]
        for name, search in searches.items():
            time.sleep(_PAUSE)
            search(turn[0])
            seconds[name] += timed(search, turn)
    return seconds


def bandwidth(vectors: Float32s) -> float:
    """Bytes per second of adding up an array larger than the caches, the best of three."""
    flat = torch.from_numpy(vectors).ravel()
    return vectors.nbytes / min(timed(lambda _: flat.sum().numpy(), range(3)))


def flops() -> float:
    """Operations per second of a large product of float32 matrices, the best of five."""
    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    return 2 * 2048**3 / min(timed(lambda _: left @ right, range(5)))


def brute_force(vectors: Any, queries: Float32s, k: int) -> Int64s:
    """The `k` best rows by float32 products, in blocks: Q x k. `vectors`: N x d, or slices of it by `rows`."""
    best, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), _ROWS):
        block = torch.from_numpy(np.asarray(vectors[start : start + _ROWS], np.float32))
        scores, found = torch.topk(torch.from_numpy(queries) @ block.T, min(k, len(block)))
        best, rows = np.hstack([best, scores.numpy()]), np.hstack([rows, found.numpy() + start])
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
    return rows
