"""A training run from its options: loads, trains, and leaves a model folder that every command takes."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from rag_ese.data.training_rows import Row, read_rows, without
from rag_ese.data.windows import windowed
from rag_ese.encoder.delta import TRAINING_FILE
from rag_ese.encoder.elastic import ElasticEncoder, Role
from rag_ese.errors import ConfigError, StorageError, disk_errors
from rag_ese.objectives import BaseLoss, base_loss, objective
from rag_ese.training.config import TrainConfig
from rag_ese.training.lora import add_adapters, merge_adapters
from rag_ese.training.mixture import Batch, DataRows, Mixture
from rag_ese.training.student import Student
from rag_ese.training.teacher import Teacher
from rag_ese.training.trainer import Trainer, join_processes
from rag_ese.training.weights import save_weights

MODEL = "model"


def train(config: TrainConfig, note: Callable[[str], None]) -> Path:
    """Runs or goes on with the training that `config` describes; returns the folder of the trained model."""
    model = config.out / MODEL
    if model.exists():
        raise StorageError(f"{model} exists: this run is done; give another --out, or remove the folder to train anew")
    mixture, held_out = _mixture(config, note)
    device = join_processes() or config.device
    encoder = ElasticEncoder.load(config.model, "float32", device)
    if config.lora:
        add_adapters(encoder.checkpoint.blocks.model, config.lora)
    half, only = config.precision == "bfloat16", "lora_" if config.lora else ""
    student = Student(encoder, config.freeze, half, only, config.gates)
    goal = objective(config.objective, encoder.depth, encoder.width, **config.options)
    _write_config(config)
    counters = Trainer(config, student, goal, _base(config), mixture, held_out, _teacher(config, device), note).run()
    if config.lora:
        merge_adapters(encoder.checkpoint.blocks.model)
    save_model(student, config, model)
    note(f"step {counters['step']}: the trained model is in {model}")
    return model


def save_model(student: Student, config: TrainConfig, folder: Path) -> None:
    """Writes the trained model, whole or not at all, with what its card says of the training."""
    draft = folder.with_name(f".{folder.name}.trained")
    shutil.rmtree(draft, ignore_errors=True)
    with disk_errors("writing the model to", folder):
        save_weights(student.encoder, draft)
        (draft / TRAINING_FILE).write_text(json.dumps(_about(config), indent=1) + "\n", encoding="utf-8")
        draft.rename(folder)


def _about(config: TrainConfig) -> dict[str, object]:
    """What `model_card` knows of a run; the licence is for people to state."""
    return {
        "command": f"python -m rag_ese.train --config config.yaml --out {config.out}",
        "data": sorted({Path(each.path).name for each in config.data}),
        "seed": config.seed,
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, device {config.device}",
    }


def _mixture(config: TrainConfig, note: Callable[[str], None]) -> tuple[Mixture, list[Batch]]:
    sets = []
    for each in config.data:
        rows: list[Row] = list(read_rows(Path(each.path), each.kind))
        if config.exclude:
            rows, dropped = without(rows, config.exclude)
            if dropped:
                note(f"{each.path}: {dropped} rows left out, because an excluded file has their passage or question")
        name = f"{Path(each.path).name}{' (windows)' if each.windows else ''}"
        rows = windowed(rows) if each.windows else rows
        sets.append(DataRows(name, rows, each.weight, each.batch_size, each.labelled))
    if config.objective != "ese" and (bare := [each.name for each in sets if not each.labelled]):
        raise ConfigError(f"{bare[0]} is not labelled, from which {config.objective} learns nothing: use ese")
    mixture = Mixture(sets, config.batch_size, config.seed, held_out=config.held_out)
    return mixture, mixture.held_out_batches()


def _base(config: TrainConfig) -> BaseLoss:
    return base_loss(config.base_loss, scale=config.scale)


def _teacher(config: TrainConfig, device: str) -> Teacher | None:
    if not config.teacher:
        return None
    name = config.model if config.teacher == "start" else config.teacher
    limits: dict[Role, int] = {"query": config.query_tokens, "passage": config.passage_tokens}
    return Teacher(ElasticEncoder.load(name, "auto", device), limits, config.chunk_tokens)


def _write_config(config: TrainConfig) -> None:
    with disk_errors("writing", config.out):
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "config.yaml").write_text(yaml.safe_dump(config.keys(), sort_keys=False), encoding="utf-8")
