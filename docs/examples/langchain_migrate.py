"""From the folder that langchain-community's FAISS.save_local wrote to a folder of EseVectorStore.

    python docs/examples/langchain_migrate.py faiss_index my_store

The vectors are taken over, so search with the embeddings that made them.
"""

import sys

from langchain_core.embeddings import Embeddings

from rag_ese.integrations.langchain import EseEmbeddings, from_faiss


def migrate(old: str, new: str, embeddings: Embeddings) -> int:
    store = from_faiss(old, embeddings)
    store.save(new)
    return len(store)


if __name__ == "__main__":
    print(migrate(sys.argv[1], sys.argv[2], EseEmbeddings()), "documents")
