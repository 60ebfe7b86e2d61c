"""The options of `python -m rag_ese.train` where `task` is reader: what the reader is trained on, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rag_ese.config import StrictModel

RUN_KEYS = {"out", "device", "save_every"}
"""Options that do not change what a run computes: a resumed run may differ in them."""


class ReadingSet(StrictModel):
    """One data set of questions with their passages."""

    path: str = Field(description="a file in SQuAD's manner by line, of BoolQ or of HotpotQA, gzipped or not")
    passes: float = Field(1.0, gt=0, description="how often each row is drawn in the run")
    begin: float = Field(0.0, ge=0, lt=1, description="share of the run after which its rows are drawn")
    titles: bool = Field(True, description="whether the titles say something and are read")
    beside: float = Field(0.2, ge=0, le=1, description="share of the draws beside a passage without the answer")
    unanswered: float = Field(0.08, ge=0, le=1, description="share of the draws that lack the answer")
    held_out: float = Field(0.01, ge=0, lt=0.5, description="share of the rows that is held out for measuring")


class ReaderTrainConfig(StrictModel):
    """One training run of a reader. The data sets are a list of maps: they are set in a YAML file."""

    task: Literal["reader"] = Field(description="reader")
    out: Path = Field(description="folder of the run: log, checkpoints, and model/ when it is done")
    data: list[ReadingSet] = Field(min_length=1, description="data sets: path, passes, begin and what is shown")
    init: str | None = Field(None, description="reader to start from: embedded, or the model/ folder of a run")
    exclude: list[Path] = Field([], description="evaluation files: rows that share a text with them are dropped")
    limit: int | None = Field(None, ge=1, description="rows of each data set, for a trial")
    max_tokens: int = Field(288, ge=64, le=512, description="longest window: question and passages")
    batch_tokens: int = Field(6144, ge=512, description="tokens per step")
    bucket: int = Field(40, ge=1, description="batches that are sorted by length together")
    steps: int | None = Field(None, ge=1, description="steps in place of all draws, for a trial")
    lr: float = Field(2e-4, gt=0, description="learning rate of the backbone")
    head_lr: float = Field(1e-3, gt=0, description="learning rate of the heads")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps with a rising rate; then a cosine to 0")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    dropout: float = Field(0.0, ge=0, lt=1, description="the backbone's dropout while training")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="of the blocks; weights stay float32")
    device: str = Field("auto", description="auto, cpu, cuda or mps")
    check_every: int = Field(300, ge=1, description="steps between two measurements on the held-out rows")
    patience: int = Field(0, ge=0, description="measurements without progress before the run stops; 0: never")
    save_every: int = Field(100, ge=1, description="steps between two checkpoints")
    seed: int = Field(0, description="seed of data order, windows and dropout")

    def determining(self) -> dict[str, Any]:
        """The options that determine what a run computes, under the names that users write."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in RUN_KEYS}
