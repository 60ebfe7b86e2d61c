"""What certified exact search stores beside the vectors: codes of few bits, and the norms of all that they leave out.

Vectors are centred and rotated into principal axes, so that the first coordinates carry most of the energy, then mixed
at random within each segment of the axes, so that all coordinates of a segment are alike and one step size suits all.

- `codes`: every coordinate in 8 bits, one contiguous piece per segment: N x 256 | N x 256 | N x rest.
- `sketch`: the first segment once more in 4 bits, in blocks of 64 rows that keep a coordinate's values together, so
  that a scan adds up 64 rows side by side.
- `sketch_error`, `code_error`, `tails`: per row, the length of what each of them leaves out, rounded up.

By Cauchy-Schwarz these lengths bound how far a score read from the codes is from the true one
(`rag_ese.retriever.exact_bounds`). Nothing here is approximate in its effect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rag_ese.errors import ConfigError, DataError, StoreCorruptError
from rag_ese.types import Float32s, Int64s

Float64s = npt.NDArray[np.float64]

BLOCK = 64
"""Rows that a sketch keeps together."""
_CHUNK = 8192
_SAMPLE = 16384
_LONGEST = 1e6
_FORMAT = 1
_META = "exact.json"
_SLACK = 1e-9
"""Relative; stands for all rounding in float64, whose worst case over 10,000 dimensions is below 1e-9."""


class Rows(Protocol):
    """Vectors that can be read by row; `rag_ese.index.vectors.VectorFile` is one."""

    width: int

    def __len__(self) -> int: ...

    def rows(self, rows: Int64s | slice, dim: int) -> Float32s: ...


class ArrayRows:
    """Vectors in an array (N x d, float32), in memory or memory-mapped."""

    def __init__(self, vectors: Float32s) -> None:
        if vectors.ndim != 2 or not vectors.shape[1]:
            raise DataError(f"vectors of shape {vectors.shape} cannot be searched: give rows x dimensions")
        self.width = vectors.shape[1]
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def rows(self, rows: Int64s | slice, dim: int) -> Float32s:
        return np.ascontiguousarray(self._vectors[rows, :dim], dtype=np.float32)


@dataclass(frozen=True)
class Layout:
    """The arrays of a built index of N rows and d dimensions; S segments end at `cuts`, the last of which is d."""

    cuts: tuple[int, ...]
    count: int
    code_norm: float  # the longest row that the 8-bit codes stand for
    sketch_norm: float  # the longest first segment that the 4-bit codes stand for
    longest: float  # the longest stored vector
    sketch_step: float
    steps: Float64s  # S: the size of one unit of the codes
    mean: Float64s  # d
    rotation: Float64s  # d x d, orthogonal: column j is the axis of coordinate j
    codes: npt.NDArray[np.int8]  # flat: segment s is rows N * cuts[s-1] to N * cuts[s], as N x width of s
    sketch: npt.NDArray[np.uint8]  # blocks x pairs of coordinates x 64 rows; the even coordinate in the low 4 bits
    sketch_error: Float32s  # N: ||first segment - its sketch||
    code_error: Float32s  # N: ||all coordinates - their 8-bit codes||
    tails: Float32s  # S-1 x N (1 x N if S is 1): ||coordinates from cuts[s] on||

    @property
    def first(self) -> npt.NDArray[np.int8]:
        """The codes of the first segment: N x cuts[0]."""
        return self.codes[: self.count * self.cuts[0]].reshape(self.count, self.cuts[0])

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def save(self, folder: Path) -> None:
        """One .npy file per array; exact.json, which makes the folder complete, comes last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                np.save(folder / f"{name}.npy", value, allow_pickle=False)
        self.complete(folder)

    def complete(self, folder: Path) -> None:
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}
        (folder / _META).write_text(json.dumps({"format": _FORMAT, **plain}))

    @classmethod
    def open(cls, folder: Path) -> Layout:
        """The layout in `folder`, memory-mapped."""
        try:
            values = json.loads((folder / _META).read_text())
            if (found := values.pop("format")) != _FORMAT:
                raise StoreCorruptError(
                    f"{folder} has format {found} of the exact index, this version reads {_FORMAT}: build it again"
                )
            values["cuts"] = tuple(values["cuts"])
            for name in {field.name for field in fields(cls)} - {*values}:
                # Copy on write, since the compiled loops are specialised for writable arrays; nothing is written.
                values[name] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False).view(np.ndarray)
            made = cls(**values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"the exact index in {folder} cannot be read: build it again") from error
        if len(made.codes) != made.count * made.cuts[-1]:
            raise StoreCorruptError(
                f"the exact index in {folder} has {len(made.codes)} codes for {made.count} rows of {made.cuts[-1]} "
                "dimensions: build it again"
            )
        return made


def cuts_of(widths: Sequence[int], dim: int) -> tuple[int, ...]:
    """Where segments end: `widths` that are narrower than `dim`, then `dim`."""
    if any(width < 1 for width in widths):
        raise ConfigError(f"the widths {tuple(widths)} cannot cut vectors: give whole numbers of at least 1")
    return (*sorted({int(width) for width in widths if width < dim}), dim)


def build_layout(vectors: Rows, widths: Sequence[int], rotate: bool, folder: Path | None = None) -> Layout:
    """Reads `vectors` twice, piece by piece: a sample for the axes, then all. With `folder`, arrays live in files."""
    count, dim = len(vectors), vectors.width
    cuts = cuts_of(widths, dim)
    sample = _sample(vectors)
    mean = sample.mean(axis=0) if len(sample) else np.zeros(dim)
    rotation = _rotation(sample - mean, cuts) if rotate and len(sample) else np.eye(dim)
    spread = _spread((sample - mean) @ rotation, cuts)
    # 4.5 and 2.7 standard deviations fit in the codes: the first clips hardly anything, the second errs least.
    layout = Layout(
        cuts=cuts,
        count=count,
        code_norm=0.0,
        sketch_norm=0.0,
        longest=0.0,
        sketch_step=0.335 * spread[0],
        steps=np.array(spread) * 4.5 / 127,
        mean=mean,
        rotation=rotation,
        **_arrays(count, cuts, folder),
    )
    if folder:
        for name in ("steps", "mean", "rotation"):
            np.save(folder / f"{name}.npy", getattr(layout, name), allow_pickle=False)
    norms = [_fill(layout, start, vectors) for start in range(0, count, _CHUNK)]
    code_norm, sketch_norm, longest = np.max(norms, axis=0).tolist() if norms else (0.0, 0.0, 0.0)
    layout = Layout(**{**vars(layout), "code_norm": code_norm, "sketch_norm": sketch_norm, "longest": longest})
    if folder:
        layout.complete(folder)
    return layout


def _sample(vectors: Rows) -> Float64s:
    """Up to 16,384 rows, evenly spread (rows x d, float64)."""
    count = len(vectors)
    rows = np.unique(np.linspace(0, max(count - 1, 0), min(count, _SAMPLE)).astype(np.int64))
    return _checked(vectors.rows(rows, vectors.width), rows)


def _checked(vectors: Float32s, rows: Int64s) -> Float64s:
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    if not (norms <= _LONGEST).all():
        row = int(np.flatnonzero(~(norms <= _LONGEST))[0])
        raise DataError(
            f"the vector of row {rows[row]} has length {norms[row]:.3g}, and exact search takes finite vectors up to "
            f"{_LONGEST:.0e}: bring vectors to unit length first"
        )
    return exact


def _rotation(centred: Float64s, cuts: tuple[int, ...]) -> Float64s:
    """Principal axes of `centred`, most energy first, mixed within each segment (d x d, orthogonal)."""
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1]
    draw = np.random.default_rng(0)
    starts = (0, *cuts[:-1])
    parts = [
        axes[:, start:end] @ np.linalg.qr(draw.normal(size=(end - start, end - start)))[0]
        for start, end in zip(starts, cuts, strict=True)
    ]
    return np.ascontiguousarray(np.hstack(parts))


def _spread(rotated: Float64s, cuts: tuple[int, ...]) -> list[float]:
    """The standard deviation of a coordinate, per segment; never 0, for it divides."""
    starts = (0, *cuts[:-1])
    if not len(rotated):
        return [1.0] * len(cuts)
    return [max(float(np.sqrt(np.mean(rotated[:, a:b] ** 2))), 1e-9) for a, b in zip(starts, cuts, strict=True)]


def _arrays(count: int, cuts: tuple[int, ...], folder: Path | None) -> dict[str, Any]:
    blocks = -(-count // BLOCK)
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "codes": (np.int8, (count * cuts[-1],)),
        "sketch": (np.uint8, (blocks, -(-cuts[0] // 2), BLOCK)),
        "sketch_error": (np.float32, (count,)),
        "code_error": (np.float32, (count,)),
        "tails": (np.float32, (max(1, len(cuts) - 1), count)),
    }
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _META).unlink(missing_ok=True)
    if folder is None or not count:  # a file of no bytes cannot be mapped
        made: dict[str, Any] = {name: np.zeros(shape, kind) for name, (kind, shape) in shapes.items()}
        for name, value in made.items() if folder else ():
            np.save(Path(folder or "") / f"{name}.npy", value, allow_pickle=False)
        return made
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape).view(np.ndarray)
        for name, (kind, shape) in shapes.items()
    }


def _fill(layout: Layout, start: int, vectors: Rows) -> tuple[float, float, float]:
    """Writes one piece; returns the longest row of its codes, of its sketch, and of itself."""
    end = min(start + _CHUNK, layout.count)
    here = slice(start, end)
    exact = _checked(vectors.rows(here, vectors.width), np.arange(start, end))
    longest = float(np.linalg.norm(exact, axis=1).max())
    rotated = (exact - layout.mean) @ layout.rotation
    slack = _SLACK * (longest + float(np.linalg.norm(layout.mean)))
    widths = np.diff((0, *layout.cuts))
    steps = np.repeat(layout.steps, widths)
    codes = np.clip(np.rint(rotated / steps), -127, 127)
    for first, last in zip((0, *layout.cuts[:-1]), layout.cuts, strict=True):
        segment = layout.codes[layout.count * first : layout.count * last].reshape(layout.count, last - first)
        segment[here] = codes[:, first:last]
    meant = codes * steps
    layout.code_error[here] = _up(np.linalg.norm(rotated - meant, axis=1) + slack)
    for tail, cut in zip(layout.tails, layout.cuts, strict=False):
        tail[here] = _up(np.linalg.norm(rotated[:, cut:], axis=1) + slack)
    head = rotated[:, : layout.cuts[0]]
    nibbles = np.clip(np.floor(head / layout.sketch_step) + 8, 0, 15)
    sketched = (nibbles - 7.5) * layout.sketch_step
    layout.sketch_error[here] = _up(np.linalg.norm(head - sketched, axis=1) + slack)
    blocks = slice(start // BLOCK, -(-end // BLOCK))
    layout.sketch[blocks] = _packed(nibbles.astype(np.uint8))
    return float(np.linalg.norm(meant, axis=1).max()), float(np.linalg.norm(sketched, axis=1).max()), longest


def _packed(nibbles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows x coordinates of 4 bits as blocks x pairs x 64; missing rows and coordinates are 0."""
    rows, dim = nibbles.shape
    whole = np.zeros((-(-rows // BLOCK) * BLOCK, -(-dim // 2) * 2), np.uint8)
    whole[:rows, :dim] = nibbles
    pairs = whole[:, 0::2] | whole[:, 1::2] << 4
    return np.asarray(pairs.reshape(-1, BLOCK, pairs.shape[1]).transpose(0, 2, 1))


def _up(values: Float64s) -> Float32s:
    """Float32 numbers that are not below `values`."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
