"""LangChain embeddings from an elastic encoder, at one size."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.load import Serializable
from langchain_core.runnables import run_in_executor
from pydantic import ConfigDict, Field, model_validator

from rag_ese.progress import progress_bar
from rag_ese.types import Float32s, Size


class EseEmbeddings(Serializable, Embeddings):
    """Unit vectors at one size, with the model's prompts for queries and for documents.

    >>> embeddings = EseEmbeddings(size="L3-d128")                                          # doctest: +SKIP
    >>> len(embeddings.embed_query("a question"))                                           # doctest: +SKIP
    128

    Only `size.layers` blocks run. A given `encoder` is used instead of loading `model` again; it is not serialised.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = Field("embedded", description="embedded, embedded-raw, a model folder, or a hub name")
    model_revision: str = Field("", description="revision of a hub model")
    size: str = Field("", description="L3-d128, L3 (full width) or 128 (full depth); empty: the full size")
    dtype: str = Field("auto", description="auto, float32, bfloat16 or float16")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    batch_tokens: int | None = Field(None, ge=1, description="size of a batch in padded tokens (default: the device's)")
    show_progress: bool = Field(False, description="a progress bar while documents are embedded, on a terminal")
    encoder: Any = Field(None, exclude=True, repr=False, description="an ElasticEncoder that is loaded already")

    @model_validator(mode="after")
    def _opened(self) -> Self:
        if self.encoder is None:
            self.encoder = load_encoder(self.model, self.model_revision, self.dtype, self.device, self.batch_tokens)
        self.encoder.check([self.parsed_size])
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def parsed_size(self) -> Size:
        depth, width = self.encoder.depth, self.encoder.width
        return Size.parse(self.size, depth, width) if self.size else Size(depth, width)

    @property
    def fingerprint(self) -> str:
        """What determines the vectors: equal strings, equal vectors."""
        return f"{self.encoder.name}@{self.encoder.revision} {self.parsed_size}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector per text."""
        if not self.show_progress:
            return _lists(self._vectors(texts, "passage"))
        with progress_bar("embedding documents", len(texts)) as progress:
            return _lists(self._vectors(texts, "passage", progress))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return _lists(self._vectors([text], "query"))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As embed_documents, in a thread: the event loop goes on."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As embed_query, in a thread: the event loop goes on."""
        return await run_in_executor(None, self.embed_query, text)

    def _vectors(self, texts: list[str], role: str, progress: Any = None) -> Float32s:
        vectors: Float32s = self.encoder.encode(texts, [self.parsed_size], role, progress=progress)[self.parsed_size]
        return vectors


def load_encoder(model: str, revision: str, dtype: str, device: str, batch_tokens: int | None = None) -> Any:
    """An ElasticEncoder; torch is imported here, not with this module."""
    from rag_ese.encoder import ElasticEncoder

    return ElasticEncoder.load(model, dtype, device, revision or None, batch_tokens)


def _lists(vectors: Float32s) -> list[list[float]]:
    rows: list[list[float]] = np.asarray(vectors).tolist()
    return rows
