"""Scores of single rows from an index's 8-bit codes: what a middle stage needs, at a quarter of the bytes and less.

A search reads all codes of an index; a re-ranking needs those of a shortlist, which FAISS's scalar quantizer offers
from C++ only. The codes are copied into memory: every shortlist touches other pages of them, and where memory is short
the system would let go of pages of a map in favour of vectors that are read once (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_ese.errors import MissingExtraError
from rag_ese.index.kinds import faiss_module
from rag_ese.types import Float32s, Int64s


class Codes:
    """The codes of a FAISS IndexScalarQuantizer with 8 bits per dimension (N x d)."""

    def __init__(self, index: Any) -> None:
        faiss = faiss_module()
        low, spread = faiss.vector_to_array(index.sq.trained).reshape(2, index.d)
        self._low, self._step = low + spread / np.float32(510), spread / np.float32(255)
        flat = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.d)
        self._codes: npt.NDArray[np.uint8] = np.array(flat).reshape(index.ntotal, index.d)

    def scores(self, rows: Sequence[Int64s], queries: Float32s) -> list[Float32s]:
        """For each of `queries` (Q x d) its inner products with what the codes of its `rows` stand for.

        Equal codes score the same.
        """
        lengths = list(map(len, rows))
        owners = np.repeat(np.arange(len(rows)), lengths)
        scores = np.empty(len(owners), np.float32)
        if len(owners):
            kernels = _kernels()
            with kernels.threads(scores.size * queries.shape[1] // kernels.PER_THREAD):
                flat, bases = np.concatenate(rows), np.einsum("qd,d->q", queries, self._low)
                kernels.score(self._codes, flat, owners, queries * self._step, bases, scores)
        return np.split(scores, np.cumsum(lengths)[:-1])


def _kernels() -> Any:
    try:
        from rag_ese.index import code_kernels
    except ImportError as error:
        raise MissingExtraError("cpu", "re-ranking by codes") from error
    return code_kernels
