"""Migration from langchain-community's FAISS store, on files as it writes them, and on hostile ones."""

from __future__ import annotations

import datetime
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from langchain_core.documents import Document

from rag_ese.errors import DataError
from rag_ese.integrations.langchain import from_faiss

Write = Callable[..., Path]
TEXTS = ["a bridge", "a novel", "a painter"]
METADATA: list[dict[str, Any]] = [{"source": "wiki", "page": 3}, {}, {"tags": ["x", None, True], "deep": {"a": 1.5}}]


@pytest.mark.parametrize("kind", [faiss.IndexFlatL2, faiss.IndexFlatIP])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_documents_vectors_and_ids_come_over(write: Write, hashed: Any, kind: Any, protocol: int) -> None:
    vectors = np.eye(4, dtype=np.float32)[[2, 0, 1]]
    folder = write(kind(4), vectors, protocol=protocol)
    before = {*sys.modules}
    store = from_faiss(folder, hashed(4))
    assert not [name for name in {*sys.modules} - before if name.startswith("langchain_community")]
    for row in range(3):
        [(document, score)] = store.similarity_search_with_score_by_vector(vectors[row].tolist(), k=1)
        assert document == Document(TEXTS[row], metadata=METADATA[row], id=f"id{row}")
        assert score == 1.0


def test_a_compressed_index_gives_what_it_holds(write: Write, hashed: Any) -> None:
    index = faiss.index_factory(4, "SQfp16", faiss.METRIC_INNER_PRODUCT)
    store = from_faiss(write(index, np.eye(4)[:3]), hashed(4))
    assert [each.page_content for each in store.similarity_search_by_vector([0, 1, 0, 0], k=1)] == ["a novel"]


def test_vectors_that_are_not_unit_length_are_told(write: Write, hashed: Any) -> None:
    with pytest.warns(UserWarning, match="lengths from 2 to 2;"):
        from_faiss(write(faiss.IndexFlatL2(4), 2 * np.eye(4)[:3]), hashed(4))


class Runs:
    """What a hostile pickle does: it names a function and its arguments."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self._call, self._arguments = call, arguments

    def __reduce__(self) -> Any:
        return self._call, self._arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_pickle_names_is_run(write: Write, hashed: Any, tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    for hostile in (Runs(os.mkdir, str(made)), Runs(eval, f"__import__('os').mkdir({str(made)!r})")):
        folder = write(faiss.IndexFlatL2(4), np.eye(4)[:3], pickled=pickle.dumps((hostile, {}), protocol))
        with pytest.raises(DataError, match=r"the pickle asks for (posix\.mkdir|builtins\.eval|__builtin__\.eval)"):
            from_faiss(folder, hashed(4))
    assert not made.exists()


def test_a_known_name_does_not_open_the_door(write: Write, hashed: Any) -> None:
    """Dotted names reach into modules with some protocols; only the two exact names pass."""
    for module, name in (("langchain_core.documents.base", "Document.__init__.__globals__"), ("os", "Document")):
        asked = (
            b"\x80\x04" + b"".join(b"\x8c" + bytes([len(each)]) + each.encode() for each in (module, name)) + b"\x93."
        )
        with pytest.raises(DataError, match="the pickle asks for"):
            from_faiss(write(faiss.IndexFlatL2(4), np.eye(4)[:3], pickled=asked), hashed(4))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": [{"when": datetime.date(2020, 1, 1)}, {}, {}]}, r"asks for datetime\.date"),
        ({"metadata": [{"n": np.float64(1)}, {}, {}]}, r"asks for numpy"),
        ({"ids": {0: "id0", 1: "id1"}}, "3 vectors, 2 row numbers and 3 documents"),
        ({"ids": {0: "id0", 1: "id1", 2: "other"}}, "do not belong together"),
        ({"pickled": b"garbage"}, "is not what FAISS.save_local writes"),
        ({"pickled": pickle.dumps(({}, {}))}, "is not what FAISS.save_local writes"),
        ({"pickled": pickle.dumps(3)}, "is not what FAISS.save_local writes"),
    ],
)
def test_refusals(write: Write, hashed: Any, changes: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_faiss(write(faiss.IndexFlatL2(4), np.eye(4)[:3], **changes), hashed(4))


def test_files_that_are_not_there(write: Write, hashed: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*index\.pkl"):
        from_faiss(tmp_path, hashed(4))
    (write(faiss.IndexFlatL2(4), np.eye(4)[:3]) / "index.faiss").write_bytes(b"short")
    with pytest.raises(DataError, match="cannot read the vectors"):
        from_faiss(tmp_path, hashed(4))
