"""The funnels that could serve, and the recall of each, from one search per size.

What a funnel finds follows from rankings: a passage of the exact top k gets through a shortlist if its place in the
stage before is inside it, and the last stage, at full size, puts those that got through on top. So each first stage is
searched once, with the largest shortlist, and every cut is read off that ranking. (An HNSW graph searched for fewer
finds fewer; what is chosen is therefore measured again by the searcher that serves.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_ese.index import Store
from rag_ese.index.kinds import SCANS, kind_for
from rag_ese.plan.intervals import ENOUGH
from rag_ese.retriever import Funnel, Stage
from rag_ese.retriever.recall import Float64s, exact_top
from rag_ese.types import Float32s, Int64s, Size

_STEPS = (1, 1.5, 2, 3, 5, 7)
Vectors = Mapping[Size, Float32s]
"""The queries' embeddings at every size: queries x size.dim."""


@dataclass(frozen=True)
class Candidate:
    """A funnel and its recall per query."""

    funnel: Funnel
    recalls: Float64s

    @property
    def chain(self) -> tuple[Size, ...]:
        """Its sizes, whatever its shortlists."""
        return tuple(stage.size for stage in self.funnel.stages)

    @property
    def recall(self) -> float:
        return float(self.recalls.mean())


def shortlists(k: int, largest: int, passages: int) -> list[int]:
    """A geometric grid from `k` to `largest`, or to the pool: about three steps to a factor of 3.

    >>> shortlists(10, 200, 25_000)
    [10, 15, 20, 30, 50, 70, 100, 150, 200]
    """
    top = max(k, min(largest, passages))
    steps = (round(k * step * 10**power) for power in range(len(str(top))) for step in _STEPS)
    return sorted({k, top, *(step for step in steps if step < top)})


class Survey:
    """Queries over a store with their exact top `k`: the recall of candidates. `grid`: the cuts, ascending."""

    def __init__(self, store: Store, vectors: Vectors, k: int, grid: Sequence[int]) -> None:
        self.full = max(store.sizes)
        self.exact = exact_top(store, vectors[self.full], self.full, k)
        self._store, self._vectors, self._k, self._grid = store, vectors, k, grid
        self._searched: dict[Size, tuple[Int64s, Int64s]] = {}

    def singles_and_pairs(self, sizes: Iterable[Size]) -> Iterator[Candidate]:
        """Every size alone, and as the first stage before the full one at every cut."""
        for size in sizes:
            _, places = self._search(size)
            yield Candidate(Funnel.single(size, self._k), self._share(places < self._k))
            if size != self.full:
                for cut in self._grid:
                    stages = (Stage(size, cut), Stage(self.full, self._k))
                    yield Candidate(Funnel(stages), self._share(places < cut))

    def triples(self, first: Size, middle: Size) -> Iterator[Candidate]:
        """Three stages at every second cut of the grid; the middle one re-ranks what the first one kept."""
        grid = self._grid[::2]
        rows, places = self._search(first)
        ahead = np.empty((len(rows), self._k, len(grid)), np.int64)
        # A row of -1 is a place that an approximate index left empty; it stands behind all others.
        near = list(np.maximum(rows, 0))
        scored = self._store.row_scores(middle, exact=False).scores(near, self._vectors[middle])
        for query, (found, scores) in enumerate(zip(rows, scored, strict=True)):
            scores = np.where(found < 0, -np.inf, scores).astype(np.float32)
            ahead[query] = _ahead(found, scores, np.minimum(places[query], len(found) - 1), grid)
        for number, cut in enumerate(grid):
            for keep in grid[:number]:
                through = (places < cut) & (ahead[:, :, number] < keep)
                stages = (Stage(first, cut), Stage(middle, keep), Stage(self.full, self._k))
                yield Candidate(Funnel(stages), self._share(through))

    def _search(self, size: Size) -> tuple[Int64s, Int64s]:
        """The ranking of a first stage, and the place of every exact row in it (far behind where it is not)."""
        if size not in self._searched:
            _, rows = self._store.search(size, self._vectors[size], self._grid[-1])
            hits = rows[:, None, :] == self.exact[:, :, None]
            absent = np.iinfo(np.int64).max
            self._searched[size] = rows, np.where(hits.any(axis=2), hits.argmax(axis=2), absent)
        return self._searched[size]

    def _share(self, through: npt.NDArray[np.bool_]) -> Float64s:
        return np.asarray(through.mean(axis=1), dtype=np.float64)


def _ahead(rows: Int64s, scores: Float32s, places: Int64s, grid: Sequence[int]) -> Int64s:
    """How many of the first `cut` rows a re-ranking puts before the row at each place: places x cuts."""
    mine, own = scores[places][:, None], rows[places][:, None]
    before = (scores > mine) | ((scores == mine) & (rows < own))
    last = np.minimum(np.asarray(grid), len(rows)) - 1
    return np.asarray(np.cumsum(before, axis=1)[:, last], dtype=np.int64)


def triples_worth_trying(sizes: Sequence[Size], pairs: Sequence[Candidate], recall: float) -> list[tuple[Size, Size]]:
    """First and middle sizes, growing in both directions, whose first stage alone lets enough through."""
    full = max(sizes)
    enough = {each.chain[0] for each in pairs if len(each.chain) == 2 and each.recall >= recall}
    grows = ((a, b) for a in sizes for b in sizes if a.layers <= b.layers and a.dim <= b.dim)
    return [(a, b) for a, b in grows if a in enough and a != b != full]


def certain(store: Store, funnel: Funnel) -> bool:
    """Whether the funnel is the exact search by construction, so that there is nothing to estimate."""
    *before, last = funnel.stages
    if last.size != max(store.sizes):
        return False
    kind = kind_for(store.manifest.plan.kind, funnel.stages[0].size)
    if not before:
        return kind in ("flat", "panorama")
    return kind in SCANS and all(stage.keep >= len(store) for stage in before)


def severity(chain: tuple[Size, ...], candidates: Iterable[Candidate]) -> float:
    """What a query loses that loses anything, by the candidates of the same first size that go on to the full one.

    Taken from the cut with the highest recall that still has enough such queries: larger cuts lose less at fewer. 1
    where no cut has enough.
    """
    same = [each for each in candidates if each.chain[0] == chain[0] and len(each.chain) <= 2]
    same += [each for each in candidates if len(each.chain) == 3 and each.chain == chain]
    known = [each for each in same if np.count_nonzero(each.recalls < 1) >= ENOUGH]
    if not known:
        return 1.0
    best = max(known, key=lambda each: each.recall)
    return float((1 - best.recalls[best.recalls < 1]).mean())
