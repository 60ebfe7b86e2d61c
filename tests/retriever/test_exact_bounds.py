"""Every bound holds on its own, against scores in exact arithmetic's place (float64) and as float32 gives them."""

from __future__ import annotations

import numpy as np
import pytest

from rag_ese.retriever.exact_bounds import bounds_of, gamma
from rag_ese.retriever.exact_layout import ArrayRows, Layout, build_layout
from rag_ese.retriever.searchers import products
from rag_ese.types import Float32s

DRAW = np.random.default_rng(3)
SPECTRUM = (np.arange(60) + 1.0) ** -0.8
DATA = {
    "decaying": DRAW.normal(size=(500, 60)) * SPECTRUM + 0.1,
    "flat": DRAW.normal(size=(500, 60)),
    "heavy-tailed": DRAW.standard_t(1.5, size=(500, 60)),
    "scales": DRAW.normal(size=(500, 60)) * DRAW.lognormal(0, 3, size=(500, 1)),
    "few values": DRAW.integers(-1, 2, size=(500, 60)),
}


def sketch_codes(layout: Layout) -> np.ndarray:
    """The 4-bit codes, rows x coordinates, taken apart again."""
    low, high = layout.sketch & 15, layout.sketch >> 4
    pairs = np.stack([low, high], axis=2).reshape(len(layout.sketch), -1, 64)
    return pairs.transpose(0, 2, 1).reshape(-1, pairs.shape[1])[: layout.count, : layout.cuts[0]]


def segments(layout: Layout) -> list[np.ndarray]:
    spans = zip((0, *layout.cuts[:-1]), layout.cuts, strict=True)
    return [layout.codes[layout.count * a : layout.count * b].reshape(-1, b - a) for a, b in spans]


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("name", DATA)
def test_no_bound_is_on_the_wrong_side(name: str, rotate: bool) -> None:
    vectors: Float32s = DATA[name].astype(np.float32)
    layout = build_layout(ArrayRows(vectors), (15, 40), rotate)
    codes = segments(layout)
    # The vectors themselves, opposed to them, and what makes Cauchy-Schwarz tight: the errors of the codes.
    coded = np.hstack(codes) * np.repeat(layout.steps, np.diff((0, *layout.cuts)))
    errors = (vectors - layout.mean - coded @ layout.rotation.T)[:20].astype(np.float32)
    for query in (*vectors[:20], *-vectors[:5], *errors, *DRAW.normal(size=(20, 60)).astype(np.float32)):
        b = bounds_of(layout, query)
        exact = vectors.astype(np.float64) @ query.astype(np.float64)
        given = products(vectors, query).astype(np.float64)
        highest, lowest = np.maximum(exact, given), np.minimum(exact, given)
        total = np.full(len(vectors), b.base)
        for number, part in enumerate(codes):
            first = layout.cuts[number] - part.shape[1]
            total = total + part @ b.weights[first : layout.cuts[number]].astype(np.float64)
            tail = layout.tails[number] * b.tail_norms[number] if number < 2 else 0
            slack = b.norm * layout.code_error + tail + b.epsilon
            assert (total + slack >= highest).all() and (total - slack <= lowest).all()
        tail = b.tail_norms[0] * layout.tails[0]
        sketched = sketch_codes(layout).astype(np.int64) @ b.sketch_weights.ravel()[:15].astype(np.int64)
        upper = b.sketch_scale * sketched + b.sketch_base + b.head_norm * layout.sketch_error + tail
        assert (upper >= highest).all()
        whole = codes[0].astype(np.int64) @ b.first_weights.astype(np.int64)
        assert (b.first_scale * whole + b.first_base + b.norm * layout.code_error + tail >= highest).all()
        assert np.abs(b.sketch_weights).max() <= 127 and np.abs(b.first_weights.astype(int)).max() <= 127


def test_the_rotation_keeps_scores_and_orders_energy() -> None:
    vectors = DATA["decaying"].astype(np.float32)
    layout = build_layout(ArrayRows(vectors), (15, 40), True)
    assert np.abs(layout.rotation @ layout.rotation.T - np.eye(60)).max() < 1e-13
    energy = ((vectors - layout.mean) @ layout.rotation).var(axis=0)
    assert energy[:15].mean() > energy[15:40].mean() > energy[40:].mean()
    assert energy[:15].sum() > 0.8 * energy.sum()


def test_gamma_covers_a_bad_sum() -> None:
    """A float32 sum whose additions are all rounded the same way stays inside gamma."""
    terms = np.concatenate([[1.0], np.full(4000, 0.9 * 2.0**-24)]).astype(np.float32)
    total = np.float32(0)
    for term in terms:
        total += term
    assert 0 < float(terms.astype(np.float64).sum() - total) <= gamma(4001) * float(terms.astype(np.float64).sum())
