"""Stores of passages: one encode pass, one FAISS index per size, full vectors for re-ranking, BM25."""

from rag_ese.index.builder import build, extend
from rag_ese.index.manifest import DataEntry, Manifest, ModelEntry, Plan
from rag_ese.index.store import Store

__all__ = ["DataEntry", "Manifest", "ModelEntry", "Plan", "Store", "build", "extend"]
