"""A LangChain retriever over an index folder: any size of it, a funnel of sizes, or the funnel of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, model_validator

from rag_ese.errors import ConfigError
from rag_ese.index.where import Where
from rag_ese.integrations.langchain.open_index import OpenIndex
from rag_ese.retriever import Funnel
from rag_ese.types import Passage, Ranking


class EseRetriever(BaseRetriever):
    """Documents for a question: the text is `page_content`, the title stands in the metadata beside the passage's own.

    >>> retriever = EseRetriever(index="indexes/mine", k=10)                                # doctest: +SKIP
    >>> retriever.invoke("a question", funnel="L2-d64:200 > L6-d768:10", scores=True)       # doctest: +SKIP

    `k`, `size`, `funnel`, `filter` and `scores` can also be given with a call, and through `configurable_fields`. With
    none of `size`, `funnel` and `plan`, the largest size of the index is searched. A living index is read as it was
    when the retriever was made. A given `encoder` is used instead of loading one; it is not serialised.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    index: str = Field(description="folder of an index, living or not")
    k: int = Field(4, ge=1, description="number of documents")
    size: str | None = Field(None, description="the size to search: L3-d128, L3 (full width) or 128 (full depth)")
    funnel: str | None = Field(None, description="the sizes to search in turn: L2-d64:200 > L6-d768:10")
    plan: str | None = Field(None, description="file of a plan made for this index")
    filter: dict[str, Any] | None = Field(None, description="what the metadata must be like, as in rag_ese.index.where")
    scores: bool = Field(False, description="whether metadata tell the score and the rank at every stage")
    model: str = Field("", description="embedded, a model folder or a hub name (default: as the index says)")
    model_revision: str = Field("", description="revision of a hub model")
    dtype: str = Field("auto", description="auto, float32, bfloat16 or float16")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    search_device: str = Field("cpu", description="cpu: FAISS's indexes; cuda, mps: brute force there; auto: either")
    encoder: Any = Field(None, exclude=True, repr=False, description="an ElasticEncoder that is loaded already")
    opened: Any = Field(None, exclude=True, repr=False, description="the index as an earlier retriever opened it")

    @model_validator(mode="after")
    def _open(self) -> Self:
        """Opens index and encoder once; the copies that `configurable_fields` makes share them."""
        if self.opened is None or self.opened.folder != Path(self.index):
            self.opened = OpenIndex.open(
                Path(self.index),
                self.encoder,
                self.model,
                self.model_revision,
                self.dtype,
                self.device,
                self.search_device,
            )
            self.encoder = self.opened.encoder
        self._funnel(self.k, None, None)
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return LangSmithRetrieverParams(
            ls_retriever_name="ese",
            ls_vector_store_provider="rag_ese",
            ls_embedding_provider="rag_ese",
            ls_embedding_model=self.encoder.name,
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        size: str | None = None,
        funnel: str | None = None,
        filter: Where | None = None,
        scores: bool | None = None,
    ) -> list[Document]:
        return self._find(query, k, size, funnel, filter, scores)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        size: str | None = None,
        funnel: str | None = None,
        filter: Where | None = None,
        scores: bool | None = None,
    ) -> list[Document]:
        """In a thread: the event loop goes on while PyTorch and FAISS, which let go of Python's lock, compute."""
        return await run_in_executor(None, self._find, query, k, size, funnel, filter, scores)

    def _find(
        self,
        query: str,
        k: int | None,
        size: str | None,
        funnel: str | None,
        filter: Where | None,
        scores: bool | None,
    ) -> list[Document]:
        k = self.k if k is None else k
        chosen = self._funnel(k, size, funnel)
        searcher = self.opened.searcher(chosen, self.filter if filter is None else filter)
        passages = self.opened.store.passages
        if not (self.scores if scores is None else scores):
            [ranking] = searcher.search([query])
            return [_document(passages[row]) for row in ranking.rows[:k].tolist()]
        [stages] = searcher.trace([query])
        told = _told(chosen, stages, k)
        return [_document(passages[row], more) for row, more in zip(stages[-1].rows[:k].tolist(), told, strict=True)]

    def _funnel(self, k: int, size: str | None, funnel: str | None) -> Funnel:
        """What is searched: what the call asks for, else what the retriever was made with, else the largest size."""
        if k < 1:
            raise ConfigError(f"k is {k}: ask for at least 1 document")
        given = (size, funnel, None) if size or funnel else (self.size, self.funnel, self.plan)
        if sum(map(bool, given)) > 1:
            raise ConfigError("more than one of size, funnel and plan is given: give one of them")
        found: Funnel = self.opened.funnel(k, *given)
        if found.keep < k:
            raise ConfigError(f"the funnel {found} keeps {found.keep} passages, but k is {k}: raise its last number")
        return found


def _document(passage: Passage, more: dict[str, Any] | None = None) -> Document:
    metadata = {**passage.metadata, "title": passage.title, **(more or {})}
    return Document(passage.text, id=passage.id, metadata=metadata)


def _told(funnel: Funnel, stages: Sequence[Ranking], k: int) -> list[dict[str, Any]]:
    """For each of the k best: the score, the size that gave it, and the rank (from 1) at the size of every stage."""
    ranks = [{row: rank for rank, row in enumerate(ranking.rows.tolist(), 1)} for ranking in stages]
    last = stages[-1]
    return [
        {
            "score": score,
            "size": str(funnel.stages[-1].size),
            "ranks": {str(stage.size): rank[row] for stage, rank in zip(funnel.stages, ranks, strict=True)},
        }
        for row, score in zip(last.rows[:k].tolist(), last.scores[:k].tolist(), strict=True)
    ]
