"""How vectors lie in memory for certified search: rotated, in segments of one byte per dimension, with tail norms.

y = x R, R the principal axes of the stored vectors: inner products stay, and the tail after the first w dimensions gets
as short as a rotation can make it. Segment s holds y[start_s : end_s] as signed bytes, y_j ~ step_j * code_j. For a
query z = q R and the segments up to the cut w, Cauchy-Schwarz twice:

    |z . y - sum of z_s . decoded_s|  <=  sum of |z_s| * error_s  +  |z[w:]| * |y[w:]|

error_s is the largest |y_s - decoded_s| of all rows, |y[w:]| is stored for each row at each cut. Everything is computed
in double precision and stored rounded up, so the bound holds for what is stored; `margin_of` covers rounded sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError
from rag_ese.types import Float32s

_CHUNK = 16384
_SAMPLE = 50_000

Rows = Callable[[int, int], Float32s]
"""Rows start to stop of the vectors, (stop - start) x d."""


@dataclass(frozen=True)
class Segment:
    """Some dimensions of all N rows: `codes` N x w, `steps` w, `error` (a norm), `tails` N: norms of what follows."""

    codes: npt.NDArray[np.int8]
    steps: npt.NDArray[np.float64]
    error: float
    tails: Float32s


@dataclass(frozen=True)
class Layout:
    """All segments of N vectors of width d, the rotation (d x d) and the longest row's norm."""

    rotation: Float32s
    segments: tuple[Segment, ...]
    widths: tuple[int, ...]
    longest: float

    @classmethod
    def build(cls, rows: Rows, count: int, width: int, widths: tuple[int, ...]) -> Layout:
        """Reads the rows three times, a chunk at a time: for the axes (a sample), for the steps, for the codes."""
        if not widths or list(widths) != sorted({*widths}) or widths[0] < 1 or widths[-1] > width:
            raise ConfigError(f"the widths {widths} cannot cut {width} dimensions: give growing numbers up to {width}")
        rotation = _axes(rows, count, width)
        bounds = [(start, stop) for start, stop in zip((0, *widths), widths, strict=False)]
        peaks = np.zeros(width)
        for _, rotated in _rotated(rows, count, rotation):
            peaks = np.maximum(peaks, np.abs(rotated).max(axis=0, initial=0.0))
        steps = np.where(peaks > 0, peaks / 127, 1.0)
        codes = [np.empty((count, stop - start), np.int8) for start, stop in bounds]
        tails = [np.empty(count, np.float32) for _ in bounds]
        errors, longest = [0.0] * len(bounds), 0.0
        for at, rotated in _rotated(rows, count, rotation):
            longest = max(longest, float(np.linalg.norm(rotated, axis=1).max(initial=0.0)))
            for number, (start, stop) in enumerate(bounds):
                part, step = rotated[:, start:stop], steps[start:stop]
                code = np.rint(part / step).astype(np.int8)
                codes[number][at] = code
                errors[number] = max(errors[number], float(np.linalg.norm(part - code * step, axis=1).max(initial=0.0)))
                tails[number][at] = _up(np.linalg.norm(rotated[:, stop:], axis=1))
        segments = tuple(
            Segment(code, steps[start:stop], error * (1 + 1e-6), tail)
            for (start, stop), code, error, tail in zip(bounds, codes, errors, tails, strict=True)
        )
        return cls(rotation.astype(np.float32), segments, widths, longest * (1 + 1e-6))

    @property
    def bytes(self) -> int:
        """What searching holds in memory."""
        return sum(segment.codes.nbytes + segment.tails.nbytes for segment in self.segments) + self.rotation.nbytes


@dataclass(frozen=True)
class QueryPlan:
    """A query as a layout needs it: per segment its coordinates times the steps (float32), the norm of what follows,
    and how much the true product may exceed the codes' product besides the tail's share."""

    parts: tuple[Float32s, ...]
    tails: tuple[float, ...]
    slack: tuple[float, ...]

    @classmethod
    def of(cls, layout: Layout, query: Float32s) -> QueryPlan:
        rotated = (query @ layout.rotation).astype(np.float64)
        parts, tails, slack = [], [], []
        margin, start = margin_of(layout, query), 0
        for segment, stop in zip(layout.segments, layout.widths, strict=True):
            parts.append((rotated[start:stop] * segment.steps).astype(np.float32))
            tails.append(float(np.linalg.norm(rotated[stop:])) * (1 + 1e-6))
            margin += float(np.linalg.norm(rotated[start:stop])) * segment.error * (1 + 1e-6)
            slack.append(margin)
            start = stop
        return cls(tuple(parts), tuple(tails), tuple(slack))


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
