"""LangChain (extra `langchain`): an elastic retriever, elastic embeddings, a vector store, and generators in chains."""

from rag_ese.errors import MissingExtraError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtraError("langchain", "the LangChain integration") from error

from rag_ese.integrations.langchain.chain_step import answering
from rag_ese.integrations.langchain.embeddings import EseEmbeddings
from rag_ese.integrations.langchain.faiss_folder import from_faiss
from rag_ese.integrations.langchain.retriever import EseRetriever
from rag_ese.integrations.langchain.vectorstore import EseVectorStore

__all__ = ["EseEmbeddings", "EseRetriever", "EseVectorStore", "answering", "from_faiss"]
