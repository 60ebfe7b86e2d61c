"""How fast the trained reader reads: questions per second at top 10, against one passage at a time.

    python benchmarks/reader_speed.py --data ../shared/data/hotpotqa/hotpot_train_distractor_399.json.gz --reader DIR

The naive loop gives the model one window at a time. It is measured twice: in float32, as a model comes, and in the
precision that the reader chooses. All three read the same windows.
"""

from __future__ import annotations

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


class OneByOne(TrainedReader):
    """The same reader, one window per forward pass and one question at a time."""

    def _score(self, windows: Sequence[Sequence[Window]]) -> list[list[WindowScores]]:
        return [
            [scores for window in each for _, scores in score_windows(self._model, [window], 1, trained.KEEP)]
            for each in windows
        ]


class Exact(OneByOne):
    """The naive loop in float32."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__(folder, "cpu")
        self._model.to(torch.float32)


def main(config: SpeedConfig) -> None:
    prompts = [prompt for _, prompt in zip(range(config.limit), _prompts(config.data), strict=False)]
    folder = Path(config.reader) if config.reader else None
    readers = {"batched": TrainedReader(folder, "cpu"), "one by one": OneByOne(folder, "cpu")}
    readers["one by one, float32"] = Exact(folder)
    passages, threads = len(prompts[0].passages), torch.get_num_threads()
    sys.stdout.write(f"{len(prompts)} questions of {passages} passages, {threads} threads\n")
    for name, reader in readers.items():
        reader.generate(prompts[:4])
        started = time.perf_counter()
        reader.generate(prompts)
        sys.stdout.write(f"{name:24} {len(prompts) / (time.perf_counter() - started):8.2f} questions per second\n")


def _prompts(path: Path) -> Iterator[Prompt]:
    for where, record in read_source(path):
        question, passages = records.parse(record, where)
        yield Prompt(question.text, passages)


if __name__ == "__main__":
    run("benchmarks.reader_speed", {"": Command(SpeedConfig, main, "questions per second of the trained reader")})
