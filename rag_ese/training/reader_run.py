"""A reader's training run from its options: loads, trains, and leaves a folder that is read from."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import nn

from rag_ese.encoder.device import choose_device
from rag_ese.errors import StorageError, disk_errors
from rag_ese.reader.model import ReaderModel
from rag_ese.reader.weights import EMBEDDED_READER, Reader, load_reader, save_reader, start_reader
from rag_ese.reader.windows import Cutter
from rag_ese.training.plain_attention import use_plain_attention
from rag_ese.training.reader_config import ReaderTrainConfig
from rag_ese.training.reader_data import ReaderData
from rag_ese.training.reader_trainer import ReaderTrainer
from rag_ese.training.run import MODEL


def train_reader(config: ReaderTrainConfig, note: Callable[[str], None]) -> Path:
    """Runs or goes on with the training that `config` describes; returns the folder of the trained reader."""
    folder = config.out / MODEL
    if folder.exists():
        raise StorageError(f"{folder} exists: this run is done; give another --out, or remove the folder to train anew")
    torch.manual_seed(config.seed)
    reader = _first(config)
    device = choose_device(config.device)
    reader.model.to(device)
    if config.precision == "bfloat16" and device.type == "cpu":
        use_plain_attention(reader.model.backbone)
    _set_dropout(reader.model, config.dropout)
    cutter = Cutter(reader.tokenizer, config.max_tokens)
    data = ReaderData(config, cutter, note)
    with disk_errors("writing", config.out):
        config.out.mkdir(parents=True, exist_ok=True)
        options = config.model_dump(mode="json")
        (config.out / "config.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
    trainer = ReaderTrainer(config, reader.model, data, cutter, note)
    counters = trainer.run()
    training = {
        "command": "python -m rag_ese.train --config config.yaml",
        "data": sorted({Path(each.path).name for each in config.data}),
        "seed": config.seed,
        "hardware": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, device {config.device}",
        "steps": counters["best_step"] or counters["step"],
        "held_out": trainer.measure(),
    }
    save_reader(reader, folder, training)
    note(f"step {counters['step']}: the trained reader is in {folder}")
    return folder


def _first(config: ReaderTrainConfig) -> Reader:
    if config.init is None:
        return start_reader(config.max_tokens)
    folder = EMBEDDED_READER if config.init == "embedded" else Path(config.init)
    return replace(load_reader(folder), max_tokens=config.max_tokens)


def _set_dropout(model: ReaderModel, share: float) -> None:
    """Dropout of hidden states; none of attention weights, where drawing it costs as much as the attention."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0 if name.endswith("attention.self.dropout") else share
