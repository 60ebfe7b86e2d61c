"""The shipped configurations are valid, and their objectives can be built for the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

import rag_ese
from rag_ese.config import load
from rag_ese.objectives import base_loss, objective
from rag_ese.training.config import TrainConfig

FILES = sorted((Path(rag_ese.__file__).parents[1] / "configs" / "train").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_is_complete(file: Path, tmp_path: Path) -> None:
    config = load(TrainConfig, file, {"out": tmp_path / "out", "data": "pairs.jsonl"})
    goal = objective(config.objective, 6, 768, **config.options)
    assert max(goal.layers(6)) == 6
    base_loss(config.base_loss, scale=config.scale)


def test_there_are_some() -> None:
    assert {"ese", "embedded", "comparison"} <= {file.stem for file in FILES}
