"""Batches under a token budget."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from rag_ese.encoder.batching import batches, pad


@pytest.mark.parametrize("seed", range(20))
def test_batches_hold_every_text_once_and_respect_the_budget(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 300) for _ in range(draw.randint(1, 200))]
    budget = draw.choice([1, 64, 512, 8192])
    found = list(batches(lengths, budget))
    assert sorted(position for batch in found for position in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[position] for position in batch) <= budget
    for batch, following in pairwise(found):
        assert min(lengths[position] for position in batch) >= max(lengths[position] for position in following)
        assert (len(batch) + 1) * lengths[batch[0]] > budget, "the next text would have fitted"


def test_no_text_is_no_batch() -> None:
    assert list(batches([], 10)) == []


def test_padding_is_on_the_right() -> None:
    padded = pad([[5, 6, 7], [8]], 9, torch.device("cpu"))
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
