"""The options of `python -m rag_ese.train`: what is trained, on what, by which objective, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from rag_ese.config import StrictModel

RUN_KEYS = {"out", "device", "save_every", "tensorboard"}
"""Options that do not change what a run computes: a resumed run may differ in them."""


class DataSet(StrictModel):
    """One data set of the mixture."""

    path: str = Field(description="a JSONL, JSON or TSV file, gzipped or not")
    kind: str = Field("auto", description="pairs, triplets, scored, or auto: by the fields of the first row")
    weight: float = Field(1.0, gt=0, description="how often its rows are seen, relative to once an epoch")
    batch_size: int | None = Field(None, ge=2, description="rows per batch of this set (default: the run's batch_size)")
    windows: bool = Field(False, description="put windows of 1 to 3 sentences in place of the passages")
    labelled: bool = Field(True, description="whether rows belong together: if not, there is no base loss")


class LoRA(StrictModel):
    """Low-rank adapters instead of full fine-tuning; merged into the weights when the model is saved."""

    rank: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, gt=0, description="scale of the adapters (alpha / rank)")
    targets: list[str] = Field(["query", "key", "value", "dense"], description="names of the linear layers to adapt")


class TrainConfig(StrictModel):
    """One training run. Maps, `options` and `lora`, are written as YAML on the command line: '{size: L6-d64}'."""

    out: Path = Field(description="folder of the run: log, checkpoints, and model/ when it is done")
    model: str = Field("embedded", description="what is trained: embedded, embedded-raw, a folder or a hub name")
    data: list[DataSet] = Field(description="data sets: path, kind, weight; on the command line paths with commas")
    exclude: list[Path] = Field([], description="evaluation files: rows that share a text with them are dropped")
    objective: str = Field("ese", description="raw-ft, mrl, 2dmse, ese, ese-paper, ese-code or starbucks")
    options: dict[str, Any] = Field({}, description="options of the objective, such as {sizes: [64, 768]}")
    base_loss: str = Field("info-nce", description="info-nce (pairs and triplets), angle or cosent (scored pairs)")
    scale: float = Field(20.0, gt=0, description="inverse temperature of the base loss")
    teacher: str = Field("", description="start (the model before training), a model, or empty: its own full size")
    negatives: int = Field(0, ge=0, description="hard negatives per row, where the data has them")
    batch_size: int = Field(64, ge=2, description="rows per step, over all processes")
    gradient_cache: bool = Field(False, description="embed every chunk twice, so that one chunk bounds the memory")
    chunk_tokens: int = Field(8192, ge=16, description="padded tokens per forward pass")
    query_tokens: int = Field(64, ge=4, description="longest question or sentence")
    passage_tokens: int = Field(128, ge=4, description="longest passage")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    steps: int | None = Field(None, ge=1, description="steps in place of epochs")
    lr: float = Field(1e-4, gt=0, description="learning rate of the backbone")
    head_lr: float = Field(1e-3, gt=0, description="learning rate of the heads")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps with a rising rate; then a cosine to 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    dropout: bool = Field(False, description="the backbone's own dropout while training")
    freeze: list[str] = Field(["embeddings"], description="parts of parameter names that stay as they are")
    gates: bool = Field(False, description="learn how much each token counts in the pooling, at every depth")
    lora: LoRA | None = Field(None, description="LoRA adapters, such as {rank: 16, alpha: 32} (extra train)")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the blocks; the weights stay float32")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    held_out: float = Field(0.02, ge=0, lt=0.5, description="share of the rows that is held out for early stopping")
    check_every: int = Field(200, ge=1, description="steps between two measurements on the held-out rows")
    patience: int = Field(0, ge=0, description="measurements without progress before the run stops; 0: never")
    save_every: int = Field(100, ge=1, description="steps between two checkpoints")
    seed: int = Field(0, description="seed of data order, sampling and dropout")
    tensorboard: bool = Field(False, description="also write TensorBoard events (extra train)")

    @field_validator("data", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        if isinstance(value, str):
            return [{"path": part.strip()} for part in value.split(",") if part.strip()]
        return (
            [{"path": each} if isinstance(each, str) else each for each in value] if isinstance(value, list) else value
        )

    @field_validator("options", "lora", mode="before")
    @classmethod
    def _map(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            read = value
        if isinstance(read, str):
            raise ValueError(f"{value} is no map: write it like '{{size: L6-d64}}'")
        return read

    @field_validator("exclude", "freeze", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("data")
    @classmethod
    def _some(cls, value: list[DataSet]) -> list[DataSet]:
        if not value:
            raise ValueError("no data set is given: name at least one file")
        return value

    def keys(self) -> dict[str, Any]:
        """The options under the names that users write, as plain values."""
        return self.model_dump(mode="json")

    def determining(self) -> dict[str, Any]:
        """Those that determine what a run computes."""
        return {key: value for key, value in self.keys().items() if key not in RUN_KEYS}
