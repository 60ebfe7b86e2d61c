"""Elastic sentence embeddings for retrieval: choose how deep and how wide an embedding is, and know what that costs.

Importing this package loads neither torch nor faiss nor vllm; the subpackages that need them load them when used.
"""

from rag_ese.types import Answer, Passage, Question, Ranking, Size

__version__ = "0.1.0"

__all__ = ["Answer", "Passage", "Question", "Ranking", "Size", "__version__"]
