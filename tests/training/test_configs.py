"""The shipped configurations are valid, and their objectives can be built for the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

import rag_ese
from rag_ese.config import load, read_yaml
from rag_ese.errors import ConfigError
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


def test_maps_on_the_command_line(tmp_path: Path) -> None:
    given = {"out": tmp_path, "options": "{size: L6-d64}", "lora": '{"rank": 4}'}
    config = load(TrainConfig, FILES[0].with_name("comparison.yaml"), given)
    assert config.options == {"size": "L6-d64"} and config.lora and config.lora.rank == 4


@pytest.mark.parametrize("value", ["L6-d64", "{size: L6"])
def test_what_is_no_map_is_refused_without_naming_the_file(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^options: .* is no map: write it like"):
        load(TrainConfig, FILES[0].with_name("comparison.yaml"), {"out": tmp_path, "options": value})


def test_there_are_some() -> None:
    assert {"ese", "embedded", "comparison", "reader"} <= {file.stem for file in FILES}
