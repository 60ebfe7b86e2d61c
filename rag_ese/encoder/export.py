"""Writes an encoder as a folder that plain sentence-transformers loads, at full size, with identical vectors.

The two views of an elastic encoder need no code of ours there. A sentence embedding of the last layer is put aside
under the name that Pooling takes for the CLS token's; WeightedLayerPooling then makes the shallow layer the token
embeddings; a Pooling of `cls` and `mean` sets the two side by side, and a Dense maps them. The elastic heads lie beside
it, so that `ElasticEncoder.load` finds every other depth in the same folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rag_ese.encoder.checkpoint import ELASTIC_FILE, HEADS_FILE
from rag_ese.encoder.elastic import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ModelError, StorageError, disk_errors


def save_heads(heads: ViewHeads, folder: Path) -> None:
    """Writes elastic.json and heads.safetensors, in half precision where that loses nothing (fitted heads)."""
    state = heads.state()
    dtype = torch.float16 if all(torch.equal(each, each.half().float()) for each in state.values()) else torch.float32
    with disk_errors("writing the heads to", folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, folder / HEADS_FILE)
        (folder / HEADS_FILE).chmod(0o644)
        (folder / ELASTIC_FILE).write_text(json.dumps({"format": 1, "view": heads.view}, indent=1) + "\n")


def save_sentence_transformer(encoder: ElasticEncoder, folder: Path) -> None:
    """Writes the encoder's backbone and heads to `folder`, which must not exist yet, in whole or not at all.

    Needs an encoder with elastic heads and mean pooling; ModelError otherwise.
    """
    if folder.exists():
        raise StorageError(f"{folder} exists already: give a folder that does not, or remove this one first")
    heads = encoder.checkpoint.head
    if not isinstance(heads, ViewHeads) or encoder.checkpoint.pooling.modes != ("mean",):
        raise ModelError(
            f"{encoder.name} has no elastic heads over mean pooling: its folder {encoder.checkpoint.path} is already "
            "what sentence-transformers loads"
        )
    if encoder.checkpoint.blocks.final_norm is not None:
        raise ModelError(
            f"{encoder.name} ends in a norm, which sentence-transformers would not apply to the shallow view: its "
            "vectors would differ, so it is not exported"
        )
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        modules=_modules(encoder, heads),
        prompts=encoder.checkpoint.prompts or None,
        default_prompt_name=encoder.checkpoint.default_prompt,
        device="cpu",
    )
    draft = folder.with_name(f".{folder.name}.draft")
    with disk_errors("writing the model to", folder):
        shutil.rmtree(draft, ignore_errors=True)
        model.save(str(draft), create_model_card=False)
        save_heads(heads, draft)
        draft.rename(folder)


def _modules(encoder: ElasticEncoder, heads: ViewHeads) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
        WeightedLayerPooling,
    )

    transformer = Transformer(
        str(encoder.checkpoint.root),
        max_seq_length=encoder.max_tokens,
        do_lower_case=encoder.checkpoint.lower_case,
        config_kwargs={"output_hidden_states": True},
    )
    hidden = encoder.checkpoint.blocks.config.hidden_size
    depth = encoder.depth
    aside = Dense(
        hidden,
        hidden,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=torch.eye(hidden),
        module_output_name="cls_token_embeddings",
    )
    # The weights of layers `view` to `depth`: all on the first.
    shallow = WeightedLayerPooling(hidden, num_hidden_layers=depth, layer_start=heads.view)
    shallow.layer_weights = torch.nn.Parameter(torch.eye(depth + 1 - heads.view)[0].clone())
    mix = Dense(
        2 * hidden,
        heads.width,
        activation_function=torch.nn.Identity(),
        init_weight=heads.weights[depth].cpu(),
        init_bias=heads.biases[depth].cpu(),
    )
    prompted = encoder.checkpoint.pooling.include_prompt
    deep, views = (Pooling(hidden, mode, include_prompt=prompted) for mode in ("mean", ("cls", "mean")))
    return [transformer, deep, aside, shallow, views, mix, Normalize()]
