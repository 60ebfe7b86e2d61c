"""An endless stream of batches from several data sets: batch n is a function of the seed and n, so runs can resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from rag_ese.data.batches import count_batches, pack
from rag_ese.data.held_out import hold_out
from rag_ese.data.training_rows import Kind, Row, kind_of
from rag_ese.errors import ConfigError, DataError
from rag_ese.types import Int64s


@dataclass(frozen=True)
class DataRows:
    """A data set of one kind, and how often its rows are seen in an epoch of the mixture."""

    name: str
    rows: Sequence[Row]
    weight: float = 1.0
    batch_size: int | None = None
    """Rows per batch of this set, where it is not the mixture's."""
    labelled: bool = True
    """Whether the texts of a row are known to belong together: a base loss applies."""


@dataclass(frozen=True)
class Batch:
    """Rows of one data set."""

    name: str
    kind: Kind
    rows: tuple[Row, ...]
    labelled: bool = True


class Mixture:
    """Batches of one data set each, of `batch_size` rows or as many as the set says.

    In an epoch a data set supplies `weight` times as many batches as hold its rows, rounded to at least 1, in an order
    that is drawn anew each epoch. Its batches pass over its rows again and again; each pass is packed as
    `rag_ese.data.batches.pack` says, with `bucket` batches sorted by length together (0: none are).

    Of every data set `held_out` of the rows are set apart, sharing no question and no passage with the others.

    Raises ConfigError for a batch of fewer than 2 rows, which has no in-batch negatives, and for a data set that cannot
    fill one with different questions.
    """

    def __init__(
        self, sets: Sequence[DataRows], batch_size: int, seed: int, held_out: float = 0.0, bucket: int = 20
    ) -> None:
        least = min([batch_size, *(each.batch_size or batch_size for each in sets)])
        if least < 2:
            raise ConfigError(f"a batch of {least} rows has no in-batch negatives: choose 2 or more")
        if not sets:
            raise ConfigError("a mixture of 0 data sets has no batches: name at least one")
        if bad := [each.name for each in sets if not each.weight > 0]:
            raise ConfigError(f"the weight of {bad[0]} is not above 0: leave the data set out instead")
        self.seed = seed
        self._sets: list[_Set] = []
        self._held_out: list[_Set] = []
        for each in sets:
            rows, apart = hold_out(each.rows, held_out, seed) if held_out else (each.rows, [])
            size = each.batch_size or batch_size
            measured = _Set(each.name, apart, size, each.labelled) if apart else None
            if measured and measured.widest() >= 2:
                self._held_out.append(measured)
            else:
                rows = each.rows
            self._sets.append(_Set(each.name, rows, size, each.labelled))
        self._bucket = bucket
        self._batches = [count_batches(each.questions, each.size, each.name) for each in self._sets]
        self._share = [max(1, round(each.weight * count)) for each, count in zip(sets, self._batches, strict=True)]
        self._passes: dict[int, tuple[int, Int64s]] = {}
        self._schedule: tuple[int, Int64s, Int64s] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return sum(self._share)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0; the same for the same data sets, options and seed."""
        epoch, place = divmod(step, self.steps_per_epoch)
        number, nth = self._draw(epoch, place)
        turn, line = divmod(epoch * self._share[number] + nth, self._batches[number])
        if number not in self._passes or self._passes[number][0] != turn:
            packed = self._sets[number].pack(self._sets[number].size, self._bucket, self._rng(1, number, turn))
            self._passes[number] = turn, packed
        return self._sets[number].batch(self._passes[number][1][line])

    def held_out_batches(self) -> list[Batch]:
        """The rows that are set apart, as batches of up to `batch_size`, always the same.

        A row may stand in two of them. Where the rows set apart would make no batch of two, none are set apart.
        """
        return [
            each.batch(line)
            for number, each in enumerate(self._held_out)
            for line in each.pack(min(each.size, each.widest()), self._bucket, self._rng(2, number, 0))
        ]

    def _draw(self, epoch: int, place: int) -> tuple[int, int]:
        """Which data set is drawn at a place of an epoch, and which of its draws in this epoch that is, from 0."""
        if self._schedule is None or self._schedule[0] != epoch:
            drawn = self._rng(0, 0, epoch).permutation(np.repeat(np.arange(len(self._share)), self._share))
            nth = np.zeros_like(drawn)
            for number, count in enumerate(self._share):
                nth[drawn == number] = np.arange(count)
            self._schedule = epoch, drawn, nth
        return int(self._schedule[1][place]), int(self._schedule[2][place])

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed % 2**63, *purpose])


def identities(rows: Sequence[Row]) -> Int64s:
    """Numbers of the passages of a batch, B x (1 + m): the same number for the same text, by a 64-bit hash.

    m is the smallest number of hard negatives among the rows; further ones have no number.
    """
    width = min(len(row.texts) for row in rows)
    return np.stack([_hashes([row.texts[place] for row in rows]) for place in range(1, width)], axis=1)


class _Set:
    """The rows of a data set with what packing looks at."""

    def __init__(self, name: str, rows: Sequence[Row], size: int, labelled: bool) -> None:
        if not rows:
            raise DataError(f"{name} has no rows to train on: leave it out, or look at what was excluded")
        self.name, self.rows, self.kind = name, rows, kind_of(rows)
        self.size, self.labelled = size, labelled
        self.questions, self.passages = (_hashes([row.texts[place] for row in rows]) for place in (0, 1))
        self.lengths = np.array([len(row.texts[1]) for row in rows], dtype=np.int64)

    def widest(self) -> int:
        """The most rows that batches can have that hold every row and no question twice."""
        counts = np.unique(self.questions, return_counts=True)[1]
        most = int(counts.max())
        return min(len(counts), len(self.rows) if most == 1 else (len(self.rows) - 1) // (most - 1))

    def pack(self, size: int, bucket: int, rng: np.random.Generator) -> Int64s:
        return pack(self.questions, self.passages, self.lengths, size, bucket, rng)

    def batch(self, line: npt.NDArray[np.int64]) -> Batch:
        return Batch(self.name, self.kind, tuple(self.rows[row] for row in line), self.labelled)


def _hashes(texts: Sequence[str]) -> Int64s:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], dtype=np.uint64).view(np.int64)
