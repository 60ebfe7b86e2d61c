"""From embeddings to STS scores: cosines of every pair at every width, and their rank correlation with the gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from rag_ese.data.sts import PairSet
from rag_ese.errors import DataError
from rag_ese.types import Float32s, Int64s

Floats = npt.NDArray[np.float64]

_CHUNK = 2048  # pairs at a time
_EQUAL = 1e-9  # cosines that are no further apart differ by rounding alone


@dataclass(frozen=True)
class Sentences:
    """The distinct sentences of some sets, and where each pair's two stand among them, set by set."""

    texts: list[str]
    places: dict[str, tuple[Int64s, Int64s]]

    @classmethod
    def of(cls, sets: Sequence[PairSet]) -> Sentences:
        texts = list(dict.fromkeys(text for each in sets for side in (each.first, each.second) for text in side))
        place = {text: number for number, text in enumerate(texts)}
        sides = {each.name: tuple(np.array([place[t] for t in s]) for s in (each.first, each.second)) for each in sets}
        return cls(texts, {name: (first, second) for name, (first, second) in sides.items()})

    def cosines(self, vectors: npt.NDArray[np.floating], dims: Sequence[int]) -> dict[int, dict[str, Floats]]:
        """Width -> set -> the cosine of each pair, from one vector per distinct sentence (texts x width)."""
        by_set = {name: prefix_cosines(vectors, *places, dims) for name, places in self.places.items()}
        return {dim: {name: table[column] for name, table in by_set.items()} for column, dim in enumerate(dims)}


def prefix_cosines(
    vectors: npt.NDArray[np.floating], first: Int64s, second: Int64s, dims: Sequence[int]
) -> npt.NDArray[np.float64]:
    """The cosine of rows `first` and `second` of `vectors`, cut to each of `dims` (ascending): dims x pairs.

    Truncated first, normalised after. A vector of length 0 has cosine 0 with every other.
    """
    output = np.empty((len(dims), len(first)))
    starts = [0, *dims[:-1]]  # sums over the stretch between two widths, then added up: every width in one go
    for start in range(0, len(first), _CHUNK):
        rows = slice(start, start + _CHUNK)
        a, b = (vectors[side[rows], : dims[-1]].astype(np.float64) for side in (first, second))
        dot, aa, bb = (np.add.reduceat(product, starts, axis=1).cumsum(axis=1).T for product in (a * b, a * a, b * b))
        lengths = np.sqrt(aa * bb)
        output[:, rows] = np.divide(dot, lengths, out=np.zeros_like(dot), where=lengths > 0)
    return output


def spearman(cosines: Floats, gold: Sequence[float] | Floats, name: str) -> float:
    """Spearman's rank correlation in points of 100, ties by their average rank; `name` says whose in an error."""
    if np.ptp(cosines) < _EQUAL:
        raise DataError(
            f"{name}: all {len(cosines)} cosines are {cosines[0]:.4g}, so no rank correlation is defined; the model "
            "does not tell these sentences apart"
        )
    return 100 * float(spearmanr(cosines, gold).statistic)


def unit(vectors: npt.NDArray[np.floating]) -> Float32s:
    """Rows scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
