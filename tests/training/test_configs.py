"""The shipped configurations are valid, and their objectives can be built for the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

import rag_ese
from rag_ese.config import load, read_yaml
from rag_ese.objectives import base_loss, objective
from rag_ese.training.config import TrainConfig
from rag_ese.training.reader_config import ReaderTrainConfig

FILES = sorted((Path(rag_ese.__file__).parents[1] / "configs" / "train").glob("*.yaml"))
ENCODERS = [file for file in FILES if "task" not in read_yaml(file)]


@pytest.mark.parametrize("file", ENCODERS, ids=lambda file: file.stem)
def test_a_configuration_is_complete(file: Path, tmp_path: Path) -> None:
    config = load(TrainConfig, file, {"out": tmp_path / "out", "data": "pairs.jsonl"})
    goal = objective(config.objective, 6, 768, **config.options)
    assert max(goal.layers(6)) == 6
    base_loss(config.base_loss, scale=config.scale)


@pytest.mark.parametrize("file", sorted({*FILES} - {*ENCODERS}), ids=lambda file: file.stem)
def test_a_reader_configuration_is_complete(file: Path, tmp_path: Path) -> None:
    assert load(ReaderTrainConfig, file, {"out": tmp_path / "out"}).task == "reader"


def test_there_are_some() -> None:
    assert {"ese", "embedded", "comparison", "reader"} <= {file.stem for file in FILES}
