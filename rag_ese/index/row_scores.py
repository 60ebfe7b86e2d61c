"""Scores of single rows: what re-ranks a shortlist, from vectors or from anything that stands for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from rag_ese.index.vectors import Vectors
from rag_ese.types import Float32s, Int64s

_TOGETHER = 2048  # rows: a call costs little, and what was read stays near


class RowScores(Protocol):
    """Inner products of queries with single rows."""

    def scores(self, rows: Sequence[Int64s], queries: Float32s) -> list[Float32s]:
        """For each of `queries` (Q x d) its inner products with its `rows`; equal rows score the same."""


class VectorScores:
    """By the vectors of one depth, cut to the width of the queries."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def scores(self, rows: Sequence[Int64s], queries: Float32s) -> list[Float32s]:
        """As RowScores.scores."""
        found: list[Float32s] = []
        together = max(1, _TOGETHER // max([1, *map(len, rows)]))
        for start in range(0, len(rows), together):
            part = rows[start : start + together]
            read = self._vectors.rows(np.concatenate(part), queries.shape[1])
            each = np.split(read, np.cumsum([*map(len, part)])[:-1])
            found += [products(*pair) for pair in zip(each, queries[start : start + together], strict=True)]
        return found


def products(vectors: Float32s, query: Float32s) -> Float32s:
    """The inner product of each row with `query`. Equal rows have equal products, which `@` does not promise."""
    return np.asarray(np.einsum("ij,j->i", vectors, query), dtype=np.float32)
