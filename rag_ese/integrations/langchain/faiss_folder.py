"""From the folder of langchain-community's FAISS store to an EseVectorStore, without running what its pickle says.

NAME.pkl is a pickle of (docstore, {row: id}); NAME.faiss is an index that FAISS wrote. A pickle may name any function
to be called. This reader knows two classes, documents and the store of them, and puts records without any behaviour
in their place; a pickle that names anything else is refused.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from rag_ese.errors import DataError
from rag_ese.index.kinds import faiss_module
from rag_ese.integrations.langchain.vectorstore import EseVectorStore
from rag_ese.types import Float32s


class _Record:
    """Keeps the state that a pickle gives an object."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Docstore(_Record): ...


class _Document(_Record): ...


_KNOWN: dict[str, type[_Record]] = {"InMemoryDocstore": _Docstore, "Document": _Document}
_PACKAGES = {"langchain_community", "langchain_core", "langchain", "langchain_classic"}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in _PACKAGES and name in _KNOWN:
            return _KNOWN[name]
        if (
            module in ("builtins", "__builtin__") and name == "set"
        ):  # so old protocols write the set of a model's fields
            return set
        raise DataError(
            f"the pickle asks for {module}.{name}: only documents with plain metadata (strings, numbers, true, false, "
            "None, lists, dictionaries, sets) can be read safely; drop those metadata and save it again, or embed the "
            "texts anew"
        )


def from_faiss(folder: str | Path, embedding: Embeddings, index_name: str = "index") -> EseVectorStore:
    """The documents and vectors that langchain-community's FAISS.save_local wrote to `folder`.

    Vectors are brought to unit length, because this store compares by cosine; a UserWarning says where that may change
    the order of results. Raises DataError where the files are absent, garbage, do not fit each other, or hold classes
    other than documents.
    """
    path = Path(folder)
    documents, ids = _documents(path / f"{index_name}.pkl")
    vectors = _vectors(path / f"{index_name}.faiss")
    if sorted(ids) != [*range(len(vectors))] or not {*ids.values()} <= {*documents}:
        raise DataError(
            f"{path} holds {len(vectors)} vectors, {len(ids)} row numbers and {len(documents)} documents, which do not "
            "belong together: save that store again"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        warnings.warn(
            f"vectors of {path} have lengths from {lengths.min():.3g} to {lengths.max():.3g}; this store compares by "
            "cosine, so results may come in another order than there",
            stacklevel=2,
        )
    store = EseVectorStore(embedding)
    store.add_embedded([documents[ids[row]] for row in range(len(vectors))], vectors)
    return store


def _documents(file: Path) -> tuple[dict[str, Document], dict[int, str]]:
    """Documents by id, and the id of every row."""
    try:
        with file.open("rb") as stream:
            docstore, ids = _Reader(stream).load()
        fields = {str(id): record.state["__dict__"] for id, record in docstore.state["_dict"].items()}
        documents = {
            id: Document(each["page_content"], metadata=each.get("metadata") or {}, id=id)
            for id, each in fields.items()
        }
        return documents, {int(row): str(id) for row, id in ids.items()}
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}; give the folder of FAISS.save_local") from error
    except DataError:
        raise
    except Exception as error:  # a pickle that is garbage can raise anything
        raise DataError(f"{file} is not what FAISS.save_local writes ({type(error).__name__}: {error})") from error


def _vectors(file: Path) -> Float32s:
    faiss = faiss_module()
    try:
        index = faiss.read_index(str(file))
        vectors: Float32s = index.reconstruct_n(0, index.ntotal)
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"cannot read the vectors of {file} ({reason}): embed the texts anew") from error
    return vectors
