"""The control of the size study: the first dimensions of a rotated embedding, searched exactly.

`PCA` is fitted on the passages of the very pool that is searched, which no trained model has seen: a strong control.
`random` is what any dimensions of the embedding are worth. Both keep the full width's scores as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.eval.controls import Matrix, pca_rotation, random_rotation
from rag_ese.eval.systems import System
from rag_ese.index import Store
from rag_ese.index.lexical import best
from rag_ese.retriever.searchers import QueryEncoder
from rag_ese.types import Float32s, Ranking, Size

CONTROLS = ("pca", "random")
_LABELS = {"pca": "PCA", "random": "random"}


class RotatedSearcher:
    """Exact search in the first `size.dim` dimensions of rotated vectors, which are held in memory (rows x dim)."""

    def __init__(
        self,
        label: str,
        store: Store,
        encoder: QueryEncoder,
        rotation: Matrix,
        vectors: Float32s,
        size: Size,
        keep: int,
    ) -> None:
        store.check_model(encoder.name, encoder.revision)
        self.name = f"{label} {size}"
        self.keep = keep
        self._encoder, self._full = encoder, Size(size.layers, store.width)
        self._axes = rotation[:, : size.dim].astype(np.float32)
        self._passages = unit(vectors[:, : size.dim])

    def search(self, queries: Sequence[str]) -> list[Ranking]:
        if not queries:
            return []
        scores = unit(self._encoder.begin(queries).at(self._full) @ self._axes) @ self._passages.T
        return [best(row, self.keep) for row in scores]


def rotated(
    store: Store, encoder: QueryEncoder, sizes: Sequence[Size], controls: Sequence[str], keep: int, seed: int
) -> Iterator[System]:
    """One system per control and width of `sizes` at the store's deepest layer among them."""
    if unknown := [name for name in controls if name not in CONTROLS]:
        raise ConfigError(f"there is no control {unknown[0]!r}: choose of {', '.join(CONTROLS)}")
    if not controls:
        return
    layer = max(size.layers for size in sizes)
    vectors = store.vectors(layer).rows(slice(None), store.width)
    for name in controls:
        rotation = pca_rotation(vectors) if name == "pca" else random_rotation(store.width, seed)
        turned = (vectors @ rotation).astype(np.float32)
        for size in sizes:
            if size.layers == layer:
                searcher = RotatedSearcher(_LABELS[name], store, encoder, rotation, turned, size, keep)
                yield System(searcher.name, searcher, "control", len(store) * size.dim * 4, size=size)


def unit(vectors: np.ndarray) -> Float32s:
    """Rows brought to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
