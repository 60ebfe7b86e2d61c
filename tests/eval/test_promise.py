"""Whether a plan keeps its promise, said in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import StoreMismatchError
from rag_ese.eval.promise import check_promise
from rag_ese.retriever import Funnel, SearchPlan
from rag_ese.retriever.search_plan import fingerprint
from rag_ese.types import Size

FUNNEL = "L2-d8:12 > L6-d24:4"
TEXTS = [f"question {n}" for n in range(25)]


@pytest.fixture
def served(store_of: Callable[..., Any]) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    return store_of(  # type: ignore[no-any-return]
        {layer: draw.normal(size=(30, 24)).astype(np.float32) for layer in (2, 6)}, "L2-d8,L6-d24"
    )


def promising(store: Any, low: float, high: float) -> SearchPlan:
    recall = {"mean": (low + high) / 2, "low": low, "high": high, "queries": 9}
    times = dict.fromkeys(("p50_ms", "p99_ms", "search_p50_ms", "search_p99_ms"), 1.0)
    return SearchPlan.model_validate(
        {
            "funnel": FUNNEL,
            "k": 4,
            "reference": "L6-d24",
            "asked": {"recall": 0.5, "p99_ms": 1, "ram_bytes": 1},
            "recall": recall,
            "recall_when_chosen": recall,
            "latency": {**times, "queries": 9},
            "bytes": {"index": 1, "mapped_vectors": 1},
            "questions": {"name": "q", "revision": "xxh3:0", "count": 18},
            "basis": {
                "model": "fake",
                "revision": "r1",
                "index": "store",
                "kind": "flat",
                "fingerprint": fingerprint(store.manifest, Funnel.parse(FUNNEL, 6, 24)),
            },
            "hardware": "a machine",
            "seed": 0,
        }
    )


def measured(store: Any, encoder: Any) -> float:
    """Recall@4 in numpy."""
    small, full = store.vectors(2).rows(slice(None), 8), store.vectors(6).rows(slice(None), 24)
    shares = []
    for text in TEXTS:
        encoding = encoder.begin([text])
        kept = np.argsort(-(small @ encoding.at(Size(2, 8))[0]))[:12]
        shares.append(np.isin(np.argsort(-(full @ encoding.at(Size(6, 24))[0]))[:4], kept).mean())
    return float(np.mean(shares))


def test_inside_and_outside(served: tuple[Any, Any]) -> None:
    recall = measured(*served)
    assert 0.2 < recall < 0.8
    for low, high, warns, where in (
        (recall - 0.1, recall + 0.1, False, "inside"),
        (recall + 0.05, recall + 0.1, True, "OUTSIDE"),
        (recall - 0.1, recall - 0.05, False, "OUTSIDE"),  # better than promised is no reason to warn
    ):
        line = check_promise(promising(served[0], low, high), *served, TEXTS, 300, 0)
        assert f"is {recall:.4f} [" in line and f"on these 25 questions: {where} the promised interval" in line
        assert line.startswith("WARNING") == warns and "\n" not in line


def test_another_model(served: tuple[Any, Any]) -> None:
    plan = promising(served[0], 0.1, 0.9)
    served[1].revision = "r2"
    with pytest.raises(StoreMismatchError, match="plan again with python -m"):
        check_promise(plan, *served, TEXTS, 300, 0)
