"""What follows the Transformer in a sentence-transformers folder, for one size of an elastic encoder.

The names are those that sentence-transformers has used since its first versions, because servers (vLLM,
text-embeddings-inference) look for just these. Truncation comes before the normalisation, as rows of a Dense that are
not there: sentence-transformers' own `truncate_dim` cuts after all modules and does not normalise again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ModuleHead, ViewHeads
from rag_ese.encoder.pooling import MODES, Pooling
from rag_ese.errors import ModelError
from rag_ese.types import Size

_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Module:
    """A module as it lies in a folder: its class, its config.json and its weights."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def has_two_views(encoder: ElasticEncoder, size: Size) -> bool:
    """Whether an embedding of that depth needs the hidden states of a second, shallower layer."""
    return len(encoder.checkpoint.head.layers_for(size.layers)) > 1


def read_by_servers(encoder: ElasticEncoder, size: Size) -> bool:
    """Whether a Pooling, Dense modules and a Normalize follow the Transformer, as vLLM and others read them."""
    head = encoder.checkpoint.head
    gated = isinstance(head, ViewHeads) and size.layers in head.gates
    return not gated and not has_two_views(encoder, size)


def modules_for(encoder: ElasticEncoder, size: Size) -> list[Module]:
    """The modules that follow a Transformer of `size.layers` layers. ModelError where there are no exact ones."""
    head, pooling = encoder.checkpoint.head, encoder.checkpoint.pooling
    hidden = int(encoder.checkpoint.blocks.config.hidden_size)
    if isinstance(head, ModuleHead):
        return [_pooling(hidden, pooling), *_cut_modules(head, size.dim), Module("Normalize")]
    if not isinstance(head, ViewHeads):
        raise ModelError(f"{encoder.name} has a {type(head).__name__}, which sentence-transformers has no modules for")
    own = head.cut(size)
    weight, bias = own.weights[size.layers], own.biases[size.layers]
    if not has_two_views(encoder, size):  # a layer that is its own view: both halves see the same vector
        halves = weight.shape[1] // 2
        one = weight[:, :halves] + weight[:, halves:]
        return [*_gate(own, size.layers), _pooling(hidden, pooling), _dense(one, bias), Module("Normalize")]
    if pooling.modes != ("mean",):
        raise ModelError(
            f"{encoder.name} has elastic heads over {' and '.join(pooling.modes)} pooling: sentence-transformers can "
            f"set the views side by side for mean pooling alone, so only layers 1 to {head.view} can be exported"
        )
    if encoder.checkpoint.blocks.final_norm is not None:
        raise ModelError(
            f"{encoder.name} ends in a norm, which sentence-transformers would not apply to the shallow view: its "
            f"vectors would differ, so only layers 1 to {head.view} can be exported"
        )
    return _two_views(own, size.layers, hidden, pooling)


def write_modules(modules: Sequence[Module], folder: Path) -> None:
    """Writes modules.json, with a Transformer in the folder itself first, and a folder for each module."""
    entries = [("Transformer", ""), *((each.kind, f"{n}_{each.kind}") for n, each in enumerate(modules, 1))]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(entries)
    ]
    (folder / "modules.json").write_text(json.dumps(listed, indent=2) + "\n")
    for module, (_, path) in zip(modules, entries[1:], strict=True):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(module.config, indent=2) + "\n")
        if module.tensors:
            state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in module.tensors.items()}
            save_file(state, folder / path / "model.safetensors", {"format": "pt"})
            (folder / path / "model.safetensors").chmod(0o644)


def _two_views(head: ViewHeads, layers: int, hidden: int, pooling: Pooling) -> list[Module]:
    """Pools the last layer and puts it aside under the name that Pooling takes for the CLS token's vector.

    WeightedLayerPooling then makes the shallow layer the token embeddings, a Pooling of `cls` and `mean` sets the two
    side by side, and a Dense maps them.
    """
    aside = _dense(torch.eye(hidden), None, module_output_name="cls_token_embeddings")
    shallow = Module(
        "WeightedLayerPooling",
        {"word_embedding_dimension": hidden, "layer_start": head.view, "num_hidden_layers": layers},
        {"layer_weights": torch.eye(layers + 1 - head.view)[0]},  # of layers `view` to `layers`: all on the first
    )
    deep = [*_gate(head, layers), _pooling(hidden, pooling), aside]
    beside = [shallow, *_gate(head, head.view), _pooling(hidden, Pooling(("cls", "mean"), pooling.include_prompt))]
    return [*deep, *beside, _dense(head.weights[layers], head.biases[layers]), Module("Normalize")]


def _gate(head: ViewHeads, layer: int) -> list[Module]:
    """The token gate of a layer, as a Dense over the token states; nothing where there is none."""
    if layer not in head.gates:
        return []
    weight, bias = head.gates[layer].as_linear()
    return [_dense(weight, bias, nn.GLU(), module_input_name="token_embeddings")]


def _cut_modules(head: ModuleHead, dim: int) -> list[Module]:
    """The head's own modules, then a Dense that keeps the first `dim` dimensions where there are more."""
    modules = [module for each in head.modules if (module := _module(each))]
    while modules and modules[-1].kind == "Normalize":  # a last one follows anyway
        modules.pop()
    return [*modules, *([_dense(torch.eye(head.width)[:dim], None)] if dim < head.width else [])]


def _module(module: nn.Module) -> Module | None:
    if isinstance(module, nn.Identity):
        return None
    if isinstance(module, nn.LayerNorm):
        return Module("LayerNorm", {"dimension": module.normalized_shape[0]}, _tensors(module, "norm."))
    if isinstance(module, nn.Sequential) and isinstance(linear := module[0], nn.Linear):
        return _dense(linear.weight, linear.bias, module[1])
    if not list(module.parameters()) and type(module).__name__.endswith("Normalize"):
        return Module("Normalize")
    raise ModelError(f"a head with a {type(module).__name__} has no sentence-transformers module that says the same")


def _dense(weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None, **more: str) -> Module:
    kind = type(activation or nn.Identity())
    config: dict[str, Any] = {"in_features": weight.shape[1], "out_features": weight.shape[0], "bias": bias is not None}
    config |= {"activation_function": f"{kind.__module__}.{kind.__qualname__}", **more}
    return Module("Dense", config, {"linear.weight": weight, **({} if bias is None else {"linear.bias": bias})})


def _pooling(hidden: int, pooling: Pooling) -> Module:
    flags: dict[str, Any] = {flag: mode in pooling.modes for mode, flag in _FLAGS.items()}
    if pooling.modes != tuple(mode for mode in MODES if mode in pooling.modes):
        flags["pooling_mode"] = pooling.modes  # the flags cannot say an order of their own
    return Module("Pooling", {"word_embedding_dimension": hidden, **flags, "include_prompt": pooling.include_prompt})


def _tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}
