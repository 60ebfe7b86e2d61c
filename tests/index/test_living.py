"""What is added is found, what is deleted is not, and a living index answers as a store of its living passages does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import DataError, StoreError, StoreMismatchError
from rag_ese.index import LivingIndex, Store, View, build
from rag_ese.index.lock import exclusive
from rag_ese.retriever import BM25Searcher, Funnel, FunnelSearcher, HybridSearcher
from rag_ese.types import Passage, Size

SIZES = [Size(2, 8), Size(6, 24)]
QUERIES = ["river bridge", "who wrote the novel", "ancient city north", "Number 4"]
Passages = Callable[[int], list[Passage]]


@pytest.fixture
def make(tmp_path: Path, encoder: Any, plan: Callable[..., Any]) -> Callable[..., Store]:
    def make(rows: list[Passage], name: str = "store", **changes: Any) -> Store:
        return build(tmp_path / name, plan("L2-d8,L6-d24", **changes), lambda: rows, encoder)

    return make


@pytest.fixture
def living(make: Callable[..., Store], passages: Passages, tmp_path: Path) -> LivingIndex:
    return LivingIndex.create(tmp_path / "living", make(passages(30)[:10]))


def texts(index: Any, rows: Any) -> list[str]:
    return [index.passages[int(row)].full for row in rows]


def same(index: Any, fresh: Any, encoder: Any) -> None:
    """Searches of every sort give the same passages and scores, in the same order."""
    for funnel in ("L2-d8:7", "L6-d24:100", "L2-d8:6 > L6-d12:4", "L2-d8:99 > L6-d24:9"):
        parsed = Funnel.parse(funnel, 6, 24)
        made: list[list[Any]] = [
            [FunnelSearcher(each, encoder, parsed), HybridSearcher(each, encoder, parsed, 5), BM25Searcher(each, 7)]
            for each in (index, fresh)
        ]
        for mine, theirs in zip(*made, strict=True):
            for found, expected in zip(mine.search(QUERIES), theirs.search(QUERIES), strict=True):
                assert texts(index, found.rows) == texts(fresh, expected.rows), mine.name
                assert np.allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["pq4", "sq8", "sketch", "ivf-sketch", "pq4; L6-d24=sq8"])
def test_few_passages_can_be_added_to_any_kind(
    make: Callable[..., Store], passages: Passages, encoder: Any, tmp_path: Path, kind: str
) -> None:
    rows = passages(43)
    index = LivingIndex.create(tmp_path / "living", make(rows[:40], kind=kind)).add(rows[40:], encoder)
    found = index.search(index.sizes[0], encoder.begin(["anything"]).at(index.sizes[0]), 43)[1]
    assert sorted(found[0].tolist()) == list(range(43))


@pytest.mark.parametrize("kind", ["flat", "fp16", "hnsw", "ivf", "panorama"])
def test_it_answers_as_a_fresh_store(
    make: Callable[..., Store], passages: Passages, encoder: Any, tmp_path: Path, kind: str
) -> None:
    rows = passages(30)
    index = LivingIndex.create(tmp_path / "living", make(rows[:10], kind=kind))
    index = index.add(rows[10:25], encoder).delete([rows[3].id, rows[12].id, rows[24].id]).add(rows[25:], encoder)
    left = [row for number, row in enumerate(rows) if number not in (3, 12, 24)]
    fresh = make(left, "fresh", kind=kind)
    assert len(index) == len(left) == 27
    same(index, fresh, encoder)
    encoder.calls.clear()
    merged = index.compact()
    assert encoder.calls == []
    assert len(merged.stores) == 1 and list(merged.passages) == left
    same(merged, fresh, encoder)
    for layer in (2, 6):
        assert np.array_equal(merged.vectors(layer).rows(slice(None), 24), fresh.vectors(layer).rows(slice(None), 24))
    same(index, fresh, encoder)  # the one that was open before


def test_a_passage_by_id(living: LivingIndex, passages: Passages, encoder: Any) -> None:
    old, new = passages(30)[4], passages(30)[20]
    assert living.passage(old.id) == old and old.id in living and new.id not in living
    after = living.update({old.id: new}, encoder)
    assert after.generation.number == living.generation.number + 1  # one step
    assert after.passage(new.id) == new and old.id not in after and len(after) == 10
    assert old.id in living and new.id not in living
    with pytest.raises(DataError, match=f"holds no passage with the id '{old.id}'"):
        after.passage(old.id)


def test_the_same_passage_again(living: LivingIndex, passages: Passages, encoder: Any) -> None:
    rows = passages(10)
    encoder.calls.clear()
    assert living.add(rows, encoder).generation == living.generation and encoder.calls == []
    labelled = replace(rows[2], metadata={"year": 1990})
    after = living.add([rows[1], labelled], encoder)
    assert len(after) == 10 and after.passage(labelled.id).metadata == {"year": 1990}
    assert sum(count for count, _ in encoder.calls) == 1
    again = after.delete([labelled.id]).add([labelled, rows[2]], encoder)
    assert len(again) == 10 and again.passage(labelled.id).metadata == {}  # of two, the last


def test_deleting(living: LivingIndex, passages: Passages, encoder: Any) -> None:
    rows = passages(10)
    after = living.delete([rows[0].id])
    assert after.delete([rows[0].id]).generation == after.generation  # an interrupted command, run again
    with pytest.raises(DataError, match=r"does not know 2 of 3 ids, the first is 'feedfeedfeedfeed': leave"):
        after.delete([rows[1].id, "feedfeedfeedfeed", "x"])
    assert rows[1].id in LivingIndex.open(living.folder)
    for row in rows[1:]:
        after = after.delete([row.id])
    assert len(after) == 0
    assert after.search(SIZES[0], np.ones((2, 8), np.float32), 3)[1].shape == (2, 0)
    assert [len(each) for each in BM25Searcher(after, 3).search(QUERIES)] == [0] * 4
    with pytest.raises(StoreError, match="has no passage left to merge: add some first"):
        after.compact()
    assert [*after.add(rows[:3], encoder).compact().passages] == rows[:3]


def test_many_changes_fold_their_tombstones(living: LivingIndex, passages: Passages, encoder: Any) -> None:
    row = passages(1)[0]
    for number in range(40):
        living = living.add([replace(row, metadata={"n": number})], encoder)
    assert len(living) == 10 and living.passage(row.id).metadata == {"n": 39}
    assert len(living.generation.deleted) <= 33
    assert not {*living.generation.deleted} - {*living.generation.files}


def test_what_is_refused(living: LivingIndex, passages: Passages, encoder: Any, tmp_path: Path) -> None:
    encoder.revision = "r2"
    with pytest.raises(StoreMismatchError, match="built with fake at revision r1, but the model in use is fake at"):
        living.add(passages(12), encoder)
    with (
        exclusive(living.folder, "writing to"),
        pytest.raises(StoreError, match=r"another process is writing to .*wait"),
    ):
        living.delete([passages(1)[0].id])
    with pytest.raises(StoreError, match="is not a living index: make one"):
        LivingIndex.open(tmp_path / "store")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "mine").touch()
    with pytest.raises(StoreError, match="exists and is not a living index: choose another"):
        LivingIndex.create(tmp_path / "else", Store(tmp_path / "store"))


def test_in_place_and_by_reference_nothing_is_copied(
    make: Callable[..., Store], passages: Passages, encoder: Any, files: Callable[[Path], dict[str, bytes]]
) -> None:
    store = make(passages(10))
    before = files(store.folder)
    index = LivingIndex.create(store.folder, store)
    index = index.add(passages(12)[10:], encoder).compact().clean()
    after = files(store.folder)
    assert {name: after[name] for name in before} == before
    assert len(index) == 12 and len(Store(store.folder)) == 10
    assert LivingIndex.create(store.folder, store).generation == index.generation


def test_old_files_go_when_their_readers_have_gone(
    make: Callable[..., Store], passages: Passages, encoder: Any, tmp_path: Path
) -> None:
    living = LivingIndex.create(tmp_path / "living", make(passages(30)[:10]))
    reader = living.add(passages(20), encoder).delete([passages(1)[0].id])
    merged = LivingIndex.open(living.folder).compact()
    assert reader.passage(passages(20)[15].id) == passages(20)[15]  # mapped only now
    assert len(reader.search(SIZES[0], np.ones((1, 8), np.float32), 30)[1][0]) == 19
    folders = living.folder / "segments"
    assert len([*folders.iterdir()]) == 2
    del reader, living
    merged.clean()
    assert len([*folders.iterdir()]) == 1 and len([*(merged.folder / "words").iterdir()]) == 1
    assert [*(merged.folder / "deleted").iterdir()] == []
    assert len(merged) == 19


def test_a_view_is_searched_as_a_store_of_its_passages(
    make: Callable[..., Store], passages: Passages, encoder: Any, tmp_path: Path
) -> None:
    rows = [replace(row, metadata={"n": number} if number % 3 else {}) for number, row in enumerate(passages(30))]
    index = LivingIndex.create(tmp_path / "living", make(rows[:10])).add(rows[10:], encoder).delete([rows[7].id])
    where = {"n": {">=": 4, "<": 25}}
    fresh = make([row for row in rows if 4 <= row.metadata.get("n", 0) < 25 and row != rows[7]], "fresh")
    view = View(index, where)
    assert len(view) == len(fresh) == 13
    for funnel in ("L2-d8:5", "L6-d24:100", "L2-d8:6 > L6-d24:4"):
        parsed = Funnel.parse(funnel, 6, 24)
        found = FunnelSearcher(view, encoder, parsed).search(QUERIES)
        for mine, theirs in zip(found, FunnelSearcher(fresh, encoder, parsed).search(QUERIES), strict=True):
            assert texts(index, mine.rows) == texts(fresh, theirs.rows)
    words = {text for ranking in BM25Searcher(view, 30).search(QUERIES) for text in texts(index, ranking.rows)}
    assert words and words <= {row.full for row in fresh.passages}
    assert len(index.delete(where=where)) == 29 - 13
