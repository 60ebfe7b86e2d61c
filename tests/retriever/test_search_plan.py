"""A plan file: what it keeps, and for what it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError, StorageError, StoreMismatchError
from rag_ese.index import Store, extend
from rag_ese.retriever import Funnel, SearchPlan
from rag_ese.retriever.search_plan import fingerprint

FUNNEL = "L2-d8:9 > L6-d24:3"


def plan_of(store: Any, **changes: Any) -> SearchPlan:
    recall = {"mean": 0.9, "low": 0.8, "high": 0.95, "queries": 30}
    times = {"p50_ms": 1.0, "p99_ms": 2.0, "search_p50_ms": 0.5, "search_p99_ms": 1.0, "queries": 30}
    model = store.manifest.plan.model
    content: dict[str, Any] = {
        "funnel": FUNNEL,
        "k": 3,
        "reference": "L6-d24",
        "asked": {"recall": 0.8, "p99_ms": 5, "ram_bytes": 10**6},
        "recall": recall,
        "recall_when_chosen": recall,
        "latency": times,
        "bytes": {"index": 100, "mapped_vectors": 200},
        "questions": {"name": "held-out.jsonl", "revision": "xxh3:0", "count": 60},
        "basis": {
            "model": model.name,
            "revision": model.revision,
            "index": store.folder.name,
            "kind": "flat",
            "fingerprint": fingerprint(store.manifest, Funnel.parse(FUNNEL, 6, 24)),
        },
        "hardware": "a machine",
        "seed": 0,
    }
    return SearchPlan.model_validate({**content, **changes})


@pytest.fixture
def made(store_of: Callable[..., Any]) -> Callable[[int], tuple[Any, Any]]:
    def make(seed: int) -> tuple[Any, Any]:
        draw = np.random.default_rng(seed)
        pool = {layer: draw.normal(size=(20, 24)).astype(np.float32) for layer in (2, 6)}
        return store_of(pool, "L2-d8,L6-d24")  # type: ignore[no-any-return]

    return make


def test_what_is_written_is_read(made: Callable[[int], tuple[Any, Any]], tmp_path: Path) -> None:
    store, encoder = made(0)
    plan = plan_of(store, notes=["one"])
    plan.write(tmp_path / "plan.json")
    again = SearchPlan.open(tmp_path / "plan.json")
    assert again == plan and [path.name for path in tmp_path.glob("plan*")] == ["plan.json"]
    searcher = again.searcher(store, encoder)
    assert searcher.name == FUNNEL and len(searcher.search(["a question"])[0]) == 3
    with pytest.raises(StorageError, match="does not exist and cannot be made"):
        plan.write(tmp_path / "nowhere" / "plan.json")


def test_another_index_and_another_model(made: Callable[[int], tuple[Any, Any]]) -> None:
    store, encoder = made(0)
    other, other_encoder = made(1)
    plan = plan_of(store)
    with pytest.raises(StoreMismatchError) as refused:
        plan.searcher(other, other_encoder)
    here = fingerprint(other.manifest, Funnel.parse(FUNNEL, 6, 24))
    assert all(each in str(refused.value) for each in (str(other.folder), here, plan.basis.fingerprint))
    assert store.folder.name in str(refused.value) and "\n" not in str(refused.value)
    encoder.revision = "r2"
    with pytest.raises(StoreMismatchError, match=r"the model fake at revision r1, but .* fake at revision r2"):
        plan.searcher(store, encoder)


def test_a_size_more_does_not_make_a_plan_void(made: Callable[[int], tuple[Any, Any]]) -> None:
    store, encoder = made(0)
    plan = plan_of(store)
    from rag_ese.types import Size

    extend(store.folder, [Size(6, 12), Size(4, 12)], encoder)
    plan.check(Store(store.folder), encoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["recall"].update(low=float("nan")), "recall.low: input should be"),
        (lambda content: content["latency"].update(p99_ms=float("inf")), "latency.p99_ms: input should be a finite"),
        (lambda content: content.update(more=1), "more: extra inputs are not permitted"),
        (lambda content: content.pop("funnel"), "funnel: field required"),
        (lambda content: content.update(format=2), "format: input should be 1"),
    ],
)
def test_a_file_that_is_no_plan(
    made: Callable[[int], tuple[Any, Any]], tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    path = tmp_path / "plan.json"
    plan_of(made(0)[0]).write(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message) as refused:
        SearchPlan.open(path)
    assert str(path) in str(refused.value) and "python -m rag_ese.plan" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
def test_a_file_that_is_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is not a search plan"):
        SearchPlan.open(path)
    with pytest.raises(ConfigError, match="cannot read the plan"):
        SearchPlan.open(tmp_path / "none.json")
