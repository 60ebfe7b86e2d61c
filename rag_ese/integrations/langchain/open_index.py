"""An index folder opened once, with its encoder, for any number of retrievers and threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rag_ese.errors import ConfigError
from rag_ese.index import LivingIndex, Store, View
from rag_ese.index.living import is_living
from rag_ese.index.searchable import Searchable
from rag_ese.index.where import Where
from rag_ese.integrations.langchain.embeddings import load_encoder
from rag_ese.retriever import Funnel, FunnelSearcher, SearchPlan
from rag_ese.types import Size

_KEPT = 32
"""Filters whose rows are remembered."""


@dataclass(frozen=True)
class OpenIndex:
    """A store or one generation of a living index, what searches its vectors, and the encoder for its questions."""

    folder: Path
    store: Store | LivingIndex
    searched: Searchable
    encoder: Any
    _views: dict[str, View] = field(default_factory=dict)
    _plans: dict[str, Funnel] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, encoder: Any, model: str, revision: str, dtype: str, device: str, search_device: str
    ) -> Self:
        """Loads the model that the index was built with, unless an `encoder` or another name of it is given.

        Raises StoreError where there is no index, StoreMismatchError for an encoder of another revision.
        """
        store = LivingIndex.open(folder) if is_living(folder) else Store(folder)
        built = (store.plan if isinstance(store, LivingIndex) else store.manifest.plan).model
        encoder = encoder or load_encoder(model or built.name, revision, dtype, device)
        store.check_model(encoder.name, encoder.revision)
        from rag_ese.retriever.on_device import placed

        return cls(folder, store, placed(store, search_device), encoder)

    def searcher(self, funnel: Funnel, where: Where | None) -> FunnelSearcher:
        """A searcher of the passages that `where` lets through; the rows of a mapping are remembered."""
        if where is None:
            return FunnelSearcher(self.searched, self.encoder, funnel)
        return FunnelSearcher(self._view(where), self.encoder, funnel)

    def _view(self, where: Where) -> View:
        if not isinstance(where, dict):
            return View(self.searched, where)
        key = repr(where)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(self.searched, where)
            if len(self._views) > _KEPT:
                self._views.pop(next(iter([*self._views])), None)
        return view

    def funnel(self, k: int, size: str | None, funnel: str | None, plan: str | None) -> Funnel:
        """The funnel of what is given; of nothing, a search of the largest size for `k` passages."""
        depth, width = self.store.depth, self.store.width
        if plan:
            if plan not in self._plans:
                self._plans[plan] = self._planned(plan)
            return self._plans[plan]
        if funnel:
            return Funnel.parse(funnel, depth, width)
        return Funnel.single(Size.parse(size, depth, width) if size else max(self.store.sizes), k)

    def _planned(self, plan: str) -> Funnel:
        if isinstance(self.store, LivingIndex):
            raise ConfigError(f"{self.folder} is a living index, which no plan was made for: give a size or a funnel")
        chosen = SearchPlan.open(Path(plan))
        chosen.check(self.store, self.encoder)
        return chosen.parsed(self.store.depth, self.store.width)
