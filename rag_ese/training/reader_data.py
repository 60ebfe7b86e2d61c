"""What the reader is trained on, step by step: batch n is a function of the files, the options and n."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rag_ese.data.held_out import hold_out
from rag_ese.data.readings import Reading, read_readings
from rag_ese.data.training_rows import free_of
from rag_ese.errors import DataError
from rag_ese.reader.rendering import Distractors, Example, Shares, render
from rag_ese.reader.windows import Cutter
from rag_ese.training.reader_config import ReaderTrainConfig, ReadingSet


class Draw(NamedTuple):
    """The `turn`-th time that a row of a data set is shown."""

    source: int
    row: int
    turn: int


@dataclass(frozen=True)
class _Source:
    name: str
    rows: list[Reading]
    held_out: list[Reading]
    distractors: Distractors
    options: ReadingSet


class ReaderData:
    """Batches of examples of similar length, planned at the start.

    Each data set's rows are drawn `passes` times, evenly over the part of the run that begins at `begin`. Of `bucket`
    batches in a row the examples are sorted by length and the batches shuffled.
    """

    def __init__(self, config: ReaderTrainConfig, cutter: Cutter, note: Callable[[str], None]) -> None:
        self._config, self._cutter = config, cutter
        self._sources = [_source(each, config, note) for each in config.data]
        for source in self._sources:
            cutter.learn([text for row in (*source.rows, *source.held_out) for text in _texts(row)])
        self._batches = self._plan()

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, step: int) -> list[Example]:
        """The examples of a step, counted from 0."""
        return [self._example(draw) for draw in self._batches[step]]

    def held_out(self) -> dict[str, list[tuple[Reading, Example]]]:
        """Of every data set the rows that are not trained on, whole where they fit, always the same."""
        found = {}
        for number, source in enumerate(self._sources):
            rng = random.Random(f"{self._config.seed} held out {number}")
            whole = Shares(0, 0)
            rows = [(row, render(row, source.distractors, whole, self._cutter, rng)) for row in source.held_out]
            if rows:
                found[source.name] = rows
        return found

    def _example(self, draw: Draw) -> Example:
        source = self._sources[draw.source]
        rng = random.Random(f"{self._config.seed} {draw.source} {draw.row} {draw.turn}")
        shares = Shares(source.options.beside, source.options.unanswered)
        return render(source.rows[draw.row], source.distractors, shares, self._cutter, rng)

    def _plan(self) -> list[list[Draw]]:
        draws = [draw for _, draw in sorted(self._timed())]
        lengths = [len(self._example(draw).window) for draw in draws]
        size = self._config.bucket * self._config.batch_tokens
        rng = np.random.default_rng([self._config.seed % 2**63, 1])
        batches: list[list[Draw]] = []
        for bucket in _parts(draws, lengths, size):
            bucket.sort(key=lambda pair: pair[1])
            packed = [[draw for draw, _ in part] for part in _padded_parts(bucket, self._config.batch_tokens)]
            batches += [packed[place] for place in rng.permutation(len(packed))]
        return batches[: self._config.steps]

    def _timed(self) -> list[tuple[float, Draw]]:
        """Every draw with its time between 0 and 1; each pass over a data set is in an order of its own."""
        timed = []
        for number, source in enumerate(self._sources):
            rng = np.random.default_rng([self._config.seed % 2**63, 0, number])
            count, size = round(source.options.passes * len(source.rows)), len(source.rows)
            turns = [rng.permutation(size) for _ in range(-(-count // size))]
            for place in range(count):
                time = source.options.begin + (1 - source.options.begin) * (place + 0.5) / count
                timed.append((time, Draw(number, int(turns[place // size][place % size]), place // size)))
        return timed


def _source(options: ReadingSet, config: ReaderTrainConfig, note: Callable[[str], None]) -> _Source:
    rows = list(read_readings(Path(options.path), options.titles))
    if config.exclude:
        free = free_of(rows, config.exclude)
        if len(free) < len(rows):
            note(f"{options.path}: {len(rows) - len(free)} rows left out: an excluded file has a text of theirs")
        rows = free
    rows = rows[: config.limit]
    if not rows:
        raise DataError(f"{options.path} has no rows to train on: it needs questions whose passages hold the answers")
    distractors = Distractors(rows)
    train, apart = hold_out(rows, options.held_out, config.seed) if options.held_out else (rows, [])
    return _Source(Path(options.path).name, train, apart, distractors, options)


def _texts(row: Reading) -> list[str]:
    passages = (*row.passages, *row.distractors)
    return [row.question, *(passage.title for passage in passages), *(passage.text for passage in passages)]


def _parts(draws: Sequence[Draw], lengths: Sequence[int], size: int) -> list[list[tuple[Draw, int]]]:
    """Draws with their lengths, in parts of about `size` tokens."""
    number = np.cumsum(lengths) // size
    return [
        [(draws[place], lengths[place]) for place in np.flatnonzero(number == part).tolist()]
        for part in range(int(number[-1]) + 1)
    ]


def _padded_parts(rows: Sequence[tuple[Draw, int]], budget: int) -> list[list[tuple[Draw, int]]]:
    """Cuts rows sorted by length so that each part, padded to its longest, stays within the budget."""
    parts: list[list[tuple[Draw, int]]] = []
    for row in rows:
        if not parts or (len(parts[-1]) + 1) * row[1] > budget:
            parts.append([])
        parts[-1].append(row)
    return parts
