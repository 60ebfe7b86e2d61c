"""Reads an encoder's folder: plain Hugging Face, sentence-transformers, or either with elastic heads beside it.

An elastic folder holds, besides a sentence-transformers model of its full size, `elastic.json` and `heads.safetensors`
(see `ViewHeads`). Weights are safetensors; a pickled `pytorch_model.bin` is read with `weights_only`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from rag_ese.encoder.blocks import BlockModel
from rag_ese.encoder.heads import Head, ModuleHead, ViewHeads
from rag_ese.encoder.pooling import Pooling, modes_from_config
from rag_ese.errors import ModelError

ELASTIC_FILE = "elastic.json"
HEADS_FILE = "heads.safetensors"
_HASHED = {".safetensors", ".bin", ".json", ".txt", ".model", ".jinja"}


@dataclass
class Checkpoint:
    """Everything that a folder says about an encoder."""

    path: Path
    blocks: BlockModel
    tokenizer: PreTrainedTokenizerBase
    pooling: Pooling
    head: Head
    max_tokens: int
    revision: str
    """A hash of the files that determine the vectors: another revision means other vectors."""
    lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def load_checkpoint(path: Path, dtype: torch.dtype, heads: Path | None = None) -> Checkpoint:
    """Loads the folder `path`, with the elastic heads of the folder `heads` (default: its own, if it has some).

    Nothing is fetched from anywhere. Raises ModelError for what cannot be loaded.
    """
    modules = _modules(path)
    root = path / modules[0].get("path", "") if modules else path
    settings = _first_json(root, ["sentence_bert_config.json", "sentence_*_config.json"])
    wrapper = _read_json(path / "config_sentence_transformers.json")
    model, tokenizer = _load_backbone(root, dtype)
    hidden = int(model.config.hidden_size)
    heads = heads or (path if (path / ELASTIC_FILE).exists() else None)
    pooling, head = _pooling_and_head(path, modules, hidden, _is_decoder(model))
    if heads:
        head = _view_heads(heads)
    return Checkpoint(
        path=path,
        blocks=BlockModel(model),
        tokenizer=tokenizer,
        pooling=pooling,
        head=head,
        max_tokens=_max_tokens(settings, tokenizer, model),
        revision=_revision([path, *([heads] if heads else [])]),
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts={name: prompt for name, prompt in (wrapper.get("prompts") or {}).items() if prompt},
        default_prompt=wrapper.get("default_prompt_name"),
    )


def _load_backbone(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        config.output_hidden_states = False  # some folders ask for all states; a pass keeps just those it needs
        model, info = AutoModel.from_pretrained(
            path, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"cannot load the encoder in {path}: {_first_sentence(error)}") from error
    absent = sorted(name for name in info["missing_keys"] if "pooler" not in name and "position_ids" not in name)
    if absent:
        raise ModelError(
            f"the weights in {path} lack {len(absent)} tensors that its config.json asks for, such as {absent[0]}: "
            "they would be random; correct num_hidden_layers or export the model again"
        )
    return model.eval(), tokenizer


def _pooling_and_head(
    path: Path, modules: list[dict[str, str]], hidden: int, decoder: bool
) -> tuple[Pooling, Head]:
    pooling = Pooling(("lasttoken",) if decoder else ("mean",))
    layers: list[nn.Module] = []
    pooled = False
    elastic = (path / ELASTIC_FILE).exists()
    for module in modules[1:]:
        kind, folder = module["type"].rpartition(".")[2], path / module.get("path", "")
        config = _read_json(folder / "config.json")
        if kind == "Pooling" and not pooled:
            pooling = Pooling(modes_from_config(config), bool(config.get("include_prompt", True)))
            pooled = True
        elif elastic:
            break  # the modules that follow are the full size in sentence-transformers' terms; the heads say the same
        elif kind in _MODULES:
            layers.append(_MODULES[kind](folder, config))
        else:
            raise ModelError(f"{path} has a module of type {kind}, which is not supported: {', '.join(_MODULES)} are")
    width = hidden * len(pooling.modes)
    for layer in layers:
        width = layer[0].out_features if isinstance(layer, nn.Sequential) else width
    return pooling, ModuleHead(layers, width)


class _Normalize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x, dim=-1)


def _dense(folder: Path, config: dict[str, Any]) -> nn.Module:
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding" or config.get("use_residual"):
        raise ModelError(f"the Dense module in {folder} does not read the sentence embedding alone: not supported")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = getattr(nn, name.rpartition(".")[2], None)
    if not name.startswith("torch.nn.") or activation is None:
        raise ModelError(f"the Dense module in {folder} has the activation {name}: only those of torch.nn are loaded")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    _load_weights(linear, folder, "linear.")
    return nn.Sequential(linear, activation())


def _layer_norm(folder: Path, config: dict[str, Any]) -> nn.Module:
    norm = nn.LayerNorm(config["dimension"])
    _load_weights(norm, folder, "norm.")
    return norm


_MODULES = {
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": lambda folder, config: _Normalize(),
    "Dropout": lambda folder, config: nn.Identity(),
}


def _load_weights(module: nn.Module, folder: Path, prefix: str) -> None:
    file = folder / "model.safetensors"
    try:
        state = load_file(file) if file.exists() else torch.load(folder / "pytorch_model.bin", weights_only=True)
        module.load_state_dict({name.removeprefix(prefix): tensor.float() for name, tensor in state.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load the weights in {folder}: {_first_sentence(error)}") from error


def _view_heads(folder: Path) -> ViewHeads:
    config = _read_json(folder / ELASTIC_FILE)
    if config.get("format") != 1:
        raise ModelError(f"{folder / ELASTIC_FILE} has format {config.get('format')}, this version reads format 1")
    try:
        return ViewHeads.from_state(int(config["view"]), load_file(folder / HEADS_FILE))
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelError(f"cannot load the elastic heads in {folder}: {_first_sentence(error)}") from error


def _max_tokens(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    if model.config.model_type in ("roberta", "xlm-roberta", "mpnet", "camembert"):
        positions -= 2  # these count positions from the padding id on
    return int(min(settings.get("max_seq_length") or positions, tokenizer.model_max_length, positions))


def _is_decoder(model: PreTrainedModel) -> bool:
    names = getattr(model.config, "architectures", None) or []
    return any(name.endswith("ForCausalLM") for name in names)


def _modules(path: Path) -> list[dict[str, str]]:
    if not path.is_dir():
        raise ModelError(f"there is no model folder {path}: give a folder, a hub name, embedded or embedded-raw")
    file = path / "modules.json"
    modules: list[dict[str, str]] = json.loads(file.read_text()) if file.exists() else []
    if not modules and not (path / "config.json").exists():
        raise ModelError(f"{path} is not a model folder: it holds neither modules.json nor config.json")
    if modules and modules[0]["type"].rpartition(".")[2] != "Transformer":
        raise ModelError(f"{path} starts with a {modules[0]['type']} module: only Transformer models have layers")
    return modules


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except ValueError as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    return content


def _first_json(folder: Path, patterns: list[str]) -> dict[str, Any]:
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return _read_json(files[0]) if files else {}


def _revision(folders: list[Path]) -> str:
    hasher = xxhash.xxh3_128()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in _HASHED:
                hasher.update(file.relative_to(folder).as_posix().encode())
                with file.open("rb") as stream:
                    while chunk := stream.read(1 << 22):
                        hasher.update(chunk)
    return hasher.hexdigest()[:16]


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200] or type(error).__name__
