"""Sketches: an index of 4 bits per dimension, searched whole or by inverted lists; a first stage, not a ranking.

Unit vectors (of one width) are centred and turned at random, so that all coordinates are alike and one step size suits
all, and cut to 4 bits each. Scores are sums of whole numbers, about the inner product and good enough for a shortlist.
Rows are kept in blocks of 64 that hold a coordinate's values together, so that a search adds up 64 rows side by side.
With lists, rows stand by the centroid they are nearest to, and an eighth of the lists is searched.

The file is read through the memory map: a line that says what it is, and .npy arrays one after another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rag_ese.errors import MissingExtraError, StoreCorruptError
from rag_ese.types import Bools, Float32s, Int64s

MAGIC = b"rag_ese sketch 1\n".ljust(64)
BLOCK = 64
"""Rows in a block; as in the kernels, which are imported when first needed."""
_STEP = 0.335
"""Of a coordinate's standard deviation: 4 bits reach 2.7 of them to either side and err least."""
_FEW = 8
"""From so many queries on, each is searched by one thread of its own."""
_FEWEST_PROBES = 128
"""Lists of a small pool are searched all, or nearly: it saves little there, and lists miss more of it."""
_CHUNK = 65536
Pieces = Callable[[], Iterator[Float32s]]
"""All vectors in order, some rows at a time; asked for once or twice."""


@dataclass(frozen=True)
class Sketches:
    """The arrays of an index over N rows of d dimensions in L lists (0: no lists) and B blocks."""

    mean: Float32s  # d
    turn: Float32s  # d x d, orthogonal: a query's coordinates are query @ turn
    step: Float32s  # 1: the size of one unit of the codes
    centroids: Float32s  # L x d
    starts: npt.NDArray[np.int32]  # L + 1: list i has blocks starts[i] to starts[i + 1]; 0 and B where L is 0
    rows: npt.NDArray[np.int32]  # B * 64: the row at each place, -1 for none
    fills: npt.NDArray[np.uint8]  # B: how many places of a block hold a row, from the first on
    codes: npt.NDArray[np.uint8]  # B x pairs of coordinates x 64; the even coordinate in the low 4 bits


class SketchIndex:
    """Searches sketches for the highest inner products. `probes`: lists that are searched per query."""

    def __init__(self, sketches: Sketches) -> None:
        self._sketches = sketches
        self.lists = len(sketches.centroids)
        self.probes = max(_FEWEST_PROBES, self.lists // 8)
        self.d = len(sketches.mean)

    def search(
        self, queries: Float32s, k: int, allowed: Bools | None = None, probes: int | None = None
    ) -> tuple[Float32s, Int64s]:
        """The `k` rows per query (Q x d) with the highest scores: scores and rows, Q x k, equal scores by row.

        Rows where `allowed` (N) is false are passed over. Where fewer than k are found, rows are -1, scores -inf.
        """
        held, kernels = self._sketches, _kernels()
        allow = np.zeros(0, np.bool_) if allowed is None else np.ascontiguousarray(allowed)
        turned = np.einsum("qi,ij->qj", queries, held.turn) if len(queries) < _FEW else queries @ held.turn
        weights, scales = _whole(turned)
        blocks = [self._blocks(query, probes or self.probes) for query in queries]
        sums, rows = np.zeros((len(queries), k), np.int32), np.full((len(queries), k), -1, np.int64)
        if len(queries) >= _FEW:
            ends = np.cumsum([0, *map(len, blocks)])
            kernels.search_each(
                held.codes, held.fills, held.rows, allow, weights, np.concatenate(blocks), ends, k, rows, sums
            )
        else:
            for query, mine in enumerate(blocks):
                peaks = np.empty(len(mine), np.int32)
                with kernels.threads(len(mine) // kernels.PER_THREAD):
                    kernels.peaks_of(held.codes, held.fills, held.rows, allow, weights[query], mine, peaks)
                kernels.collect(
                    held.codes, held.fills, held.rows, allow, weights[query], mine, peaks, k, rows[query], sums[query]
                )
        scales = scales * held.step
        bases = queries @ held.mean - np.float32(7.5) * scales * weights.sum(axis=(1, 2))
        scores = sums * scales[:, None] + bases[:, None]
        return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows

    def _blocks(self, query: Float32s, probes: int) -> npt.NDArray[np.int32]:
        """The blocks of the `probes` lists nearest to the query."""
        starts = self._sketches.starts
        if probes >= self.lists:
            return np.arange(starts[-1], dtype=np.int32)
        near = np.empty(self.lists, np.float32)
        _kernels().nearness(self._sketches.centroids, query, near)
        chosen = np.sort(np.argpartition(near, self.lists - probes)[self.lists - probes :])
        first, sizes = starts[chosen], starts[chosen + 1] - starts[chosen]
        ahead = np.cumsum(sizes) - sizes
        return np.repeat(first - ahead, sizes).astype(np.int32) + np.arange(sizes.sum(), dtype=np.int32)

    def sa_code_size(self) -> int:
        """Bytes per row: codes, and the row's number."""
        return int(self._sketches.codes.shape[1]) + 4

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in vars(self._sketches).values())


def empty(dim: int) -> SketchIndex:
    """An index without rows."""
    none = _prepared(np.zeros((0, dim), np.float32), np.zeros((0, dim), np.float32))
    rows, fills, codes = np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros((0, -(-dim // 2), BLOCK), np.uint8)
    return SketchIndex(Sketches(*none, np.zeros(2, np.int32), rows, fills, codes))


def build_sketches(path: Path, count: int, pieces: Pieces, sample: Float32s, centroids: Float32s) -> None:
    """Writes the index of `count` vectors (unit length) to `path`; `sample` of them sets mean and step.

    Memory: one piece, and 12 bytes per row. Without centroids the vectors are read once, with them twice.
    """
    mean, turn, step, centroids = _prepared(sample, centroids)
    places, starts = _places(count, pieces, centroids)
    blocks, pairs = int(starts[-1]), -(-len(mean) // 2)
    rows = np.full(blocks * BLOCK, -1, np.int32)
    rows[places] = np.arange(count, dtype=np.int32)
    fills = np.count_nonzero(rows.reshape(-1, BLOCK) >= 0, axis=1).astype(np.uint8)
    with path.open("wb") as file:
        file.write(MAGIC)
        for array in (mean, turn, step, centroids, starts, rows, fills):
            np.lib.format.write_array(file, array, allow_pickle=False)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (blocks, pairs, BLOCK)}
        )
        offset = file.tell()
        file.truncate(offset + blocks * pairs * BLOCK)
    if not count:
        return
    codes = np.memmap(path, np.uint8, "r+", offset, (blocks, pairs, BLOCK))
    done = 0
    for piece in pieces():
        at = places[done : done + len(piece)]
        codes[at // BLOCK, :, at % BLOCK] = _coded((piece - mean) @ turn, step[0])
        done += len(piece)
    codes.flush()


def open_sketches(path: Path) -> SketchIndex:
    """Opens what `build_sketches` wrote, memory-mapped."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("another format")
            arrays = [_mapped(file, path) for _ in range(8)]
        blocks = arrays[4][-1]
        if [len(array) for array in arrays[5:]] != [BLOCK * blocks, blocks, blocks]:
            raise ValueError("arrays that do not fit together")
    except (OSError, ValueError, IndexError) as error:
        raise StoreCorruptError(f"the sketches in {path} cannot be read: build the index again") from error
    return SketchIndex(Sketches(*arrays))


def is_sketch(path: Path) -> bool:
    """Whether the file holds sketches, by its first line."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _mapped(file: BinaryIO, path: Path) -> Any:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    offset, size = file.tell(), int(np.prod(shape)) * dtype.itemsize
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError("the file is cut short")
    file.seek(size, os.SEEK_CUR)
    if not size:  # a file of no bytes cannot be mapped
        return np.zeros(shape, dtype)
    # Copy on write, since the compiled loops are specialised for writable arrays; nothing is written.
    return np.memmap(path, dtype, "c", offset, shape).view(np.ndarray)


def _prepared(sample: Float32s, centroids: Float32s) -> tuple[Float32s, Float32s, Float32s, Float32s]:
    """Mean, turn, step and centroids as they are stored."""
    dim = sample.shape[1]
    mean = sample.mean(axis=0, dtype=np.float64) if len(sample) else np.zeros(dim)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
    spread = float(np.sqrt(np.mean((sample - mean) ** 2))) if len(sample) else 1.0
    step = np.array([_STEP * max(spread, 1e-9)])
    prepared = (np.ascontiguousarray(array, dtype=np.float32) for array in (mean, turn, step, centroids))
    first, second, third, fourth = prepared
    return first, second, third, fourth


def _places(count: int, pieces: Pieces, centroids: Float32s) -> tuple[Int64s, npt.NDArray[np.int32]]:
    """Where each row goes (N), in order within its list; and at which block each list starts (L + 1)."""
    if not len(centroids):
        return np.arange(count), np.array([0, -(-count // BLOCK)], np.int32)
    nearest = [np.argmax(piece @ centroids.T, axis=1) for big in pieces() for piece in _halved(big)]
    lists = np.concatenate([np.zeros(0, np.int64), *nearest])
    sizes = np.bincount(lists, minlength=len(centroids))
    starts = np.concatenate([[0], np.cumsum(-(-sizes // BLOCK))])
    order = np.argsort(lists, kind="stable")
    within = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = np.empty(count, np.int64)
    places[order] = starts[lists[order]] * BLOCK + within
    return places, starts.astype(np.int32)


def _halved(piece: Float32s) -> Iterator[Float32s]:
    """Smaller pieces, whose nearness to all centroids is a table of bounded size."""
    return (piece[start : start + 8192] for start in range(0, len(piece), 8192))


def _coded(turned: npt.NDArray[np.floating], step: np.float32) -> npt.NDArray[np.uint8]:
    """Rows x d as rows x pairs of 4-bit codes; a missing coordinate is 0."""
    nibbles = np.zeros((len(turned), -(-turned.shape[1] // 2) * 2), np.uint8)
    nibbles[:, : turned.shape[1]] = np.clip(np.floor(turned / step) + 8, 0, 15)
    return np.asarray(nibbles[:, 0::2] | nibbles[:, 1::2] << 4)


def _whole(turned: Float32s) -> tuple[npt.NDArray[np.int16], Float32s]:
    """Whole-number weights up to 127 (Q x pairs x 2), and per query the scale that makes them its coordinates."""
    scales = np.maximum(np.abs(turned).max(axis=1, initial=0) / np.float32(127), np.finfo(np.float32).tiny)
    whole = np.zeros((len(turned), -(-turned.shape[1] // 2) * 2), np.int16)
    whole[:, : turned.shape[1]] = np.rint(turned / scales[:, None])
    return whole.reshape(len(turned), -1, 2), scales


def _kernels() -> Any:
    try:
        from rag_ese.index import sketch_kernels
    except ImportError as error:
        raise MissingExtraError("cpu", "searching sketches") from error
    return sketch_kernels
