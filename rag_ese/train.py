"""`python -m rag_ese.train --config configs/train/ese.yaml`: trains an elastic encoder."""

from __future__ import annotations

from rag_ese.cli import Command, notice, run
from rag_ese.training.config import TrainConfig
from rag_ese.training.run import train


def main(config: TrainConfig) -> None:
    train(config, notice)


if __name__ == "__main__":
    run("rag_ese.train", {"": Command(TrainConfig, main, "train an elastic encoder; the same command goes on")})
