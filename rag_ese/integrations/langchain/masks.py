"""Which documents a filter lets through. A mapping's answers are kept: rows never change, only new ones are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document

from rag_ese.index.where import mask
from rag_ese.types import Bools, Metadata

Filter = Mapping[str, Any] | Callable[[Metadata], bool]
"""As `rag_ese.index.where` says, over the documents' metadata."""
_KEPT = 32
"""Filters whose answers are kept."""
_PLAIN = (str, int, float)


class Masks:
    """The filters of one list of documents. Safe to use from several threads: at worst a mask is computed twice."""

    def __init__(self, before: Masks | None = None) -> None:
        """`before`: the filters of a list that this one takes the place of; names that were known stay known."""
        self._names: dict[str, None] = {**before._names} if before else {}
        self._masks: dict[str, Bools] = {}

    def note(self, documents: Iterable[Document]) -> None:
        """Makes the names in the metadata of new documents known."""
        for document in documents:
            self._names.update(dict.fromkeys(document.metadata))

    def of(self, where: Filter, documents: Sequence[Document], count: int) -> Bools:
        """Which of the first `count` documents `where` lets through (count, bool). Raises ConfigError as `mask`."""
        if callable(where):
            return mask(where, [document.metadata for document in documents[:count]], ())
        key = repr(where)
        done = self._masks.get(key, np.empty(0, np.bool_))
        if len(done) < count:
            rows = [_plain(document.metadata, where) for document in documents[len(done) : count]]
            done = np.concatenate([done, mask(where, rows, [*self._names])])
            self._masks[key] = done
            if len(self._masks) > _KEPT:
                self._masks.pop(next(iter([*self._masks])), None)
        return done[:count]


def _plain(metadata: Mapping[str, Any], where: Mapping[str, Any]) -> Metadata:
    """What a mapping can compare: a list or None counts as absent."""
    return {name: metadata[name] for name in where if isinstance(metadata.get(name), _PLAIN)}
