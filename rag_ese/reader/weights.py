"""A trained reader on disk: what differs from the embedded backbone, and the heads, in half precision.

A folder holds `reader.json` (the base model, the longest window), `delta.safetensors` (the backbone's trained tensors
under their own names), `heads.safetensors`, and `training.json` (what the run recorded about itself).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rag_ese.encoder.delta import DELTA_FILE, HEADS_FILE, TRAINING_FILE, apply_delta
from rag_ese.encoder.draft import drafted, system_errors
from rag_ese.encoder.names import EMBEDDED_RAW, resolve
from rag_ese.errors import ModelError
from rag_ese.reader.model import ReaderModel, load_backbone

READER_FILE = "reader.json"
EMBEDDED_READER = Path(__file__).parent / "embedded"
"""Where the shipped reader lies."""


@dataclass(frozen=True)
class Reader:
    """A model with its tokenizer and the longest window that it was trained on."""

    model: ReaderModel
    tokenizer: Any
    max_tokens: int


def start_reader(max_tokens: int) -> Reader:
    """The embedded backbone with heads that know nothing yet; their values are drawn from torch's generator."""
    path = resolve(EMBEDDED_RAW).path
    return Reader(ReaderModel(load_backbone(path)), AutoTokenizer.from_pretrained(path), max_tokens)


def save_reader(reader: Reader, folder: Path, training: Mapping[str, Any]) -> None:
    """Writes the folder in whole or not at all."""
    before = dict(load_backbone(resolve(EMBEDDED_RAW).path).named_parameters())
    after = {name: each.detach().cpu() for name, each in reader.model.backbone.named_parameters()}
    changed = {name: after[name] for name in before if not torch.equal(after[name], before[name])}
    with drafted(folder) as draft, system_errors():
        for file, tensors in ((DELTA_FILE, changed), (HEADS_FILE, reader.model.heads.state_dict())):
            halves = {name: each.detach().to("cpu", torch.float16).contiguous() for name, each in tensors.items()}
            save_file(halves, draft / file)
            (draft / file).chmod(0o644)
        about = {"format": 1, "base": EMBEDDED_RAW, "max_tokens": reader.max_tokens}
        (draft / READER_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (draft / TRAINING_FILE).write_text(json.dumps(dict(training), indent=1) + "\n", encoding="utf-8")


def load_reader(folder: Path) -> Reader:
    """The reader in `folder`, in evaluation mode on the CPU. Raises ModelError for what is not one."""
    try:
        about = json.loads((folder / READER_FILE).read_text(encoding="utf-8"))
        heads = load_file(folder / HEADS_FILE)
        reader = start_reader(int(about["max_tokens"]))
        reader.model.heads.load_state_dict({name: each.float() for name, each in heads.items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{folder} is not a trained reader ({reason}): name the model/ folder of a run") from error
    apply_delta(reader.model.backbone, folder)
    reader.model.eval()
    return reader
