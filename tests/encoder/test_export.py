"""What an exported folder holds, and that it is there in whole or not at all."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast

from rag_ese.encoder import ElasticEncoder, export
from rag_ese.encoder.checkpoint import load_checkpoint
from rag_ese.encoder.delta import save_delta
from rag_ese.encoder.export import save_sentence_transformer
from rag_ese.encoder.gates import TokenGate
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError, ModelError, SizeError, StorageError
from rag_ese.types import Float32s, Size

TEXTS = ["where was the painter born", "the river flows through a town", "one word", ""]


def heads(view: int = 2, width: int = 80, layers: int = 4, gates: bool = False) -> ViewHeads:
    """Random heads that half precision holds exactly."""
    noise = torch.Generator().manual_seed(5)
    weights = {layer: torch.randn(width, 64, generator=noise).half().float() for layer in range(1, layers + 1)}
    biases = {layer: torch.randn(width, generator=noise).half().float() for layer in weights}
    own = {layer: TokenGate(torch.randn(1, 32, generator=noise).half(), torch.ones(1)) for layer in weights}
    return ViewHeads(view, weights, biases, own if gates else None)


@pytest.fixture(params=[False, True], ids=["plain", "gated"])
def elastic(tiny: ElasticEncoder, request: pytest.FixtureRequest) -> ElasticEncoder:
    """The tiny model with heads of width 80 and view 2, without token gates and with them."""
    tiny.replace_head(heads(gates=request.param))
    return tiny


def theirs(folder: Path) -> Float32s:
    vectors: Float32s = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    return vectors


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def test_the_folder_is_smaller_by_what_was_cut(tiny: ElasticEncoder, tmp_path: Path) -> None:
    tiny.replace_head(heads())
    done = export.export(tiny, tmp_path / "out", Size(2, 48))
    state = load_file(done.folder / "model.safetensors")
    assert {name.split(".")[2] for name in state if name.startswith("encoder.layer.")} == {"0", "1"}
    assert config_of(done.folder)["num_hidden_layers"] == 2
    modules = json.loads((done.folder / "modules.json").read_text())
    assert [(each["type"], each["path"]) for each in modules] == [
        ("sentence_transformers.models.Transformer", ""),
        ("sentence_transformers.models.Pooling", "1_Pooling"),
        ("sentence_transformers.models.Dense", "2_Dense"),
        ("sentence_transformers.models.Normalize", "3_Normalize"),
    ]
    dense = load_file(done.folder / "2_Dense" / "model.safetensors")
    assert {name: tuple(each.shape) for name, each in dense.items()} == {
        "linear.weight": (48, 32),
        "linear.bias": (48,),
    }
    assert done.parameters == sum(each.numel() for each in [*state.values(), *dense.values()])
    assert done.bytes == sum(file.stat().st_size for file in done.folder.rglob("*") if file.is_file())
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in done.folder.rglob("*"))
    assert done.difference < 1e-6 and done.onnx_difference is None


@pytest.mark.parametrize("size", [Size(1, 80), Size(3, 48), Size(4, 80)], ids=str)
def test_the_sizes_below_are_still_in_the_folder(elastic: ElasticEncoder, tmp_path: Path, size: Size) -> None:
    save_sentence_transformer(elastic, tmp_path / "out", size)
    again = ElasticEncoder.load(tmp_path / "out", "float32", "cpu")
    assert (again.depth, again.width, again.max_tokens) == (size.layers, size.dim, elastic.max_tokens)
    sizes = [Size(layers, dim) for layers in range(1, size.layers + 1) for dim in (7, size.dim)]
    expected = elastic.encode(TEXTS, sizes)
    for each, vectors in again.encode(TEXTS, sizes).items():
        np.testing.assert_allclose(vectors, expected[each], atol=1e-6)


def test_the_weights_in_memory_count(elastic: ElasticEncoder, tmp_path: Path) -> None:
    before = elastic.encode(TEXTS, [Size(3, 40)])[Size(3, 40)]
    with torch.no_grad():
        for parameter in elastic.checkpoint.blocks.model.parameters():
            parameter.mul_(1.3)
    save_sentence_transformer(elastic, tmp_path / "out", Size(3, 40))
    found = theirs(tmp_path / "out")
    np.testing.assert_allclose(found, elastic.encode(TEXTS, [Size(3, 40)])[Size(3, 40)], atol=1e-5)
    assert np.abs(found - before).max() > 0.01


def test_a_checkpoint_that_is_a_delta(tiny: ElasticEncoder, folder: Path, tmp_path: Path) -> None:
    name = "encoder.layer.1.intermediate.dense.weight"
    parameter = tiny.checkpoint.blocks.model.get_parameter(name)
    save_delta(
        tmp_path / "delta",
        heads(),
        {name: -parameter},
        str(folder),
        load_checkpoint(folder, torch.float32).revision,
    )
    trained = ElasticEncoder.load(tmp_path / "delta", "float32", "cpu")
    tiny.replace_head(heads())
    export.export(trained, tmp_path / "out", Size(3, 24))
    found = theirs(tmp_path / "out")
    np.testing.assert_allclose(found, trained.encode(TEXTS, [Size(3, 24)])[Size(3, 24)], atol=1e-5)
    assert np.abs(found - tiny.encode(TEXTS, [Size(3, 24)])[Size(3, 24)]).max() > 0.01


def test_exporting_leaves_the_encoder_as_it_was(elastic: ElasticEncoder, tmp_path: Path) -> None:
    texts = [*TEXTS, "the river " * 40]
    before = elastic.encode(texts, [Size(2, 40), Size(4, 80)])
    save_sentence_transformer(elastic, tmp_path / "out", Size(2, 40))
    for size, vectors in elastic.encode(texts, list(before)).items():
        np.testing.assert_array_equal(vectors, before[size])


def test_what_servers_are_told_of_prefixes(elastic: ElasticEncoder, tmp_path: Path) -> None:
    for size, dimensions in ((Size(4, 80), [32, 64, 80]), (Size(1, 64), [32, 64])):
        save_sentence_transformer(elastic, tmp_path / str(size), size)
        config = config_of(tmp_path / str(size))
        assert (config["is_matryoshka"], config["matryoshka_dimensions"]) == (True, dimensions)
    save_sentence_transformer(elastic, tmp_path / "small", Size(1, 32))
    assert not {"is_matryoshka", "matryoshka_dimensions"} & {*config_of(tmp_path / "small")}


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        ({}, {}),
        ({"is_matryoshka": True}, {"is_matryoshka": True}),
        ({"matryoshka_dimensions": [8, 16, 32]}, {"is_matryoshka": True, "matryoshka_dimensions": [8, 16, 20]}),
        ({"is_matryoshka": True, "matryoshka_dimensions": [32]}, {}),
    ],
)
def test_other_models_prefixes_are_their_own_claim(
    tiny: ElasticEncoder, tmp_path: Path, claimed: dict[str, Any], said: dict[str, Any]
) -> None:
    tiny.checkpoint.blocks.config.update(claimed)
    save_sentence_transformer(tiny, tmp_path / "out", Size(2, 20))
    assert {key: value for key, value in config_of(tmp_path / "out").items() if "matryoshka" in key} == said


def test_a_size_that_the_model_does_not_have(elastic: ElasticEncoder, tmp_path: Path) -> None:
    for size in (Size(5, 8), Size(1, 81)):
        with pytest.raises(SizeError, match=f"has no size {size}"):
            save_sentence_transformer(elastic, tmp_path / "out", size)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_vectors_that_differ_are_not_published(
    elastic: ElasticEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when sentence-transformers read a module in another way: here a head that the file does not have."""
    written = export.modules_for(elastic, Size(2, 48))
    mix = written[-2]
    mix.tensors["linear.bias"] = mix.tensors["linear.bias"] + 0.5
    monkeypatch.setattr(export, "modules_for", lambda encoder, size: written)
    with pytest.raises(ModelError, match="sentence-transformers gives vectors that differ by"):
        export.export(elastic, tmp_path / "out", Size(2, 48))
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_half_precision_is_too_coarse_to_check(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load it in float32"):
        export.export(ElasticEncoder.load(folder, "bfloat16", "cpu"), tmp_path / "out", Size(1, 8))


@pytest.mark.parametrize("limit", [100, 1000, 20_000])
def test_a_disk_that_takes_no_more(folder: Path, tmp_path: Path, limit: int) -> None:
    """A limit on the size of files stands for the disk: some file always meets it."""
    program = (
        "import sys; from pathlib import Path; from rag_ese.cli import guarded\n"
        "from rag_ese.encoder import ElasticEncoder; from rag_ese.encoder.export import save_sentence_transformer\n"
        "model = ElasticEncoder.load(sys.argv[1], 'float32', 'cpu')\n"
        "sys.exit(guarded(lambda: save_sentence_transformer(model, Path(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "the file would be larger than this system allows" in done.stderr.splitlines()[-1]
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_a_full_disk_that_tokenizers_report_in_words(
    elastic: ElasticEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(StorageError, match="the disk is full"):
        save_sentence_transformer(elastic, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
