"""Searches over vectors on a device find what numpy finds; on a GPU the same tests run there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rag_ese.errors import ConfigError, SizeError
from rag_ese.index import LivingIndex, Store, View, build
from rag_ese.retriever import Funnel, FunnelSearcher, HybridSearcher
from rag_ese.retriever.on_device import DeviceScores, OnDevice
from rag_ese.types import Float32s, Passage, Size

SMALL, FULL = Size(2, 8), Size(6, 24)
QUERIES = [f"question {number}" for number in range(7)]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def device(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def store(tmp_path: Path, encoder: Any, plan: Callable[..., Any]) -> Store:
    passages = [Passage(f"p{n}", (f"text {n}",)) for n in range(300)]
    return build(tmp_path / "store", plan(f"{SMALL},{FULL}", kind="sq8"), lambda: passages, encoder)


def by_hand(store: Any, size: Size, queries: Float32s, k: int) -> tuple[np.ndarray, np.ndarray]:
    vectors = store.vectors(size.layers).rows(slice(None), size.dim).astype(np.float64)
    scores = queries @ vectors.T
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), order


@pytest.mark.parametrize("size", [SMALL, FULL, Size(6, 9)])
@pytest.mark.parametrize("at_once", [1, 100, 1 << 27])
def test_first_stages_are_exact(
    store: Store, encoder: Any, device: str, size: Size, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ese.retriever.on_device._SCORES", at_once)
    monkeypatch.setattr("rag_ese.retriever.on_device._CHUNK", 70)
    queries = encoder.begin(QUERIES).at(size)
    index = OnDevice(store, device)
    for k in (1, 20, 300):
        scores, rows = index.search(size, queries, k)
        want, order = by_hand(store, size, queries, k)
        np.testing.assert_allclose(scores, want, rtol=1e-4, atol=1e-5)
        assert rows.tolist() == order.tolist()
    assert index.search(size, queries, 1000)[1].shape == (7, 300)


@pytest.mark.parametrize("at_once", [30, 1 << 25])
def test_rows_score_as_their_vectors(
    store: Store, encoder: Any, device: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ese.retriever.on_device._GATHERED", at_once)
    index, draw = OnDevice(store, device), np.random.default_rng(0)
    shortlists = [draw.integers(0, 300, size) for size in (0, 5, 40, 1, 0, 17, 3)]
    for size in (SMALL, FULL):
        queries = encoder.begin(QUERIES).at(size)
        scores = index.row_scores(size, exact=True)
        assert isinstance(scores, DeviceScores)
        wanted = store.row_scores(size, exact=True).scores(shortlists, queries)
        for ours, theirs in zip(scores.scores(shortlists, queries), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        (same,) = scores.scores([np.array([9, 9, 4, 9])], queries[:1])
        assert same[0] == same[1] == same[3]


def test_funnels_hybrids_and_filters(store: Store, encoder: Any, device: str) -> None:
    index = OnDevice(store, device)
    vectors = store.vectors(6).rows(slice(None), 24)
    full = encoder.begin(QUERIES).at(FULL)
    funnel = Funnel.parse("L2-d8:300 > L6-d24:9", 6, 24)
    for at, ranking in enumerate(FunnelSearcher(index, encoder, funnel).search(QUERIES)):
        assert ranking.rows.tolist() == np.argsort(-(vectors @ full[at]))[:9].tolist()
    even = np.arange(300) % 2 == 0
    for ranking in FunnelSearcher(View(index, even), encoder, funnel).search(QUERIES):
        assert len(ranking) == 9 and (ranking.rows % 2 == 0).all()
    assert OnDevice(View(store, even), device).search(FULL, full, 200)[1].shape == (7, 150)
    assert index.search(FULL, full, 5, ~even & (np.arange(300) < 6))[1].shape == (7, 3)
    assert index.search(FULL, full, 5, np.zeros(300, np.bool_))[1].shape == (7, 0)
    assert len(HybridSearcher(index, encoder, funnel, 5).search(QUERIES)[0]) == 5


def test_what_was_deleted_is_not_found(
    tmp_path: Path, store: Store, encoder: Any, passages: Callable[[int], list[Passage]], device: str
) -> None:
    living = LivingIndex.create(tmp_path / "living", store)
    living = living.add(passages(4), encoder).delete([store.passages.id(0), store.passages.id(7)])
    index = OnDevice(living, device)
    rows = index.search(FULL, encoder.begin(QUERIES).at(FULL), 1000)[1]
    assert len(index) == len(living)
    assert [sorted(row) for row in rows.tolist()] == [np.flatnonzero(living.live).tolist()] * len(QUERIES)


def test_wrong_devices_and_sizes(store: Store, encoder: Any) -> None:
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        OnDevice(store, "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="the device cuda is not available on this machine"):
            OnDevice(store, "cuda")
    with pytest.raises(SizeError, match="holds no vectors of layer 3"):
        FunnelSearcher(OnDevice(store, "cpu"), encoder, Funnel.single(Size(3, 8), 5))
