"""Scores of single rows from an index's 8-bit codes: what a middle stage needs, at a quarter of the bytes and less.

A search reads all codes of an index; a re-ranking needs those of a shortlist, which FAISS's scalar quantizer offers
from C++ only. The codes are read where FAISS has mapped them.
"""

from __future__ import annotations

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
        self._index = index  # owns the memory
        low, spread = faiss.vector_to_array(index.sq.trained).reshape(2, index.d)
        self._low, self._step = low + spread / np.float32(510), spread / np.float32(255)
        flat = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.d)
        self._codes: npt.NDArray[np.uint8] = flat.reshape(index.ntotal, index.d)

    def scores(self, rows: Int64s, query: Float32s) -> Float32s:
        """The inner products of `query` (d) with what the codes of `rows` stand for; equal codes score the same."""
        scores = np.empty(len(rows), np.float32)
        kernels, base = _kernels(), np.float32(query @ self._low)
        with kernels.threads(len(rows) * len(query) // kernels.PER_THREAD):
            kernels.score(self._codes, rows, query * self._step, base, scores)
        return scores


def _kernels() -> Any:
    try:
        from rag_ese.index import code_kernels
    except ImportError as error:
        raise MissingExtraError("cpu", "re-ranking by codes") from error
    return code_kernels
