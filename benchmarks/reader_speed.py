"""How fast the trained reader reads: questions per second at top 10, against one passage at a time.

    python benchmarks/reader_speed.py --data ../shared/data/hotpotqa/hotpot_train_distractor_399.json.gz --reader DIR

The naive loop gives the model one window at a time. It is measured twice: as a model comes, in float32 and with the
library's blocks, and with the precision and the packed blocks that the reader chooses. All three read the same windows.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import Field

from rag_ese.cli import Command, run
from rag_ese.config import StrictModel
from rag_ese.data import records
from rag_ese.data.sources import read_source
from rag_ese.generator import Prompt
from rag_ese.reader import trained
from rag_ese.reader.scoring import WindowScores, score_windows
from rag_ese.reader.trained import TrainedReader
from rag_ese.reader.windows import Window


class SpeedConfig(StrictModel):
    """What is read."""

    data: Path = Field(description="HotpotQA's distractor file: each question with its ten passages")
    reader: str = Field("", description="folder of a trained reader (default: the one that comes with the package)")
    limit: int = Field(64, ge=1, description="questions")
    rounds: int = Field(3, ge=1, description="rounds in which all take turns; the median counts")


class OneByOne(TrainedReader):
    """The same reader, one window per forward pass and one question at a time."""

    def _score(self, windows: Sequence[Sequence[Window]]) -> list[list[WindowScores]]:
        return [
            [scores for window in each for _, scores in score_windows(self._model, [window], 1, trained.KEEP)]
            for each in windows
        ]


class AsItComes(OneByOne):
    """The naive loop with the model as it comes."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(folder, "cpu")
        self._model.to(torch.float32)
        for module in self._model.backbone.modules():
            module.__dict__.pop("forward", None)  # the library's blocks, not packed ones


def main(config: SpeedConfig) -> None:
    prompts = [prompt for _, prompt in zip(range(config.limit), _prompts(config.data), strict=False)]
    folder = Path(config.reader) if config.reader else None
    readers = {"batched": TrainedReader(folder, "cpu"), "one by one": OneByOne(folder, "cpu")}
    readers["one by one, as it comes"] = AsItComes(folder)
    passages, threads = len(prompts[0].passages), torch.get_num_threads()
    sys.stdout.write(f"{len(prompts)} questions of {passages} passages, {threads} threads\n")
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for reader in readers.values():
        reader.generate(prompts[:4])
    for _ in range(config.rounds):
        for name, reader in readers.items():
            started = time.perf_counter()
            reader.generate(prompts)
            seconds[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    for name, each in middle.items():
        rate, slowdown = len(prompts) / each, each / middle["batched"]
        sys.stdout.write(f"{name:24} {rate:8.2f} questions per second, batched is {slowdown:.2f}x as fast\n")


def _prompts(path: Path) -> Iterator[Prompt]:
    for where, record in read_source(path):
        question, passages = records.parse(record, where)
        yield Prompt(question.text, passages)


if __name__ == "__main__":
    run("benchmarks.reader_speed", {"": Command(SpeedConfig, main, "questions per second of the trained reader")})
