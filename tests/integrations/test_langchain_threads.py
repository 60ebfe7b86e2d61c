"""Many threads and many tasks at once: the same results as one after the other, and no document lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from rag_ese.integrations.langchain import EseRetriever, EseVectorStore

THREADS, QUERIES = 8, 1000


@pytest.fixture
def retriever(store_of: Any) -> EseRetriever:
    draw = np.random.default_rng(3)
    store, encoder = store_of({2: draw.normal(size=(300, 24)), 6: draw.normal(size=(300, 24))}, "L2-d8,L6-d24")
    return EseRetriever(index=str(store.folder), encoder=encoder, funnel="L2-d8:40 > L6-d24:10", k=5, scores=True)


def test_threads_and_tasks_give_what_one_after_the_other_gives(retriever: EseRetriever) -> None:
    queries = [f"question {number}" for number in range(QUERIES)]
    expected = [retriever.invoke(query) for query in queries]

    def all_of_them(shift: int) -> list[list[Document]]:
        turned = [*queries[shift:], *queries[:shift]]
        found = [retriever.invoke(query) for query in turned]
        return [*found[len(queries) - shift :], *found[: len(queries) - shift]]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(all_of_them, [number * 100 for number in range(THREADS)]):
            assert found == expected

    async def gathered() -> list[list[Document]]:
        return await asyncio.gather(*(retriever.ainvoke(query) for query in queries))

    assert asyncio.run(gathered()) == expected
    assert retriever.batch(queries) == expected


def test_the_embedded_model_in_threads(sample_index: Path, embedded: Any) -> None:
    retriever = EseRetriever(index=str(sample_index), encoder=embedded, size="L2-d128")
    queries = [f"Which {word} is number {n}?" for n in range(10) for word in ("river", "bridge", "painter")]
    expected = [retriever.invoke(query) for query in queries]
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(lambda _: [retriever.invoke(query) for query in queries], range(THREADS)):
            assert found == expected


async def test_the_event_loop_goes_on_while_a_retriever_works(
    retriever: EseRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    begin = type(retriever.encoder).begin

    def waits(self: Any, texts: Any) -> Any:
        assert released.wait(30)  # set by the event loop, which must not be the one that waits
        return begin(self, texts)

    monkeypatch.setattr(type(retriever.encoder), "begin", waits)
    task = asyncio.create_task(retriever.ainvoke("question"))
    await asyncio.sleep(0)
    released.set()
    assert len(await task) == 5


def test_vector_store_in_threads_and_tasks(hashed: Any) -> None:
    store = EseVectorStore.from_texts([f"text {n}" for n in range(300)], hashed())
    queries = [f"question {number}" for number in range(QUERIES)]
    expected = [store.similarity_search_with_score(query, k=5) for query in queries]
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(
            lambda _: [store.similarity_search_with_score(query, k=5) for query in queries], range(THREADS)
        ):
            assert found == expected

    async def gathered() -> list[list[tuple[Document, float]]]:
        return await asyncio.gather(*(store.asimilarity_search_with_score(query, k=5) for query in queries))

    assert asyncio.run(gathered()) == expected


def test_adding_while_searching_loses_nothing(hashed: Any) -> None:
    """Four writers add, replace and delete; at every moment each search finds every document that must be there."""
    embeddings = hashed(8)
    fixed = [f"fixed {n}" for n in range(30)]
    store = EseVectorStore.from_texts(fixed, embeddings, ids=fixed)
    store.add_texts(["version 0"], [{"kept": True}], ids=["replaced"])
    faults: list[str] = []
    done = threading.Event()

    def writes(writer: int) -> None:
        for turn in range(150):
            names = [f"{writer} {turn} {n}" for n in range(3)]
            store.add_texts(names, ids=names)
            if not {*names} <= {each.id for each in store.get_by_ids(names)}:
                faults.append(f"{names} were added and are not there")
            store.delete(names[:1])
            if writer == 0:
                store.add_texts([f"version {turn + 1}"], [{"kept": True}], ids=["replaced"])

    def searches() -> None:
        while not done.is_set():
            found = [each.id for each in store.similarity_search("asked", k=5000)]
            if not {*fixed, "replaced"} <= {*found}:
                faults.append(f"lost {({*fixed, 'replaced'}) - {*found}}")
            if len(found) != len({*found}):
                faults.append("an id was found twice")
            if len(store.similarity_search("asked", k=5, filter={"kept": True})) != 1:
                faults.append("a replaced document was absent, or there twice")

    readers = [threading.Thread(target=searches) for _ in range(4)]
    for reader in readers:
        reader.start()
    with ThreadPoolExecutor(4) as pool:
        for writer in pool.map(writes, range(4)):
            assert writer is None
    done.set()
    for reader in readers:
        reader.join()
    assert faults == []
    expected = {*fixed, "replaced"} | {f"{w} {t} {n}" for w in range(4) for t in range(150) for n in (1, 2)}
    assert {str(each.id) for each in store.similarity_search("asked", k=5000)} == expected


async def test_adding_and_searching_in_one_event_loop(hashed: Any) -> None:
    store = EseVectorStore(hashed())
    adding = [store.aadd_texts([f"text {n}"], ids=[str(n)]) for n in range(200)]
    searching = [store.asimilarity_search(f"text {n}") for n in range(200)]
    await asyncio.gather(*(each for pair in zip(adding, searching, strict=True) for each in pair))
    assert {str(each.id) for each in await store.asimilarity_search("x", k=999)} == {str(n) for n in range(200)}
