"""The LangChain retriever against the searchers that it stands for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps, load
from langchain_core.runnables import ConfigurableField

from rag_ese.errors import ConfigError, RagEseError, SizeError, StoreError, StoreMismatchError
from rag_ese.index import LivingIndex, Store, View
from rag_ese.integrations.langchain import EseRetriever
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.retriever.on_device import OnDevice, placed
from rag_ese.types import Passage

QUERY = "Which bridge crosses the river?"
FUNNEL = "L1-d64:30 > L2-d128:10"


@pytest.fixture(scope="module")
def retriever(sample_index: Path, embedded: Any) -> EseRetriever:
    return EseRetriever(index=str(sample_index), encoder=embedded, k=5)


def expected(folder: Path, encoder: Any, funnel: str, k: int, where: Any = None) -> list[str]:
    store: Any = Store(folder)
    searched = store if where is None else View(store, where)
    [ranking] = FunnelSearcher(searched, encoder, Funnel.parse(funnel, 6, 768)).search([QUERY])
    return [store.passages[row].id for row in ranking.rows[:k].tolist()]


def test_documents_are_the_passages_that_were_found(retriever: EseRetriever, sample_index: Path, embedded: Any) -> None:
    documents = retriever.invoke(QUERY)
    assert [each.id for each in documents] == expected(sample_index, embedded, "L2-d128:5", 5)
    passages = {passage.id: passage for passage in Store(sample_index).passages}
    for each in documents:
        passage = passages[str(each.id)]
        assert each.page_content == passage.text
        assert each.metadata == {**passage.metadata, "title": passage.title}


def test_vectors_on_a_device_find_the_same(
    sample_index: Path, embedded: Any, retriever: EseRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert placed(retriever.opened.store, "cpu") is retriever.opened.store
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        EseRetriever(index=str(sample_index), encoder=embedded, search_device="tpu")
    monkeypatch.setattr("rag_ese.retriever.on_device.placed", OnDevice)  # torch's CPU stands for a GPU
    there = EseRetriever(index=str(sample_index), encoder=embedded, k=5, search_device="cpu")
    assert isinstance(there.opened.searched, OnDevice)
    for call in ({}, {"funnel": FUNNEL}, {"filter": {"even": True}}):
        found = [[each.id for each in asked.invoke(QUERY, **call)] for asked in (there, retriever)]
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("call", "funnel", "k", "where"),
    [
        ({"k": 2}, "L2-d128:2", 2, None),
        ({"size": "L1-d64"}, "L1-d64:5", 5, None),
        ({"funnel": FUNNEL}, FUNNEL, 5, None),
        ({"funnel": FUNNEL, "k": 10}, FUNNEL, 10, None),
        ({"filter": {"even": True}}, "L2-d128:5", 5, {"even": True}),
        ({"filter": lambda metadata: metadata["row"] < 3}, "L2-d128:5", 5, {"row": {"<": 3}}),
    ],
)
async def test_what_a_call_may_choose(
    retriever: EseRetriever, sample_index: Path, embedded: Any, call: Any, funnel: str, k: int, where: Any
) -> None:
    wanted = expected(sample_index, embedded, funnel, k, where)
    assert [each.id for each in retriever.invoke(QUERY, **call)] == wanted
    assert [each.id for each in await retriever.ainvoke(QUERY, **call)] == wanted
    assert [[each.id for each in found] for found in retriever.batch([QUERY, QUERY], **call)] == [wanted] * 2
    assert [each.id for each in retriever.bind(**call).invoke(QUERY)] == wanted


def test_configurable_fields_share_what_is_open(
    retriever: EseRetriever, sample_index: Path, embedded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_ese.integrations.langchain.open_index.Store", None)  # nothing is opened again
    configurable = retriever.configurable_fields(
        k=ConfigurableField("k"), size=ConfigurableField("size"), funnel=ConfigurableField("funnel")
    )
    for values, funnel, k in (
        ({"k": 2}, "L2-d128:2", 2),
        ({"size": "L1-d64"}, "L1-d64:5", 5),
        ({"funnel": FUNNEL, "k": 7}, FUNNEL, 7),
    ):
        found = configurable.invoke(QUERY, config={"configurable": values})
        assert [each.id for each in found] == expected(sample_index, embedded, funnel, k)
    assert len(configurable.invoke(QUERY)) == 5


def test_scores_and_where_a_document_came_from(retriever: EseRetriever, sample_index: Path, embedded: Any) -> None:
    documents = retriever.invoke(QUERY, funnel=FUNNEL, scores=True)
    store = Store(sample_index)
    searcher = FunnelSearcher(store, embedded, Funnel.parse(FUNNEL, 6, 768))
    [[first, last]] = searcher.trace([QUERY])
    for place, each in enumerate(documents):
        row = int(last.rows[place])
        assert each.metadata["score"] == pytest.approx(float(last.scores[place]))
        assert each.metadata["size"] == "L2-d128"
        assert each.metadata["ranks"] == {"L1-d64": [*first.rows].index(row) + 1, "L2-d128": place + 1}
    assert any(each.metadata["ranks"]["L1-d64"] != each.metadata["ranks"]["L2-d128"] for each in documents)


def test_dumped_and_loaded_without_objects_or_secrets(
    sample_index: Path, embedded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    retriever = EseRetriever(index=str(sample_index), encoder=embedded, funnel=FUNNEL, filter={"even": True}, k=3)
    text = dumps(retriever)
    assert "secret" not in text
    assert "encoder" not in text
    assert "not_implemented" not in text
    again = load(json.loads(text), valid_namespaces=["rag_ese"], allowed_objects=[EseRetriever])
    assert isinstance(again, EseRetriever)
    assert [each.id for each in again.invoke(QUERY)] == [each.id for each in retriever.invoke(QUERY)]


def test_what_tracing_is_told(retriever: EseRetriever) -> None:
    seen: dict[str, Any] = {}

    class Handler(BaseCallbackHandler):
        def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
            seen.update(query=query, metadata=kwargs["metadata"])

        def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
            seen["count"] = len(documents)

        def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
            seen["error"] = error

    retriever.invoke(QUERY, config={"callbacks": [Handler()]})
    assert (seen["query"], seen["count"]) == (QUERY, 5)
    assert seen["metadata"]["ls_retriever_name"] == "ese"
    assert seen["metadata"]["ls_embedding_model"] == "embedded"
    with pytest.raises(SizeError):
        retriever.invoke(QUERY, config={"callbacks": [Handler()]}, size="L5-d64")
    assert isinstance(seen["error"], SizeError)


def test_a_living_index_as_it_was_opened(store_of: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    store, encoder = store_of({6: draw.normal(size=(9, 24)).astype(np.float32)}, "L6-d24")
    living = LivingIndex.create(tmp_path / "living", store)
    before = EseRetriever(index=str(tmp_path / "living"), encoder=encoder, k=99)
    new = Passage("New", ("A new text.",))
    gone = store.passages.id(0)
    living.add([new], encoder).delete([gone])
    after = EseRetriever(index=str(tmp_path / "living"), encoder=encoder, k=99)
    names = {each.id for each in before.invoke("x")}
    assert gone in names
    assert {each.id for each in after.invoke("x")} == names - {gone} | {new.id}


def test_a_plan_is_followed_and_checked(
    retriever: EseRetriever, sample_index: Path, embedded: Any, tmp_path: Path
) -> None:
    from rag_ese.retriever import SearchPlan
    from rag_ese.retriever.search_plan import fingerprint

    store = Store(sample_index)
    print_ = fingerprint(store.manifest, Funnel.parse(FUNNEL, 6, 768))
    recall = {"mean": 1, "low": 0.9, "high": 1, "queries": 9}
    values: dict[str, Any] = {
        "funnel": FUNNEL,
        "k": 10,
        "reference": "L2-d128",
        "asked": {"recall": 0.9, "p99_ms": 10, "ram_bytes": 1},
        "recall": recall,
        "recall_when_chosen": recall,
        "latency": {"p50_ms": 1, "p99_ms": 1, "search_p50_ms": 1, "search_p99_ms": 1, "queries": 9},
        "bytes": {"index": 1, "mapped_vectors": 1},
        "questions": {"name": "q", "revision": "1", "count": 9},
        "basis": {
            "model": "embedded",
            "revision": embedded.revision,
            "index": "sample",
            "kind": "flat",
            "fingerprint": print_,
        },
        "hardware": "any",
        "seed": 0,
    }
    SearchPlan.model_validate(values).write(tmp_path / "plan.json")
    planned = EseRetriever(index=str(sample_index), encoder=embedded, plan=str(tmp_path / "plan.json"), k=10)
    assert [each.id for each in planned.invoke(QUERY)] == expected(sample_index, embedded, FUNNEL, 10)
    assert [each.id for each in planned.invoke(QUERY, size="L1-d64")] == expected(
        sample_index, embedded, "L1-d64:10", 10
    )
    values["basis"]["fingerprint"] = "0" * 16
    SearchPlan.model_validate(values).write(tmp_path / "other.json")
    with pytest.raises(StoreMismatchError, match="fingerprint"):
        EseRetriever(index=str(sample_index), encoder=embedded, plan=str(tmp_path / "other.json"))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"index": "/nowhere"}, StoreError, "holds no complete index"),
        ({"size": "L1-d64", "funnel": FUNNEL}, ConfigError, "more than one of size, funnel and plan"),
        ({"funnel": FUNNEL, "k": 11}, ConfigError, "keeps 10 passages, but k is 11"),
        ({"size": "big"}, SizeError, "cannot read the size"),
        ({"plan": "/nowhere.json"}, ConfigError, "cannot read the plan"),
    ],
)
def test_refusals(sample_index: Path, embedded: Any, given: Any, error: type[RagEseError], words: str) -> None:
    with pytest.raises(error, match=words):
        EseRetriever(**{"index": str(sample_index), "encoder": embedded, **given})


def test_the_model_that_an_index_names_is_loaded(sample_index: Path) -> None:
    retriever = EseRetriever(index=str(sample_index), dtype="float32", device="cpu")
    assert retriever.encoder.name == "embedded"
    assert len(retriever.invoke(QUERY)) == 4
