"""LangChain embeddings against the encoder that they stand for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from langchain_core.load import dumps, load
from pydantic import ValidationError

from rag_ese.errors import SizeError
from rag_ese.integrations.langchain import EseEmbeddings
from rag_ese.types import Size

TEXTS = ["The bridge crosses the river.", "A painter.", ""]


async def test_vectors_are_the_encoders(embedded: Any) -> None:
    embeddings = EseEmbeddings(size="L2-d96", encoder=embedded)
    size = Size(2, 96)
    documents = embeddings.embed_documents(TEXTS)
    assert np.array_equal(np.float32(documents), embedded.encode(TEXTS, [size])[size])
    assert documents == await embeddings.aembed_documents(TEXTS)
    query = embeddings.embed_query(TEXTS[0])
    assert np.array_equal(np.float32(query), embedded.encode(TEXTS[:1], [size], "query")[size][0])
    assert query == await embeddings.aembed_query(TEXTS[0])
    assert embeddings.embed_documents([]) == []
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-6)


def test_roles_and_progress_reach_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    class Encoder:
        name, revision, depth, width = "fake", "r1", 6, 8

        def check(self, sizes: Any) -> None: ...

        def encode(self, texts: Any, sizes: Any, role: str, progress: Any = None) -> Any:
            asked.append((role, progress is not None))
            return {size: np.zeros((len(texts), size.dim), np.float32) for size in sizes}

    embeddings = EseEmbeddings(encoder=Encoder(), show_progress=True)
    assert embeddings.fingerprint == "fake@r1 L6-d8"
    embeddings.embed_documents(["a"])
    embeddings.embed_query("a")
    assert asked == [("passage", True), ("query", False)]


@pytest.mark.parametrize(
    ("size", "parsed"), [("", "L6-d768"), ("L3", "L3-d768"), ("128", "L6-d128"), ("L1-d9", "L1-d9")]
)
def test_sizes(embedded: Any, size: str, parsed: str) -> None:
    assert str(EseEmbeddings(size=size, encoder=embedded).parsed_size) == parsed


def test_refusals(embedded: Any) -> None:
    with pytest.raises(SizeError, match="has no size L7-d64"):
        EseEmbeddings(size="L7-d64", encoder=embedded)
    with pytest.raises(ValidationError, match="dimensions"):
        EseEmbeddings(dimensions=64, encoder=embedded)


def test_dumped_and_loaded(embedded: Any) -> None:
    embeddings = EseEmbeddings(size="L1-d16", dtype="float32", encoder=embedded)
    text = dumps(embeddings)
    assert "encoder" not in text
    again = load(json.loads(text), valid_namespaces=["rag_ese"], allowed_objects=[EseEmbeddings])
    assert again.embed_query("x") == embeddings.embed_query("x")
