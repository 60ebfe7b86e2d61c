"""Questions whose vectors are known. Without torch, so that a process in little memory can use it, too."""

from __future__ import annotations

import numpy as np

from rag_ese.types import Float32s, Size


class Given:
    """Queries whose vectors are known (Q x width): an encoding that only cuts them."""

    def __init__(self, queries: Float32s) -> None:
        self._queries = queries

    def at(self, size: Size) -> Float32s:
        cut = self._queries[:, : size.dim]
        return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)
