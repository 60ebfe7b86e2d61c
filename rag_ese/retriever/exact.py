"""Certified exact search: the result of comparing a query with every vector in full, from a fraction of the bytes.

A row is put aside only when an upper bound of its score (`rag_ese.retriever.exact_bounds`) lies under k lower bounds of
other rows. Bounds come from ever more bits: 4 bits of the first segment for all rows, 8 bits of one segment after the
other for those that remain, and the vectors themselves for the handful that is left. Those are scored by `products`,
as a re-ranking stage would; equal scores are in order of row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_ese.errors import ConfigError, DataError, MissingExtraError
from rag_ese.index.lexical import best
from rag_ese.index.row_scores import products
from rag_ese.retriever.exact_batch import Sifted, sift
from rag_ese.retriever.exact_bounds import QueryBounds, bounds_of
from rag_ese.retriever.exact_layout import ArrayRows, Layout, Rows, build_layout
from rag_ese.types import Float32s, Int64s, Ranking

WIDTHS = (256, 512)
_VECTORS = "vectors.npy"
_GATHER = 16384  # vectors that are read at once when many must be scored
_FEW, _TOGETHER = 8, 64  # from so many queries on they go together; at most so many at once
_PER_THREAD = 200_000  # comparisons that make up for waking a thread
_SHORTEST, _LONGEST = 1e-12, 1e12  # lengths of queries for which float32 has room; beyond, everything is scored


@dataclass(frozen=True)
class Touched:
    """What a search read, summed over its queries: rows at each width, of `rows` rows stored."""

    queries: int
    rows: int
    cuts: tuple[int, ...]
    sketched: int
    coded: tuple[int, ...]
    scored: int

    @property
    def dimensions(self) -> int:
        """Coordinates read, of any precision."""
        widths = np.diff((0, *self.cuts))
        return int(self.sketched * self.cuts[0] + np.dot(self.coded, widths) + self.scored * self.cuts[-1])

    @property
    def bytes(self) -> int:
        """Bytes of codes and vectors read: half a byte, one byte and four bytes per dimension."""
        coded = int(np.dot(self.coded, np.diff((0, *self.cuts))))
        return self.sketched * -(-self.cuts[0] // 2) + coded + 4 * self.scored * self.cuts[-1]

    @property
    def share(self) -> float:
        """Bytes read, as a share of all vectors in float32."""
        return self.bytes / max(1, 4 * self.queries * self.rows * self.cuts[-1])

    def __add__(self, other: Touched) -> Touched:
        coded = tuple(a + b for a, b in zip(self.coded, other.coded, strict=True))
        sketched, scored = self.sketched + other.sketched, self.scored + other.scored
        return Touched(self.queries + other.queries, self.rows, self.cuts, sketched, coded, scored)

    def __str__(self) -> str:
        each = max(1, self.queries)
        steps = [f"{self.sketched / each:.0f} rows at 4 bits x {self.cuts[0]}"] if self.sketched else []
        steps += [f"{n / each:.0f} rows at 8 bits to {cut}" for n, cut in zip(self.coded, self.cuts, strict=True)]
        return f"{', '.join(steps)}, {self.scored / each:.0f} in full, of {self.rows}: {self.share:.1%} of the bytes"


class ExactIndex:
    """Exact top-k by inner product over N vectors of width d."""

    def __init__(self, layout: Layout, vectors: Rows) -> None:
        if (layout.count, layout.cuts[-1]) != (len(vectors), vectors.width):
            raise DataError(
                f"the index was built from {layout.count} vectors of width {layout.cuts[-1]}, but these are "
                f"{len(vectors)} of width {vectors.width}: build it again"
            )
        self.layout, self.vectors = layout, vectors

    @classmethod
    def build(
        cls,
        vectors: Float32s | Rows,
        widths: Sequence[int] = WIDTHS,
        rotate: bool = True,
        folder: Path | None = None,
    ) -> ExactIndex:
        """Builds from `vectors` (N x d, float32) piece by piece; with `folder`, straight into files there."""
        rows = ArrayRows(vectors) if isinstance(vectors, np.ndarray) else vectors
        return cls(build_layout(rows, widths, rotate, folder), rows)

    def save(self, folder: Path) -> None:
        """Writes the index and, where they are an array, the vectors."""
        if isinstance(self.vectors, ArrayRows):
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / _VECTORS, self.vectors.rows(slice(None), self.vectors.width), allow_pickle=False)
        self.layout.save(folder)

    @classmethod
    def open(cls, folder: Path, vectors: Rows | None = None) -> ExactIndex:
        """Opens what `save` or `build` wrote, memory-mapped; `vectors` where they are kept elsewhere."""
        layout = Layout.open(folder)
        if vectors is None:
            if not (folder / _VECTORS).exists():
                raise DataError(f"{folder} holds no {_VECTORS}: name the vectors that it was built from")
            vectors = ArrayRows(np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False))
        return cls(layout, vectors)

    def __len__(self) -> int:
        return self.layout.count

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s, Touched]:
        """The `k` best rows of every query (Q x d, finite): scores and rows, Q x min(k, N), best first."""
        dim, count = self.layout.cuts[-1], len(self)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if k < 1:
            raise ConfigError(f"the best {k} rows were asked for: ask for at least 1")
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise ConfigError(f"queries of shape {queries.shape} do not fit vectors of width {dim}: give Q x {dim}")
        if not np.isfinite(queries).all():
            row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
            raise DataError(f"query {row} of {len(queries)} holds NaN or infinity: encode it again, in float32")
        k = min(k, count)
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        touched = Touched(0, count, self.layout.cuts, 0, (0,) * len(self.layout.cuts), 0)
        kernels = _kernels()
        for start in range(0, len(queries) if k else 0, _TOGETHER):
            piece = queries[start : start + _TOGETHER]
            with kernels.threads(count * min(4, len(piece)) // _PER_THREAD):
                for at, (found, seen) in enumerate(self._together(kernels, piece, k), start):
                    scores[at], rows[at] = found.scores, found.rows
                    touched += seen
        return scores, rows, touched

    def _together(self, kernels: Any, queries: Float32s, k: int) -> Iterator[tuple[Ranking, Touched]]:
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        usual = (lengths > _SHORTEST) & (lengths < _LONGEST)
        sifted: list[Sifted | None] = [None] * len(queries)
        if len(queries) >= _FEW and usual.all():
            sifted = sift(kernels, self.layout, queries, k)
        for query, length, rest in zip(queries, lengths.tolist(), sifted, strict=True):
            if rest is not None:
                touched = Touched(1, len(self), self.layout.cuts, 0, rest.coded, len(rest.rows))
                yield self._score(query, rest.rows, k), touched
            else:
                yield self._one(kernels, query, length, k)

    def _one(self, kernels: Any, query: Float32s, length: float, k: int) -> tuple[Ranking, Touched]:
        nothing = (0,) * len(self.layout.cuts)
        if not _SHORTEST < length < _LONGEST:
            rows = np.arange(len(self) if length else k)  # a zero query scores 0 everywhere: the first rows win
            touched = Touched(1, len(self), self.layout.cuts, 0, nothing, len(rows))
            return self._score(query, rows, k), touched
        bounds = bounds_of(self.layout, query)
        upper, peaks = self._scan(kernels, bounds)
        threshold, seeded = self._seed(kernels, bounds, upper, peaks, k)
        rows = np.flatnonzero(upper >= threshold)
        lower, limits, depth = self._refine(kernels, bounds, rows, threshold)
        if len(rows) > k:
            threshold = max(threshold, _kth(lower, k))
        candidates = rows[limits >= threshold]
        read = np.bincount(depth, minlength=len(self.layout.cuts) + 1)[1:]
        coded = np.cumsum(read[::-1])[::-1] + seeded
        touched = Touched(1, len(self), self.layout.cuts, len(self), tuple(coded.tolist()), len(candidates))
        return self._score(query, candidates, k), touched

    def _scan(self, kernels: Any, bounds: QueryBounds) -> tuple[Float32s, Float32s]:
        """Upper bounds of all rows (N) and the highest of each block."""
        layout, f = self.layout, np.float32
        upper, peaks = np.empty(len(self), f), np.empty(len(layout.sketch), f)
        kernels.scan(
            layout.sketch,
            bounds.sketch_weights,
            f(bounds.sketch_scale),
            f(bounds.sketch_base),
            f(bounds.head_norm),
            layout.sketch_error,
            bounds.tail_norms[0],
            layout.tails[0],
            upper,
            peaks,
        )
        return upper, peaks

    def _seed(self, kernels: Any, bounds: QueryBounds, upper: Float32s, peaks: Float32s, k: int) -> tuple[float, int]:
        """A score that k rows are known to reach: the k-th lower bound among the most promising rows of blocks."""
        blocks = len(peaks)
        wanted = min(blocks, max(64, 4 * k))
        if wanted < k:
            return -np.inf, 0
        chosen = np.argpartition(-peaks, wanted - 1)[:wanted]
        starts = chosen * 64
        rows = np.array([start + int(np.argmax(upper[start : start + 64])) for start in starts.tolist()])
        lower, _, _ = self._refine(kernels, bounds, rows, -np.inf)
        return _kth(lower, k), len(rows)

    def _refine(
        self, kernels: Any, bounds: QueryBounds, rows: Int64s, threshold: float
    ) -> tuple[Float32s, Float32s, Any]:
        layout, f = self.layout, np.float32
        lower, upper, depth = np.empty(len(rows), f), np.empty(len(rows), f), np.empty(len(rows), np.int64)
        kernels.refine(
            rows,
            layout.codes,
            np.array(layout.cuts),
            bounds.weights,
            f(bounds.base),
            f(bounds.epsilon),
            f(bounds.norm),
            layout.code_error,
            bounds.tail_norms,
            layout.tails,
            f(threshold),
            lower,
            upper,
            depth,
        )
        return lower, upper, depth

    def _score(self, query: Float32s, rows: Int64s, k: int) -> Ranking:
        """The best `k` of `rows` (ascending) by the vectors themselves."""
        parts = [rows[start : start + _GATHER] for start in range(0, len(rows), _GATHER)]
        scores = np.concatenate([products(self.vectors.rows(part, self.vectors.width), query) for part in parts])
        chosen = best(scores, k)
        return Ranking(rows[chosen.rows], chosen.scores)


def _kth(lower: Float32s, k: int) -> float:
    """The k-th highest of `lower`."""
    return float(np.partition(lower, -k)[-k]) if len(lower) >= k else -np.inf


def _kernels() -> Any:
    try:
        from rag_ese.retriever import exact_kernels
    except ImportError as error:
        raise MissingExtraError("cpu", "certified exact search") from error
    return exact_kernels
