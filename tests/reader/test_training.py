from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rag_ese.config import load
from rag_ese.data.readings import read_readings
from rag_ese.errors import ConfigError, ModelError, StorageError, TrainingError
from rag_ese.reader.weights import load_reader, start_reader
from rag_ese.reader.windows import Cutter
from rag_ese.training.reader_config import ReaderTrainConfig
from rag_ese.training.reader_data import ReaderData
from rag_ese.training.reader_run import train_reader
from rag_ese.training.reader_trainer import ReaderTrainer
from rag_ese.training.state import load_state


def options(out: Path, *files: Path, **more: object) -> ReaderTrainConfig:
    values = {
        "task": "reader",
        "out": out,
        "data": [{"path": str(file), "passes": 6, "held_out": 0.2} for file in files],
        "batch_tokens": 512,
        "max_tokens": 96,
        "check_every": 4,
        "save_every": 2,
        "dropout": 0.1,
        "precision": "float32",
        "device": "cpu",
        **more,
    }
    return load(ReaderTrainConfig, None, values)


def quiet(_: str) -> None:
    pass


def data(config: ReaderTrainConfig) -> ReaderData:
    return ReaderData(config, Cutter(start_reader(96).tokenizer, 96), quiet)


def test_batches_fill_their_budget_and_draw_rows_as_often_as_said(rows: Path, hops: Path) -> None:
    config = options(rows.parent / "out", rows, hops, bucket=3)
    planned = data(config)
    batches = [planned.batch(step) for step in range(len(planned))]
    assert all(len(batch) * max(len(each.window) for each in batch) <= 512 for batch in batches)
    kept = 12 - 2 + 4 - 0
    assert sum(map(len, batches)) == 6 * kept
    assert {name: len(each) for name, each in planned.held_out().items()} == {"rows.jsonl": 2}
    again = data(config)
    assert all(
        [each.window.ids.tolist() for each in batch] == [each.window.ids.tolist() for each in again.batch(step)]
        for step, batch in enumerate(batches)
    )
    questions = {row.question for row, _ in planned.held_out()["rows.jsonl"]}
    assert len(questions) == 2 and questions < {row.question for row in read_readings(rows)}


def test_rows_of_excluded_files_are_left_out(rows: Path, hops: Path, tmp_path: Path) -> None:
    excluded, said = tmp_path / "evaluation.json", list[str]()
    excluded.write_text(json.dumps(json.loads(hops.read_text())[:1]))
    config = options(tmp_path / "out", hops, exclude=[str(excluded)])
    planned = ReaderData(config, Cutter(start_reader(96).tokenizer, 96), said.append)
    assert sum(len(planned.batch(step)) for step in range(len(planned))) == 6 * 3
    assert len(said) == 1 and "1 rows left out" in said[0]


def test_late_rows_come_late(rows: Path, hops: Path) -> None:
    sets = [{"path": str(rows), "passes": 20, "held_out": 0}, {"path": str(hops), "begin": 0.5, "held_out": 0}]
    planned = data(options(rows.parent / "out", data=sets, bucket=1))
    lengths = [{len(each.window.stretches) for each in planned.batch(step)} for step in range(len(planned) // 2 - 1)]
    words = [each.window for step in range(len(planned) // 2 - 1) for each in planned.batch(step)]
    assert lengths and len(words) < 240
    father = set(Cutter(start_reader(96).tokenizer, 96).tokens("father").ids.tolist())
    assert not any(father & set(window.ids.tolist()) for window in words)


def test_a_killed_run_goes_on_to_the_same_bits(
    rows: Path, hops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_reader(options(tmp_path / "whole", rows, hops, steps=6), quiet)
    config = options(tmp_path / "killed", rows, hops, steps=6)
    step = ReaderTrainer._step

    def dying(self: ReaderTrainer, number: int) -> dict[str, Any]:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReaderTrainer, "_step", dying)
        train_reader(config, quiet)
    assert not (tmp_path / "killed" / "model").exists()
    resumed = train_reader(config, quiet)
    for file in ("delta.safetensors", "heads.safetensors"):
        assert (whole / file).read_bytes() == (resumed / file).read_bytes()
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert len(losses[0]) == 6 and losses[0] == losses[1]
    with pytest.raises(StorageError, match="this run is done"):
        train_reader(config, quiet)


def test_a_run_goes_on_with_its_own_options_only(rows: Path, tmp_path: Path) -> None:
    config = options(tmp_path / "run", rows, steps=2)
    train_reader(config, quiet)
    with pytest.raises(ConfigError, match=r"lr was 0\.0002, is 0\.5"):
        load_state(tmp_path / "run" / "state", {**config.determining(), "lr": 0.5}, {}, None)


def test_training_stops_at_what_is_no_number(rows: Path, tmp_path: Path) -> None:
    config = options(tmp_path / "run", rows, steps=3)
    reader = start_reader(96)
    with torch.no_grad():
        reader.model.heads.closed.weight[0, 0] = float("nan")
    trainer = ReaderTrainer(config, reader.model, data(config), Cutter(reader.tokenizer, 96), quiet)
    with pytest.raises(TrainingError, match="step 1: the loss is nan"):
        trainer.run()


def test_what_is_saved_is_what_was_trained(rows: Path, tmp_path: Path) -> None:
    folder = train_reader(options(tmp_path / "run", rows, steps=2, lr=1e-3), quiet)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 30e6
    loaded, fresh = load_reader(folder), start_reader(96)
    assert loaded.max_tokens == 96
    before, after = dict(fresh.model.backbone.named_parameters()), dict(loaded.model.backbone.named_parameters())
    frozen = "embeddings.word_embeddings.weight"
    assert torch.equal(before[frozen], after[frozen])
    moved = "encoder.layer.5.output.dense.weight"
    assert not torch.equal(before[moved], after[moved])
    assert torch.allclose(before[moved], after[moved], atol=5e-3)


def test_a_second_run_starts_where_the_first_ended(rows: Path, tmp_path: Path) -> None:
    first = train_reader(options(tmp_path / "first", rows, steps=2, lr=1e-3), quiet)
    still = {"steps": 1, "lr": 1e-12, "head_lr": 1e-12, "max_tokens": 80}
    second = train_reader(options(tmp_path / "second", rows, init=str(first), **still), quiet)
    before, after = (load_reader(folder).model.state_dict() for folder in (first, second))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_reader(second).max_tokens == 80
    with pytest.raises(ModelError, match="gone is not a trained reader"):
        train_reader(options(tmp_path / "third", rows, init="gone"), quiet)


def test_a_folder_that_is_no_reader(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a trained reader"):
        load_reader(tmp_path)
