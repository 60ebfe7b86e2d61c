"""The certificate of exact search: per query, the numbers that turn sums over codes into bounds on the score.

Let x be a stored vector, q a query, z = x - mean, y = R'z and p = R'q for the rotation R. Then

    q.x = q.mean + p.y

and where c stands for y in its first coordinates only, with an error e = ||y_head - c|| and a tail t = ||y_tail||,

    |q.x - (q.mean + p_head.c)| <= ||p_head|| e + ||p_tail|| t                                   (Cauchy-Schwarz).

What is compared is not q.x but the float32 sum that `products` gives, so the bound also covers that sum's rounding, and
the rounding of the sums over codes. Notation of Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: a
sum of n products in any order, fused or not, is off by at most gamma(n) * sum |terms|, gamma(n) = n u / (1 - n u).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_ese.retriever.exact_layout import Float64s, Layout
from rag_ese.types import Float32s

_U32 = 2.0**-24
_FLOAT64 = 1e-9
"""Relative; all rounding in float64 (products with the rotation, its departure from orthogonality) is far below."""


def gamma(terms: int) -> float:
    """The relative error of a float32 sum of `terms` products."""
    return terms * _U32 / (1 - terms * _U32)


@dataclass(frozen=True)
class QueryBounds:
    """One query, ready to be compared with codes. An upper bound of row r, from the codes of segments 0 to s, is

        base + sum(weights * codes) + norm * code_error[r] + tail_norms[s] * tails[s, r] + epsilon

    and a lower bound has all but the first two with a minus. From the sketch, whose 4-bit codes are 0 to 15, it is

        sketch_scale * sum(sketch_weights * nibbles) + sketch_base + head_norm * sketch_error[r]
            + tail_norms[0] * tails[0, r]

    and from the first segment's codes as whole numbers

        first_scale * sum(first_weights * codes) + first_base + norm * code_error[r] + tail_norms[0] * tails[0, r].
    """

    base: float
    epsilon: float
    norm: float
    head_norm: float
    tail_norms: Float32s  # S: ||p from cuts[s] on||; 0 for the last
    weights: Float32s  # d
    sketch_weights: npt.NDArray[np.int16]  # pairs x 2, at most 127 in size
    sketch_scale: float
    sketch_base: float
    first_weights: npt.NDArray[np.int8]  # cuts[0]
    first_scale: float
    first_base: float


def bounds_of(layout: Layout, query: Float32s, rotated: Float64s | None = None) -> QueryBounds:
    """The bounds of one query (d, float32, finite); `rotated` is its product with the rotation, where that is known."""
    q = query.astype(np.float64)
    base = float(q @ layout.mean)
    # einsum stays on one thread: for one query, waking others costs more than the product.
    p = np.einsum("i,ij->j", q, layout.rotation) if rotated is None else rotated
    length, cut = float(np.linalg.norm(q)), layout.cuts[0]
    norm, head_norm = float(np.linalg.norm(p)), float(np.linalg.norm(p[:cut]))
    tails = np.array([np.linalg.norm(p[end:]) for end in layout.cuts])
    sketch_weights, sketch_scale, sketch_miss = _whole(p[:cut] * layout.sketch_step)
    first_weights, first_scale, first_miss = _whole(p[:cut] * layout.steps[0])
    offset = 7.5 * sketch_scale * float(sketch_weights.sum())
    dim = layout.cuts[-1]
    largest = abs(base) + abs(offset) + 15 * sketch_scale * float(np.abs(sketch_weights).sum())
    largest += norm * (layout.code_norm + layout.sketch_norm + 3 * (layout.longest + _length(layout.mean)))
    epsilon = (
        gamma(dim + 2) * length * layout.longest  # the float32 sum that is the score
        + gamma(dim + 8) * norm * layout.code_norm  # the weights' rounding, and the float32 sum over codes
        + 16 * _U32 * largest  # putting the parts of a bound together in float32, each part rounded once or twice
        + _FLOAT64 * length * (layout.longest + _length(layout.mean))
        + 1e-30  # numbers too small for full precision
    )
    up = 1 + 4 * _U32  # a factor that is rounded to float32 and then multiplies must not become smaller
    pairs = np.zeros(-(-cut // 2) * 2, np.int16)
    pairs[:cut] = sketch_weights
    # A whole-number weight misses its target by `miss`; in units of the codes, what they stand for is at most so long.
    sketch_miss *= layout.sketch_norm / layout.sketch_step
    first_miss *= layout.code_norm / float(layout.steps[0])
    return QueryBounds(
        base=base,
        epsilon=epsilon,
        norm=norm * up,
        head_norm=head_norm * up,
        tail_norms=(tails * up).astype(np.float32),
        weights=(p * np.repeat(layout.steps, np.diff((0, *layout.cuts)))).astype(np.float32),
        sketch_weights=pairs.reshape(-1, 2),
        sketch_scale=sketch_scale,
        sketch_base=base - offset + sketch_miss + epsilon,
        first_weights=first_weights.astype(np.int8),
        first_scale=first_scale,
        first_base=base + first_miss + epsilon,
    )


def _length(vector: Float64s) -> float:
    return float(np.linalg.norm(vector))


def _whole(weights: Float64s) -> tuple[Float64s, float, float]:
    """Whole numbers up to 127, the float32 scale that makes them `weights`, and the length of what that misses."""
    largest = float(np.abs(weights).max())
    scale = float(np.float32(largest / 127)) or 1.0
    whole = np.clip(np.rint(weights / scale), -127, 127)
    return whole, scale, _length(weights - whole * scale) * (1 + 1e-9)
