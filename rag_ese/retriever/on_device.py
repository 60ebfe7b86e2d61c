"""An index whose vectors lie on a GPU, or on any device of torch: first stages scan there, later ones re-rank there.

    searcher = FunnelSearcher(OnDevice(Store(folder), "cuda"), encoder, Funnel.parse("L6-d64:200 > L6-d768:10", 6, 768))

Searches are by brute force, so exact at every size, whatever kind of index the folder has for it. With faiss-gpu those
of the first stage are FAISS's.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rag_ese.encoder.device import choose_device
from rag_ese.errors import ConfigError, MissingExtraError
from rag_ese.index.kinds import faiss_module
from rag_ese.index.order import best_first
from rag_ese.index.searchable import Searchable
from rag_ese.index.where import Where
from rag_ese.index.wrapped import Wrapped
from rag_ese.types import Float32s, Int64s, Size

_CHUNK = 65536  # rows that are copied to the device together
_SCORES = 1 << 27  # that are held at once
_GATHERED = 1 << 25  # numbers of rows that are re-ranked at once
_FAISS_KEEPS = 2048  # results of a query at most, on a GPU


class OnDevice(Wrapped):
    """`whole` with its vectors on a device: `auto`, cuda, cuda:1, mps or cpu, as float32.

    A depth takes rows x width x 4 bytes there, and each narrower width that is searched rows x width x 4 more. They are
    copied when they are first used. Rows that `whole` no longer finds are not found here. Raises ConfigError where the
    device is not there or too small.
    """

    def __init__(self, whole: Searchable, device: str = "auto") -> None:
        super().__init__(whole)
        self.device = choose_device(device)
        self._full: dict[int, Tensor] = {}
        self._prefixes: dict[Size, Tensor] = {}
        self._gpu = _faiss_gpu() if self.device.type == "cuda" else None

    def index(self, size: Size) -> object:
        """The vectors at `size` on the device; no FAISS index is needed for it."""
        return self._prefix(size)

    def row_scores(self, size: Size, exact: bool) -> DeviceScores:
        """By vectors, `exact` or not."""
        return DeviceScores(self._on_device(size.layers))

    @torch.inference_mode()
    def search(self, size: Size, queries: Float32s, k: int, where: Where | None = None) -> tuple[Float32s, Int64s]:
        """The `k` best rows per query that `where` lets through: scores and rows, both queries x k, best first.

        There are fewer columns where fewer can be found. Equal scores are in order of row; which of them come in at the
        `k`-th place is the library's choice.
        """
        prefix = self._prefix(size)
        allowed = self.matching(np.ones(len(prefix), np.bool_) if where is None else where)
        k = min(k, int(np.count_nonzero(allowed)))
        asked = torch.from_numpy(np.ascontiguousarray(queries)).to(self.device)
        if k == 0:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if self._gpu and allowed.all() and k <= _FAISS_KEEPS:
            scores, rows = self._gpu.search(prefix, asked, k)
        else:
            mask = None if allowed.all() else torch.from_numpy(allowed).to(self.device)
            scores, rows = _top(prefix, asked, k, mask)
        found, places = scores.cpu().numpy(), rows.cpu().numpy()
        order = best_first(found, places)
        return np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)

    def _on_device(self, layer: int) -> Tensor:
        if layer not in self._full:
            source = self._whole.vectors(layer)
            matrix = self._allocated(len(source), self.width)
            for start in range(0, len(source), _CHUNK):
                part = source.rows(slice(start, start + _CHUNK), self.width)
                matrix[start : start + len(part)] = torch.from_numpy(np.array(part))
            self._full[layer] = matrix
        return self._full[layer]

    def _prefix(self, size: Size) -> Tensor:
        """The vectors at `size`, unit length, contiguous."""
        full = self._on_device(size.layers)
        if size.dim == self.width:
            return full
        if size not in self._prefixes:
            matrix = self._allocated(len(full), size.dim)
            for start in range(0, len(full), _CHUNK):
                matrix[start : start + _CHUNK] = _unit(full[start : start + _CHUNK, : size.dim])
            self._prefixes[size] = matrix
        return self._prefixes[size]

    def _allocated(self, rows: int, columns: int) -> Tensor:
        try:
            return torch.empty(rows, columns, device=self.device)
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(
                f"{rows} vectors of {columns} dimensions take {rows * columns * 4 / 2**30:.1f} GiB, more than "
                f"{self.device} has left: search on the CPU, or a smaller index"
            ) from error


def placed(index: Searchable, device: str) -> Searchable:
    """The index as it is where `device` is the CPU, which FAISS's indexes are for; its vectors on any other device."""
    return index if choose_device(device).type == "cpu" else OnDevice(index, device)


class DeviceScores:
    """Scores of single rows by a matrix on a device (N x width), cut to the width of the queries."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    @torch.inference_mode()
    def scores(self, rows: Sequence[Int64s], queries: Float32s) -> list[Float32s]:
        """For each of `queries` (Q x d) its inner products with its `rows`; equal rows score the same."""
        lengths, dim = list(map(len, rows)), queries.shape[1]
        flat = np.concatenate([np.empty(0, np.int64), *rows])
        owners = torch.from_numpy(np.repeat(np.arange(len(rows)), lengths)).to(self._matrix.device)
        places = torch.from_numpy(flat).to(self._matrix.device)
        asked = torch.from_numpy(np.ascontiguousarray(queries)).to(self._matrix.device)
        parts = [torch.empty(0, device=self._matrix.device)]
        together = _GATHERED // dim
        for start in range(0, len(flat), together):
            vectors = self._matrix[places[start : start + together], :dim]
            vectors = vectors if dim == self._matrix.shape[1] else _unit(vectors)
            parts.append((vectors * asked[owners[start : start + together]]).sum(dim=1))
        return np.split(torch.cat(parts).cpu().numpy(), np.cumsum(lengths)[:-1])


class _FaissGpu:
    """Brute force by faiss-gpu over a matrix that torch holds."""

    def __init__(self, faiss: Any) -> None:
        import_module("faiss.contrib.torch_utils")  # lets FAISS take tensors
        self._faiss, self._resources = faiss, faiss.StandardGpuResources()

    def search(self, matrix: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        metric = self._faiss.METRIC_INNER_PRODUCT
        scores, rows = self._faiss.knn_gpu(
            self._resources, queries, matrix, k, metric=metric, device=matrix.device.index or 0
        )
        return scores, rows


def _faiss_gpu() -> _FaissGpu | None:
    """FAISS where it is built for GPUs and sees one."""
    try:
        faiss = faiss_module()
    except MissingExtraError:
        return None
    return _FaissGpu(faiss) if hasattr(faiss, "knn_gpu") and faiss.get_num_gpus() else None


def _top(matrix: Tensor, queries: Tensor, k: int, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    """The `k` best rows of `matrix` per query, of those that are `allowed`, a part of the rows at a time."""
    rows = max(k, _SCORES // max(1, len(queries)))
    best = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(matrix), rows):
        scores = queries @ matrix[start : start + rows].T
        if allowed is not None:
            scores.masked_fill_(~allowed[start : start + rows], float("-inf"))
        values, places = scores.topk(min(k, scores.shape[1]), dim=1)
        found = torch.cat([best[0], values], dim=1), torch.cat([best[1], places + start], dim=1)
        top = found[0].topk(min(k, found[0].shape[1]), dim=1)
        best = top.values, found[1].gather(1, top.indices)
    return best


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=1, eps=torch.finfo(torch.float32).tiny)
