"""A model that really has fewer blocks: the first n of an encoder's backbone, with the weights it has in memory."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from rag_ese.encoder.blocks import BlockModel
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError
from rag_ese.types import Size


def truncated(blocks: BlockModel, layers: int) -> PreTrainedModel:
    """A fresh float32 model on the CPU with the first `layers` blocks and without a pooler; `blocks` stays as it is.

    Where the architecture ends in a norm, the norm follows block `layers`, as in our definition of a layer.
    """
    model = blocks.model
    own = next(name for name, module in model.named_modules() if module is blocks.blocks)
    dropped = tuple(f"{own}.{number}." for number in range(layers, blocks.depth))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(dropped)}
    kind: Any = type(model)
    fresh: Any = kind(_config(blocks.config, blocks.depth, layers), **pooler_arguments(kind))
    try:
        found = fresh.float().load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor that spans all layers has another shape
        raise ModelError(f"{kind.__name__} cannot be cut to {layers} layers: {_first_line(error)}") from error
    wrong = [*found.missing_keys, *found.unexpected_keys]
    if wrong:
        raise ModelError(f"{kind.__name__} cannot be cut to {layers} layers: its tensors differ, such as {wrong[0]}")
    whole: PreTrainedModel = fresh.eval()
    return whole


def pooler_arguments(kind: type) -> dict[str, bool]:
    """What keeps a class of models from making a pooler, which no embedding here ever uses and no file here holds."""
    takes = "add_pooling_layer" in inspect.signature(kind).parameters
    return {"add_pooling_layer": False} if takes else {}


def matryoshka(encoder: ElasticEncoder, size: Size) -> dict[str, Any]:
    """What config.json says about shorter prefixes, in the words that vLLM reads; nothing where they mean nothing.

    Elastic heads put the energy first; of other models, only what their own config.json claims is passed on.
    """
    config = encoder.checkpoint.blocks.config
    if isinstance(encoder.checkpoint.head, ViewHeads):
        dimensions = [2**power for power in range(5, 20)]
    elif not getattr(config, "is_matryoshka", False) or getattr(config, "matryoshka_dimensions", None):
        dimensions = list(getattr(config, "matryoshka_dimensions", None) or ())
    else:
        return {"is_matryoshka": True}
    shorter = sorted(dimension for dimension in dimensions if dimension < size.dim)
    return {"is_matryoshka": True, "matryoshka_dimensions": [*shorter, size.dim]} if shorter else {}


def _config(config: Any, depth: int, layers: int) -> Any:
    """The configuration with fewer layers; lists with an entry per layer (`layer_types`) become shorter with it."""
    cut = copy.deepcopy(config)
    for name, value in list(vars(config).items()):
        if "layer" in name and isinstance(value, list | tuple) and len(value) == depth:
            setattr(cut, name, value[:layers])
    cut.num_hidden_layers = layers
    cut.dtype = torch.float32
    return cut


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
