"""Searching some rows of an index: FAISS is told which ones before it searches, so that all `k` results are of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rag_ese.index.kinds import faiss_module, threads_for
from rag_ese.index.sketch import SketchIndex
from rag_ese.index.vectors import VectorFile
from rag_ese.types import Bools, Float32s, Int64s

_FEW = 4096
"""Up to so many rows are scored one by one rather than looked for in a graph or in lists, where they lie far apart."""
_CHUNK = 8192


def search_selected(
    index: Any, vectors: VectorFile, queries: Float32s, k: int, allowed: Bools
) -> tuple[Float32s, Int64s]:
    """The `k` best of the rows where `allowed` (n, bool) is true, which are at least `k`: scores, rows, queries x k.

    Kinds that scan are searched by FAISS. Graphs and lists are, too, where many rows are allowed; should they find
    fewer than `k`, and where few rows are allowed, or FAISS cannot select in an index, `vectors` are scored instead.
    """
    count = int(np.count_nonzero(allowed))
    if isinstance(index, SketchIndex):
        return _search_sketches(index, vectors, queries, k, allowed, count)
    faiss = faiss_module()
    inner = faiss.downcast_index(index)
    scans = isinstance(inner, faiss.IndexFlat | faiss.IndexScalarQuantizer)
    if scans or count > _FEW:
        share = count / len(allowed)
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        try:
            with threads_for(index, len(queries)):
                scores, rows = index.search(queries, k, params=_parameters(inner, selector, k, share))
        except RuntimeError:  # an index that takes no selector
            rows = np.full((len(queries), k), -1)
        if scans or (rows >= 0).all():
            return scores, rows
    return _exact(vectors, queries, k, np.flatnonzero(allowed))


def _search_sketches(
    index: SketchIndex, vectors: VectorFile, queries: Float32s, k: int, allowed: Bools, count: int
) -> tuple[Float32s, Int64s]:
    if not index.lists or count > _FEW:
        probes = int(index.probes * len(allowed) / count)
        scores, rows = index.search(queries, k, allowed, probes)
        if (rows >= 0).all():
            return scores, rows
    return _exact(vectors, queries, k, np.flatnonzero(allowed))


def _parameters(inner: Any, selector: Any, k: int, share: float) -> Any:
    """As `kinds.tune`, searching the more the smaller the share of the rows that are allowed."""
    faiss = faiss_module()
    if isinstance(inner, faiss.IndexIVF):
        probes = min(inner.nlist, int(max(8, inner.nlist // 8) / share))
        return faiss.SearchParametersIVF(sel=selector, nprobe=probes)
    if isinstance(inner, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=int(max(64, 2 * k) / share))
    return faiss.SearchParameters(sel=selector)


def _exact(vectors: VectorFile, queries: Float32s, k: int, rows: Int64s) -> tuple[Float32s, Int64s]:
    best = np.full((len(queries), 0), 0, np.float32)
    found = np.full((len(queries), 0), 0, np.int64)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        best = np.hstack([best, queries @ vectors.rows(chunk, queries.shape[1]).T])
        found = np.hstack([found, np.broadcast_to(chunk, (len(queries), len(chunk)))])
        order = np.lexsort((found, -best), axis=1)[:, :k]
        best, found = np.take_along_axis(best, order, 1), np.take_along_axis(found, order, 1)
    return best, found
