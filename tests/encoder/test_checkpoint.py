"""What a folder says about an encoder, and what is wrong with folders that cannot be loaded."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AlbertConfig, AutoModel, CLIPConfig, PreTrainedConfig, T5Config

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.checkpoint import Checkpoint, load_checkpoint
from rag_ese.encoder.export import save_heads
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.names import resolve
from rag_ese.errors import ModelError
from rag_ese.types import Size


def load(folder: Path) -> Checkpoint:
    return load_checkpoint(folder, torch.float32)


def heads() -> ViewHeads:
    layers = range(1, 5)
    return ViewHeads(1, {layer: torch.ones(8, 64) for layer in layers}, {layer: torch.ones(8) for layer in layers})


def edit(file: Path, **changes: Any) -> None:
    """Changes keys of a JSON file that may not exist yet."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **changes}))


def add_module(folder: Path, kind: str, config: dict[str, Any]) -> Path:
    """A folder of one more module after a Transformer and a Pooling."""
    modules = [{"path": "", "type": "st.Transformer"}, {"path": "1_Pooling", "type": "st.Pooling"}]
    (folder / "modules.json").write_text(json.dumps([*modules, {"path": f"2_{kind}", "type": f"st.{kind}"}]))
    module = folder / f"2_{kind}"
    module.mkdir()
    (module / "config.json").write_text(json.dumps(config))
    return module


def test_a_plain_folder(folder: Path) -> None:
    found = load(folder)
    assert (found.path, found.root, found.max_tokens) == (folder, folder, 40)
    assert (found.blocks.depth, found.head.width, found.pooling.modes) == (4, 32, ("mean",))
    assert (found.lower_case, found.prompts, found.default_prompt) == (False, {}, None)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _truncated_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def _header_cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _other_shapes(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=64)


def _too_many_layers(folder: Path) -> None:
    edit(folder / "config.json", num_hidden_layers=6)


def _modules_no_json(folder: Path) -> None:
    (folder / "modules.json").write_text("[{")


def _modules_no_list(folder: Path) -> None:
    (folder / "modules.json").write_text("{}")


def _first_module(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"path": "", "type": "st.StaticEmbedding"}]')


def _unknown_module(folder: Path) -> None:
    add_module(folder, "LSTM", {})


def _unknown_pooling(folder: Path) -> None:
    add_module(folder, "Normalize", {})
    (folder / "1_Pooling").mkdir()
    edit(folder / "1_Pooling" / "config.json", pooling_mode="median")


def _foreign_activation(folder: Path) -> None:
    add_module(folder, "Dense", {"in_features": 32, "out_features": 8, "activation_function": "os.system"})


def _activation_that_is_a_function(folder: Path) -> None:
    add_module(folder, "Dense", {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.init.zeros_"})


def _activation_that_is_a_module(folder: Path) -> None:
    add_module(folder, "Dense", {"in_features": 32, "out_features": 8, "activation_function": "torch.nn.functional"})


def _dense_beside_the_embedding(folder: Path) -> None:
    add_module(folder, "Dense", {"in_features": 32, "out_features": 8, "module_output_name": "other"})


def _dense_without_config(folder: Path) -> None:
    (add_module(folder, "Dense", {}) / "config.json").unlink()


def _dense_without_weights(folder: Path) -> None:
    add_module(folder, "Dense", {"in_features": 32, "out_features": 8})


def _dense_of_other_shape(folder: Path) -> None:
    module = add_module(folder, "Dense", {"in_features": 32, "out_features": 8})
    save_file({"linear.weight": torch.ones(9, 32), "linear.bias": torch.ones(9)}, module / "model.safetensors")


class _Boobytrap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("/nothing").unlink, ())


def _dense_with_a_pickled_call(folder: Path) -> None:
    module = add_module(folder, "Dense", {"in_features": 32, "out_features": 8})
    (module / "pytorch_model.bin").write_bytes(pickle.dumps(_Boobytrap(), protocol=2))


def _unknown_format(folder: Path) -> None:
    save_heads(heads(), folder)
    edit(folder / "elastic.json", format=3)


def _no_view(folder: Path) -> None:
    (folder / "elastic.json").write_text('{"format": 1}')


def _no_heads(folder: Path) -> None:
    save_heads(heads(), folder)
    (folder / "heads.safetensors").unlink()


def _truncated_heads(folder: Path) -> None:
    save_heads(heads(), folder)
    file = folder / "heads.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "there is no model folder .*: give a folder, a hub name, embedded or embedded-raw"),
        (_no_config, "is not a model folder: it holds neither modules.json nor config.json"),
        (_no_tokenizer, "cannot load the encoder in .*tokenizer"),
        (_truncated_weights, "cannot load the encoder in"),
        (_header_cut, "cannot load the encoder in"),
        (_no_weights, "cannot load the encoder in"),
        (_other_shapes, r"lack 12 tensors .* such as encoder\.layer\.0\.\S+ \(which has another shape\): they would"),
        (_too_many_layers, r"lack 32 tensors that its config.json asks for, such as encoder\.layer\.4\..*random"),
        (_modules_no_json, "modules.json is not valid JSON"),
        (_modules_no_list, "modules.json holds a dict where a list is needed"),
        (_first_module, "starts with a st.StaticEmbedding module: only Transformer models have layers"),
        (_unknown_module, "a module of type LSTM, which is not supported: Dense, LayerNorm, Normalize, Dropout are"),
        (_unknown_pooling, r"unknown pooling \['median'\]"),
        (_foreign_activation, "has the activation os.system: only those of torch.nn are loaded"),
        (_activation_that_is_a_function, "has the activation torch.nn.init.zeros_: only those of torch.nn"),
        (_activation_that_is_a_module, "has the activation torch.nn.functional: only those of torch.nn"),
        (_dense_beside_the_embedding, "does not map the sentence embedding alone"),
        (_dense_without_config, "config.json lacks 'in_features': the module is not complete"),
        (_dense_without_weights, "cannot load the weights in .*2_Dense"),
        (_dense_of_other_shape, "cannot load the weights in .*2_Dense.* size mismatch for weight"),
        (_dense_with_a_pickled_call, "cannot load the weights in .*2_Dense"),
        (_unknown_format, "elastic.json has format 3, this version reads 1 and 2"),
        (_no_view, "cannot load the elastic heads in .*: the entry 'view' is missing"),
        (_no_heads, "cannot load the elastic heads in"),
        (_truncated_heads, "cannot load the elastic heads in"),
    ],
)
def test_a_spoilt_folder_is_one_sentence(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    load(folder)
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


_SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize(
    "config",
    [
        T5Config(d_model=32, d_ff=48, num_layers=4, num_heads=4, d_kv=8, vocab_size=40),
        AlbertConfig(**_SMALL, vocab_size=40, embedding_size=16),
        CLIPConfig(text_config=_SMALL, vision_config=_SMALL),
    ],
    ids=["encoder-decoder", "shared layers", "two towers"],
)
def test_architectures_without_a_list_of_blocks(folder: Path, config: PreTrainedConfig) -> None:
    (folder / "config.json").unlink()
    model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=f"{type(model).__name__} is not supported: .* use an encoder such as BERT"):
        load(folder)


def test_dense_and_normalize_from_pickled_weights(folder: Path) -> None:
    """Older folders keep pytorch_model.bin; it is read as plain tensors."""
    module = add_module(folder, "Dense", {"in_features": 32, "out_features": 8})
    linear = nn.Linear(32, 8)
    torch.save({f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}, module / "pytorch_model.bin")
    head, pooled = load(folder).head, torch.randn(3, 32)
    assert head.width == 8
    torch.testing.assert_close(head(2, {2: pooled}), torch.tanh(linear(pooled)))


def test_the_revision_follows_what_determines_the_vectors(folder: Path) -> None:
    seen = [load(folder).revision]

    def changed() -> bool:
        seen.append(load(folder).revision)
        return seen[-1] not in seen[:-1]

    assert load(folder).revision == seen[0]
    for harmless in ("README.md", "picture.png"):
        (folder / harmless).write_text("words")
    assert load(folder).revision == seen[0]
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.3.output.dense.bias"] = weights["encoder.layer.3.output.dense.bias"] + 1e-3
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert changed()
    edit(folder / "config.json", layer_norm_eps=1e-6)
    assert changed()
    edit(folder / "sentence_bert_config.json", max_seq_length=12)
    assert changed()
    save_heads(heads(), folder)
    assert changed()
    edit(folder / "elastic.json", view=2)
    assert changed()


def test_heads_kept_apart_are_part_of_the_revision(folder: Path, tmp_path: Path) -> None:
    save_heads(heads(), tmp_path / "heads")
    first = load_checkpoint(folder, torch.float32, tmp_path / "heads").revision
    edit(tmp_path / "heads" / "elastic.json", view=2)
    assert len({load(folder).revision, first, load_checkpoint(folder, torch.float32, tmp_path / "heads").revision}) == 3


@pytest.mark.parametrize("name", ["embedded", "folder"])
def test_a_path_opens_no_socket(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    encoder = ElasticEncoder.load(name if name == "embedded" else folder, "float32", "cpu")
    assert encoder.encode(["the river"], [Size(2, 8)])[Size(2, 8)].shape == (1, 8)


def test_code_in_a_folder_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the console would say yes to transformers' question."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": "code.Own", "AutoModel": "code.Model"})
    (folder / "code.py").write_text("raise SystemExit('code of the folder was run')")
    with pytest.raises(ModelError, match="cannot load the encoder"):
        load(folder)


def test_the_embedded_model() -> None:
    source = resolve("embedded")
    found = load_checkpoint(source.path, torch.float32, source.heads)
    assert (found.blocks.depth, found.head.width, found.max_tokens, found.pooling.modes) == (6, 768, 256, ("mean",))
    assert found.revision != load(source.path).revision
