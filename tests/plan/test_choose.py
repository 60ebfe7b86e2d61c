"""The choice: on one half, judged on the other, and refused in one sentence where nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError, DataError
from rag_ese.plan.choose import Outcome, plan_for
from rag_ese.plan.config import PlanConfig
from rag_ese.plan.questions import HeldOut, read_questions
from rag_ese.retriever import FunnelSearcher
from rag_ese.types import Size

Planner = Callable[..., Outcome]


def held_out(count: int = 120) -> HeldOut:
    texts = [f"question {n}" for n in range(count)]
    return HeldOut(texts[: count // 2], texts[count // 2 :], "held-out.jsonl", "xxh3:1")


@pytest.fixture
def served(store_of: Callable[..., Any]) -> tuple[Any, Any]:
    """Three sizes whose rankings are nearly alike; the encoder draws the queries."""
    draw = np.random.default_rng(3)
    width = np.geomspace(1, 0.05, 24)
    full = (draw.normal(size=(150, 24)) * width).astype(np.float32)
    store, encoder = store_of({6: full}, "L6-d6,L6-d16,L6-d24")
    raw = encoder.raw
    encoder.raw = lambda texts, layer: raw(texts, layer) * width.astype(np.float32)
    return store, encoder


@pytest.fixture
def planner(served: tuple[Any, Any]) -> Planner:
    def plan(questions: HeldOut | None = None, said: list[str] | None = None, **asked: Any) -> Outcome:
        options = {"index": "i", "questions": "q", "k": 5, "recall": 0.8, "p99_ms": 1e6, "resamples": 300, **asked}
        config = PlanConfig.model_validate(options)
        return plan_for(config, *served, questions or held_out(), (said if said is not None else []).append)

    return plan


def test_the_fastest_that_fits_is_chosen_and_judged_on_the_other_half(
    planner: Planner, served: tuple[Any, Any]
) -> None:
    store, encoder = served
    outcome = planner(ram="12kB")  # 150 x 16 x 4 bytes of the middle size and a header, not the full one
    plan, chosen = outcome.plan, outcome.chosen
    asked = plan.asked
    fitting = [
        row
        for row in outcome.rows
        if row.recall.low >= asked.recall and row.latency.p99_ms <= asked.p99_ms and row.bytes.index <= 12_000
    ]
    assert chosen in fitting and chosen.latency.p99_ms == min(row.latency.p99_ms for row in fitting)
    assert len(outcome.rows) < outcome.candidates
    assert plan.bytes.index == store.index_bytes(chosen.funnel.stages[0].size) <= 12_000
    assert plan.recall_when_chosen == chosen.recall and plan.recall.queries == 60 == chosen.recall.queries
    searcher = plan.searcher(store, encoder)
    assert isinstance(searcher, FunnelSearcher) and searcher.keep == 5 == plan.k
    vectors = store.vectors(6).rows(slice(None), 24)
    shares = []
    for text in held_out().judging:
        scores = vectors @ encoder.begin([text]).at(Size(6, 24))[0]
        best = {*np.argsort(-scores)[:5].tolist()}
        shares.append(len(best & {*searcher.search([text])[0].rows.tolist()}) / 5)
    assert plan.recall.mean == pytest.approx(np.mean(shares)) and plan.recall.low <= np.mean(shares) <= plan.recall.high


def test_the_same_seed_measures_the_same_recall(planner: Planner) -> None:
    first, second = planner(recall=0.7), planner(recall=0.7)
    recalls = [{str(row.funnel): row.recall for row in each.rows} for each in (first, second)]
    both = recalls[0].keys() & recalls[1].keys()
    assert both and all(recalls[0][name] == recalls[1][name] for name in both)


def test_the_full_search_is_not_estimated(planner: Planner) -> None:
    outcome = planner(recall=1.0)
    assert outcome.plan.recall.low == outcome.plan.recall.mean == 1.0
    assert outcome.plan.reference == "L6-d24"


@pytest.mark.parametrize(
    "asked",
    [{"p99_ms": 1e-6}, {"ram": "100B"}, {"recall": 1.0, "ram": "12kB", "shortlist": 50}],
    ids=["time", "memory", "recall"],
)
def test_nothing_fits(planner: Planner, asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        planner(**asked)
    said = str(refused.value)
    assert said.startswith("none of ") and said.count("\n") == 0
    assert all(part in said for part in ("the nearest, L6-", "reaches ", " on 60 questions", " ms and ", " MB; ask"))


def test_a_promise_below_what_was_asked_is_said(planner: Planner) -> None:
    """The judging half is drawn where the small sizes fail: the plan stands, and says so."""
    texts = held_out().choosing
    said: list[str] = []
    outcome = planner(HeldOut(texts, ["a", "b", "c"], "q", "made"), said, recall=0.85, ram="12kB")
    assert outcome.plan.recall.queries == 3 and outcome.plan.recall.low < 0.85
    assert any("the lower end of the recall is" in note for note in said)
    assert outcome.plan.notes == tuple(said)


def test_questions_of_the_index_itself(planner: Planner) -> None:
    said: list[str] = []
    planner(HeldOut(held_out().choosing, held_out().judging, "q.json", "1"), said, recall=0.5)  # "1": the made data's
    assert any("the index was built from q.json" in note for note in said)


def test_vectors_that_are_not_numbers(planner: Planner, served: tuple[Any, Any]) -> None:
    served[1].raw = lambda texts, layer: np.full((len(texts), 24), np.nan, np.float32)
    with pytest.raises(DataError, match="60 of 60 query vectors at L6-d24 are not finite"):
        planner()


def test_the_halves_have_no_question_in_common(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("".join(f'"text {n % 50}"\n{{"question": "object {n}"}}\n' for n in range(60)))
    read = read_questions(path, seed=3)
    assert len(read) == 110 and len(read.choosing) == 55 and not {*read.choosing} & {*read.judging}
    again, other, fewer = (read_questions(path, limit, seed) for limit, seed in ((None, 3), (None, 4), (30, 3)))
    assert again == read and other != read and len(fewer) == 30
    assert {*fewer.choosing, *fewer.judging} < {*read.choosing, *read.judging}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds 0 questions"),
        ('"one"\n' * 40, "1 different questions of .* are too few .* give 20 or more"),
        ('"one"\n{"text": "two"}\n', "line 2: the field 'question' is missing"),
        ('"one"\n" "\n', "line 2: the question is empty"),
        ('"one"\n{', "line 2, column 2: malformed JSON"),
        ('"one"\nNaN\n', "line 2: the field 'question' is of type float"),
    ],
)
def test_questions_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_questions(path)
