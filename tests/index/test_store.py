"""A store vouches for its bytes: whatever is missing, cut or changed is noticed, when it is opened or first used."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import StoreCorruptError, StoreError, StoreMismatchError
from rag_ese.index import Store, build
from rag_ese.index.manifest import MANIFEST
from rag_ese.types import Passage, Size

SIZE = Size(2, 8)


@pytest.fixture
def store(tmp_path: Path, encoder: Any, passages: Callable[[int], list[Passage]], plan: Callable[..., Any]) -> Store:
    return build(tmp_path / "store", plan(), lambda: passages(11), encoder)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_verify_finds_a_flipped_bit_in_every_file(store: Store) -> None:
    names = sorted(store.manifest.files)
    assert {name.split("/")[0].split(".")[0] for name in names} == {"bm25", "faiss", "passages", "vectors"}
    assert store.verify() == (len(names), sum((store.folder / name).stat().st_size for name in names))
    for name in names:
        length = (store.folder / name).stat().st_size
        for position in {0, length // 2, length - 1}:
            flip(store.folder / name, position)
            with pytest.raises(StoreCorruptError, match=r"has changed since it was built \(checksum differs\)"):
                Store(store.folder).verify()
            flip(store.folder / name, position)
    Store(store.folder).verify()


def test_a_flipped_bit_in_the_manifest(store: Store) -> None:
    length = (store.folder / MANIFEST).stat().st_size
    for position in range(0, length - 1, 7):
        flip(store.folder / MANIFEST, position)
        with pytest.raises(StoreCorruptError, match=r"the manifest of .* cannot be read: build the index again"):
            Store(store.folder)
        flip(store.folder / MANIFEST, position)


@pytest.mark.parametrize("name", ["faiss/L2-d8.faiss", "vectors/L6.vec", "passages.jsonl", "bm25/data.csc.index.npy"])
def test_missing_and_truncated_files_are_noticed_on_opening(store: Store, name: str) -> None:
    path = store.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreCorruptError, match=f"{name} has {len(whole) - 1:,} bytes instead of {len(whole):,}"):
        Store(store.folder)
    path.unlink()
    with pytest.raises(StoreCorruptError, match=f"{name} is missing: build the index again"):
        Store(store.folder)


def test_changed_files_are_noticed_when_first_used(store: Store) -> None:
    for name in ("faiss/L2-d8.faiss", "vectors/L2.vec", "passages.jsonl", "bm25/vocab.index.json"):
        flip(store.folder / name, 60)
    opened = Store(store.folder)
    uses: list[Callable[[], object]] = [
        lambda: opened.index(SIZE),
        lambda: opened.vectors(2),
        lambda: opened.passages,
        lambda: opened.bm25,
    ]
    for use in uses:
        with pytest.raises(StoreCorruptError, match="checksum differs"):
            use()
    assert len(Store(store.folder, verify=False).passages) == 11  # who asks for it gets it unchecked


def test_an_index_file_of_another_program(store: Store) -> None:
    path = store.folder / "faiss/L2-d8.faiss"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreCorruptError, match=r"FAISS cannot read the index file .*L2-d8.faiss: build"):
        Store(store.folder, verify=False).index(SIZE)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format": 2}', '{"checksum": ""}', "\x00\xff"])
def test_a_manifest_of_garbage(store: Store, content: str) -> None:
    (store.folder / MANIFEST).write_text(content, encoding="latin-1")
    with pytest.raises(StoreCorruptError, match=r"the manifest of .* cannot be read"):
        Store(store.folder)


def test_a_manifest_of_another_format(store: Store) -> None:
    changed = store.manifest.model_copy(update={"format": 2})
    changed.write(store.folder)
    with pytest.raises(StoreCorruptError):
        Store(store.folder)


def test_folders_that_are_no_store(store: Store, tmp_path: Path) -> None:
    (store.folder / MANIFEST).unlink()
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for folder in (store.folder, tmp_path / "file", tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match=r"holds no complete index: build one with python -m rag_ese.index"):
            Store(folder)


def test_another_revision_of_the_model(store: Store) -> None:
    store.check_model("renamed", "r1")
    with pytest.raises(StoreMismatchError, match="built with fake at revision r1, but the model in use is x at"):
        store.check_model("x", "y")


def test_a_store_without_bm25(tmp_path: Path, encoder: Any, passages: Any, plan: Callable[..., Any]) -> None:
    store = build(tmp_path / "store", plan(bm25=False), lambda: passages(5), encoder)
    with pytest.raises(StoreError, match="was built without BM25: build it again with --bm25"):
        _ = store.bm25
    assert store.bm25_bytes() == 0


def test_what_the_manifest_says(store: Store) -> None:
    written = json.loads((store.folder / MANIFEST).read_text())
    assert written["metric"] == "inner product of unit vectors, normalised after truncation"
    assert written["plan"]["model"]["revision"] == "r1" and written["passages"] == 11
    assert store.index_bytes(SIZE) == (store.folder / "faiss/L2-d8.faiss").stat().st_size
    assert store.vector_bytes(2) == 11 * 24 * 4


def test_two_readers_at_once(store: Store) -> None:
    queries = np.asarray(store.vectors(2).rows(slice(None), 8))
    expected = store.search(SIZE, queries, 5)
    lexical = store.bm25.search("river bridge", 3).rows.tolist()
    wrong: list[object] = []

    def read() -> None:
        opened = Store(store.folder)
        for _ in range(20):
            found = opened.search(SIZE, queries, 5)
            if not (np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])):
                wrong.append(found)
            if opened.bm25.search("river bridge", 3).rows.tolist() != lexical:
                wrong.append("bm25")
            if [passage.title for passage in opened.passages] != [passage.title for passage in store.passages]:
                wrong.append("passages")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
