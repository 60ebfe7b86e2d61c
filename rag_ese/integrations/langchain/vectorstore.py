"""A LangChain vector store: cosine, filters before the search, upserts, safe threads, files without pickle."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from rag_ese.errors import ConfigError, DataError
from rag_ese.integrations.langchain.folder import load_table, save_table
from rag_ese.integrations.langchain.masks import Filter
from rag_ese.integrations.langchain.table import Generation, Table
from rag_ese.types import Float32s, Ranking

Scored = tuple[Document, float]


class EseVectorStore(VectorStore):
    """Documents in memory, searched exactly by the cosine of their embeddings. Any Embeddings object will do.

    >>> store = EseVectorStore.from_texts(["a text"], EseEmbeddings(size="L3-d128"))        # doctest: +SKIP
    >>> store.similarity_search("a question", k=1, filter={"year": {">=": 1990}})          # doctest: +SKIP

    Scores and relevance scores are the cosine itself, -1 to 1. `filter` is a mapping or a function of the metadata,
    as in rag_ese.index.where; it acts before the search, so k results come wherever k documents match. Threads may add,
    delete and search at once: a search sees all of a change or nothing of it.
    """

    def __init__(self, embedding: Embeddings) -> None:
        self._embedding = embedding
        self._table = Table()

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    def __len__(self) -> int:
        return len(self._table.now)

    def add_documents(self, documents: list[Document], ids: Sequence[str | None] | None = None, **_: Any) -> list[str]:
        """Adds documents and returns their ids: those of `ids`, else the documents' own, else new ones.

        A document whose id is there already replaces the one that was.
        """
        kept = _with_ids(documents, ids)
        if kept:
            self._add(kept, self._embedding.embed_documents([each.page_content for each in kept]))
        return [str(each.id) for each in kept]

    async def aadd_documents(
        self, documents: list[Document], ids: Sequence[str | None] | None = None, **_: Any
    ) -> list[str]:
        """As add_documents, with the embeddings' own asynchronous method."""
        kept = _with_ids(documents, ids)
        if kept:
            vectors = await self._embedding.aembed_documents([each.page_content for each in kept])
            await run_in_executor(None, self._add, kept, vectors)
        return [str(each.id) for each in kept]

    def add_embedded(self, documents: Sequence[Document], vectors: Sequence[Sequence[float]] | Float32s) -> list[str]:
        """Adds documents whose vectors are known already (one per document, of any length above 0)."""
        kept = _with_ids(documents, None)
        self._add(kept, vectors)
        return [str(each.id) for each in kept]

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Deletes documents by id, or all where `ids` is None. Ids that are not there are passed over."""
        self._table.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of those ids that are there, in the order of `ids`."""
        return [_copied(each) for each in self._table.get(ids)]

    def similarity_search(self, query: str, k: int = 4, filter: Filter | None = None, **_: Any) -> list[Document]:
        """The `k` documents nearest to the text."""
        return _documents(self.similarity_search_with_score(query, k, filter))

    async def asimilarity_search(
        self, query: str, k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Document]:
        """As similarity_search, with the embeddings' own asynchronous method."""
        return _documents(await self.asimilarity_search_with_score(query, k, filter))

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Scored]:
        """The `k` documents nearest to the text, and their cosines."""
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, filter)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Scored]:
        """As similarity_search_with_score, with the embeddings' own asynchronous method."""
        vector = await self._embedding.aembed_query(query)
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, vector, k, filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Document]:
        """The `k` documents nearest to a vector."""
        return _documents(self.similarity_search_with_score_by_vector(embedding, k, filter))

    def similarity_search_with_score_by_vector(
        self, embedding: Sequence[float], k: int = 4, filter: Filter | None = None, **_: Any
    ) -> list[Scored]:
        """The `k` documents nearest to a vector, and their cosines."""
        now, found = self._search(embedding, k, filter)
        pairs = zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        return [(_copied(now.documents[row]), score) for row, score in pairs]

    def similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[Scored]:
        """The `k` nearest documents and their cosines, without those under `score_threshold`."""
        return _over(self.similarity_search_with_score(query, k, **kwargs), score_threshold)

    async def asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, *, score_threshold: float | None = None, **kwargs: Any
    ) -> list[Scored]:
        """As similarity_search_with_relevance_scores, with the embeddings' own asynchronous method."""
        return _over(await self.asimilarity_search_with_score(query, k, **kwargs), score_threshold)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return float

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **_: Any,
    ) -> list[Document]:
        """`k` of the `fetch_k` nearest documents: near to the text (lambda_mult 1), or unlike each other (0)."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter)

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **_: Any,
    ) -> list[Document]:
        """As max_marginal_relevance_search, with the embeddings' own asynchronous method."""
        vector = await self._embedding.aembed_query(query)
        search = self.max_marginal_relevance_search_by_vector
        return await run_in_executor(None, search, vector, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **_: Any,
    ) -> list[Document]:
        """As max_marginal_relevance_search, from a vector."""
        now, found = self._search(embedding, max(k, fetch_k), filter)
        query = np.asarray(embedding, dtype=np.float32)
        chosen = maximal_marginal_relevance(query, now.vectors[found.rows].tolist(), lambda_mult, k)
        return [_copied(now.documents[found.rows[place]]) for place in chosen]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **_: Any,
    ) -> Self:
        """A store of texts."""
        store = cls(embedding)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **_: Any,
    ) -> Self:
        """As from_texts, with the embeddings' own asynchronous method."""
        store = cls(embedding)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def save(self, folder: str | Path) -> None:
        """Writes the store to a folder, or replaces the store that is there in one step; nothing is pickled.

        Raises DataError, and leaves the folder as it was, for metadata that JSON would change.
        """
        save_table(self._table.now, Path(folder), getattr(self._embedding, "fingerprint", None))

    @classmethod
    def load(cls, folder: str | Path, embedding: Embeddings) -> Self:
        """Opens a saved store. Vectors are mapped from the file until something is added.

        Raises StoreError where there is none, StoreCorruptError for changed files, and StoreMismatchError for elastic
        embeddings of another model or size than those it was filled with.
        """
        store = cls(embedding)
        store._table = load_table(Path(folder), getattr(embedding, "fingerprint", None))
        return store

    def _add(self, kept: Sequence[Document], vectors: Sequence[Sequence[float]] | Float32s) -> None:
        matrix = np.asarray(vectors, dtype=np.float32)
        if kept and (matrix.ndim != 2 or len(matrix) != len(kept)):
            raise DataError(f"{len(kept)} documents came with vectors of shape {matrix.shape}: give one vector each")
        self._table.add(kept, matrix)

    def _search(self, embedding: Sequence[float], k: int, where: Filter | None) -> tuple[Generation, Ranking]:
        if k < 1:
            raise ConfigError(f"k is {k}: ask for at least 1 document")
        now = self._table.now
        return now, now.search(np.asarray(embedding, dtype=np.float32), k, where)


def _with_ids(documents: Sequence[Document], ids: Sequence[str | None] | None) -> list[Document]:
    """Copies of the documents that all have ids."""
    if ids is not None and len(ids) != len(documents):
        raise DataError(f"{len(documents)} documents came with {len(ids)} ids: give one id each, or none at all")
    given: Iterable[str | None] = ids if ids is not None else repeat(None)
    return [
        Document(each.page_content, metadata=copy.deepcopy(each.metadata), id=id or each.id or str(uuid.uuid4()))
        for each, id in zip(documents, given, strict=False)
    ]


def _copied(document: Document) -> Document:
    """What is handed out may be changed without changing what is stored."""
    return Document(document.page_content, metadata=copy.deepcopy(document.metadata), id=document.id)


def _documents(pairs: Iterable[Scored]) -> list[Document]:
    return [document for document, _ in pairs]


def _over(pairs: list[Scored], threshold: float | None) -> list[Scored]:
    return pairs if threshold is None else [pair for pair in pairs if pair[1] >= threshold]
