from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_ese.index.order import best_first
from rag_ese.types import Float32s

SCORES = st.sampled_from([-np.inf, -2.5, -1.0, -1e-42, -0.0, 0.0, 1e-42, 0.25, 1.0, 1.0000001, np.inf]) | st.floats(
    allow_nan=False, width=32
)


@given(arrays.arrays(np.float32, (2, 30), elements=SCORES), st.integers(0, 9), st.integers(0, 31))
def test_places_are_those_of_lexsort(scores: Float32s, seed: int, keep: int) -> None:
    rows = np.random.default_rng(seed).integers(-1, 40, scores.shape)
    rows[:, :3] = [2**32 - 2, 2**31, 2**31 - 1]
    order = best_first(scores, rows)
    expected = np.lexsort((rows, -scores), axis=1)
    for values in (scores, rows):
        assert np.array_equal(np.take_along_axis(values, order, 1), np.take_along_axis(values, expected, 1))
    assert np.array_equal(best_first(scores[0], rows[0]), order[0])
    kept = best_first(scores, rows, keep)
    for values in (scores, rows):
        assert np.array_equal(np.take_along_axis(values, kept, 1), np.take_along_axis(values, expected, 1)[:, :keep])
