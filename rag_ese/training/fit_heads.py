"""`python -m rag_ese.training.fit_heads --pairs FILE --out DIR`: fits elastic heads for a backbone and saves them."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field
from safetensors.torch import save_file

from rag_ese.cli import Command, run
from rag_ese.config import StrictModel
from rag_ese.data.pairs import distinct_passages, read_pairs
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.checkpoint import ELASTIC_FILE, HEADS_FILE
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError, disk_errors
from rag_ese.progress import progress_bar
from rag_ese.training.linear_heads import HeadSettings, fit_heads
from rag_ese.types import Float32s


class FitConfig(StrictModel):
    """What the heads are fitted on, and how."""

    pairs: str = Field(description="question-passage pairs: JSONL files, separated by commas")
    out: Path = Field(description="folder for elastic.json and heads.safetensors")
    model: str = Field("embedded-raw", description="the backbone: a folder, a hub name or embedded-raw")
    view: int = Field(HeadSettings.view, ge=1, description="the layer of the shallow view")
    weight: float = Field(HeadSettings.weight, ge=0, description="the shallow view's share in the inner product")
    noise_floor: float = Field(HeadSettings.noise_floor, gt=0, description="floor of the noise covariance's spectrum")
    ridge: float = Field(HeadSettings.ridge, gt=0, description="strength of the ridge regression")
    dtype: str = Field("auto", description="precision of the backbone: auto, float32, bfloat16 or float16")
    device: str = Field("auto", description="auto, cpu, cuda or mps")


def pooled_pairs(
    encoder: ElasticEncoder, pairs: list[tuple[str, str]]
) -> tuple[dict[int, Float32s], dict[int, Float32s]]:
    """The pooled vectors of questions and of passages at every layer of the encoder."""
    layers = list(range(1, encoder.depth + 1))
    with progress_bar("pooling", 2 * len(pairs)) as advance:
        questions = encoder.pool_layers([question for question, _ in pairs], layers, "query", advance)
        passages = encoder.pool_layers([passage for _, passage in pairs], layers, "passage", advance)
    return questions, passages


def main(config: FitConfig) -> None:
    encoder = ElasticEncoder.load(config.model, config.dtype, config.device)
    if not 1 <= config.view <= encoder.depth:
        raise ConfigError(f"the view is layer {config.view}, but {config.model} has layers 1 to {encoder.depth}")
    pairs = distinct_passages(pair for name in config.pairs.split(",") for pair in read_pairs(Path(name)))
    settings = HeadSettings(config.view, config.weight, config.noise_floor, config.ridge)
    heads = fit_heads(*pooled_pairs(encoder, pairs), settings)
    save_heads(heads, config.out)


def save_heads(heads: ViewHeads, folder: Path) -> None:
    """Writes heads in half precision."""
    with disk_errors("writing the heads to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.half().contiguous() for name, tensor in heads.state().items()}, folder / HEADS_FILE)
        (folder / ELASTIC_FILE).write_text(json.dumps({"format": 1, "view": heads.view}, indent=1) + "\n")


if __name__ == "__main__":
    run("rag_ese.training.fit_heads", {"": Command(FitConfig, main, "fit elastic heads for a backbone in closed form")})
