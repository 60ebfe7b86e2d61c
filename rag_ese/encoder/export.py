"""Writes an encoder at one size as a folder that plain sentence-transformers loads, with identical vectors.

The weights are those in memory, whatever folders they came from. Elastic heads lie beside them, so that
`ElasticEncoder.load` finds every smaller size in the same folder.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rag_ese.encoder.delta import ELASTIC_FILE, HEADS_FILE, elastic_format
from rag_ese.encoder.draft import drafted, system_errors
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.model_card import model_card
from rag_ese.encoder.onnx_export import write_onnx
from rag_ese.encoder.st_modules import modules_for, write_modules
from rag_ese.encoder.truncate import matryoshka, pooler_arguments, truncated
from rag_ese.errors import ConfigError, ModelError, disk_errors
from rag_ese.types import Size

TOLERANCE = 1e-3
"""How far an exported vector may be from the encoder's own in any dimension."""

_VERSIONS = {"sentence_transformers": "sentence-transformers", "transformers": "transformers", "pytorch": "torch"}
_TEXTS = ["Which river flows through the town?", "Überraschung: a naïve café, MiXeD.", "one", "many words " * 300]


@dataclass(frozen=True)
class Export:
    """What was written, and the largest difference to the encoder's own vectors that was found in it."""

    folder: Path
    size: Size
    parameters: int
    bytes: int
    difference: float
    onnx_difference: float | None


def save_heads(heads: ViewHeads, folder: Path) -> None:
    """Writes elastic.json and heads.safetensors, in half precision where that loses nothing (fitted heads)."""
    state = heads.state()
    dtype = torch.float16 if all(torch.equal(each, each.half().float()) for each in state.values()) else torch.float32
    with disk_errors("writing the heads to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, folder / HEADS_FILE)
        (folder / HEADS_FILE).chmod(0o644)
        about = {"format": elastic_format(heads), "view": heads.view}
        (folder / ELASTIC_FILE).write_text(json.dumps(about, indent=1) + "\n")


def save_sentence_transformer(encoder: ElasticEncoder, folder: Path, size: Size | None = None) -> None:
    """Writes the encoder at `size` (default: its full size) to `folder`, which must not exist yet, whole or not at all.

    SizeError for a size that it does not have, ModelError where sentence-transformers would give other vectors.
    """
    with drafted(folder) as draft:
        _write(encoder, size or Size(encoder.depth, encoder.width), draft)


def export(encoder: ElasticEncoder, folder: Path, size: Size, onnx: bool = False) -> Export:
    """As `save_sentence_transformer`, with a model card, if asked for an ONNX graph, and with a check of both.

    The folder is loaded with sentence-transformers and its vectors are compared; ModelError where they differ.
    """
    if encoder.dtype != torch.float32:
        raise ConfigError(f"{encoder.name} runs in {encoder.dtype}, too coarse to check its export: load it in float32")
    with drafted(folder) as draft:
        _write(encoder, size, draft)
        (draft / "README.md").write_text(model_card(encoder, size, onnx), encoding="utf-8")
        difference = _checked(_difference(encoder, size, draft), folder, "sentence-transformers")
        graph = _checked(write_onnx(encoder, draft, _TEXTS), folder, "the ONNX graph") if onnx else None
        files = [file for file in draft.rglob("*") if file.is_file()]
        weights = [file for file in files if file.suffix == ".safetensors" and file.name != HEADS_FILE]
        parameters, size_in_bytes = sum(map(_parameters, weights)), sum(file.stat().st_size for file in files)
    return Export(folder, size, parameters, size_in_bytes, difference, graph)


def _write(encoder: ElasticEncoder, size: Size, folder: Path) -> None:
    encoder.check([size])
    checkpoint = encoder.checkpoint
    modules = modules_for(encoder, size)
    model = truncated(checkpoint.blocks, size.layers)
    model.config.output_hidden_states = any(module.kind == "WeightedLayerPooling" for module in modules)
    for key in ("is_matryoshka", "matryoshka_dimensions"):
        vars(model.config).pop(key, None)
    model.config.update(matryoshka(encoder, size))
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.model_max_length = encoder.max_tokens
    settings: dict[str, object] = {"max_seq_length": encoder.max_tokens, "do_lower_case": checkpoint.lower_case}
    wrapper = {
        "model_type": "SentenceTransformer",
        "__version__": {key: version(package) for key, package in _VERSIONS.items()},
        "prompts": checkpoint.prompts,
        "default_prompt_name": checkpoint.default_prompt,
        "similarity_fn_name": "cosine",
    }
    with system_errors():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if without := pooler_arguments(type(model)):
            settings["model_args"] = without
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        (folder / "config_sentence_transformers.json").write_text(json.dumps(wrapper, indent=2) + "\n")
        write_modules(modules, folder)
        if isinstance(heads := checkpoint.head, ViewHeads):
            save_heads(heads.cut(size), folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)


def _difference(encoder: ElasticEncoder, size: Size, folder: Path) -> float:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    pairs = [
        (model.encode_query(_TEXTS), encoder.encode(_TEXTS, [size], "query")[size]),
        (model.encode_document(_TEXTS), encoder.encode(_TEXTS, [size], "passage")[size]),
    ]
    return max(float(np.abs(found - expected).max()) for found, expected in pairs)


def _checked(difference: float, folder: Path, where: str) -> float:
    if not difference <= TOLERANCE:
        raise ModelError(
            f"nothing was written to {folder}: {where} gives vectors that differ by {difference:.1e} from the model's "
            f"own, more than {TOLERANCE:.0e}"
        )
    return difference


def _parameters(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        return sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118
