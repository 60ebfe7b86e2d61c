"""Stores of passages: one encode pass, one FAISS index per size, full vectors for re-ranking, BM25."""

from rag_ese.index.builder import build, extend
from rag_ese.index.living import LivingIndex
from rag_ese.index.manifest import DataEntry, Manifest, ModelEntry, Plan
from rag_ese.index.store import Store
from rag_ese.index.view import View

__all__ = ["DataEntry", "LivingIndex", "Manifest", "ModelEntry", "Plan", "Store", "View", "build", "extend"]
