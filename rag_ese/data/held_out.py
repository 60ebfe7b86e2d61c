"""Splits rows so that the two parts share no question and no passage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np


class HasTexts(Protocol):
    """A row whose first two texts say what it belongs to."""

    @property
    def texts(self) -> tuple[str, ...]: ...


Row = TypeVar("Row", bound=HasTexts)


def hold_out(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(what is trained on, what is held out), each in the order of `rows`; at most `share` of them are held out.

    Rows with a question or a passage in common, by way of other rows too, stay together. Groups are drawn at random as
    long as they fit.
    """
    groups = _groups(rows)
    names, sizes = np.unique(groups, return_counts=True)
    room, chosen = int(share * len(rows)), set()
    for place in np.random.default_rng([seed % 2**63, len(rows)]).permutation(len(names)):
        if sizes[place] <= room:
            room -= int(sizes[place])
            chosen.add(int(names[place]))
    train = [row for row, group in zip(rows, groups, strict=True) if group not in chosen]
    return train, [row for row, group in zip(rows, groups, strict=True) if group in chosen]


def _groups(rows: Sequence[HasTexts]) -> list[int]:
    """The same number for rows that are connected by their first two texts."""
    parent = list(range(len(rows)))

    def top(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    seen: dict[str, int] = {}
    for number, row in enumerate(rows):
        for text in row.texts[:2]:
            parent[top(number)] = top(seen.setdefault(text, number))
    return [top(number) for number in range(len(rows))]
