"""Elastic encoding: one model, any number of its layers, any number of leading dimensions."""

from rag_ese.encoder.elastic import ElasticEncoder, Encoding, Role

__all__ = ["ElasticEncoder", "Encoding", "Role"]
