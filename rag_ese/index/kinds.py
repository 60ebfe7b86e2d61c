"""The kinds of index, FAISS's and sketches; how one is built from vectors on disk without holding all in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rag_ese.errors import ConfigError, MissingExtraError, StoreCorruptError
from rag_ese.index.sketch import BLOCK, SketchIndex, build_sketches, empty, is_sketch, open_sketches
from rag_ese.index.vectors import VectorFile
from rag_ese.types import Size

KINDS = {
    "flat": "exact, float32",
    "fp16": "half precision, scanned",
    "sq8": "8 bits per dimension, scanned",
    "hnsw": "graph, fast, held in memory",
    "ivf": "inverted lists, held in memory",
    "panorama": "exact, prunes on prefixes, held in memory",
    "pq4": "2 bits per dimension, scanned fast, held in memory: a first stage",
    "sketch": "4 bits per dimension, scanned: a first stage",
    "ivf-sketch": "the same in inverted lists, fast: a first stage",
}
SCANS = ("flat", "fp16", "sq8", "panorama", "pq4", "sketch")
"""Kinds that compare a query with every row, so that none is missed where all are asked for."""
_CHUNK = 65536
_TRAINING_ROWS = 100_000
_HEADER_COUNT = slice(8, 16)  # where FAISS writes the number of vectors: after the four-letter kind and the dimension


@cache
def faiss_module() -> Any:
    """The faiss module, set up for this project's sizes."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("cpu", "searching vectors") from error
    # Below this many query-dimensions FAISS does not use BLAS; its default, 128000, makes batches up to 6 times slower.
    faiss.cvar.distance_compute_blas_threshold = 1000
    return faiss


def factory_string(kind: str, dim: int, count: int) -> str:
    """The FAISS factory string of a kind; anything that is not one of KINDS is taken for a factory string itself."""
    levels = max(1, dim // 64)
    return {
        "flat": "Flat",
        "fp16": "SQfp16",
        "sq8": "SQ8",
        "hnsw": "HNSW32",
        "pq4": f"PQ{dim // 2}x4fs",
        "ivf": f"IVF{lists_for(count)},Flat",
        "panorama": f"FlatIPPanorama{levels}",
    }.get(kind, kind)


def kind_for(kinds: str, size: Size) -> str:
    """The kind of `size` in a text such as `pq4; L6-d256=sq8`: one for all sizes, and exceptions.

    >>> kind_for("pq4; L6-d256=sq8", Size(6, 256)), kind_for("pq4; L6-d256=sq8", Size(6, 128))
    ('sq8', 'pq4')
    """
    return exceptions(kinds).get(str(size)) or kinds.split(";")[0].strip()


def has_codes(kinds: str, size: Size) -> bool:
    """Whether the index of `size` is a plain list of 8-bit codes, of which single rows can be scored."""
    return kind_for(kinds, size) in ("sq8", "SQ8")


def exceptions(kinds: str) -> dict[str, str]:
    """Size -> kind, of those sizes that `kinds` gives a kind of their own."""
    found = {}
    for part in kinds.split(";")[1:]:
        size, equals, kind = (each.strip() for each in part.partition("="))
        if not (size and equals and kind):
            raise ConfigError(f"cannot read {part.strip()!r} in the kind {kinds!r}: write for example pq4; L6-d256=sq8")
        found[size] = kind
    return found


def lists_for(count: int) -> int:
    """Inverted lists for `count` rows: about 4 per square root, with rows enough to train each."""
    lists = int(2 ** np.clip(np.round(np.log2(4 * np.sqrt(max(count, 1)))), 0, 16))
    return max(1, min(lists, count // 39))


def new_index(kind: str, dim: int, count: int) -> Any:
    """An empty index of `kind` for `count` vectors of width `dim`, inner product."""
    if kind in ("sketch", "ivf-sketch"):
        return empty(dim)
    faiss = faiss_module()
    try:
        return faiss.index_factory(dim, factory_string(kind, dim, count), faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(
            f"FAISS knows no index {kind!r} for {dim} dimensions: choose {', '.join(KINDS)}, or write a factory string "
            "such as IVF256,SQ8"
        ) from error


def must_be_trained(kind: str, dim: int, count: int) -> bool:
    """Whether an index of `kind` for `count` vectors learns from them, and so needs enough of them."""
    index = new_index(kind, dim, count)
    return not (isinstance(index, SketchIndex) or index.is_trained)


def streams(index: Any) -> bool:
    """Whether the index is a plain list of codes, so that its file can be written without holding the codes."""
    faiss = faiss_module()
    if isinstance(index, SketchIndex):
        return True
    return type(index) in (faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexScalarQuantizer)


def build_index(
    kind: str, vectors: VectorFile, dim: int, path: Path, progress: Callable[[int], None] | None = None
) -> None:
    """Writes the index of the first `dim` dimensions of `vectors` to `path`, in whole or not at all."""
    count = len(vectors)
    index = new_index(kind, dim, count)
    if isinstance(index, SketchIndex):
        _build_sketches(kind, vectors, dim, path, progress)
        return
    if not index.is_trained:
        _train(index, kind, vectors, dim)
    draft = path.with_suffix(".draft")
    chunks = (vectors.rows(slice(start, start + _CHUNK), dim) for start in range(0, count, _CHUNK))
    if streams(index):
        _stream(index, count, _reported(chunks, progress), draft)
    else:
        for chunk in _reported(chunks, progress):
            index.add(chunk)
        _write(index, draft)
    os.replace(draft, path)


def _build_sketches(
    kind: str, vectors: VectorFile, dim: int, path: Path, progress: Callable[[int], None] | None
) -> None:
    count, draft = len(vectors), path.with_suffix(".draft")
    sample = vectors.rows(_training_rows(count), dim)
    # A list of few rows would leave most of its blocks empty.
    lists = min(lists_for(count), 2 ** round(np.log2(max(count, 1) / (4 * BLOCK)))) if kind == "ivf-sketch" else 0
    centroids = _centroids(sample, lists)
    passes = 0

    def pieces() -> Iterator[np.ndarray]:
        nonlocal passes
        passes += 1
        chunks = (vectors.rows(slice(start, start + _CHUNK), dim) for start in range(0, count, _CHUNK))
        return _reported(chunks, progress if passes == 1 else None)

    build_sketches(draft, count, pieces, sample, centroids)
    os.replace(draft, path)


def _centroids(sample: np.ndarray, lists: int) -> np.ndarray:
    """The middles of `lists` clusters of unit vectors (lists x d, unit length); none where one list would hold all."""
    if lists < 2:
        return sample[:0]
    clusters = faiss_module().Kmeans(
        sample.shape[1], lists, niter=10, spherical=True, seed=0, min_points_per_centroid=1, max_points_per_centroid=40
    )
    clusters.train(sample)
    return np.asarray(clusters.centroids)


def _training_rows(count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(count)[:_TRAINING_ROWS])


def _reported(chunks: Iterator[np.ndarray], progress: Callable[[int], None] | None) -> Iterator[np.ndarray]:
    for chunk in chunks:
        yield chunk
        if progress:
            progress(len(chunk))


def _train(index: Any, kind: str, vectors: VectorFile, dim: int) -> None:
    count = len(vectors)
    try:
        index.train(vectors.rows(_training_rows(count), dim))
    except RuntimeError as error:
        raise ConfigError(
            f"an index of kind {kind} cannot be trained on {count} passages: use --kind flat, or a larger pool"
        ) from error


def _stream(index: Any, count: int, chunks: Iterator[np.ndarray], path: Path) -> None:
    """Writes what faiss.write_index would write, code by code: the empty index's header with the count filled in."""
    empty = faiss_module().serialize_index(index).tobytes()
    header = bytearray(empty[:-8])  # an empty index ends in the length of its codes, 0
    header[_HEADER_COUNT] = np.int64(count).tobytes()
    unit = 4 if type(index).__name__.startswith("IndexFlat") else 1  # flat codes are counted in floats, others in bytes
    with path.open("wb") as file:
        file.write(header)
        file.write(np.uint64(count * index.sa_code_size() // unit).tobytes())
        for chunk in chunks:
            file.write(index.sa_encode(chunk).tobytes())


def _write(index: Any, path: Path) -> None:
    """As faiss.write_index, but a disk that refuses is an OSError, also when it does so only on closing the file."""
    with path.open("wb") as file:
        faiss_module().write_index(index, faiss_module().PyCallbackIOWriter(file.write))


def read_index(path: Path) -> Any:
    """Opens an index file; sketches and plain lists of codes are memory-mapped, read-only."""
    if is_sketch(path):
        return open_sketches(path)
    faiss = faiss_module()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise StoreCorruptError(f"FAISS cannot read the index file {path}: build the index again") from error


@contextmanager
def threads_for(index: Any, queries: int) -> Iterator[None]:
    """One thread for a single query where sharing the work costs more than it saves, or is not done (docs/log.md)."""
    faiss = faiss_module()
    before = faiss.omp_get_max_threads()
    alone = queries == 1 and isinstance(index, faiss.IndexFlat | faiss.IndexPQFastScan)
    faiss.omp_set_num_threads(1 if alone else before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def tune(index: Any, k: int) -> None:
    """Sets how much of an approximate FAISS index is searched, from the number of results wanted."""
    if isinstance(index, SketchIndex):
        return
    faiss = faiss_module()
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexIVF):
        inner.nprobe = max(8, inner.nlist // 8)
    elif isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.efSearch = max(64, 2 * k)
