"""The vector store against numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from rag_ese.errors import (
    ConfigError,
    DataError,
    RagEseError,
    StorageError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
)
from rag_ese.integrations.langchain import EseVectorStore

Cosine = Callable[[Any, Any], float]


def filled(embeddings: Any, count: int = 50) -> EseVectorStore:
    documents = [Document(f"text {n}", metadata={"n": n, "kind": "ab"[n % 2]}, id=str(n)) for n in range(count)]
    return EseVectorStore.from_documents(documents, embeddings)


def test_scores_are_cosines(hashed: Any, numpy_cosine: Cosine) -> None:
    embeddings = hashed()
    store = filled(embeddings)
    query = embeddings.embed_query("asked")
    expected = sorted((-numpy_cosine(query, embeddings.embed_query(f"text {n}")), str(n)) for n in range(50))
    for found in (
        store.similarity_search_with_score("asked", k=50),
        store.similarity_search_with_relevance_scores("asked", k=50),
        store.similarity_search_with_score_by_vector(query, k=50),
    ):
        assert [document.id for document, _ in found] == [name for _, name in expected]
        assert np.allclose([score for _, score in found], [-score for score, _ in expected], atol=2e-7, rtol=0)
        assert any(score < 0 for _, score in found)
    assert [each.id for each in store.similarity_search("asked", k=3)] == [name for _, name in expected[:3]]
    assert [each.id for each in store.similarity_search_by_vector(query, k=3)] == [name for _, name in expected[:3]]


async def test_asynchronous_twins_agree(hashed: Any) -> None:
    store = filled(hashed())
    assert await store.asimilarity_search("asked", k=9) == store.similarity_search("asked", k=9)
    assert await store.asimilarity_search_with_relevance_scores(
        "asked", k=9, score_threshold=0.2
    ) == store.similarity_search_with_relevance_scores("asked", k=9, score_threshold=0.2)
    assert await store.amax_marginal_relevance_search("asked", 5, 20, 0.3) == store.max_marginal_relevance_search(
        "asked", 5, 20, 0.3
    )
    again = await EseVectorStore.afrom_texts(["a", "b"], hashed(), [{"n": 1}, {"n": 2}], ids=["x", "y"])
    assert await again.aget_by_ids(["y", "x", "z"]) == again.get_by_ids(["y", "x"])


def test_threshold_keeps_what_reaches_it(hashed: Any) -> None:
    store = filled(hashed())
    every = store.similarity_search_with_relevance_scores("asked", k=50)
    threshold = every[7][1]
    assert store.similarity_search_with_relevance_scores("asked", k=50, score_threshold=threshold) == every[:8]
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": threshold, "k": 50}
    )
    assert [each.id for each in retriever.invoke("asked")] == [each.id for each, _ in every[:8]]


def test_a_zero_vector_is_like_nothing(hashed: Any) -> None:
    store = EseVectorStore.from_texts(["zero", "one"], hashed(2, {"zero": [0.0, 0.0], "one": [3.0, 0.0]}))
    assert [score for _, score in store.similarity_search_with_score_by_vector([2.0, 0.0])] == [1.0, 0.0]


def greedy(query: Any, vectors: dict[str, Any], k: int, share: float, cosine: Cosine) -> list[str]:
    """Maximal marginal relevance, from its definition."""
    chosen: list[str] = []
    while len(chosen) < k:
        best = max(
            (name for name in vectors if name not in chosen),
            key=lambda name: (
                share * cosine(query, vectors[name])
                - (1 - share) * max((cosine(vectors[name], vectors[other]) for other in chosen), default=0.0)
            ),
        )
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_maximal_marginal_relevance(hashed: Any, numpy_cosine: Cosine, share: float) -> None:
    embeddings = hashed()
    store = filled(embeddings)
    query = embeddings.embed_query("asked")
    near = [each.id for each in store.similarity_search("asked", k=20, filter={"kind": "a"})]
    vectors = {str(name): embeddings.embed_query(f"text {name}") for name in near}
    expected = greedy(query, vectors, 6, share or 1e-12, numpy_cosine)
    found = store.max_marginal_relevance_search("asked", k=6, fetch_k=20, lambda_mult=share, filter={"kind": "a"})
    assert [each.id for each in found] == expected


METADATA = st.fixed_dictionaries(
    {}, optional={"n": st.integers(0, 3), "kind": st.sampled_from("ab"), "other": st.none() | st.lists(st.integers())}
)
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "delete"]), st.integers(0, 12), METADATA), min_size=1, max_size=60)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, least=st.integers(0, 3), kind=st.sampled_from(["a", "b", None]), k=st.integers(1, 15))
def test_filtered_search_finds_k_wherever_k_match(
    hashed: Any,
    numpy_cosine: Cosine,
    changes: list[tuple[str, int, dict[str, Any]]],
    least: int,
    kind: str | None,
    k: int,
) -> None:
    embeddings = hashed(5)
    store = EseVectorStore(embeddings)
    model: dict[str, tuple[str, dict[str, Any]]] = {}
    for number, (what, name, metadata) in enumerate(changes):
        if what == "add":
            store.add_texts([f"text {number}"], [metadata], ids=[str(name)])
            model[str(name)] = (f"text {number}", metadata)
        else:
            store.delete([str(name)])
            model.pop(str(name), None)
    seen = {name for what, _, metadata in changes if what == "add" for name in metadata}
    where: dict[str, Any] = {"n": {">=": least}} | ({"kind": kind} if kind else {})

    def matches(metadata: Any) -> bool:
        return metadata.get("n", -1) >= least and (not kind or metadata.get("kind") == kind)

    wanted = {name: text for name, (text, metadata) in model.items() if matches(metadata)}
    query = embeddings.embed_query("asked")
    ranked = sorted(wanted, key=lambda name: -numpy_cosine(query, embeddings.embed_query(wanted[name])))
    assert [each.id for each in store.similarity_search("asked", k, filter=matches)] == ranked[:k]
    if {*where} <= seen or not model:
        assert [each.id for each in store.similarity_search("asked", k, filter=where)] == ranked[:k]
    assert len(store) == len(model)
    assert {each.id: each.page_content for each in store.get_by_ids([*model])} == {
        name: text for name, (text, _) in model.items()
    }


def test_a_filter_that_was_asked_before_sees_new_documents(hashed: Any) -> None:
    store = filled(hashed(), 10)
    assert len(store.similarity_search("asked", k=99, filter={"kind": "a"})) == 5
    store.add_texts(["late"], [{"kind": "a"}], ids=["late"])
    store.delete(["0"])
    assert {each.id for each in store.similarity_search("asked", k=99, filter={"kind": "a"})} == {
        "2",
        "4",
        "6",
        "8",
        "late",
    }


def test_what_is_given_out_and_taken_in_is_a_copy(hashed: Any) -> None:
    document = Document("text", metadata={"tags": ["a"]}, id="1")
    store = EseVectorStore.from_documents([document], hashed())
    document.metadata["tags"].append("b")
    store.get_by_ids(["1"])[0].metadata["tags"].append("c")
    store.similarity_search("text")[0].metadata["tags"].append("d")
    assert store.get_by_ids(["1"])[0].metadata == {"tags": ["a"]}


def test_many_replacements_move_the_living_rows(hashed: Any) -> None:
    embeddings = hashed()
    store = filled(embeddings, 40)
    for turn in range(60):
        store.add_texts([f"turn {turn} {n}" for n in range(40)], [{"turn": turn}] * 40, ids=[str(n) for n in range(40)])
    assert len(store) == 40
    assert store._table.now.count < 1200
    found = store.similarity_search("turn 59 7", k=1, filter={"turn": 59})
    assert (found[0].id, found[0].page_content) == ("7", "turn 59 7")


def test_delete_all_then_other_embeddings(hashed: Any) -> None:
    store = filled(hashed(12))
    assert store.delete()
    assert len(store) == 0
    assert store.similarity_search("asked") == []
    store.add_embedded([Document("other", id="o")], [[1.0, 0.0]])
    assert [each.id for each in store.similarity_search_by_vector([1.0, 1.0])] == ["o"]


def test_of_equal_ids_in_one_call_the_last_is_kept(hashed: Any) -> None:
    store = EseVectorStore(hashed())
    assert store.add_texts(["first", "second"], ids=["1", "1"]) == ["1", "1"]
    assert [each.page_content for each in store.similarity_search("first", k=5)] == ["second"]


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda store: store.similarity_search("x", k=0), ConfigError, "k is 0"),
        (lambda store: store.similarity_search("x", filter={"yaer": 1}), ConfigError, "there is kind, n"),
        (lambda store: store.similarity_search("x", filter={"n": {"$gte": 1}}), ConfigError, "compares with '\\$gte'"),
        (lambda store: store.similarity_search_by_vector([1.0]), StoreMismatchError, "1 dimensions.* have 12"),
        (lambda store: store.add_embedded([Document("x")], [[1.0]]), StoreMismatchError, "1 dimensions.* have 12"),
        (lambda store: store.add_embedded([Document("x")], [[1.0], [2.0]]), DataError, "1 documents .*\\(2, 1\\)"),
        (lambda store: store.add_embedded([Document("x")], [[np.nan] * 12]), DataError, "not finite"),
        (lambda store: store.add_documents([Document("x")], ids=["1", "2"]), DataError, "1 documents .* 2 ids"),
    ],
)
def test_refusals(hashed: Any, action: Any, error: type[RagEseError], words: str) -> None:
    store = filled(hashed())
    with pytest.raises(error, match=words):
        action(store)
    assert len(store) == 50


def test_saved_and_loaded_is_the_same(hashed: Any, tmp_path: Path) -> None:
    store = filled(hashed())
    store.delete(["3"])
    nested = {"deep": {"list": [1, 2.5, None, True, "ü\ud800"]}}
    store.add_documents([Document("umläut\n", metadata=nested, id="nested")])
    store.save(tmp_path / "s")
    loaded = EseVectorStore.load(tmp_path / "s", hashed())
    assert loaded.similarity_search_with_score("asked", k=99) == store.similarity_search_with_score("asked", k=99)
    assert loaded.get_by_ids(["nested"]) == store.get_by_ids(["nested"])
    loaded.add_texts(["more"], [{"kind": "b"}], ids=["3"])
    loaded.delete(["nested"])
    loaded.save(tmp_path / "s")
    again = EseVectorStore.load(tmp_path / "s", hashed())
    assert again.similarity_search_with_score("asked", k=99) == loaded.similarity_search_with_score("asked", k=99)
    assert len([each for each in (tmp_path / "s").iterdir() if each.is_dir()]) == 1
    assert not [each for each in (tmp_path / "s").rglob("*") if each.suffix in (".pkl", ".pickle")]


@pytest.mark.parametrize("value", [{1: 2}, (1, 2), float("nan"), {1, 2}, b"x", np.float64(1.0), Path("x")])
def test_metadata_that_json_would_change_are_not_saved(hashed: Any, tmp_path: Path, value: Any) -> None:
    store = filled(hashed())
    store.save(tmp_path / "s")
    store.add_documents([Document("x", metadata={"value": value}, id="odd")])
    assert store.get_by_ids(["odd"])
    with pytest.raises(DataError, match="document 'odd'"):
        store.save(tmp_path / "s")
    assert len(EseVectorStore.load(tmp_path / "s", hashed())) == 50


def test_folders_that_are_no_store(hashed: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no saved vector store"):
        EseVectorStore.load(tmp_path / "absent", hashed())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="other files, such as notes"):
        filled(hashed()).save(tmp_path)
    with pytest.raises(StorageError):
        filled(hashed()).save(tmp_path / "notes.txt")
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["store.json", "vectors.f32", "documents.jsonl"])
def test_changed_files_are_noticed(hashed: Any, tmp_path: Path, name: str) -> None:
    filled(hashed()).save(tmp_path / "s")
    [file] = (tmp_path / "s").rglob(name)
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        EseVectorStore.load(tmp_path / "s", hashed())


def test_a_kill_while_saving_leaves_the_store_before(
    hashed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(hashed())
    store.save(tmp_path / "s")
    store.delete(["1"])
    calls: list[int] = []

    def dies(*_: Any) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    for place in ("entry", "replace_file"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"rag_ese.integrations.langchain.folder.{place}", dies)
            store.save(tmp_path / "s")
        assert len(EseVectorStore.load(tmp_path / "s", hashed())) == 50
    store.save(tmp_path / "s")
    assert len(EseVectorStore.load(tmp_path / "s", hashed())) == 49
    assert len(calls) == 2
    assert len([each for each in (tmp_path / "s").iterdir() if each.is_dir()]) == 1


def test_elastic_embeddings_of_another_size_are_refused(embedded: Any, tmp_path: Path) -> None:
    from rag_ese.integrations.langchain import EseEmbeddings

    small, large = (EseEmbeddings(size=size, encoder=embedded) for size in ("L1-d32", "L2-d32"))
    store = EseVectorStore.from_texts(["a bridge", "a novel"], small)
    store.save(tmp_path / "s")
    assert len(EseVectorStore.load(tmp_path / "s", small)) == 2
    with pytest.raises(StoreMismatchError, match=r"L1-d32, but the embeddings in use are .* L2-d32"):
        EseVectorStore.load(tmp_path / "s", large)
