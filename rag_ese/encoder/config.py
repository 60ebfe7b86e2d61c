"""The options by which every command says what encoder it uses."""

from __future__ import annotations

from pydantic import Field

from rag_ese.config import StrictModel
from rag_ese.encoder.elastic import ElasticEncoder


class EncoderConfig(StrictModel):
    """An encoder, and how it runs."""

    model: str = Field("embedded", description="embedded, embedded-raw, a model folder, or a hub name")
    model_revision: str = Field("", description="revision of a hub model")
    dtype: str = Field("auto", description="auto, float32, bfloat16 or float16")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    batch_tokens: int | None = Field(None, ge=1, description="tokens per batch (default: 2048 on CPU, 65536 on GPU)")

    def load_encoder(self) -> ElasticEncoder:
        return ElasticEncoder.load(self.model, self.dtype, self.device, self.model_revision or None, self.batch_tokens)
