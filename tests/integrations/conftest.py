"""Indexes and embeddings for the tests of the integrations."""

from __future__ import annotations

import hashlib
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

TEXTS = ["a bridge", "a novel", "a painter"]
METADATA: list[dict[str, Any]] = [{"source": "wiki", "page": 3}, {}, {"tags": ["x", None, True], "deep": {"a": 1.5}}]


class HashEmbeddings(Embeddings):
    """Vectors drawn from a hash of the text, or those of `known`; of no particular length."""

    def __init__(self, width: int = 12, known: dict[str, list[float]] | None = None) -> None:
        self.width = width
        self.known = known or {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if text in self.known:
            return self.known[text]
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        drawn: list[float] = np.random.default_rng(seed).normal(size=self.width).tolist()
        return drawn


def cosine(one: Any, other: Any) -> float:
    """The definition, in float64."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture
def hashed() -> Callable[..., HashEmbeddings]:
    return HashEmbeddings


@pytest.fixture
def numpy_cosine() -> Callable[[Any, Any], float]:
    return cosine


@pytest.fixture(scope="session")
def embedded() -> Any:
    """The embedded model."""
    from rag_ese.encoder import ElasticEncoder

    return ElasticEncoder.load("embedded", "float32", "cpu")


@pytest.fixture(scope="session")
def sample_index(embedded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 passages of the bundled sample at two sizes, half of them marked as even."""
    from dataclasses import replace

    from rag_ese.data import load_sample
    from rag_ese.index import DataEntry, ModelEntry, Plan, build

    some = load_sample().passages[:120]
    rows = [replace(each, metadata={"even": row % 2 == 0, "row": row}) for row, each in enumerate(some)]
    model = ModelEntry(
        name="embedded",
        revision=embedded.revision,
        dtype="float32",
        batch_tokens=embedded.token_budget,
        depth=embedded.depth,
        width=embedded.width,
    )
    plan = Plan(
        model=model,
        data=DataEntry(name="sample", revision="1"),
        layers=(1, 2),
        sizes=("L1-d64", "L2-d128"),
        kind="flat",
        stored="float32",
        shard=4096,
        bm25=False,
    )
    folder = tmp_path_factory.mktemp("indexes") / "sample"
    build(folder, plan, lambda: rows, embedded)
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """example("rag") imports docs/examples/langchain_rag.py."""
    folder = Path(__file__).parents[2] / "docs" / "examples"

    def load(name: str) -> Any:
        import importlib

        monkeypatch.syspath_prepend(str(folder))
        sys.modules.pop(f"langchain_{name}", None)
        return importlib.import_module(f"langchain_{name}")

    return load


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes index.faiss and index.pkl as FAISS.save_local does: a pickled (docstore, {row: id}) beside the index."""
    module = types.ModuleType("langchain_community.docstore.in_memory")

    class InMemoryDocstore:
        def __init__(self, documents: dict[str, Document]) -> None:
            self._dict = documents

    InMemoryDocstore.__module__ = module.__name__
    InMemoryDocstore.__qualname__ = "InMemoryDocstore"
    module.InMemoryDocstore = InMemoryDocstore  # type: ignore[attr-defined]
    for name in ("langchain_community", "langchain_community.docstore"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    import faiss

    def to_disk(
        index: Any,
        vectors: Any,
        metadata: Any = METADATA,
        ids: Any = None,
        protocol: int = pickle.DEFAULT_PROTOCOL,
        pickled: bytes | None = None,
    ) -> Path:
        index.add(np.asarray(vectors, np.float32))
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        documents = {
            f"id{row}": Document(text, metadata=each, id=f"id{row}" if row else None)
            for row, (text, each) in enumerate(zip(TEXTS, metadata, strict=True))
        }
        rows = {row: f"id{row}" for row in range(3)} if ids is None else ids
        content = pickled or pickle.dumps((InMemoryDocstore(documents), rows), protocol)
        (tmp_path / "index.pkl").write_bytes(content)
        return tmp_path

    return to_disk
