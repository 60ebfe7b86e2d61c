"""How a training row becomes a window: alone, beside a passage that does not answer it, or that passage alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag_ese.data.readings import Gold, Reading
from rag_ese.reader.model import CLOSED, LONGEST, number_of
from rag_ese.reader.windows import Cutter, Stretch, Window
from rag_ese.types import Passage

_TRIES = 4


@dataclass(frozen=True)
class Example:
    """A window and its right candidates, as `rag_ese.reader.model.loss` numbers them in a batch of its own length."""

    window: Window
    spans: tuple[tuple[int, int], ...]
    closed: int | None = None

    def gold(self, length: int) -> list[int]:
        """The numbers of the right candidates in a batch that is padded to `length` tokens."""
        if self.closed is not None:
            return [length * LONGEST + self.closed]
        return [number_of(*span) for span in self.spans]


class Distractors:
    """Passages of the same title where there are others, of the whole set where not, that lack a row's answers."""

    def __init__(self, rows: Sequence[Reading]) -> None:
        self._all = list(dict.fromkeys(passage for row in rows for passage in row.passages))
        titles: dict[str, list[Passage]] = {}
        for passage in self._all:
            titles.setdefault(passage.title, []).append(passage)
        self._same: Mapping[str, Sequence[Passage]] = titles

    def draw(self, row: Reading, rng: random.Random) -> Passage | None:
        """One passage; None where a few draws find none that lacks the answers."""
        answers = {row.passages[gold.passage].text[gold.start : gold.end].lower() for gold in row.gold}
        same = self._same.get(row.passages[0].title, ())
        pool = row.distractors or (same if 1 < len(same) < len(self._all) else self._all)
        for _ in range(_TRIES):
            drawn = rng.choice(pool)
            if drawn not in row.passages and not any(answer in drawn.text.lower() for answer in answers):
                return drawn
        return None


@dataclass(frozen=True)
class Shares:
    """How often a row is shown beside a distractor, and how often the distractor alone."""

    beside: float
    unanswered: float


def render(row: Reading, distractors: Distractors, shares: Shares, cutter: Cutter, rng: random.Random) -> Example:
    """One window of a row, drawn by `rng`: of all its passages, or one of the two kinds of `shares`."""
    drawn = rng.random()
    distractor = distractors.draw(row, rng) if drawn < shares.beside + shares.unanswered else None
    if distractor is None:
        return _example(row, list(row.passages), rng, cutter)
    if drawn < shares.unanswered:
        return _unanswered(row, distractor, rng, cutter)
    if row.closed:
        return _example(row, [*row.passages, distractor][:2], rng, cutter)
    holder = row.gold[0].passage
    gold = tuple(Gold(0, each.start, each.end) for each in row.gold if each.passage == holder)
    passages = (row.passages[holder],)
    return _example(Reading(row.question, passages, gold), [*passages, distractor], rng, cutter)


def _unanswered(row: Reading, distractor: Passage, rng: random.Random, cutter: Cutter) -> Example:
    """The distractor, half of the time beside a passage that supports the answer without holding it."""
    holders = {gold.passage for gold in row.gold}
    support = [passage for number, passage in enumerate(row.passages) if number not in holders]
    seen = [distractor, *support[:1]] if len(row.passages) > 1 and rng.random() < 0.5 else [distractor]
    return _example(Reading(row.question, tuple(seen), ()), seen, rng, cutter)


def _example(row: Reading, passages: list[Passage], rng: random.Random, cutter: Cutter) -> Example:
    """The passages in random order, cut where they are too long around a right answer."""
    golds = [
        (gold.passage, place[0], min(place[1], place[0] + LONGEST - 1))
        for gold in row.gold
        if (place := cutter.tokens(passages[gold.passage].text).cover(gold.start, gold.end))
    ]
    kept = rng.choice(golds) if golds else None
    room = cutter.room(row.question, passages)
    lengths = [len(cutter.tokens(passage.text)) for passage in passages]
    stretches = []
    for number, limit in enumerate(_limits(lengths, room)):
        within = kept[1:] if kept and kept[0] == number else None
        stretches.append(Stretch(number, *_crop(lengths[number], limit, within, rng)))
    rng.shuffle(stretches)
    window = cutter.window(row.question, passages, stretches)
    spans = tuple(dict.fromkeys(place for gold in golds if (place := window.place(*gold))))
    closed = CLOSED.index(row.closed or "") if row.closed or not spans else None
    return Example(window, spans, closed)


def _limits(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens each text may have: the shorter ones all of theirs, the longer ones the rest in equal parts."""
    limits = [0] * len(lengths)
    for done, number in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        limits[number] = min(lengths[number], room // (len(lengths) - done))
        room -= limits[number]
    return limits


def _crop(length: int, limit: int, within: tuple[int, int] | None, rng: random.Random) -> tuple[int, int]:
    """(first, last) of at most `limit` tokens, drawn among those that hold the tokens `within`."""
    if length <= limit:
        return 0, length
    low, high = 0, length - limit
    if within:
        low, high = max(low, within[1] + 1 - limit), min(high, within[0])
    first = rng.randint(low, max(low, high))
    return first, first + limit
