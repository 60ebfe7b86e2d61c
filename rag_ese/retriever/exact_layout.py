"""How vectors lie in memory for certified search: rotated, cut, one byte per dimension, with norms of what is cut off.

y = x R, R the principal axes of the stored vectors: inner products stay, and the tail after the first w dimensions gets
as short as a rotation can make it. Kept are the first dimensions as signed bytes, y_j ~ step_j * code_j, in segments
that end at the cuts. For a query z = q R and the segments s up to the cut w, Cauchy-Schwarz twice:

    |z . y - sum of z_s . decoded_s|  <=  sum of |z_s| * error_s  +  |z[w:]| * |y[w:]|

error_s is the largest |y_s - decoded_s| of all rows, |y[w:]| is stored for each row at each cut. Everything is computed
in double precision and stored rounded up, so the bound holds for what is stored; `margin_of` covers rounded sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError
from rag_ese.types import Float32s, Int64s

_CHUNK = 16384
_SAMPLE = 50_000

Rows = Callable[[int, int], Float32s]
"""Rows start to stop of the vectors, (stop - start) x d."""


@dataclass(frozen=True)
class Layout:
    """N vectors of width d. All that bounds need: nothing here is used for scores."""

    rotation: Float32s
    """d x d."""
    cuts: Int64s
    """The widths at which a row may be left; the last one is how many dimensions are kept."""
    codes: npt.NDArray[np.int8]
    """N x last cut."""
    steps: npt.NDArray[np.float64]
    """Per kept dimension."""
    errors: tuple[float, ...]
    """Per segment, the largest norm of what its codes miss."""
    tails: Float32s
    """N x cuts, the norm of what comes after each cut."""
    longest: float
    """The norm of the longest row."""

    @classmethod
    def build(cls, rows: Rows, count: int, width: int, widths: tuple[int, ...]) -> Layout:
        """Reads the rows three times, a chunk at a time: for the axes (a sample), for the steps, for the codes."""
        if not widths or list(widths) != sorted({*widths}) or widths[0] < 1 or widths[-1] > width:
            raise ConfigError(f"the widths {widths} cannot cut {width} dimensions: give growing numbers up to {width}")
        rotation = _axes(rows, count, width)
        kept = widths[-1]
        peaks = np.zeros(kept)
        for _, rotated in _rotated(rows, count, rotation):
            peaks = np.maximum(peaks, np.abs(rotated[:, :kept]).max(axis=0, initial=0.0))
        steps = np.where(peaks > 0, peaks / 127, 1.0)
        codes, tails = np.empty((count, kept), np.int8), np.empty((count, len(widths)), np.float32)
        errors, longest = np.zeros(len(widths)), 0.0
        for at, rotated in _rotated(rows, count, rotation):
            longest = max(longest, float(np.linalg.norm(rotated, axis=1).max(initial=0.0)))
            codes[at] = np.rint(rotated[:, :kept] / steps)
            missed = rotated[:, :kept] - codes[at] * steps
            for number, (start, stop) in enumerate(pairwise((0, *widths))):
                worst = np.linalg.norm(missed[:, start:stop], axis=1).max(initial=0.0)
                errors[number] = max(errors[number], worst)
                tails[at, number] = _up(np.linalg.norm(rotated[:, stop:], axis=1))
        rounded_up = 1 + 1e-6
        return cls(
            rotation.astype(np.float32),
            np.array(widths, np.int64),
            codes,
            steps,
            tuple((errors * rounded_up).tolist()),
            tails,
            longest * rounded_up,
        )

    @property
    def bytes(self) -> int:
        """What searching holds in memory."""
        return self.codes.nbytes + self.tails.nbytes + self.rotation.nbytes


@dataclass(frozen=True)
class CodedQuery:
    """A query as a layout needs it."""

    coordinates: Float32s
    """Those kept, times their steps."""
    tails: Float32s
    """Per cut, the norm of what comes after it."""
    slack: npt.NDArray[np.float64]
    """Per cut, how much a true score may exceed codes' product plus tails' product."""

    @classmethod
    def of(cls, layout: Layout, query: Float32s) -> CodedQuery:
        rotated = (query @ layout.rotation).astype(np.float64)
        spans = list(pairwise((0, *layout.cuts.tolist())))
        rounded_up = 1 + 1e-6
        tails = np.array([np.linalg.norm(rotated[stop:]) for _, stop in spans])
        norms = np.array([np.linalg.norm(rotated[start:stop]) for start, stop in spans])
        coordinates = (rotated[: spans[-1][1]] * layout.steps).astype(np.float32)
        return cls(coordinates, _up(tails), margin_of(layout, query) + np.cumsum(norms * layout.errors) * rounded_up)


def margin_of(layout: Layout, query: Float32s) -> float:
    """How far float32 sums may be from the exact inner product, in any order of summation: gamma_n |q| |x|.

    n counts every rounding on both sides of a comparison: the d products of the score that is compared with, those of
    the codes, the rounding of parts, tails and slack. Two sums of d terms and 64 more roundings are above that. The
    query's rotation in float32 (and of R itself to float32) adds d + 2 roundings to each of its d coordinates, which as
    a vector is at most sqrt(d) times as long.
    """
    width = layout.rotation.shape[0]
    unit = float(np.finfo(np.float32).eps) / 2
    share = sum(factor * n * unit / (1 - n * unit) for factor, n in ((1.0, 2 * width + 64), (width**0.5, width + 2)))
    return float(share) * float(np.linalg.norm(query.astype(np.float64))) * max(layout.longest, 1e-30)


def _axes(rows: Rows, count: int, width: int) -> npt.NDArray[np.float64]:
    """Principal axes of a sample spread over all rows: orthogonal to double precision, most energy first."""
    second = np.zeros((width, width))
    stride = max(1, count // _SAMPLE)
    for start in range(0, count, _CHUNK):
        part = rows(start, min(start + _CHUNK, count))[::stride].astype(np.float64)
        second += part.T @ part
    return np.asarray(np.linalg.eigh(second)[1][:, ::-1])


def _rotated(
    rows: Rows, count: int, rotation: npt.NDArray[np.float64]
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        yield slice(start, stop), rows(start, stop).astype(np.float64) @ rotation


def _up(values: npt.NDArray[np.float64]) -> Float32s:
    """As float32, never smaller."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
