"""Which rows of a data set share a batch: rows of similar length, no question twice, no passage twice if avoidable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.types import Int64s


def count_batches(questions: Int64s, size: int, name: str) -> int:
    """How many batches of `size` rows hold every row once, the last one filled up.

    `questions` are the rows' question numbers. Raises ConfigError where some batch would need a question twice.
    """
    _, counts = np.unique(questions, return_counts=True)
    batches, most = -(-len(questions) // size), int(counts.max(initial=0))
    if len(counts) < size:
        raise ConfigError(
            f"{name} has {len(counts)} different questions, too few for a batch of {size}: lower the batch size or "
            "leave the data set out"
        )
    if most > batches:
        raise ConfigError(
            f"{name} has one question {most} times, but {batches} batches of {size} rows that may hold it once each: "
            f"lower the batch size to {(len(questions) - 1) // (most - 1)} or remove some of these rows"
        )
    return batches


def pack(
    questions: Int64s, passages: Int64s, lengths: Int64s, size: int, bucket: int, rng: np.random.Generator
) -> Int64s:
    """One pass over a data set: row numbers, one line of `size` per batch; every row stands in it at least once.

    All rows are shuffled; every `bucket` batches of them are sorted by length and cut into batches (0: unsorted); rows
    whose question or passage their batch has already are exchanged with rows of other batches, the nearest first; the
    last batch is filled with rows of the others; the batches are shuffled. Needs what `count_batches` checks. Then no
    batch has a question twice, and a passage twice only where no exchange avoids it.
    """
    order = rng.permutation(len(questions))
    for start in range(0, len(order), max(1, bucket * size)) if bucket else ():
        part = order[start : start + bucket * size]
        order[start : start + bucket * size] = part[np.argsort(lengths[part], kind="stable")]
    packing = _Packing(questions, passages, [order[start : start + size] for start in range(0, len(order), size)])
    if not packing.exchange_all():
        batches = -(-len(order) // size)
        grouped = order[np.argsort(questions[order], kind="stable")]
        packing = _Packing(questions, passages, [grouped[start::batches] for start in range(batches)])
    packing.fill(size, rng)
    return np.array(packing.batches, dtype=np.int64)[rng.permutation(len(packing.batches))]


class _Packing:
    """Batches in the making, and how often each question and each passage stands in each of them."""

    def __init__(self, questions: Int64s, passages: Int64s, batches: list[Int64s]) -> None:
        self.questions, self.passages = questions.tolist(), passages.tolist()
        self.batches: list[list[int]] = [batch.tolist() for batch in batches]
        self._in = [Counter(key for row in batch for key in self._keys(row)) for batch in self.batches]

    def exchange_all(self) -> bool:
        """Exchanges rows until nothing is twice in a batch, as far as exchanges go; whether no question is."""
        for strict in (False, True):
            for batch, rows in enumerate(self.batches):
                for place in range(len(rows)):
                    if self._twice(batch, rows[place], strict):
                        self._exchange(batch, place, strict)
        return not any(self._twice(batch, row, True) for batch, rows in enumerate(self.batches) for row in rows)

    def fill(self, size: int, rng: np.random.Generator) -> None:
        """Brings every batch to `size` rows with rows that do not stand in it, of other passages if there are any."""
        for batch, rows in enumerate(self.batches):
            for strict in (False, True):
                for row in rng.permutation(len(self.questions)).tolist() if len(rows) < size else ():
                    if len(rows) < size and not self._clashes(batch, row, strict):
                        rows.append(row)
                        self._in[batch].update(self._keys(row))

    def _exchange(self, batch: int, place: int, strict: bool) -> None:
        rows, leaving = self.batches[batch], self.batches[batch][place]
        self._in[batch].subtract(self._keys(leaving))
        for other in self._nearest(batch):
            if self._clashes(other, leaving, strict):
                continue
            for position, coming in enumerate(self.batches[other]):
                if not self._clashes(batch, coming, strict):
                    rows[place], self.batches[other][position] = coming, leaving
                    self._in[other].subtract(self._keys(coming))
                    self._in[other].update(self._keys(leaving))
                    self._in[batch].update(self._keys(coming))
                    return
        self._in[batch].update(self._keys(leaving))

    def _nearest(self, batch: int) -> Iterator[int]:
        for distance in range(1, len(self.batches)):
            yield from (other for other in (batch - distance, batch + distance) if 0 <= other < len(self.batches))

    def _keys(self, row: int) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("question", self.questions[row]), ("passage", self.passages[row])

    def _twice(self, batch: int, row: int, strict: bool) -> bool:
        return any(self._in[batch][key] > 1 for key in self._keys(row)[: 1 if strict else 2])

    def _clashes(self, batch: int, row: int, strict: bool) -> bool:
        return any(self._in[batch][key] > 0 for key in self._keys(row)[: 1 if strict else 2])
