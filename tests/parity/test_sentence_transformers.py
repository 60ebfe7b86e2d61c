"""Our vectors against those of `sentence_transformers.SentenceTransformer.encode` on the same folder, in float32."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from rag_ese.encoder import ElasticEncoder, Role
from rag_ese.encoder.export import save_sentence_transformer
from rag_ese.encoder.heads import ViewHeads
from rag_ese.encoder.names import resolve
from rag_ese.errors import ModelError, StorageError
from rag_ese.types import Float32s, Size

TEXTS = [
    "Which river flows through the town where the painter was born?",
    "",
    "short",
    "  blanks  before and after \n",
    "Überraschung: naïve café, ΟΔΥΣΣΕΥΣ, İstanbul, 東京タワー, 🐈‍⬛, e\u0301 and \u00e9, zero\u200bwidth",
    "UPPER lower MiXeD </s> <pad> </S>",
    "a text that is far too long for the model " * 30,
]
PAD, MODES = 1, ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_SHARED = {"vocab_size": 400, "pad_token_id": PAD, "initializer_range": 0.3, "max_position_embeddings": 40}
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
_DISTIL = {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(**_SHARED, **_SIZES),
    "roberta": lambda: RobertaConfig(**_SHARED, **_SIZES),
    "mpnet": lambda: MPNetConfig(**_SHARED, **_SIZES),
    "distilbert": lambda: DistilBertConfig(**_SHARED, **_DISTIL),
    "modernbert": lambda: ModernBertConfig(**_SHARED, **_SIZES, local_attention=4),
    "qwen2": lambda: Qwen2Config(**_SHARED, **_SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**_SHARED, **_SIZES, num_key_value_heads=2, head_dim=8),
}
LAYERS_KEY = {"distilbert": "n_layers"}
"""What config.json calls the number of layers where it does not say num_hidden_layers."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices are slowed down by torch's own threads where other processes compete for the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokenizer(template: str, **settings: Any) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **names, **settings)


def backbone(folder: Path, kind: str = "bert", template: str = "<s> $A </s>", **settings: Any) -> Path:
    """A plain Hugging Face folder with random weights; `settings` are the tokenizer's."""
    torch.manual_seed(3)
    decoder = kind.startswith("qwen")
    model = (AutoModelForCausalLM if decoder else AutoModel).from_config(CONFIGS[kind]())
    model.save_pretrained(folder)
    tokenizer("$A </s>" if decoder else template, **settings).save_pretrained(folder)
    return folder


def save(tmp_path: Path, modules: Sequence[Any], kind: str = "bert", prompts: Any = None, **settings: Any) -> Path:
    """A sentence-transformers folder of `modules` over a random backbone."""
    first = Transformer(str(backbone(tmp_path / "backbone", kind)), **settings)
    torch.manual_seed(4)
    for module in modules:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    SentenceTransformer(modules=[first, *modules], prompts=prompts, device="cpu").save(
        str(tmp_path / "model"), create_model_card=False
    )
    return tmp_path / "model"


def ours(folder: Path, texts: Sequence[str] = TEXTS, role: Role = "passage") -> Float32s:
    encoder = ElasticEncoder.load(folder, "float32", "cpu")
    size = Size(encoder.depth, encoder.width)
    return encoder.encode(texts, [size], role, normalize=False)[size]


def theirs(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})


def assert_equal(found: Float32s, expected: Float32s) -> None:
    """Unit vectors that agree to 1e-5 in every dimension and in cosine, of texts that are told apart."""
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose((found * expected).sum(axis=1), 1, atol=1e-5)
    assert found.shape[1] == 1 or len({row.tobytes() for row in found}) == len(found)


def assert_same(folder: Path, texts: Sequence[str] = TEXTS) -> None:
    found, expected = ours(folder, texts), theirs(folder).encode(list(texts))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert len({row.tobytes() for row in expected}) == len(texts)


def test_embedded_raw() -> None:
    assert_same(resolve("embedded-raw").path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_plain_folders_of_every_architecture(tmp_path: Path, kind: str) -> None:
    """Mean pooling, last token for decoders; the long text reaches the last position that the model has."""
    assert_same(backbone(tmp_path, kind, model_max_length=38))


@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_the_position_offset_shortens_the_longest_text(tmp_path: Path, kind: str) -> None:
    """sentence-transformers has to be told, or it fails with an index error; we see it in the model."""
    folder = backbone(tmp_path, kind)
    model = theirs(folder)
    assert model.max_seq_length == 40
    model.max_seq_length = 38
    assert ElasticEncoder.load(folder, "float32", "cpu").max_tokens == 38
    np.testing.assert_allclose(ours(folder), model.encode(TEXTS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), MODES, ("mean", "cls"), ("lasttoken", "max")])
def test_pooling_modes(tmp_path: Path, modes: tuple[str, ...]) -> None:
    assert_same(save(tmp_path, [Pooling(32, modes)]))


def test_pooling_flags_of_older_folders(tmp_path: Path) -> None:
    folder = save(tmp_path, [Pooling(32, "mean")])
    flags = '{"word_embedding_dimension": 32, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}'
    (folder / "1_Pooling" / "config.json").write_text(flags)
    assert ours(folder).shape == (len(TEXTS), 64)
    assert_same(folder)


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.Identity(), torch.nn.GELU()])
def test_dense(tmp_path: Path, activation: torch.nn.Module) -> None:
    assert_same(save(tmp_path, [Pooling(32, "mean"), Dense(32, 20, activation_function=activation)]))


def test_dense_layer_norm_normalize(tmp_path: Path) -> None:
    modules = [Pooling(32, "mean"), Dense(32, 48, bias=False), LayerNorm(48), Dense(48, 24), Normalize()]
    folder = save(tmp_path, modules)
    assert_same(folder)
    np.testing.assert_allclose(np.linalg.norm(ours(folder), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_prompts(tmp_path: Path, kind: str, include: bool) -> None:
    prompts = {"query": "Represent this question: ", "document": "passage: "}
    folder = save(tmp_path, [Pooling(32, ("mean", "cls", "weightedmean", "lasttoken"), include)], kind, prompts)
    model = theirs(folder)
    queries, passages = ours(folder, role="query"), ours(folder, role="passage")
    np.testing.assert_allclose(queries, model.encode_query(TEXTS), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(passages, model.encode_document(TEXTS), atol=1e-5, rtol=1e-5)
    assert np.abs(queries - passages).max() > 0.1


def test_do_lower_case(tmp_path: Path) -> None:
    folder = save(tmp_path, [Pooling(32, "mean")])
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 38, "do_lower_case": true}')
    assert_same(folder)
    np.testing.assert_array_equal(ours(folder, ["MiXeD"]), ours(folder, ["mixed"]))


@pytest.mark.parametrize("settings", [{"max_seq_length": 9}, {"processor_kwargs": {"truncation_side": "left"}}])
def test_truncation(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = save(tmp_path, [Pooling(32, "mean")], **settings)
    words = "a text that is far too long for the model " * 30
    assert_same(folder)
    assert np.array_equal(*ours(folder, [words, words + "end"])) is (settings == {"max_seq_length": 9})


def test_the_folders_own_maximum_wins_over_the_tokenizers(tmp_path: Path) -> None:
    folder = save(tmp_path, [Pooling(32, "mean")])
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 30, "do_lower_case": false}')
    tokenizer("<s> $A </s>", model_max_length=10).save_pretrained(folder)
    assert_same(folder)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_whatever_side_sentence_transformers_pads(tmp_path: Path, side: str) -> None:
    folder = backbone(tmp_path, "qwen3", padding_side=side)
    assert theirs(folder).tokenizer.padding_side == side
    assert_same(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    save_sentence_transformer(ElasticEncoder.load("embedded", "float32", "cpu"), folder)
    return folder


def test_the_two_view_export_in_plain_sentence_transformers(exported: Path) -> None:
    encoder = ElasticEncoder.load("embedded", "float32", "cpu")
    vectors = encoder.encode(TEXTS, [Size(6, 768), Size(6, 64)])
    model = theirs(exported)
    assert {type(module).__module__.partition(".")[0] for module in model} == {"sentence_transformers"}
    np.testing.assert_allclose(model.encode(TEXTS), vectors[Size(6, 768)], atol=1e-5)
    cut = model.encode(TEXTS, truncate_dim=64, normalize_embeddings=True)
    np.testing.assert_allclose(cut, vectors[Size(6, 64)], atol=1e-5)


def test_the_exported_folder_is_the_same_encoder_at_every_depth(exported: Path) -> None:
    encoder, again = (ElasticEncoder.load(name, "float32", "cpu") for name in ("embedded", exported))
    assert (again.depth, again.width, again.max_tokens) == (encoder.depth, encoder.width, encoder.max_tokens)
    expected = encoder.encode_layers(TEXTS, range(1, 7))
    for layer, vectors in again.encode_layers(TEXTS, range(1, 7)).items():
        np.testing.assert_array_equal(vectors, expected[layer])


def test_an_export_keeps_prompts_lower_case_and_unrounded_heads(tmp_path: Path) -> None:
    """Over a backbone that lies in a folder of its own, as in the earliest sentence-transformers."""
    prompts = {"query": "Question: ", "document": ""}
    source = save(tmp_path, [Pooling(32, "mean", include_prompt=False)], "bert", prompts, do_lower_case=True)
    _move_backbone(source, source / "0_Transformer")
    encoder = _with_heads(source, view=2)
    save_sentence_transformer(encoder, tmp_path / "exported")
    again, model = ElasticEncoder.load(tmp_path / "exported", "float32", "cpu"), theirs(tmp_path / "exported")
    roles: list[tuple[Role, Any]] = [("query", model.encode_query), ("passage", model.encode_document)]
    for role, encode in roles:
        full = encoder.encode(TEXTS, [Size(3, 40), Size(1, 40)], role)
        np.testing.assert_allclose(encode(TEXTS), full[Size(3, 40)], atol=1e-5)
        np.testing.assert_array_equal(again.encode(TEXTS, [Size(1, 40)], role)[Size(1, 40)], full[Size(1, 40)])


SIZES = ["L1-d1", "L1-d64", "L1-d768", "L2-d128", "L3-d128", "L5-d700", "L6-d32", "L6-d768"]


@pytest.mark.parametrize("text", SIZES)
def test_every_size_of_the_embedded_model_in_plain_sentence_transformers(tmp_path: Path, text: str) -> None:
    encoder, size = ElasticEncoder.load("embedded", "float32", "cpu"), Size.parse(text)
    save_sentence_transformer(encoder, tmp_path / "out", size)
    model = theirs(tmp_path / "out")
    assert {type(module).__module__.partition(".")[0] for module in model} == {"sentence_transformers"}
    assert len(model[0].model.encoder.layer) == size.layers and model.get_embedding_dimension() == size.dim
    assert_equal(model.encode(TEXTS), encoder.encode(TEXTS, [size])[size])


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_truncated_backbone_of_every_architecture(tmp_path: Path, kind: str, layers: int) -> None:
    """Its file holds the first blocks alone; a final norm stays behind the last of them."""
    encoder = ElasticEncoder.load(backbone(tmp_path / "model", kind), "float32", "cpu")
    size = Size(layers, 20)
    save_sentence_transformer(encoder, tmp_path / "out", size)
    model = theirs(tmp_path / "out")
    assert_equal(model.encode(TEXTS), encoder.encode(TEXTS, [size])[size])
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())[LAYERS_KEY.get(kind, "num_hidden_layers")] == layers
    )
    own = next(
        n for n, each in encoder.checkpoint.blocks.model.named_modules() if each is encoder.checkpoint.blocks.blocks
    )
    names = load_file(tmp_path / "out" / "model.safetensors")
    assert {int(name.removeprefix(own)[1]) for name in names if name.startswith(own)} == {*range(layers)}
    assert not [name for name in names if "pooler" in name]


@pytest.mark.parametrize(
    "modules",
    [
        [Pooling(32, ("lasttoken", "max", "mean_sqrt_len_tokens"))],
        [Pooling(32, "weightedmean"), Dense(32, 48, bias=False), LayerNorm(48), Dense(48, 24), Normalize()],
        [Pooling(32, ("mean", "cls")), Normalize(), Dense(64, 22, activation_function=torch.nn.GELU()), Dropout(0.1)],
    ],
    ids=["order", "norm", "dropout"],
)
@pytest.mark.parametrize("dim", [20, 22])
def test_a_truncated_head_of_modules(tmp_path: Path, modules: list[Any], dim: int) -> None:
    encoder = ElasticEncoder.load(save(tmp_path, modules), "float32", "cpu")
    size = Size(2, dim)
    save_sentence_transformer(encoder, tmp_path / "out", size)
    assert_equal(theirs(tmp_path / "out").encode(TEXTS), encoder.encode(TEXTS, [size])[size])
    assert_equal(
        ElasticEncoder.load(tmp_path / "out", "float32", "cpu").encode(TEXTS, [size])[size],
        theirs(tmp_path / "out").encode(TEXTS),
    )


def test_a_plain_model_of_full_size_keeps_all_its_sizes(tmp_path: Path) -> None:
    encoder = ElasticEncoder.load(save(tmp_path, [Pooling(32, "mean"), Dense(32, 20)]), "float32", "cpu")
    save_sentence_transformer(encoder, tmp_path / "out")
    again, sizes = ElasticEncoder.load(tmp_path / "out", "float32", "cpu"), [Size(1, 8), Size(3, 20)]
    assert (again.depth, again.width) == (3, 20)
    for size, vectors in again.encode(TEXTS, sizes).items():
        assert_equal(vectors, encoder.encode(TEXTS, [size])[size])


def test_elastic_heads_over_a_final_norm(tmp_path: Path) -> None:
    """Up to the view one pooling suffices; beyond it sentence-transformers would not norm the shallow states."""
    encoder = _with_heads(backbone(tmp_path / "modernbert", "modernbert"), view=2)
    for size in (Size(1, 40), Size(2, 30)):
        save_sentence_transformer(encoder, tmp_path / str(size), size)
        assert_equal(theirs(tmp_path / str(size)).encode(TEXTS), encoder.encode(TEXTS, [size])[size])
    with pytest.raises(ModelError, match=r"ends in a norm.*only layers 1 to 2 can be exported"):
        save_sentence_transformer(encoder, tmp_path / "out", Size(3, 40))
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_elastic_heads_over_another_pooling(tmp_path: Path) -> None:
    encoder = _with_heads(save(tmp_path, [Pooling(32, "max")]), view=2)
    save_sentence_transformer(encoder, tmp_path / "two", Size(2, 30))
    assert_equal(theirs(tmp_path / "two").encode(TEXTS), encoder.encode(TEXTS, [Size(2, 30)])[Size(2, 30)])
    with pytest.raises(ModelError, match=r"elastic heads over max pooling.*only layers 1 to 2 can be exported"):
        save_sentence_transformer(encoder, tmp_path / "three", Size(3, 30))


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    encoder = _with_heads(backbone(tmp_path / "bert"), view=1)
    kept = tmp_path / "out"
    kept.mkdir()
    with pytest.raises(StorageError, match="exists already"):
        save_sentence_transformer(encoder, kept)
    (kept / "note").write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        save_sentence_transformer(encoder, kept)
    assert [file.name for file in kept.iterdir()] == ["note"]


def _with_heads(folder: Path, view: int) -> ElasticEncoder:
    """The encoder in `folder` with random heads of width 40 that half precision would change."""
    encoder = ElasticEncoder.load(folder, "float32", "cpu")
    noise = torch.Generator().manual_seed(5)
    weights = {layer: torch.randn(40, 64, generator=noise) for layer in range(1, encoder.depth + 1)}
    biases = {layer: torch.randn(40, generator=noise) for layer in weights}
    encoder.checkpoint.head = ViewHeads(view, weights, biases)
    return ElasticEncoder(encoder.checkpoint, str(folder), torch.device("cpu"))


def _move_backbone(folder: Path, into: Path) -> None:
    into.mkdir()
    for file in folder.iterdir():
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(into / file.name)
    modules = folder / "modules.json"
    modules.write_text(modules.read_text().replace('"path": ""', '"path": "0_Transformer"', 1))
