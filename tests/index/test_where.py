"""Filters: what they let through, how they are refused, and that a filtered search is one of the matching passages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_ese.errors import ConfigError
from rag_ese.index import Store, build
from rag_ese.index.metadata import METADATA_FILES
from rag_ese.index.selection import search_selected
from rag_ese.index.where import mask
from rag_ese.types import Passage, Size

ROWS: list[dict[str, Any]] = [
    {"year": 1990, "source": "wiki", "good": True},
    {"year": 2001.5, "source": "news", "good": False},
    {"year": "1990", "good": 1},
    {},
]
NAMES = {"year", "source", "good"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"year": 1990}, [0]),
        ({"year": 1990.0}, [0]),
        ({"year": "1990"}, [2]),
        ({"good": True}, [0]),
        ({"good": 1}, [2]),
        ({"source": ["wiki", "news"]}, [0, 1]),
        ({"source": []}, []),
        ({"source": {"in": ["news"]}}, [1]),
        ({"source": {"!=": "wiki"}}, [1]),
        ({"source": {"==": "wiki"}}, [0]),
        ({"year": {">=": 1990}}, [0, 1]),
        ({"year": {">": 1990, "<=": 2001.5}}, [1]),
        ({"year": {"<": "2"}}, [2]),
        ({"year": {">": 0}, "good": False}, [1]),
        (lambda row: "year" not in row, [3]),
        (np.array([True, False, False, True]), [0, 3]),
    ],
)
def test_what_is_let_through(where: Any, expected: list[int]) -> None:
    assert np.flatnonzero(mask(where, ROWS, NAMES)).tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"yaer": 1990}, "no passage has the metadata 'yaer' that the filter asks for: there is good, source, year"),
        ({"year": {}}, "the filter on 'year' compares with nothing"),
        ({"year": {"~": 3}}, "the filter on 'year' compares with '~': choose ==, !=, <, <=, >, >= or in"),
        ({"year": {"in": 3}}, "the filter on 'year' has 'in' with 3: write a list"),
        ({"good": {"<": True}}, "the filter on 'good' orders by True, which has no order"),
        ({"year": None}, "the filter on 'year' has None, a NoneType"),
        ({"year": {">": [3]}}, r"the filter on 'year' has \[3\], a list"),
        (np.array([True]), r"a mask of shape \(1,\) and type bool cannot filter 4 rows"),
        (np.array([1, 0, 1, 0]), "type int64 cannot filter 4 rows"),
    ],
)
def test_filters_that_cannot_be_read(where: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mask(where, ROWS, NAMES)


def test_metadata_comes_back_and_leaves_no_trace_where_there_is_none(
    tmp_path: Path, encoder: Any, plan: Callable[..., Any], files: Callable[[Path], dict[str, bytes]]
) -> None:
    rows = [Passage(f"t{number}", ("x",), row) for number, row in enumerate(ROWS)]
    bare = [Passage(row.title, row.sentences) for row in rows]
    first = build(tmp_path / "with", plan(), lambda: rows, encoder)
    second = build(tmp_path / "without", plan(), lambda: bare, encoder)
    assert [dict(row.metadata) for row in first.passages] == ROWS
    assert [type(row.metadata.get("good")) for row in first.passages] == [bool, bool, int, type(None)]
    assert [dict(row.metadata) for row in second.passages] == [{}] * 4
    assert {*files(first.folder)} - {*files(second.folder)} == {*METADATA_FILES}
    assert {*METADATA_FILES} <= {*first.manifest.files}
    assert first.matching({"year": 1990}).tolist() == [True, False, False, False]
    with pytest.raises(ConfigError, match="there is none"):
        second.matching({"year": 1990})


@pytest.fixture
def stores(
    tmp_path: Path, encoder: Any, passages: Callable[[int], list[Passage]], plan: Callable[..., Any]
) -> dict[str, Store]:
    kinds = ["flat", "fp16", "hnsw", "ivf", "panorama"]
    plans = {kind: plan("L6-d8,L6-d24", kind=kind, bm25=False) for kind in kinds}
    return {kind: build(tmp_path / kind, each, lambda: passages(60), encoder) for kind, each in plans.items()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_filtered_search_is_a_search_of_the_matching(stores: dict[str, Store], data: st.DataObject) -> None:
    store = stores[data.draw(st.sampled_from([*stores]))]
    size = data.draw(st.sampled_from([Size(6, 8), Size(6, 24)]))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=60, max_size=60)))
    k = data.draw(st.integers(1, 70))
    seed = data.draw(st.integers(0, 1000))
    queries = np.random.default_rng(seed).normal(size=(3, size.dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    found, rows = store.search(size, queries, k, allowed)
    if allowed.all() and store.manifest.plan.kind in ("hnsw", "ivf"):
        return  # without a filter these are approximate
    matching = np.flatnonzero(allowed)
    scores = queries @ store.vectors(6).rows(matching, size.dim).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    tolerance = 2e-3 if store.manifest.plan.kind == "fp16" else 1e-5
    assert rows.shape == order.shape
    assert np.allclose(found, np.take_along_axis(scores, order, 1), atol=tolerance)
    for mine, expected, near in zip(rows, matching[order], scores, strict=True):
        assert len({*mine.tolist()}) == len(mine) and {*mine.tolist()} <= {*matching.tolist()}
        if len(near) < 2 or np.diff(np.sort(near)).min() > 2 * tolerance:
            assert mine.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_graphs_and_lists_find_k_wherever_there_are_k(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("rag_ese.index.selection._FEW", 0)  # as in a large pool: FAISS first
    store, size = stores[kind], Size(6, 24)
    queries = store.vectors(6).rows(slice(0, 60), 24)
    for count in (1, 5, 30, 59):
        allowed = np.arange(60) < count
        rows = search_selected(store.index(size), store.vectors(6), queries, count, allowed)[1]
        assert all(sorted(row) == [*range(count)] for row in rows.tolist())
