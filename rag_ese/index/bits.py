"""Bits: an index of 1 bit per dimension, scanned whole in a fraction of the time of any other; a first stage alone.

Unit vectors (of one width) are centred and turned at random, and of each coordinate the sign is kept. A query's turned
coordinates become whole numbers from -7 to 7; a row's score is their sum over its positive coordinates, which a few
instructions count for 64 coordinates at once. With the random turn this is the estimate of RaBitQ (arXiv 2405.12497)
without its factor per row, so that nothing but the bits is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError, MissingExtraError
from rag_ese.index.array_file import first_line, map_arrays, unreadable, write_arrays
from rag_ese.index.sketch import Pieces, centre_and_turn
from rag_ese.types import Bools, Float32s, Int64s

LINE = first_line("bits 1")
BLOCK = 64
"""Rows in a block, whose words of 64 coordinates stand together; as in the kernels."""
_WIDEST = 4096
"""Dimensions: sums have 16 bits."""
_LEVELS = 7
_NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Bits:
    """The arrays of an index over N rows of d dimensions in B blocks and W words of 64 coordinates."""

    count: npt.NDArray[np.int64]  # 1: N
    mean: Float32s  # d
    turn: Float32s  # d x d, orthogonal
    spread: Float32s  # 1: what a bit stands for, the mean size of a turned coordinate
    codes: npt.NDArray[np.uint64]  # B x W x 64: the first coordinate in the lowest bit


class BitIndex:
    """Searches bits for the highest inner products."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits
        self.d = len(bits.mean)

    def search(self, queries: Float32s, k: int, allowed: Bools | None = None) -> tuple[Float32s, Int64s]:
        """The `k` rows per query (Q x d) with the highest scores: scores and rows, Q x k, equal scores by row.

        Rows where `allowed` (N) is false are passed over. Where fewer than k are found, rows are -1, scores -inf.
        """
        held = self._bits
        allow = np.zeros(0, np.bool_) if allowed is None else np.ascontiguousarray(allowed)
        # Not by BLAS, whose threads wait on the cores that the scan is to have.
        whole, scales = _whole(np.einsum("qi,ij->qj", queries, held.turn))
        keys = self._keys(_planes(whole, held.codes.shape[1]), k, allow)
        scales = scales * held.spread
        bases = np.einsum("qi,i->q", queries, held.mean) - scales * whole.sum(axis=1)
        scores = bases[:, None] - 2 * scales[:, None] * (keys >> 32)
        missing = keys == _NONE
        return np.where(missing, -np.inf, scores).astype(np.float32), np.where(missing, -1, keys & 0xFFFFFFFF)

    def _keys(self, planes: npt.NDArray[np.uint64], k: int, allow: Bools) -> Int64s:
        """Q x k: rows in the low 32 bits, less their sums in the high ones; ascending.

        Rows that reach a guessed bound are gathered in the room that they should need, and a query with too few rows, or
        too little room, is searched once more.
        """
        kernels, codes, count = _kernels(), self._bits.codes, int(self._bits.count[0])
        found, bounds = np.empty((len(planes), k), np.int64), np.empty(len(planes), np.int64)
        lowest, part = kernels.LOWEST * codes.shape[1], BLOCK * -(-len(codes) // kernels.PARTS)
        room, waiting = min(part, 256 + 3 * k // kernels.PARTS), np.arange(len(planes))
        with kernels.threads(len(planes) * len(codes) // kernels.PER_THREAD):
            kernels.guess(codes, planes, count, allow, k, bounds)
            while len(waiting):
                keys = np.empty((len(waiting), kernels.PARTS, room), np.int64)
                held = np.empty((len(waiting), kernels.PARTS), np.int64)
                kernels.scan(codes, planes[waiting], count, allow, bounds[waiting], keys, held)
                joined = np.full((len(waiting), max(k, int(held.sum(axis=1).max()))), _NONE)
                kernels.join(keys, held, joined)
                found[waiting] = np.sort(joined, axis=1)[:, :k]
                short = (held.sum(axis=1) < k) & (bounds[waiting] > lowest)
                bounds[waiting[short]] = np.maximum(lowest, bounds[waiting[short]] - 4 * codes.shape[1])
                waiting, room = waiting[short | (held > room).any(axis=1)], part
        return found

    def sa_code_size(self) -> int:
        """Bytes per row."""
        return 8 * int(self._bits.codes.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in vars(self._bits).values())


def no_bits(dim: int) -> BitIndex:
    """An index without rows. ConfigError where there are more dimensions than the sums have room for."""
    if dim > _WIDEST:
        raise ConfigError(f"an index of bits holds no {dim} dimensions: give it {_WIDEST} at most")
    mean, turn = centre_and_turn(np.zeros((0, dim), np.float32))
    codes = np.zeros((0, -(-dim // 64), BLOCK), np.uint64)
    return BitIndex(Bits(np.zeros(1, np.int64), mean, turn, np.ones(1, np.float32), codes))


def build_bits(path: Path, count: int, pieces: Pieces, sample: Float32s) -> None:
    """Writes the index of `count` vectors (unit length) to `path`; `sample` of them sets mean and spread.

    Memory: one piece. The vectors are read once.
    """
    mean, turn = centre_and_turn(sample)
    spread = np.array([np.abs((sample - mean) @ turn).mean() if len(sample) else 1], np.float32)
    words, row = -(-len(mean) // 64), 0
    arrays = (np.array([count], np.int64), mean, turn, spread)
    with write_arrays(path, LINE, arrays, (-(-count // BLOCK), words, BLOCK), np.uint64) as codes:
        for piece in pieces():
            rows = np.arange(row, row + len(piece))
            codes[rows // BLOCK, :, rows % BLOCK] = _packed((piece - mean) @ turn > 0, words)
            row += len(piece)


def open_bits(path: Path) -> BitIndex:
    """Opens what `build_bits` wrote, memory-mapped."""
    arrays = map_arrays(path, LINE, 5)
    if len(arrays[4]) != -(-int(arrays[0].sum()) // BLOCK) or arrays[4].shape[1] != -(-len(arrays[1]) // 64):
        raise unreadable(path)
    return BitIndex(Bits(*arrays))


def _packed(bits: npt.NDArray[np.bool_], words: int) -> npt.NDArray[np.uint64]:
    """... x d bits as ... x words; bits that are missing are 0."""
    packed = np.zeros((*bits.shape[:-1], 8 * words), np.uint8)
    packed[..., : -(-bits.shape[-1] // 8)] = np.packbits(bits, axis=-1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)


def _whole(turned: Float32s) -> tuple[npt.NDArray[np.int64], Float32s]:
    """Whole numbers from -7 to 7 (Q x d), and per query the scale that makes them its coordinates."""
    scales = np.maximum(np.abs(turned).max(axis=1, initial=0) / np.float32(_LEVELS), np.finfo(np.float32).tiny)
    return np.rint(turned / scales[:, None]).astype(np.int64), scales


def _planes(whole: npt.NDArray[np.int64], words: int) -> npt.NDArray[np.uint64]:
    """The 4 bits of each number in two's complement, one after the other: Q x 4 x words."""
    return np.stack([_packed((whole >> bit & 1) > 0, words) for bit in range(4)], axis=1)


def _kernels() -> Any:
    try:
        from rag_ese.index import bit_kernels
    except ImportError as error:
        raise MissingExtraError("cpu", "searching bits") from error
    return bit_kernels
