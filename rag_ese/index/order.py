"""The order of results: by score, then by row."""

from __future__ import annotations

import numpy as np

from rag_ese.types import Float32s, Int64s

_ROWS = 2**32


def best_first(scores: Float32s, rows: Int64s, keep: int | None = None) -> Int64s:
    """The places (Q x k) of `scores` and `rows` (Q x k), highest score first, equal scores in order of row.

    As np.lexsort((rows, -scores)), six times faster: score and row make one whole number to sort by. Rows are -1 or
    more and below 2**32 - 1; no score is NaN. Of each line only the `keep` best, if that is given.
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # the sum turns -0 into 0
    rising = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    keys = -rising * _ROWS + rows
    if keep is None or keep >= keys.shape[-1]:
        return np.argsort(keys, axis=-1)
    best = np.argpartition(keys, keep, axis=-1)[..., :keep]
    return np.take_along_axis(best, np.argsort(np.take_along_axis(keys, best, -1), axis=-1), -1)
