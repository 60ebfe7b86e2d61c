"""Every row once per epoch, nothing twice in a batch, and batch n a function of seed and n."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rag_ese.data.batches import pack
from rag_ese.data.held_out import hold_out
from rag_ese.data.training_rows import Row
from rag_ese.errors import ConfigError, DataError
from rag_ese.training.mixture import Batch, DataRows, Mixture, identities


def rows(count: int, per_passage: int = 1, per_question: int = 1, name: str = "") -> list[Row]:
    """Rows of which so many share a passage, or a question."""
    passages = [f"{name}p{n // per_passage} " + "x" * (n // per_passage * 37 % 100) for n in range(count)]
    return [row(f"{name}q{n // per_question}", passage) for n, passage in enumerate(passages)]


def row(*texts: str) -> Row:
    return Row(texts, ("query", *["passage"] * (len(texts) - 1)))


def epoch(mixture: Mixture, number: int = 0) -> list[Batch]:
    steps = mixture.steps_per_epoch
    return [mixture.batch(step) for step in range(number * steps, (number + 1) * steps)]


def seen(batches: list[Batch]) -> Counter[Row]:
    return Counter(row for batch in batches for row in batch.rows)


@pytest.mark.parametrize("bucket", [0, 2, 20])
@pytest.mark.parametrize(("count", "size"), [(96, 8), (64, 2), (40, 40), (300, 12)])
def test_an_epoch_holds_every_row_exactly_once(count: int, size: int, bucket: int) -> None:
    data = rows(count)
    mixture = Mixture([DataRows("a", data)], size, seed=3, bucket=bucket)
    assert mixture.steps_per_epoch == count // size
    for number in range(3):
        assert seen(epoch(mixture, number)) == Counter(data)


@pytest.mark.parametrize(("count", "size"), [(97, 8), (15, 8), (9, 8)])
def test_the_last_batch_is_filled(count: int, size: int) -> None:
    data = rows(count)
    batches = epoch(Mixture([DataRows("a", data)], size, seed=3))
    assert {len(batch.rows) for batch in batches} == {size}
    counts = seen(batches)
    assert set(counts) == set(data) and counts.total() == -(-count // size) * size


def test_weights() -> None:
    sets = [DataRows("a", rows(80, name="a"), 1), DataRows("b", rows(40, name="b"), 3), DataRows("c", rows(80), 0.5)]
    mixture = Mixture(sets, 8, seed=0)
    batches = epoch(mixture)
    assert Counter(batch.name for batch in batches) == {"a": 10, "b": 15, "c": 5}
    assert set(seen([batch for batch in batches if batch.name == "b"]).values()) == {3}
    both = [batch for batch in batches + epoch(mixture, 1) if batch.name == "c"]
    assert seen(both) == Counter(sets[2].rows), "half of the rows in one epoch, the other half in the next"
    assert [batch.name for batch in batches] != sorted(batch.name for batch in batches)
    for batch in batches:
        assert {*batch.rows} <= {*next(each.rows for each in sets if each.name == batch.name)}


@pytest.mark.parametrize("bucket", [0, 4, 20])
@pytest.mark.parametrize(("per_passage", "per_question"), [(5, 1), (1, 2), (12, 1), (4, 2)])
def test_nothing_is_twice_in_a_batch(per_passage: int, per_question: int, bucket: int) -> None:
    data = rows(240, per_passage, per_question)
    mixture = Mixture([DataRows("a", data)], 16, seed=1, bucket=bucket)
    for number in range(3):
        batches = epoch(mixture, number)
        assert seen(batches) == Counter(data)
        for batch in batches:
            for place in (0, 1):
                assert len({row.texts[place] for row in batch.rows}) == 16, place


def test_more_rows_of_a_passage_than_batches_are_spread_as_far_as_they_go() -> None:
    data = rows(64, per_passage=64)
    assert seen(epoch(Mixture([DataRows("a", data)], 8, seed=1))) == Counter(data)


def test_no_question_is_twice_in_a_batch_however_tight_it_is() -> None:
    draw = np.random.default_rng(0)
    tight = 0
    for _ in range(300):
        size, batches = (int(number) for number in draw.integers(2, 7, size=2))
        counts = draw.integers(1, batches + 1, size=size + int(draw.integers(0, 3)))
        questions = np.repeat(np.arange(len(counts)), counts)
        if -(-len(questions) // size) < counts.max():
            continue
        tight += counts.max() == -(-len(questions) // size)
        lines = pack(questions, np.arange(len(questions)), draw.integers(1, 9, len(questions)), size, 2, draw)
        assert {*lines.ravel().tolist()} == {*range(len(questions))}
        assert all(len({*questions[line].tolist()}) == size for line in lines)
    assert tight > 50


def test_a_resumed_stream_is_the_uninterrupted_one() -> None:
    sets = [DataRows("a", rows(50, 3)), DataRows("b", rows(33, name="b"), 1.7)]
    whole = Mixture(sets, 8, seed=5, held_out=0.1)
    stream = [whole.batch(step) for step in range(60)]
    for start in (1, 17, 59):
        again = Mixture(sets, 8, seed=5, held_out=0.1)
        assert [again.batch(step) for step in range(start, 60)] == stream[start:]
    backwards = Mixture(sets, 8, seed=5, held_out=0.1)
    assert [backwards.batch(step) for step in reversed(range(60))] == stream[::-1]
    other = Mixture(sets, 8, seed=6, held_out=0.1)
    assert [other.batch(step) for step in range(60)] != stream
    assert epoch(whole, 0) != epoch(whole, 1)


def test_rows_of_similar_length_share_a_batch() -> None:
    draw = np.random.default_rng(1)
    data = [Row((f"q{n}", "x" * int(draw.integers(1, 1000))), ("query", "passage")) for n in range(640)]

    def padding(bucket: int) -> float:
        batches = epoch(Mixture([DataRows("a", data)], 16, 0, bucket=bucket))
        lengths = [[len(row.texts[1]) for row in batch.rows] for batch in batches]
        return sum(max(each) * len(each) for each in lengths) / sum(map(sum, lengths))

    assert padding(20) < 1.2 < 1.7 < padding(0)


def test_held_out_rows_share_nothing_with_the_others() -> None:
    data = rows(400, per_passage=5, per_question=2)
    train, apart = hold_out(data, 0.1, seed=0)
    assert Counter(train) + Counter(apart) == Counter(data) and 20 <= len(apart) <= 40
    for place in (0, 1):
        assert {row.texts[place] for row in train}.isdisjoint(row.texts[place] for row in apart)
    mixture = Mixture([DataRows("a", data)], 8, seed=0, held_out=0.1)
    measured = mixture.held_out_batches()
    assert {row for batch in measured for row in batch.rows} == set(apart)
    assert set(seen(epoch(mixture))) == set(train)
    assert measured == Mixture([DataRows("a", data)], 8, seed=0, held_out=0.1).held_out_batches()
    assert all(len({row.texts[0] for row in batch.rows}) == len(batch.rows) > 1 for batch in measured)


def test_rows_that_make_no_held_out_batch_are_trained_on() -> None:
    data = rows(20)
    mixture = Mixture([DataRows("a", data)], 4, seed=0, held_out=0.05)
    assert mixture.held_out_batches() == [] and set(seen(epoch(mixture))) == set(data)


def test_what_cannot_be_batched() -> None:
    with pytest.raises(ConfigError, match="a batch of 1 rows has no in-batch negatives"):
        Mixture([DataRows("a", rows(9))], 1, seed=0)
    with pytest.raises(ConfigError, match="a has 9 different questions, too few for a batch of 10"):
        Mixture([DataRows("a", rows(9))], 10, seed=0)
    with pytest.raises(DataError, match="empty has no rows"):
        Mixture([DataRows("empty", [])], 2, seed=0)
    with pytest.raises(ConfigError, match="0 data sets"):
        Mixture([], 2, seed=0)
    often = [*rows(90), *(Row(("often", f"o{n}"), ("query", "passage")) for n in range(10))]
    with pytest.raises(ConfigError, match=r"one question 10 times, but 5 batches .* lower the batch size to 11 or"):
        Mixture([DataRows("a", often)], 20, seed=0)
    batches = epoch(Mixture([DataRows("a", often)], 11, seed=0))
    assert set(seen(batches)) == set(often), "the batch size that the message names works"


def test_identities_are_equal_where_texts_are() -> None:
    batch = [row("a", "p", "n", "m"), row("b", "n", "p"), row("c", "r", "s")]
    numbers = identities(batch)
    texts = np.array([["p", "n"], ["n", "p"], ["r", "s"]])
    assert numbers.dtype == np.int64
    same = numbers.ravel()[:, None] == numbers.ravel()[None, :]
    assert np.array_equal(same, texts.ravel()[:, None] == texts.ravel()[None, :])
