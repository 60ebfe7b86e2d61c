"""One encode pass, bounded shards, stores that are complete or refused."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import (
    ConfigError,
    DataError,
    SizeError,
    StorageError,
    StoreError,
    StoreMismatchError,
)
from rag_ese.index import Store, build, extend
from rag_ese.index.builder import timing_file
from rag_ese.index.estimate import estimate
from rag_ese.types import Passage, Size

Passages = Callable[[int], list[Passage]]
Plans = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, encoder: Any, passages: Passages, plan: Plans) -> Callable[..., Store]:
    def make(count: int = 11, overwrite: bool = False, folder: Path = tmp_path / "store", **changes: Any) -> Store:
        return build(folder, plan(**changes), lambda: passages(count), encoder, overwrite)

    return make


def test_one_pass_for_all_depths_in_bounded_shards(make: Callable[..., Store], encoder: Any) -> None:
    make(11, sizes="L2-d8,L6-d8,L6-d24,L3-d16", shard=4)
    assert encoder.calls == [(4, (2, 3, 6)), (4, (2, 3, 6)), (3, (2, 3, 6))]


def test_the_passages_come_back(make: Callable[..., Store], passages: Passages) -> None:
    store = make(11)
    assert len(store) == 11 and list(store.passages) == passages(11)
    assert store.passages[2:4] == passages(11)[2:4]
    assert [store.passages.id(row) for row in range(11)] == [passage.id for passage in passages(11)]
    for beyond in (11, -1):
        with pytest.raises(IndexError):
            store.passages[beyond]


def test_the_vectors_are_unit_prefixes(make: Callable[..., Store], encoder: Any, passages: Passages) -> None:
    store = make(11)
    raw = encoder.raw([passage.full for passage in passages(11)], 2)
    for dim in (8, 24):
        expected = raw[:, :dim] / np.linalg.norm(raw[:, :dim], axis=1, keepdims=True)
        assert np.allclose(store.vectors(2).rows(slice(None), dim), expected, atol=1e-6)
    with pytest.raises(SizeError, match="holds no vectors of layer 4: it has layers 2, 6"):
        store.vectors(4)
    with pytest.raises(SizeError, match="holds no index of size L6-d9: it has L2-d8, L6-d8, L6-d24; add it with"):
        store.index(Size(6, 9))


def test_float16_halves_the_vectors_and_keeps_them(make: Callable[..., Store], encoder: Any, tmp_path: Path) -> None:
    whole, half = make(), make(folder=tmp_path / "half", stored="float16")
    assert 2 * half.vector_bytes(6) == whole.vector_bytes(6)
    for dim in (8, 24):
        stored = half.vectors(6).rows(slice(None), dim)
        assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
        assert np.allclose(stored, whole.vectors(6).rows(slice(None), dim), atol=1e-3)


def test_a_complete_index_is_used_again(make: Callable[..., Store], encoder: Any, tmp_path: Path) -> None:
    make()
    encoder.calls.clear()
    assert len(make()) == 11
    assert len(make(sizes="L6-d24").sizes) == 3  # it holds what is asked for, and more
    assert encoder.calls == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.timing.json", "store"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sizes": "L4-d8"}, "layers 2,6 there, 4 here"),
        ({"sizes": "L2-d8,L6-d16"}, "sizes L2-d8,L6-d8,L6-d24 there, L2-d8,L6-d16 here"),
        ({"kind": "sq8"}, "kind flat there, sq8 here"),
        ({"stored": "float16"}, "stored float32 there, float16 here"),
        ({"shard": 5}, "shard 4 there, 5 here"),
        ({"bm25": False}, "bm25 True there, False here"),
    ],
)
def test_another_plan_is_refused_and_named(make: Callable[..., Store], changes: dict[str, Any], named: str) -> None:
    make()
    with pytest.raises(StoreMismatchError) as caught:
        make(**changes)
    assert named in str(caught.value)


def test_another_model_and_other_data_are_refused(make: Callable[..., Store], plan: Plans) -> None:
    made = make().manifest.plan
    with pytest.raises(StoreMismatchError, match=r"model fake@r1 \(float32, .*\) there, fake@r2 \(float32, .*\) here"):
        make(model=made.model.model_copy(update={"revision": "r2"}))
    with pytest.raises(StoreMismatchError, match="data made@1 there, made@2 here"):
        make(data=made.data.model_copy(update={"revision": "2"}))
    assert len(make(data=made.data.model_copy(update={"fallback": "no network today"}))) == 11


def test_overwrite_replaces(make: Callable[..., Store], tmp_path: Path) -> None:
    make()
    replaced = make(7, overwrite=True, kind="sq8")
    assert len(replaced) == 7 and Store(tmp_path / "store").manifest.plan.kind == "sq8"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".store.timing.json", "store"]


def test_an_interrupted_build_of_another_plan(make: Callable[..., Store], encoder: Any, passages: Passages) -> None:
    encoder.known = {6: {passages(11)[5].full: np.full(24, np.nan, np.float32)}}
    with pytest.raises(DataError):
        make()
    encoder.known = {}
    with pytest.raises(StoreMismatchError, match=r"holds an interrupted build of another index .kind flat there, sq8"):
        make(kind="sq8")
    assert make(kind="sq8", overwrite=True).manifest.plan.kind == "sq8"


def test_a_build_that_encoded_nothing_is_in_nobodys_way(make: Callable[..., Store], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the pool has no passage"):
        make(0)
    assert (tmp_path / ".store.partial" / "plan.json").exists()
    assert make(kind="sq8").manifest.plan.kind == "sq8"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite(make: Callable[..., Store], encoder: Any, passages: Passages, bad: float) -> None:
    encoder.known = {6: {passages(11)[9].full: np.array([bad] * 24, np.float32)}}
    with pytest.raises(DataError, match="not finite for passage 9: try --dtype float32"):
        make()


def test_a_pool_of_nothing(make: Callable[..., Store], encoder: Any, plan: Plans, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the pool has no passage"):
        make(0)
    with pytest.raises(DataError, match="the pool has no passage"):
        estimate(plan(), [], encoder)


def test_one_passage(make: Callable[..., Store]) -> None:
    store = make(1)
    assert store.search(Size(2, 8), store.vectors(2).rows(slice(None), 8), 5)[1].tolist() == [[0]]
    assert store.bm25.search("number 0", 5).rows.tolist() == [0]


def test_what_else_may_stand_in_the_folder(make: Callable[..., Store], tmp_path: Path) -> None:
    for name, content in (("file", None), ("folder", "notes.txt")):
        place = tmp_path / name
        if content:
            place.mkdir()
            (place / content).write_text("mine")
        else:
            place.write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="exists and is not an index: choose another"):
                make(folder=place, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert len(make(folder=tmp_path / "empty")) == 11


def test_a_path_below_a_file(make: Callable[..., Store], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"a part of the path is a file|a file of that name is in the way"):
        make(folder=tmp_path / "file" / "store")
    with pytest.raises(StorageError, match="the name is too long"):
        make(folder=tmp_path / ("x" * 300))


def test_a_second_builder_is_refused(make: Callable[..., Store], encoder: Any, tmp_path: Path) -> None:
    with (tmp_path / ".store.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"another process is building in .*store: wait"):
            make()
    store = make()
    with (tmp_path / ".store.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process is building"):
            extend(store.folder, [Size(4, 8)], encoder)
        with pytest.raises(StoreError, match="another process is building"):
            make(overwrite=True)
        assert len(make()) == 11  # to read needs no lock


def test_two_threads_that_build_the_same(tmp_path: Path, encoder: Any, passages: Passages, plan: Plans) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> Iterator[Passage]:
        entered.set()
        assert leave.wait(20)
        yield from passages(11)

    first = threading.Thread(target=lambda: build(tmp_path / "store", plan(), slow, encoder))
    first.start()
    assert entered.wait(20)
    with pytest.raises(StoreError, match="another process is building"):
        build(tmp_path / "store", plan(), lambda: passages(3), encoder)
    leave.set()
    first.join()
    assert len(Store(tmp_path / "store")) == 11


def test_extend_equals_a_fresh_build(
    make: Callable[..., Store], encoder: Any, tmp_path: Path, files: Callable[[Path], dict[str, bytes]]
) -> None:
    fresh = make(folder=tmp_path / "fresh", sizes="L2-d8,L3-d24,L4-d8,L6-d8,L6-d16,L6-d24")
    store = make()
    encoder.calls.clear()
    more = extend(store.folder, [Size(4, 8), Size(6, 16), Size(3, 24), Size(6, 8)], encoder)
    assert encoder.calls == [(4, (3, 4)), (4, (3, 4)), (3, (3, 4))]
    assert files(more.folder) == files(fresh.folder)
    encoder.calls.clear()
    assert extend(store.folder, [Size(4, 8)], encoder).manifest == more.manifest and encoder.calls == []
    assert store.search(Size(2, 8), store.vectors(2).rows(slice(0, 1), 8), 1)[1].tolist() == [[0]]


def test_extend_refuses_another_model(make: Callable[..., Store], encoder: Any) -> None:
    store = make()
    encoder.revision = "r2"
    with pytest.raises(StoreMismatchError, match="built with fake at revision r1, but the model in use is fake at"):
        extend(store.folder, [Size(4, 8)], encoder)


def test_the_timing_says_what_was_encoded(make: Callable[..., Store], encoder: Any, passages: Passages) -> None:
    broken = passages(11)[9].full
    encoder.known = {6: {broken: np.full(24, np.nan, np.float32)}}
    with pytest.raises(DataError):
        make()
    encoder.known = {}
    timing = json.loads(timing_file(make().folder).read_text())
    assert timing["passages"] == 3 and timing["layers"] == [2, 6]  # 8 of 11 were on the disk before


@pytest.mark.parametrize("kind", ["flat", "fp16", "sq8", "hnsw", "ivf", "panorama", "IVF2,SQ8"])
def test_every_kind_finds_each_passage(make: Callable[..., Store], kind: str) -> None:
    store = make(90, kind=kind)
    for size in store.sizes:
        queries = store.vectors(size.layers).rows(slice(None), size.dim)
        assert store.search(size, queries, 3)[1][:, 0].tolist() == list(range(90))


def test_kinds_that_cannot_be(make: Callable[..., Store], encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FAISS knows no index 'nonsense' for 8 dimensions: choose flat, fp16"):
        make(kind="nonsense")
    assert encoder.calls == [] and list(tmp_path.iterdir()) == []  # refused before the work
    with pytest.raises(ConfigError, match="cannot be trained on 11 passages"):
        make(kind="IVF64,Flat")


@pytest.mark.parametrize("kind", ["flat", "sq8", "hnsw", "ivf"])
def test_the_estimate_is_of_the_right_order(
    make: Callable[..., Store], encoder: Any, plan: Plans, passages: Passages, kind: str
) -> None:
    sizes = {str(size): size for size in (Size(2, 8), Size(6, 24))}
    guess = estimate(plan(",".join(sizes), kind=kind, bm25=False), passages(3000), encoder)
    store = make(3000, sizes=",".join(sizes), kind=kind, bm25=False, shard=1000)
    disk = sum(os.path.getsize(path) for path in store.folder.rglob("*") if path.is_file())
    assert guess.passages == 3000 and 0.7 * disk < guess.disk < 1.5 * disk
    assert list(guess.kinds) == list(sizes) and guess.seconds > 0
