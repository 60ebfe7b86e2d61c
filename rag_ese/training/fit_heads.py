"""Fits elastic heads for a backbone: `python -m rag_ese.training.fit_heads --pairs FILE --pool FILE --out DIR`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from rag_ese.cli import Command, run
from rag_ese.data.pairs import distinct_passages
from rag_ese.data.training_rows import read_rows, without
from rag_ese.encoder.config import EncoderConfig
from rag_ese.encoder.delta import save_delta
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError
from rag_ese.progress import progress_bar
from rag_ese.training.linear_heads import HeadSettings, fit_heads
from rag_ese.types import Float32s


class FitConfig(EncoderConfig):
    """What the heads are fitted on, and how."""

    pairs: str = Field(description="question-passage pairs: JSONL files, separated by commas")
    pool: str = Field(description="training rows with passages of the kind searched: they steer the axes")
    exclude: str = Field("", description="evaluation files, separated by commas: what shares a text is left out")
    out: Path = Field(description="folder for the heads: a model that every command takes")
    model: str = Field("embedded-raw", description="the backbone: a folder, a hub name or embedded-raw")
    view: int = Field(HeadSettings.view, ge=1, description="the layer of the shallow view")
    weight: float = Field(HeadSettings.weight, ge=0, description="the shallow view's share in the inner product")
    noise_floor: float = Field(HeadSettings.noise_floor, gt=0, description="floor of the noise covariance's spectrum")
    ridge: float = Field(HeadSettings.ridge, gt=0, description="strength of the ridge regression")
    pool_weight: float = Field(HeadSettings.pool_weight, ge=0, description="weight of a pool passage in the axes")

    def settings(self) -> HeadSettings:
        return HeadSettings(self.view, self.weight, self.noise_floor, self.ridge, self.pool_weight)


Pooled = dict[int, Float32s]


def pool_texts(config: FitConfig, encoder: ElasticEncoder) -> tuple[Pooled, Pooled, Pooled]:
    """The pooled vectors of questions, of their passages and of the pool, at every layer of the backbone."""
    if config.view > encoder.depth:
        raise ConfigError(f"the view is layer {config.view}, but {config.model} has layers 1 to {encoder.depth}")
    forbidden = [Path(name) for name in config.exclude.split(",") if name]
    read = (row for name in config.pairs.split(",") for row in read_rows(Path(name), "pairs"))
    pairs = distinct_passages((row.texts[0], row.texts[1]) for row in without(read, forbidden)[0])
    rows, _ = without(read_rows(Path(config.pool), "pairs"), forbidden)
    pool = sorted({passage for row in rows for passage in row.texts[1:]})
    layers = list(range(1, encoder.depth + 1))
    with progress_bar("pooling", 2 * len(pairs) + len(pool)) as advance:
        questions = encoder.pool_layers([question for question, _ in pairs], layers, "query", advance)
        passages = encoder.pool_layers([passage for _, passage in pairs], layers, "passage", advance)
        return questions, passages, encoder.pool_layers(pool, layers, "passage", advance)


def main(config: FitConfig) -> None:
    encoder = config.load_encoder()
    fitted, present = fit_heads(*pool_texts(config, encoder), config.settings()), encoder.checkpoint.head
    gates = present.gates if isinstance(present, ViewHeads) else {}  # what was pooled has passed them
    heads = ViewHeads(fitted.view, fitted.weights, fitted.biases, gates)
    save_delta(config.out, heads, {}, config.model, encoder.revision)


if __name__ == "__main__":
    run("rag_ese.training.fit_heads", {"": Command(FitConfig, main, "fit elastic heads for a backbone in closed form")})
