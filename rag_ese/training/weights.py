"""Writing an encoder's weights: a delta over the embedded backbone where it began there, else a whole folder."""

from __future__ import annotations

from pathlib import Path

import torch

from rag_ese.encoder.delta import save_delta
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.export import save_sentence_transformer
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.names import EMBEDDED_RAW, resolve


def save_weights(encoder: ElasticEncoder, folder: Path) -> None:
    """Writes a folder that every command takes as a model."""
    head = encoder.checkpoint.head
    if encoder.checkpoint.path == resolve(EMBEDDED_RAW).path and isinstance(head, ViewHeads):
        start = ElasticEncoder.load(EMBEDDED_RAW, "float32", "cpu")
        before = dict(start.checkpoint.blocks.model.named_parameters())
        after = dict(encoder.checkpoint.blocks.model.named_parameters())
        changed = {name: after[name] for name in before if not torch.equal(after[name].cpu(), before[name])}
        save_delta(folder, head, changed, EMBEDDED_RAW, start.revision)
    else:
        save_sentence_transformer(encoder, folder)
