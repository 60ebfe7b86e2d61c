"""Rotated vectors: the full width is untouched, a prefix is what numpy says, and unknown controls are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError
from rag_ese.eval.controls import pca_rotation
from rag_ese.eval.rotated import rotated
from rag_ese.index import Store, build
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.types import Passage, Size

QUERIES = ["a small river", "who wrote the novel", "north bridge"]


@pytest.fixture
def store(tmp_path: Path, encoder: Any, passages: Callable[[int], list[Passage]], plan: Callable[..., Any]) -> Store:
    return build(tmp_path / "built", plan(), lambda: passages(40), encoder)


def test_the_full_width_is_searched_as_before(store: Store, encoder: Any) -> None:
    full = Size(store.depth, store.width)
    plain = FunnelSearcher(store, encoder, Funnel.single(full, 10)).search(QUERIES)
    for system in rotated(store, encoder, [full], ["pca", "random"], 10, 0):
        for one, other in zip(plain, system.searcher.search(QUERIES), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_a_prefix_is_cut_after_the_rotation(store: Store, encoder: Any) -> None:
    size = Size(store.depth, 4)
    [system] = rotated(store, encoder, [size], ["pca"], 5, 0)
    vectors = store.vectors(store.depth).rows(slice(None), store.width)
    axes = pca_rotation(vectors)[:, :4]
    queries = encoder.begin(QUERIES).at(Size(store.depth, store.width))
    left, right = queries @ axes, vectors @ axes
    scores = (left / np.linalg.norm(left, axis=1, keepdims=True)) @ (
        right / np.linalg.norm(right, axis=1, keepdims=True)
    ).T
    for row, ranking in zip(scores, system.searcher.search(QUERIES), strict=True):
        np.testing.assert_allclose(ranking.scores, np.sort(row)[::-1][:5], atol=1e-5)
    assert (system.name, system.kind, system.index_bytes) == (f"PCA {size}", "control", 40 * 4 * 4)


def test_only_the_deepest_layer_is_rotated(store: Store, encoder: Any) -> None:
    sizes = [*store.sizes]
    names = [system.name for system in rotated(store, encoder, sizes, ["random"], 5, 0)]
    deepest = max(size.layers for size in sizes)
    assert names == [f"random {size}" for size in sizes if size.layers == deepest]


def test_none_and_unknown(store: Store, encoder: Any) -> None:
    assert list(rotated(store, encoder, store.sizes, [], 5, 0)) == []
    with pytest.raises(ConfigError, match="there is no control 'pcb'"):
        list(rotated(store, encoder, store.sizes, ["pcb"], 5, 0))
