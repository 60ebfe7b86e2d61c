"""What the survey reads off one ranking per size is what the searchers find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rag_ese.plan.candidates import Candidate, Survey, certain, severity, shortlists, triples_worth_trying
from rag_ese.plan.timing import Given, encode
from rag_ese.retriever import Funnel, FunnelSearcher, Stage
from rag_ese.retriever.recall import recalls
from rag_ese.types import Size

SIZES = "L2-d8,L4-d12,L6-d12,L6-d24"
TEXTS = [f"question {n}" for n in range(9)]


@pytest.fixture(params=["flat", "sq8", "flat; L6-d12=sq8"])
def served(store_of: Callable[..., Any], request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A pool whose depths resemble each other, so that funnels find something.

    No row twice: which of two equal rows comes in at the last place of a FAISS search is FAISS's choice.
    """
    draw = np.random.default_rng(3)
    full = draw.normal(size=(90, 24)).astype(np.float32)
    near = {
        layer: full + noise * draw.normal(size=full.shape).astype(np.float32) for layer, noise in ((2, 1), (4, 0.5))
    }
    near = {layer: vectors.astype(np.float32) for layer, vectors in near.items()}
    return store_of({**near, 6: full}, SIZES, kind=request.param)  # type: ignore[no-any-return]


def test_a_survey_knows_what_every_funnel_finds(served: tuple[Any, Any]) -> None:
    store, encoder = served
    vectors = encode(encoder, TEXTS, store.sizes)
    survey = Survey(store, vectors, 4, shortlists(4, 60, len(store)))
    assert survey.exact.tolist() == [
        np.argsort(-(store.vectors(6).rows(slice(None), 24) @ query), kind="stable")[:4].tolist()
        for query in vectors[Size(6, 24)]
    ]
    found = list(survey.singles_and_pairs(store.sizes))
    for first, middle in ((Size(2, 8), Size(4, 12)), (Size(2, 8), Size(6, 12)), (Size(4, 12), Size(6, 12))):
        found += survey.triples(first, middle)
    assert {len(each.chain) for each in found} == {1, 2, 3} and len({each.funnel for each in found}) == len(found)
    assert len({each.recall for each in found}) > 10
    for each in found:
        searcher = FunnelSearcher(store, encoder, each.funnel)
        rows = [searcher.follow(Given(vectors, query))[0].rows for query in range(len(TEXTS))]
        assert each.recalls == pytest.approx(recalls(rows, survey.exact)), str(each.funnel)


def test_the_exact_search_is_certain(served: tuple[Any, Any]) -> None:
    store, _ = served
    for funnel, sure in (
        ("L6-d24:5", store.manifest.plan.kind != "sq8"),
        ("L2-d8:90 > L6-d24:5", True),
        ("L2-d8:89 > L6-d24:5", False),
        ("L2-d8:90 > L4-d12:50 > L6-d24:5", False),
        ("L6-d12:5", False),
    ):
        assert certain(store, Funnel.parse(funnel, 6, 24)) == sure, funnel


def test_the_grid() -> None:
    assert shortlists(10, 200, 25_000) == [10, 15, 20, 30, 50, 70, 100, 150, 200]
    assert shortlists(7, 1000, 30) == [7, 10, 14, 21, 30]
    assert shortlists(30, 10, 30) == [30]


def candidate(text: str, losses: list[float]) -> Candidate:
    return Candidate(Funnel.parse(text, 6, 24), 1 - np.array(losses))


def test_severity_is_that_of_the_nearest_cut_with_enough_losses() -> None:
    many = candidate("L2-d8:4 > L6-d24:4", [0.5] * 30 + [0.0] * 10)
    some = candidate("L2-d8:8 > L6-d24:4", [0.25] * 12 + [0.0] * 28)
    few = candidate("L2-d8:20 > L6-d24:4", [0.75] * 2 + [0.0] * 38)
    other = candidate("L4-d12:9 > L6-d24:4", [0.1] * 12 + [0.0] * 28)
    assert severity(few.chain, [many, some, few, other]) == pytest.approx(0.25)
    assert severity(few.chain, [many, few, other]) == pytest.approx(0.5)
    assert severity(few.chain, [few, other]) == 1.0
    assert severity((Size(4, 12),), [many, other]) == pytest.approx(0.1)


def test_three_stages_grow_and_let_enough_through() -> None:
    sizes = [Size(2, 8), Size(2, 12), Size(4, 8), Size(6, 24)]
    pairs = [
        Candidate(Funnel((Stage(size, 9), Stage(Size(6, 24), 4))), np.full(3, recall))
        for size, recall in zip(sizes[:3], (0.9, 0.5, 1.0), strict=True)
    ]
    assert triples_worth_trying(sizes, pairs, 0.9) == [(Size(2, 8), Size(2, 12)), (Size(2, 8), Size(4, 8))]
