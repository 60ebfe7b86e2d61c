"""Rows scored by their 8-bit codes, sizes of different kinds in one store, and funnels over both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from rag_ese.errors import ConfigError
from rag_ese.index import Store, build
from rag_ese.index.codes import Codes
from rag_ese.index.kinds import has_codes, kind_for
from rag_ese.index.row_scores import VectorScores
from rag_ese.index.view import View
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.retriever.search_plan import fingerprint, index_bytes
from rag_ese.types import Passage, Size

SMALL, MIDDLE, FULL = Size(6, 8), Size(6, 16), Size(6, 24)
KINDS = "pq4; L6-d16=sq8; L6-d24=flat"


def made(count: int, dim: int) -> tuple[Any, np.ndarray]:
    vectors = np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)
    vectors[count // 2] = vectors[0]
    index = faiss.index_factory(dim, "SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index, vectors


@pytest.mark.parametrize("dim", [1, 7, 64])
def test_codes_score_as_faiss_decodes_them(dim: int) -> None:
    index, vectors = made(200, dim)
    query = np.random.default_rng(2).normal(size=dim).astype(np.float32)
    decoded = index.sa_decode(index.sa_encode(vectors)).astype(np.float64)
    rows = np.array([7, 0, 199, 7, 100])
    codes = Codes(index)
    (scores,) = codes.scores([rows], query[None])
    np.testing.assert_allclose(scores, decoded[rows] @ query, rtol=1e-5, atol=1e-5)
    assert scores[0] == scores[3] and scores[1] == scores[4]
    every, found = index.search(query[None], 200)
    np.testing.assert_allclose(codes.scores([found[0]], query[None])[0], every[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads_at", [1, 1 << 30])
def test_codes_of_many_shortlists(threads_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_ese.index.code_kernels.PER_THREAD", threads_at)
    index, vectors = made(200, 65)
    draw = np.random.default_rng(3)
    shortlists = [draw.integers(0, 200, size) for size in (0, 300, 1, 255, 256, 0)]
    queries = draw.normal(size=(len(shortlists), 65)).astype(np.float32)
    decoded = index.sa_decode(index.sa_encode(vectors)).astype(np.float64)
    codes = Codes(index)
    scores = codes.scores(shortlists, queries)
    assert list(map(len, scores)) == list(map(len, shortlists))
    for rows, query, some in zip(shortlists, queries, scores, strict=True):
        np.testing.assert_allclose(some, decoded[rows] @ query, rtol=1e-5, atol=1e-4)
        assert codes.scores([rows[:1]], query[None])[0].tobytes() == some[:1].tobytes()
    assert [each.shape for each in codes.scores(shortlists[:1], queries[:1])] == [(0,)]


@pytest.mark.parametrize("factory", ["Flat", "SQfp16", "SQ4", "IVF4,SQ8", "PCA4,SQ8", "PQ4x4fs"])
def test_other_indexes_have_none(factory: str) -> None:
    assert not has_codes(factory, SMALL) and has_codes(f"{factory}; {SMALL}=SQ8", SMALL)


@pytest.fixture
def store(tmp_path: Path, encoder: Any, plan: Callable[..., Any]) -> Store:
    passages = [Passage(f"p{n}", (f"text {n // 2}",)) for n in range(300)]
    made_plan = plan("L6-d8,L6-d16,L6-d24", kind=KINDS)
    return build(tmp_path / "store", made_plan, lambda: passages, encoder)


def test_every_size_has_its_kind(store: Store) -> None:
    kinds = [type(store.index(size)) for size in (SMALL, MIDDLE, FULL)]
    assert kinds == [faiss.IndexPQFastScan, faiss.IndexScalarQuantizer, faiss.IndexFlatIP]
    assert store.codes(SMALL) is None and store.codes(FULL) is None and store.codes(Size(6, 9)) is None
    opened = Store(store.folder)
    assert opened.codes(SMALL) is None and not opened._indexes  # not read to find out
    assert isinstance(store.codes(MIDDLE), Codes)
    for index in (store, View(store, lambda row: True)):
        assert isinstance(index.row_scores(MIDDLE, exact=False), Codes)
        assert isinstance(index.row_scores(MIDDLE, exact=True), VectorScores)
        assert isinstance(index.row_scores(SMALL, exact=False), VectorScores)
    assert [kind_for(KINDS, size) for size in (SMALL, MIDDLE, FULL)] == ["pq4", "sq8", "flat"]


def test_a_middle_stage_is_scored_by_codes_and_the_last_by_vectors(store: Store, encoder: Any) -> None:
    queries = [f"question {n}" for n in range(5)]
    searcher = FunnelSearcher(store, encoder, Funnel.parse("L6-d8:300 > L6-d16:40 > L6-d24:7", 6, 24))
    encoding = encoder.begin(queries)
    middle, full = encoding.at(MIDDLE), encoding.at(FULL)
    vectors = store.vectors(6).rows(slice(None), 24)
    index = store.index(MIDDLE)
    prefixes = store.vectors(6).rows(slice(None), 16)
    decoded = index.sa_decode(index.sa_encode(prefixes)).astype(np.float64)
    for at, ranking in enumerate(searcher.search(queries)):
        # Texts come in pairs with the same vector, so an even number is kept whole.
        kept = np.lexsort((np.arange(300), -np.round(decoded @ middle[at], 5)))[:40]
        scores = vectors[kept].astype(np.float64) @ full[at]
        assert ranking.rows.tolist() == kept[np.lexsort((kept, -np.round(scores, 6)))][:7].tolist()
        np.testing.assert_allclose(ranking.scores, np.sort(scores)[::-1][:7], rtol=1e-5)
    last = FunnelSearcher(store, encoder, Funnel.parse("L6-d8:300 > L6-d16:7", 6, 24))
    for at, ranking in enumerate(last.search(queries)):
        np.testing.assert_allclose(ranking.scores, np.sort(prefixes @ middle[at])[::-1][:7], rtol=1e-5)


def test_what_a_funnel_reads_counts_the_codes_of_its_middle(store: Store) -> None:
    whole = Funnel.parse("L6-d8:50 > L6-d16:20 > L6-d24:5", 6, 24)
    assert index_bytes(store, whole) == store.index_bytes(SMALL) + store.index_bytes(MIDDLE)
    direct = Funnel.parse("L6-d8:50 > L6-d24:20 > L6-d24:5", 6, 24)
    assert index_bytes(store, direct) == store.index_bytes(SMALL)
    content = json.loads(store.manifest.model_dump_json())
    content["files"]["faiss/L6-d16.faiss"]["xxh3"] = "0" * 16
    changed = type(store.manifest).model_validate(content)
    assert fingerprint(changed, whole) != fingerprint(store.manifest, whole)
    assert fingerprint(changed, direct) == fingerprint(store.manifest, direct)


def test_kinds_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"cannot read 'L6-d16' in the kind 'pq4; L6-d16': write for example"):
        kind_for("pq4; L6-d16", SMALL)
