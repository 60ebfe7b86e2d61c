"""Reads an encoder's folder: plain Hugging Face, sentence-transformers, or either with elastic heads beside it.

An elastic folder holds, besides a sentence-transformers model of its full size, `elastic.json` and `heads.safetensors`
(see `ViewHeads`). Weights are safetensors; a pickled `pytorch_model.bin` is read with `weights_only`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

from rag_ese.encoder.blocks import BlockModel
from rag_ese.encoder.delta import ELASTIC_FILE, HEADS_FILE, TRAINING_FILE, apply_delta
from rag_ese.encoder.heads import Head, ModuleHead, ViewHeads
from rag_ese.encoder.pooling import Pooling, modes_from_config
from rag_ese.errors import ModelError

_NOTHING_REMOTE = {"local_files_only": True, "trust_remote_code": False}
_LOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    ImportError,
    RuntimeError,
    SafetensorError,
    pickle.UnpicklingError,
)
_HASHED = {".safetensors", ".bin", ".json", ".txt", ".model", ".jinja"}


@dataclass
class Checkpoint:
    """Everything that a folder says about an encoder."""

    path: Path
    root: Path
    """Where the backbone lies: `path` itself or a folder in it."""
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
    blocks = BlockModel(model)
    hidden = int(blocks.config.hidden_size)
    heads = heads or (path if (path / ELASTIC_FILE).exists() else None)
    pooling, head = _pooling_and_head(path, modules, hidden, _is_decoder(model))
    if heads:
        head = _view_heads(heads, blocks.depth, hidden * len(pooling.modes), hidden)
        _check_base(heads, path)
        apply_delta(model, heads)
    return Checkpoint(
        path=path,
        root=root,
        blocks=blocks,
        tokenizer=tokenizer,
        pooling=pooling,
        head=head,
        max_tokens=_max_tokens(settings, tokenizer, model),
        revision=_revision([path, *([heads] if heads and heads != path else [])]),
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts={name: prompt or "" for name, prompt in (wrapper.get("prompts") or {}).items()},
        default_prompt=wrapper.get("default_prompt_name"),
    )


def _load_backbone(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = get_verbosity()
    # Missing tensors are reported below, in one sentence, the pooler excepted: it is not used.
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(path, **_NOTHING_REMOTE)
        config.output_hidden_states = False  # some folders ask for all states; a pass keeps just those it needs
        config.use_cache = False  # a decoder would keep every layer's keys and values
        model, info = AutoModel.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, in one sentence
            **_NOTHING_REMOTE,
        )
        tokenizer = AutoTokenizer.from_pretrained(path, **_NOTHING_REMOTE)
    except _LOAD_ERRORS as error:
        raise ModelError(f"cannot load the encoder in {path}: {_reason(error)}") from error
    finally:
        set_verbosity(verbosity)
    mismatched = {name for name, *_ in info["mismatched_keys"]}
    unread = {*info["missing_keys"], *mismatched}
    absent = sorted(name for name in unread if "pooler" not in name and "position_ids" not in name)
    if absent:
        raise ModelError(
            f"the weights in {path} lack {len(absent)} tensors that its config.json asks for, such as {absent[0]}"
            f"{' (which has another shape)' if absent[0] in mismatched else ''}: they would be random; correct "
            "config.json or export the model again"
        )
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {path} is a {type(tokenizer).__name__}: only fast ones are supported")
    return model.eval(), tokenizer


def _pooling_and_head(path: Path, modules: list[dict[str, str]], hidden: int, decoder: bool) -> tuple[Pooling, Head]:
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
            continue  # the other modules are the full size in sentence-transformers' terms; the heads say the same
        elif kind in _MODULES:
            try:
                layers.append(_MODULES[kind](folder, config))
            except KeyError as error:
                raise ModelError(f"{folder / 'config.json'} lacks {error}: the module is not complete") from error
        else:
            raise ModelError(f"{path} has a module of type {kind}, which is not supported: {', '.join(_MODULES)} are")
    widths: list[Any] = [layer[0].out_features for layer in layers if isinstance(layer, nn.Sequential)]
    return pooling, ModuleHead(layers, [hidden * len(pooling.modes), *widths][-1])


class _Normalize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x, dim=-1)


def _dense(folder: Path, config: dict[str, Any]) -> nn.Module:
    names = [config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")]
    if names != ["sentence_embedding"] * 2 or config.get("use_residual"):
        raise ModelError(f"the Dense module in {folder} does not map the sentence embedding alone: not supported")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = getattr(nn, name.rpartition(".")[2], None)
    if not name.startswith("torch.nn.") or not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise ModelError(f"the Dense module in {folder} has the activation {name}: only those of torch.nn are loaded")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    _load_weights(linear, folder, "linear.")
    return nn.Sequential(linear, activation())


def _layer_norm(folder: Path, config: dict[str, Any]) -> nn.Module:
    norm = nn.LayerNorm(config["dimension"])
    _load_weights(norm, folder, "norm.")
    return norm


_MODULES: dict[str, Callable[[Path, dict[str, Any]], nn.Module]] = {
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
    except _LOAD_ERRORS as error:
        raise ModelError(f"cannot load the weights in {folder}: {_reason(error)}") from error


def _view_heads(folder: Path, depth: int, pooled: int, hidden: int) -> ViewHeads:
    config = _read_json(folder / ELASTIC_FILE)
    if config.get("format") not in (1, 2):
        raise ModelError(f"{folder / ELASTIC_FILE} has format {config.get('format')}, this version reads 1 and 2")
    try:
        heads = ViewHeads.from_state(int(config["view"]), load_file(folder / HEADS_FILE))
    except _LOAD_ERRORS as error:
        raise ModelError(f"cannot load the elastic heads in {folder}: {_reason(error)}") from error
    shapes = {tuple(weight.shape) for weight in heads.weights.values()}
    if sorted(heads.weights) != list(range(1, depth + 1)) or shapes != {(heads.width, 2 * pooled)}:
        raise ModelError(
            f"the elastic heads in {folder} do not fit the model: their layers are {sorted(heads.weights)} and their "
            f"shapes {sorted(shapes)}, but it has layers 1 to {depth} and needs {2 * pooled} columns"
        )
    gates = {tuple(gate.weight.shape) for gate in heads.gates.values()}
    if gates - {(1, hidden)}:
        raise ModelError(
            f"the token gates in {folder} do not fit the model: their shapes are {sorted(gates)}, but its states are "
            f"{hidden} wide"
        )
    return heads


def _check_base(heads: Path, base: Path) -> None:
    """A delta is right for one base alone."""
    wanted = _read_json(heads / ELASTIC_FILE).get("base_revision")
    if wanted and wanted != (found := _revision([base])):
        raise ModelError(
            f"the weights in {heads} were trained from revision {wanted} of their base model, but {base} is {found}: "
            "install the version that the model card names"
        )


def _max_tokens(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            positions -= table.padding_idx + 1  # RoBERTa and its kin count positions from the padding id on
    return int(min(settings.get("max_seq_length") or tokenizer.model_max_length, positions))


def _is_decoder(model: PreTrainedModel) -> bool:
    names = getattr(model.config, "architectures", None) or []
    return any(name.endswith("ForCausalLM") for name in names) and getattr(model.config, "is_causal", True)


def _modules(path: Path) -> list[dict[str, str]]:
    if not path.is_dir():
        raise ModelError(f"there is no model folder {path}: give a folder, a hub name, embedded or embedded-raw")
    modules: list[dict[str, str]] = _read_json(path / "modules.json", list)
    if not modules and not (path / "config.json").exists():
        raise ModelError(f"{path} is not a model folder: it holds neither modules.json nor config.json")
    if modules and modules[0]["type"].rpartition(".")[2] != "Transformer":
        raise ModelError(f"{path} starts with a {modules[0]['type']} module: only Transformer models have layers")
    return modules


def _read_json(file: Path, kind: type = dict) -> Any:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else kind()
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, kind):
        raise ModelError(f"{file} holds a {type(content).__name__} where a {kind.__name__} is needed")
    return content


def _first_json(folder: Path, patterns: list[str]) -> dict[str, Any]:
    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    return _read_json(files[0]) if files else {}


def _revision(folders: list[Path]) -> str:
    hasher = xxhash.xxh3_128()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in _HASHED and file.name != TRAINING_FILE:
                hasher.update(file.relative_to(folder).as_posix().encode())
                with file.open("rb") as stream:
                    while chunk := stream.read(1 << 22):
                        hasher.update(chunk)
    return hasher.hexdigest()[:16]


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"the entry {error} is missing"
    return " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
