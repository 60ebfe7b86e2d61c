"""`python -m rag_ese.train --config FILE`: trains an elastic encoder, or a reader where FILE says `task: reader`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_ese.cli import Command, notice, run
from rag_ese.config import read_yaml
from rag_ese.errors import ConfigError
from rag_ese.training.config import TrainConfig
from rag_ese.training.reader_config import ReaderTrainConfig

ENCODER = "train an elastic encoder (or a reader, with task: reader in the file); the same command goes on"
READER = "train a reader; the same command goes on"


def main(config: TrainConfig) -> None:
    from rag_ese.training.run import train

    train(config, notice)


def reader(config: ReaderTrainConfig) -> None:
    from rag_ese.training.reader_run import train_reader

    train_reader(config, notice)


def command(arguments: Sequence[str]) -> Command:
    """What the configuration file named in `arguments` is for; a file that cannot be read fails later, in one place."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path)
    file = parser.parse_known_args(arguments)[0].config
    try:
        task = read_yaml(file).get("task") if file else None
    except ConfigError:
        task = None
    return Command(ReaderTrainConfig, reader, READER) if task == "reader" else Command(TrainConfig, main, ENCODER)


if __name__ == "__main__":
    run("rag_ese.train", {"": command(sys.argv[1:])})
