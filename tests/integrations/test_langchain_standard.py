"""LangChain's own standard tests, all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from rag_ese.integrations.langchain import EseEmbeddings, EseRetriever, EseVectorStore


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, sample_index: Path, embedded: Any) -> None:
        self.params = {"index": str(sample_index), "encoder": embedded, "size": "L2-d128"}

    @property
    def retriever_constructor(self) -> type[EseRetriever]:
        return EseRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params

    @property
    def retriever_query_example(self) -> str:
        return "Which river flows through the city?"


class _Embeddings:
    @property
    def embeddings_class(self) -> type[EseEmbeddings]:
        return EseEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"size": "L2-d64", "dtype": "float32"}


class TestEmbeddingsUnit(_Embeddings, EmbeddingsUnitTests):
    pass


class TestEmbeddingsIntegration(_Embeddings, EmbeddingsIntegrationTests):
    pass


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return EseVectorStore(self.get_embeddings())


class TestVectorStoreFromFolder(VectorStoreIntegrationTests):
    """The same on a store that was saved while empty, and loaded."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> VectorStore:
        EseVectorStore(self.get_embeddings()).save(tmp_path / "store")
        return EseVectorStore.load(tmp_path / "store", self.get_embeddings())
