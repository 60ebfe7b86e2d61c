"""A trained checkpoint kept as what differs from a backbone that everybody has.

A delta folder holds `elastic.json` (with the name and the revision of its base), `heads.safetensors` and
`delta.safetensors`: the backbone's trained tensors, whole, under their names in the base model (none: no such file).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rag_ese.encoder.draft import system_errors
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError, disk_errors

ELASTIC_FILE = "elastic.json"
HEADS_FILE = "heads.safetensors"
DELTA_FILE = "delta.safetensors"
TRAINING_FILE = "training.json"
"""What a training run recorded about itself, for the model card; it has no part in the vectors."""


def save_delta(folder: Path, heads: ViewHeads, tensors: Mapping[str, Tensor], base: str, base_revision: str) -> None:
    """Writes the folder. `tensors` are those that differ from the base; all are rounded to half precision."""
    with disk_errors("writing the model to", folder), system_errors():
        folder.mkdir(parents=True, exist_ok=True)
        for file, state in ((HEADS_FILE, heads.state()), (DELTA_FILE, tensors)):
            if state:
                halves = {name: each.detach().to("cpu", torch.float16).contiguous() for name, each in state.items()}
                save_file(halves, folder / file)
                (folder / file).chmod(0o644)
        about = {"format": elastic_format(heads), "view": heads.view, "base": base, "base_revision": base_revision}
        (folder / ELASTIC_FILE).write_text(json.dumps(about, indent=1) + "\n")


def elastic_format(heads: ViewHeads) -> int:
    """What elastic.json says, so that a version that knows no token gates refuses heads with some."""
    return 2 if heads.gates else 1


def apply_delta(model: nn.Module, folder: Path) -> None:
    """Puts the trained tensors of `folder` into `model`; nothing happens where the folder has none."""
    file = folder / DELTA_FILE
    if not file.exists():
        return
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot load the trained weights {file}: {error}") from error
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(
                f"{file} does not fit its base model: it holds {name} of shape {tuple(tensor.shape)}, which the base "
                f"{'has in another shape' if name in own else 'does not have'}; use the base that elastic.json names"
            )
        with torch.no_grad():
            own[name].copy_(tensor)
