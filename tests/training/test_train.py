"""Runs for real on a tiny model: it learns, resumes exactly, stops for what is wrong, and leaves a model that loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import rag_ese.training.trainer as trainer
from rag_ese.config import load
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.export import save_heads
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError, DataError, StorageError, TrainingError
from rag_ese.training.config import TrainConfig
from rag_ese.training.run import train
from rag_ese.training.trainer import schedule
from rag_ese.types import Size

WORDS = [
    "a",
    "the",
    "river",
    "town",
    "painter",
    "born",
    "flows",
    "through",
    "where",
    "was",
    "which",
    "long",
    "word",
    "query",
    "passage",
    "of",
    "and",
    "not",
    "one",
    "two",
]
Configure = Callable[..., TrainConfig]


@pytest.fixture
def configure(folder: Path, tmp_path: Path) -> Configure:
    """A configuration over 24 question-passage pairs of the tiny model's words."""
    rows = [
        {
            "question": f"where was {WORDS[number % 17]} {WORDS[(number * 7) % 19]} {WORDS[number // 2]}",
            "context": f"{WORDS[number % 17]} {WORDS[(number * 7) % 19]} {WORDS[number // 2]} of the town",
        }
        for number in range(24)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        values = {
            "out": tmp_path / out,
            "model": str(folder),
            "data": str(data),
            "options": {"sizes": [8, 32]},
            "batch_size": 6,
            "steps": 6,
            "lr": 1e-3,
            "device": "cpu",
            "held_out": 0.2,
            "check_every": 3,
            "save_every": 2,
            **changes,
        }
        return load(TrainConfig, None, values)

    return make


def quiet(text: str) -> None:
    """Notes go nowhere."""


def log(config: TrainConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]


def vectors(config: TrainConfig) -> np.ndarray:
    encoder = ElasticEncoder.load(config.out / "model", "float32", "cpu")
    found = encoder.encode(["where was the painter", "the river"], [Size(2, 8), Size(4, 32)])
    return np.concatenate(list(found.values()), axis=1)


def test_it_learns_and_leaves_a_model(configure: Configure) -> None:
    config = configure(steps=40)
    said: list[str] = []
    model = train(config, said.append)
    entries = log(config)
    assert [entry["step"] for entry in entries] == list(range(1, 41))
    assert np.mean([entry["loss"] for entry in entries[-5:]]) < 0.8 * np.mean([entry["loss"] for entry in entries[:5]])
    assert "base L2-d8" in entries[0]["parts"] and "align L2-d8" in entries[0]["parts"]
    assert sum(entries[0]["parts"].values()) == pytest.approx(entries[0]["loss"])
    assert yaml.safe_load((config.out / "config.yaml").read_text())["steps"] == 40
    assert any("held-out loss" in line for line in said) and str(model) in said[-1]
    assert vectors(config).shape == (2, 40)


def test_the_same_seed_gives_the_same_model_and_another_seed_another(configure: Configure) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = configure(name, seed=seed)
        train(config, quiet)
        found.append(vectors(config))
    assert np.array_equal(found[0], found[1]) and not np.allclose(found[0], found[2], atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": True}, {"objective": "2dmse", "options": {}}], ids=["ese", "dropout", "2dmse"]
)
def test_resuming_is_exact(configure: Configure, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    whole = configure("whole", **changes)
    train(whole, quiet)
    cut = configure("cut", **changes)
    step = trainer.Trainer._step

    def interrupted(self: trainer.Trainer, number: int) -> dict[str, Any]:
        if number == 4:
            raise RuntimeError("the power went out")
        return step(self, number)

    monkeypatch.setattr(trainer.Trainer, "_step", interrupted)
    with pytest.raises(RuntimeError):
        train(cut, quiet)
    assert len(log(cut)) == 4
    monkeypatch.undo()
    said: list[str] = []
    train(cut, said.append)
    assert any("going on from step 4 of 6" in line for line in said)
    assert np.array_equal(vectors(whole), vectors(cut))
    assert [entry["loss"] for entry in log(whole)] == [entry["loss"] for entry in log(cut)]


def test_gates_are_learned_with_the_blocks_frozen(configure: Configure, folder: Path) -> None:
    """A folder with elastic heads; only heads and gates learn, and an interrupted run would resume with them."""
    heads = {layer: torch.eye(32, 64) for layer in range(1, 5)}
    save_heads(ViewHeads(1, heads, {layer: torch.zeros(32) for layer in heads}), folder)
    config = configure(gates=True, freeze=["."], teacher="start")
    before = ElasticEncoder.load(folder, "float32", "cpu")
    train(config, quiet)
    after = ElasticEncoder.load(config.out / "model", "float32", "cpu")
    head = after.checkpoint.head
    assert isinstance(head, ViewHeads) and sorted(head.gates) == [1, 2, 3, 4]
    assert min(float(gate.weight.abs().max()) for gate in head.gates.values()) > 1e-4
    first, second = (dict(each.checkpoint.blocks.model.named_parameters()) for each in (before, after))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "weight/heads.gate_weights.1" in load_file(config.out / "state" / "state.safetensors")


def test_interrupting_saves_where_it_stands(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(save_every=100)
    step = trainer.Trainer._step

    def interrupted(self: trainer.Trainer, number: int) -> dict[str, Any]:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, quiet)
    assert json.loads((config.out / "state" / "state.json").read_text())["counters"]["step"] == 3


def test_other_options_are_refused_on_resume(configure: Configure) -> None:
    config = configure()
    train(config, quiet)
    (config.out / "model").rename(config.out / "elsewhere")
    with pytest.raises(ConfigError, match=r"lr was 0\.001, is 0\.5"):
        train(configure(lr=0.5), quiet)


def test_a_finished_run_is_not_trained_over(configure: Configure) -> None:
    config = configure()
    train(config, quiet)
    with pytest.raises(StorageError, match="this run is done"):
        train(config, quiet)


def test_the_cache_gives_the_same_model(configure: Configure) -> None:
    plain, cached = configure("plain"), configure("cached", gradient_cache=True, chunk_tokens=32)
    train(plain, quiet)
    train(cached, quiet)
    assert np.abs(vectors(plain) - vectors(cached)).max() < 1e-4


def test_a_loss_that_is_no_number_stops_and_keeps_the_state_before(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(steps=6, save_every=2)
    embed = trainer.Student.embed
    calls = 0

    def broken(self: Any, *args: Any) -> dict[int, torch.Tensor]:
        nonlocal calls
        calls += 1
        found = embed(self, *args)
        return {layer: each * float("nan") for layer, each in found.items()} if calls > 8 else found

    monkeypatch.setattr(trainer.Student, "embed", broken)
    with pytest.raises(TrainingError, match=r"step \d: .* L\d-d\d+.* is not a finite number \(data set pairs.jsonl\)"):
        train(config, quiet)
    state = config.out / "state"
    step = json.loads((state / "state.json").read_text())["counters"]["step"]
    assert step and not (config.out / "model").exists()


def test_patience_ends_a_run_and_keeps_the_best(configure: Configure) -> None:
    config = configure(steps=60, lr=0.3, head_lr=0.3, check_every=1, patience=3)
    train(config, quiet)
    entries = log(config)
    held_out = [entry["held_out"] for entry in entries]
    best = int(np.argmin(held_out))
    assert len(entries) == best + 1 + 3 < 60


def test_rows_of_evaluation_files_are_left_out(configure: Configure, tmp_path: Path) -> None:
    excluded = tmp_path / "evaluation.jsonl"
    excluded.write_text(json.dumps({"title": "", "text": "A river, A; of the TOWN!"}) + "\n")
    first = json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[0])["context"]
    excluded.write_text(json.dumps({"title": "", "text": first.upper()}) + "\n")
    said: list[str] = []
    train(configure(exclude=str(excluded), steps=1), said.append)
    assert any("1 rows left out" in line for line in said)


def test_rows_without_a_base_loss_are_for_ese_alone(configure: Configure, tmp_path: Path) -> None:
    data = [{"path": str(tmp_path / "pairs.jsonl"), "labelled": False, "windows": True}]
    config = configure("distilled", data=data, teacher="start")
    train(config, quiet)
    assert not any(name.startswith("base") for name in log(config)[0]["parts"])
    with pytest.raises(ConfigError, match="use ese"):
        train(configure("other", data=data, objective="mrl", options={}), quiet)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 1}, ConfigError, "batch_size"),
        ({"batch_size": 500}, ConfigError, "too few for a batch of 500"),
        ({"objective": "esse"}, ConfigError, "there is no objective 'esse'"),
        ({"options": {"size": 3}}, ConfigError, "no option 'size'"),
        ({"data": "missing.jsonl"}, DataError, "missing.jsonl does not exist"),
        ({"data": ""}, ConfigError, "no data set"),
        ({"base_loss": "cosent"}, ConfigError, "take info-nce for pairs"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    configure: Configure, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(configure("wrong", **changes), quiet)
    assert not (tmp_path / "wrong" / "model").exists()


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert np.argmax(rates) == 10 and rates[10] == 1.0 and rates[0] == pytest.approx(1 / 11) and rates[-1] < 0.001
    assert all(first < second for first, second in pairwise(rates[:11]))
    assert all(first > second for first, second in pairwise(rates[10:]))
