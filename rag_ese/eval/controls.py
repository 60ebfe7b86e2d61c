"""Rotations of an embedding space: what a trained order of dimensions must beat.

A rotation by an orthogonal matrix keeps every inner product, so the full size scores exactly as before; only what a
prefix of the dimensions holds changes. `vectors @ rotation` are the rotated vectors; truncate, then normalise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rag_ese.errors import DataError

Matrix = npt.NDArray[np.float64]

RANDOM_ROTATIONS = 5
"""How many random rotations a control averages, seeds counted upwards: a single one moves small widths by a point."""


def pca_rotation(vectors: npt.NDArray[np.floating]) -> Matrix:
    """The principal axes of `vectors` (n x d) as the columns of a d x d orthogonal matrix, most variance first.

    Eigenvectors of the covariance. The mean is taken out to find the axes and is not taken from what is rotated, so
    inner products stay as they are. Each axis points to where its largest coordinate is positive. Fit it on other texts
    than those that are scored, and give it unit vectors where cosines are compared. Jolliffe 2002, chapter 2.
    """
    if vectors.ndim != 2 or len(vectors) < 2 or not np.isfinite(vectors).all():
        raise DataError(f"principal axes need at least 2 finite vectors, got an array of shape {vectors.shape}")
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # least variance first
    axes = axes[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    return np.asarray(axes * np.where(largest < 0, -1.0, 1.0), dtype=np.float64)


def random_rotation(d: int, seed: int = 0) -> Matrix:
    """A d x d orthogonal matrix, each as likely as any other; the same `seed` gives the same one.

    The QR decomposition of a Gaussian matrix with the signs of R's diagonal moved to Q (Mezzadri 2007, section 5).
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return np.asarray(q * np.where(np.diagonal(r) < 0, -1.0, 1.0), dtype=np.float64)
