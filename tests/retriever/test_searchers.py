"""What each searcher asks of the encoder, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bm25s
import numpy as np
import pytest

from rag_ese.errors import ConfigError, SizeError, StoreMismatchError
from rag_ese.index import Store, build
from rag_ese.pipeline import Pipeline
from rag_ese.retriever import BM25Searcher, Funnel, FunnelSearcher, HybridSearcher
from rag_ese.retriever.searchers import HYBRID_WEIGHT, rank_all
from rag_ese.types import Passage, Size

PASSAGES = [
    Passage("Lune", ("The Lune is a river.", " The river is long.")),
    Passage("Ada Bridge", ("Ada Bridge crosses the river Lune.",)),
    Passage("Museum", ("A museum of engines.",)),
    Passage("Painter", ("She painted the bridge and the valley.",)),
    Passage("Same", ("identical words",)),
    Passage("Same ", ("identical words",)),
]
QUERIES = ["Which river?", "Who painted a bridge?", "identical", "zzz", ""]


@pytest.fixture
def store(tmp_path: Any, encoder: Any, plan: Callable[..., Any]) -> Store:
    made = build(tmp_path / "store", plan("L2-d8,L4-d24,L6-d24"), lambda: PASSAGES, encoder)
    encoder.calls.clear()
    return made


def test_the_stages_share_one_encoding(store: Store, encoder: Any) -> None:
    searcher = FunnelSearcher(store, encoder, Funnel.parse("L2-d8:5 > L4-d12:4 > L6-d24:2", 6, 24))
    rankings = searcher.search(QUERIES)
    assert encoder.begun == [len(QUERIES)]
    assert encoder.asked == [Size(2, 8), Size(4, 12), Size(6, 24)]
    assert [len(ranking) for ranking in rankings] == [2] * len(QUERIES)
    assert (searcher.name, searcher.keep) == ("L2-d8:5 > L4-d12:4 > L6-d24:2", 2)
    assert FunnelSearcher(store, encoder, Funnel.single(Size(2, 8), 3)).name == "L2-d8"


def test_many_queries_are_encoded_in_pieces(store: Store, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = FunnelSearcher(store, encoder, Funnel.parse("L2-d8:5 > L6-d24:3", 6, 24))
    whole = searcher.search(QUERIES)
    monkeypatch.setattr("rag_ese.retriever.searchers._QUERIES", 2)
    encoder.begun.clear()
    pieces = searcher.search(QUERIES)
    assert encoder.begun == [2, 2, 1]
    assert [ranking.rows.tolist() for ranking in pieces] == [ranking.rows.tolist() for ranking in whole]
    assert searcher.search([]) == []


def test_a_hybrid_encodes_once(store: Store, encoder: Any) -> None:
    HybridSearcher(store, encoder, Funnel.single(Size(6, 24), 4), keep=3).search(QUERIES)
    assert encoder.begun == [len(QUERIES)] and {*encoder.asked} == {Size(6, 24)}


@pytest.mark.parametrize("weight", [0.0, 0.3, HYBRID_WEIGHT, 5.0])
@pytest.mark.parametrize("pool", [1, 200])
def test_hybrid_scores_written_out(store: Store, encoder: Any, weight: float, pool: int) -> None:
    dense = Funnel.parse("L2-d8:3 > L6-d24:2", 6, 24)
    rankings = HybridSearcher(store, encoder, dense, 4, weight, pool).search(QUERIES)
    vectors = store.vectors(6).rows(slice(None), 24)
    for query, ranking in zip(QUERIES, rankings, strict=True):
        lexical = store.bm25.scores(query)
        near = {*FunnelSearcher(store, encoder, dense).search([query])[0].rows.tolist()}
        worded = [row for row in sorted(range(6), key=lambda row: (-lexical[row], row)) if lexical[row] > 0][:pool]
        best = lexical.max() or 1.0
        score = {
            row: float(vectors[row] @ encoder.begin([query]).at(Size(6, 24))[0]) + weight * lexical[row] / best
            for row in near | {*worded}
        }
        expected = sorted(score, key=lambda row: (-score[row], row))[:4]
        assert ranking.rows.tolist() == expected
        assert ranking.scores == pytest.approx([score[row] for row in expected], abs=1e-6)


def test_bm25_is_that_of_bm25s(store: Store) -> None:
    texts = bm25s.tokenize([passage.full for passage in PASSAGES], stopwords="en", show_progress=False)
    own = bm25s.BM25()
    own.index(texts, show_progress=False)
    searcher = BM25Searcher(store, keep=6)
    for query, ranking in zip(QUERIES[:3], searcher.search(QUERIES[:3]), strict=True):
        words = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
        scores = own.get_scores([word for word in words if word in own.vocab_dict])
        assert np.allclose(store.bm25.scores(query), scores)
        assert ranking.rows.tolist() == [row for row in np.argsort(-scores, kind="stable").tolist() if scores[row] > 0]


def test_bm25_ranks(store: Store) -> None:
    found = [ranking.rows.tolist() for ranking in BM25Searcher(store, keep=6).search(QUERIES)]
    assert found[:2] == [[0, 1], [3, 1]]
    assert found[2] == [4, 5]  # equal scores in order of row
    assert found[3:] == [[], []]  # no known word, no word at all
    assert BM25Searcher(store, keep=1).search(["identical"])[0].rows.tolist() == [4]
    assert BM25Searcher(store, keep=100).search(["river"])[0].rows.tolist() == [0, 1]


def test_a_pool_of_stop_words(tmp_path: Any, encoder: Any, plan: Callable[..., Any]) -> None:
    rows = [Passage("the", ("and of it.",)), Passage("", ("",))]
    store = build(tmp_path / "stops", plan(), lambda: rows, encoder)
    assert len(BM25Searcher(store, 5).search(["the bridge"])[0]) == 0
    hybrid = HybridSearcher(store, encoder, Funnel.single(Size(6, 24), 2), 2).search(["the bridge"])[0]
    dense = FunnelSearcher(store, encoder, Funnel.single(Size(6, 24), 2)).search(["the bridge"])[0]
    assert hybrid.rows.tolist() == dense.rows.tolist() and hybrid.scores == pytest.approx(dense.scores)


@pytest.mark.parametrize("query", ["", "zzz", "river"])
def test_more_than_the_pool_holds(store: Store, encoder: Any, query: str) -> None:
    for funnel in ("L6-d24:100", "L2-d8:100 > L6-d24:50"):
        ranking = FunnelSearcher(store, encoder, Funnel.parse(funnel, 6, 24)).search([query])[0]
        assert sorted(ranking.rows.tolist()) == list(range(6))
    hybrid = HybridSearcher(store, encoder, Funnel.single(Size(6, 24), 100), 100).search([query])[0]
    assert sorted(hybrid.rows.tolist()) == list(range(6))


def test_what_a_store_cannot_serve(store: Store, encoder: Any) -> None:
    for funnel, error, message in (
        ("L3-d8:5", SizeError, "holds no index of size L3-d8"),
        ("L2-d8:5 > L3-d8:2", SizeError, "holds no vectors of layer 3"),
        ("L2-d8:5 > L6-d25:2", ConfigError, "the funnel stage L6-d25:2 is wider than the 24 dimensions"),
    ):
        with pytest.raises(error, match=message):
            FunnelSearcher(store, encoder, Funnel.parse(funnel, 6, 24))
    encoder.revision = "r2"
    with pytest.raises(StoreMismatchError):
        FunnelSearcher(store, encoder, Funnel.single(Size(2, 8), 1))


def test_the_pipeline_reads_the_best_passages(store: Store, encoder: Any) -> None:
    from rag_ese.generator import ExtractiveReader

    seen: list[tuple[str, tuple[Passage, ...]]] = []

    class Listening(ExtractiveReader):
        def stream(self, prompts):  # type: ignore[no-untyped-def]
            seen.extend((prompt.question, prompt.passages) for prompt in prompts)
            return super().stream(prompts)

    told: list[int] = []
    searcher = FunnelSearcher(store, encoder, Funnel.single(Size(6, 24), 5))
    answered = Pipeline(store, searcher, Listening(), top_k=2).answer(QUERIES[:2], told.append)
    assert told == [1, 2]
    for (_, ranking), (question, read), query in zip(answered, seen, QUERIES, strict=False):
        assert question == query and len(ranking) == 5
        assert read == tuple(PASSAGES[row] for row in ranking.rows[:2].tolist())


@pytest.mark.parametrize("lengths", [(5, 5, 5), (5, 3, 0), (5,), ()])
def test_ranking_together_is_ranking_one_by_one(lengths: tuple[int, ...]) -> None:
    draw = np.random.default_rng(0)
    rows = [draw.permutation(50)[:length] for length in lengths]
    scores = [draw.integers(0, 3, length).astype(np.float32) for length in lengths]  # many are equal
    found = rank_all(rows, scores, 4)
    for ranking, some, reached in zip(found, rows, scores, strict=True):
        order = np.lexsort((some, -reached))[:4]
        assert (ranking.rows.tolist(), ranking.scores.tolist()) == (some[order].tolist(), reached[order].tolist())
