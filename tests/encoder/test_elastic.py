"""The elastic encoder: sizes, order, roles, continuation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from rag_ese.encoder import ElasticEncoder, Role
from rag_ese.errors import SizeError
from rag_ese.types import Float32s, Size

SIZES = [Size(layers, dim) for layers in (1, 2, 4) for dim in (1, 7, 32)]


def some_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 0 to 30 words, no two the same."""
    draw = random.Random(seed)
    words = ["the", "river", "town", "painter", "born", "flows", "through", "where", "was", "long", "not", "one", "two"]
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(words, k=draw.randint(0, 30)))] = None
    return list(found)


def unit(vectors: Float32s) -> Float32s:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_sizes_of_one_call_equal_sizes_one_at_a_time(tiny: ElasticEncoder) -> None:
    texts = some_texts(30)
    together = tiny.encode(texts, SIZES)
    assert list(together) == SIZES
    for size, vectors in together.items():
        assert (vectors.shape, vectors.dtype) == ((30, size.dim), np.float32)
        np.testing.assert_array_equal(vectors, tiny.encode(texts, [size])[size])


def test_truncated_first_and_normalised_after(tiny: ElasticEncoder) -> None:
    texts = some_texts(10)
    raw = tiny.encode_layers(texts, [1, 2, 4])
    for size, vectors in tiny.encode(texts, SIZES).items():
        np.testing.assert_allclose(vectors, unit(raw[size.layers][:, : size.dim]), atol=1e-6)
    for size, vectors in tiny.encode(texts, SIZES, normalize=False).items():
        np.testing.assert_array_equal(vectors, raw[size.layers][:, : size.dim])
        assert vectors.base is None, "a view would keep the widest vectors in memory"


@pytest.mark.parametrize("budget", [1, 64, 8192])
def test_the_order_of_texts_is_kept(tiny: ElasticEncoder, budget: int) -> None:
    texts, size, done = some_texts(40), Size(3, 32), list[int]()
    tiny.token_budget = budget
    found = tiny.encode(texts, [size], progress=done.append)[size]
    pooled = tiny.pool_layers(texts, [3])[3]
    for row, text in enumerate(texts):
        np.testing.assert_allclose(found[row], tiny.encode([text], [size])[size][0], atol=1e-5)
        np.testing.assert_allclose(found[row], unit(pooled[row : row + 1])[0], atol=1e-5)
    assert sum(done) == len(texts)
    assert (len(done) == 1) is (budget == 8192)


def test_no_texts_are_no_rows(tiny: ElasticEncoder) -> None:
    assert {size: vectors.shape for size, vectors in tiny.encode([], SIZES).items()} == {
        size: (0, size.dim) for size in SIZES
    }
    assert tiny.encode_layers([], [2])[2].shape == tiny.pool_layers([], [2])[2].shape == (0, 32)
    assert tiny.begin([]).at(Size(2, 5)).shape == (0, 5)


@pytest.mark.parametrize("size", [(7, 64), (6, 1024), (7, 1024)])
def test_a_size_that_the_model_lacks(embedded: ElasticEncoder, size: tuple[int, int]) -> None:
    name = f"L{size[0]}-d{size[1]}"
    expected = f"the model embedded has no size {name}: it has layers 1 to 6 and 1 to 768 dimensions"
    with pytest.raises(SizeError, match=expected):
        embedded.encode(["a text"], [Size(1, 1), Size(*size)])
    with pytest.raises(SizeError, match=expected):
        embedded.begin(["a text"]).at(Size(*size))


def test_layers_start_at_one(tiny: ElasticEncoder) -> None:
    with pytest.raises(SizeError, match="size L0-d8 is not possible: layers and dimensions start at 1"):
        Size(0, 8)
    with pytest.raises(SizeError, match="layers and dimensions start at 1"):
        tiny.encode_layers(["a text"], [0])
    with pytest.raises(SizeError, match="blocks 1 to 4 remain"):
        tiny.pool_layers(["a text"], [0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_an_encoding_is_right_in_any_order_of_sizes(embedded: ElasticEncoder, seed: int) -> None:
    texts = some_texts(5)
    sizes = [Size(layers, dim) for layers in range(1, 7) for dim in (64, 768)]
    expected = embedded.encode(texts, sizes, role="query")
    random.Random(seed).shuffle(sizes)
    encoding = embedded.begin(texts)
    for size in sizes:
        np.testing.assert_array_equal(encoding.at(size), expected[size])


def test_an_encoding_runs_no_block_twice_on_the_way_down(tiny: ElasticEncoder) -> None:
    calls: list[int] = []
    forwards = tiny.checkpoint.blocks.forwards
    for number, forward in enumerate(forwards):

        def noted(*args: Any, number: int = number, forward: Any = forward, **kwargs: Any) -> Any:
            calls.append(number)
            return forward(*args, **kwargs)

        forwards[number] = noted
    encoding = tiny.begin(["the river", "a town"])
    assert calls == []
    for layers, expected in ((2, [0, 1]), (2, [0, 1]), (3, [0, 1, 2])):
        encoding.at(Size(layers, 8))
        assert calls == expected


@pytest.mark.parametrize(
    ("prompts", "default", "query", "passage"),
    [
        ({"query": "query", "document": "passage of"}, None, "query", "passage of"),
        ({"query": "query", "passage": "passage of"}, None, "query", "passage of"),
        # sentence-transformers writes an empty "document" beside a model's own "passage"
        ({"query": "query", "document": "", "passage": "passage of"}, None, "query", "passage of"),
        ({"query": "query"}, "query", "query", ""),
        ({"query": None, "document": ""}, None, "", ""),
        ({"query": "", "document": "", "other": "one"}, "other", "", ""),
        ({"other": "one"}, "other", "one", "one"),
        ({"other": "one"}, None, "", ""),
        (None, None, "", ""),
    ],
)
def test_prompts_of_queries_and_passages(
    folder: Path, prompts: dict[str, str | None] | None, default: str | None, query: str, passage: str
) -> None:
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": prompts, "default_prompt_name": default})
    )
    encoder, size, text = ElasticEncoder.load(folder, "float32", "cpu"), Size(2, 32), " the river flows"
    (folder / "config_sentence_transformers.json").unlink()
    plain = ElasticEncoder.load(folder, "float32", "cpu")
    roles: list[tuple[Role, str]] = [("query", query), ("passage", passage)]
    for role, prompt in roles:
        np.testing.assert_array_equal(
            encoder.encode([text], [size], role)[size], plain.encode([prompt + text], [size], role)[size]
        )


def test_bfloat16_stays_close_to_float32(embedded: ElasticEncoder) -> None:
    half = ElasticEncoder.load("embedded", "bfloat16", "cpu")
    assert (half.dtype, embedded.dtype) == (torch.bfloat16, torch.float32)
    texts = [*some_texts(20), "Which river flows through the town where the painter of the night was born?"]
    sizes = [Size(2, 768), Size(6, 768)]
    exact, rounded = embedded.encode(texts, sizes), half.encode(texts, sizes)
    for size in sizes:
        cosines = (exact[size] * rounded[size]).sum(axis=1)
        assert cosines.min() > 0.999 and cosines.max() < 1.0001
        assert not np.array_equal(exact[size], rounded[size])


def test_a_text_without_tokens_is_a_finite_vector(folder: Path) -> None:
    """Where the tokenizer adds no special tokens, an empty text has no token at all."""
    encoder = ElasticEncoder.load(_without_special_tokens(folder), "float32", "cpu")
    for texts in (["", "", ""], ["the river", ""]):
        assert np.isfinite(encoder.encode(texts, [Size(4, 32)])[Size(4, 32)]).all()
    alone, beside = encoder.encode([""], [Size(4, 32)]), encoder.encode(["the river flows", ""], [Size(4, 32)])
    np.testing.assert_allclose(alone[Size(4, 32)][0], beside[Size(4, 32)][1], atol=1e-5)


def test_the_head_moves_with_the_model(folder: Path) -> None:
    (folder / "2_Dense").mkdir()
    torch.save({"weight": torch.ones(8, 32), "bias": torch.ones(8)}, folder / "2_Dense/pytorch_model.bin")
    (folder / "2_Dense/config.json").write_text('{"in_features": 32, "out_features": 8}')
    modules = [{"path": "", "type": "Transformer"}, {"path": "2_Dense", "type": "Dense"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    checkpoint = ElasticEncoder.load(folder, "float32", "cpu").checkpoint
    encoder = ElasticEncoder(checkpoint, "tiny", torch.device("meta"))
    assert encoder._head(1, {1: torch.ones(2, 32, device="meta")}).shape == (2, 8)


def _without_special_tokens(folder: Path) -> Path:
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["post_processor"] = None
    file.write_text(json.dumps(settings))
    assert Tokenizer.from_file(str(file)).encode("").ids == []
    return folder
