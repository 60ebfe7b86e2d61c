"""Where a run stands, on disk: weights, optimiser and counters, in safetensors and JSON, replaced in one rename.

Data order, sampling and dropout are functions of (seed, step), so that this is all that an exact resume needs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rag_ese.encoder.draft import system_errors
from rag_ese.errors import ConfigError, StorageError, disk_errors

TENSORS, ABOUT = "state.safetensors", "state.json"


def save_state(
    folder: Path,
    config: Mapping[str, Any],
    counters: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
    extra: Mapping[str, Tensor],
) -> None:
    """Writes the state in whole or not at all: a full disk leaves the state before it as it was."""
    tensors = {f"weight/{name}": parameter.detach() for name, parameter in parameters.items()}
    tensors |= {f"extra/{name}": tensor for name, tensor in extra.items()}
    if optimizer:
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value)
    draft = folder.with_name(f".{folder.name}.draft")
    with disk_errors("saving the training state to", folder), system_errors():
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file({name: each.cpu().contiguous() for name, each in tensors.items()}, draft / TENSORS)
        (draft / ABOUT).write_text(json.dumps({"config": config, "counters": counters}, indent=1, default=str))
        previous = folder.with_name(f".{folder.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            folder.rename(previous)
        draft.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)


def load_state(
    folder: Path,
    config: Mapping[str, Any],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Restores weights and optimiser in place and returns (counters, extra tensors); None where there is no state.

    Raises ConfigError, with the differences, where the state belongs to another configuration.
    """
    previous = folder.with_name(f".{folder.name}.previous")
    if not folder.exists() and previous.exists():
        previous.rename(folder)  # the run was killed between the two renames
    if not folder.exists():
        return None
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StorageError(f"the training state in {folder} is damaged ({error}): remove it to start anew") from error
    _same(folder, about["config"], config)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight/{name}"])
            prefix = [key.split("/")[1] for key in tensors if key.startswith("optimizer/") and key.endswith(f"/{name}")]
            if optimizer and prefix:
                optimizer.state[parameter] = {key: tensors[f"optimizer/{key}/{name}"] for key in prefix}
    extra = {name.removeprefix("extra/"): each for name, each in tensors.items() if name.startswith("extra/")}
    return about["counters"], extra


def _same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"the run in {folder.parent} was begun with other options ({'; '.join(changed)}): go on with the "
            "same ones, or give another --out"
        )
