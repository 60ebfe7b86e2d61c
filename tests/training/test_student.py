"""What is trained is what serves: same vectors, gradients where they belong, heads handed back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.heads import ViewHeads
from rag_ese.errors import ConfigError
from rag_ese.training.config import LoRA
from rag_ese.training.lora import add_adapters, merge_adapters
from rag_ese.training.student import Student
from rag_ese.types import Size

TEXTS = ["Where was the painter born?", "The river flows through the town.", "one two"]


@pytest.fixture
def elastic() -> ElasticEncoder:
    """A fresh embedded encoder: training changes it."""
    return ElasticEncoder.load("embedded", "float32", "cpu")


def test_embeds_what_the_encoder_encodes(elastic: ElasticEncoder) -> None:
    student = Student(elastic)
    student.train(dropout=False)
    rows = student.tokenize(TEXTS, "passage", 256)
    found = student.embed(rows, "passage", [1, 3, 6])
    for layer, expected in elastic.encode_layers(TEXTS, [1, 3, 6]).items():
        np.testing.assert_allclose(found[layer].detach().numpy(), expected, atol=2e-5)


def test_gradients_reach_only_the_blocks_that_ran(elastic: ElasticEncoder) -> None:
    student = Student(elastic, frozen=["embeddings"])
    rows = student.tokenize(TEXTS, "query", 256)
    student.embed(rows, "query", [2])[2].square().sum().backward()
    learning = {name for name, each in student.trained().items() if each.grad is not None}
    assert any("layer.1." in name for name in learning) and not any("layer.2." in name for name in learning)
    assert "heads.weights.2" in learning and "heads.weights.6" not in learning
    assert not any("embeddings" in name for name in student.trained())


def test_the_encoder_learns_what_the_heads_have_learned(elastic: ElasticEncoder) -> None:
    student = Student(elastic)
    before = elastic.encode(TEXTS, [Size(2, 64)])[Size(2, 64)]
    with torch.no_grad():
        dict(student.parameters())["heads.weights.2"].mul_(-1)
    student.publish()
    after = elastic.encode(TEXTS, [Size(2, 64)])[Size(2, 64)]
    assert isinstance(elastic.checkpoint.head, ViewHeads) and np.abs(after - before).max() > 0.1


@pytest.fixture
def gated(folder: Path) -> tuple[ElasticEncoder, Student]:
    encoder = ElasticEncoder.load(folder, "float32", "cpu")
    noise = torch.Generator().manual_seed(5)
    weights = {layer: torch.randn(40, 64, generator=noise) for layer in range(1, 5)}
    encoder.replace_head(ViewHeads(1, weights, {layer: torch.randn(40, generator=noise) for layer in weights}))
    return encoder, Student(encoder, frozen=["embeddings"], gates=True)


def test_gates_begin_open(gated: tuple[ElasticEncoder, Student]) -> None:
    encoder, student = gated
    rows = student.tokenize(TEXTS, "passage", 40)
    found = student.embed(rows, "passage", [1, 3])
    for layer, expected in encoder.encode_layers(TEXTS, [1, 3]).items():
        np.testing.assert_allclose(found[layer].detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_gates_learn_and_are_handed_back(gated: tuple[ElasticEncoder, Student]) -> None:
    encoder, student = gated
    rows, trained = student.tokenize(TEXTS, "passage", 40), student.trained()
    loss = student.embed(rows, "passage", [3])[3].square().sum()
    loss.backward()
    assert trained["heads.gate_weights.3"].grad is not None and trained["heads.gate_weights.1"].grad is not None
    assert trained["heads.gate_weights.4"].grad is None  # deeper than what ran
    bias, step = trained["heads.gate_biases.3"], 1e-3
    assert bias.grad is not None
    with torch.no_grad():
        bias.add_(step)
        moved = student.embed(rows, "passage", [3])[3].square().sum()
        bias.add_(5.0)
    assert float(moved - loss.detach()) / step == pytest.approx(float(bias.grad), rel=0.02)
    expected = student.embed(rows, "passage", [3])[3].detach().numpy()
    student.publish()
    np.testing.assert_allclose(encoder.encode_layers(TEXTS, [3])[3], expected, rtol=1e-3, atol=1e-3)
    again = Student(encoder, gates=True)  # gates that are there are kept
    np.testing.assert_allclose(again.embed(rows, "passage", [3])[3].detach().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_gates_belong_to_elastic_heads(tiny: ElasticEncoder) -> None:
    with pytest.raises(ConfigError, match="has no elastic heads, to which token gates belong"):
        Student(tiny, gates=True)


def test_long_texts_keep_their_last_special_token(tiny: ElasticEncoder) -> None:
    [row] = Student(tiny).tokenize(["the river town painter born flows"], "passage", 4)
    whole = tiny.tokenize(["the river town painter born flows"], "passage")[0]
    assert row == [*whole[:3], whole[-1]]


def test_bfloat16_blocks_leave_weights_and_outputs_in_float32(elastic: ElasticEncoder) -> None:
    student = Student(elastic, half=True)
    found = student.embed(student.tokenize(TEXTS, "query", 64), "query", [6])[6]
    found.sum().backward()
    assert found.dtype == torch.float32
    assert {each.dtype for each in student.trained().values()} == {torch.float32}
    expected = torch.from_numpy(elastic.encode_layers(TEXTS, [6], "query")[6])
    assert torch.nn.functional.cosine_similarity(found.detach(), expected).min() > 0.999


def test_nothing_left_to_train_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="leaves no parameter"):
        Student(ElasticEncoder.load(folder, "float32", "cpu"), frozen=["e"])


def test_adapters_start_as_nothing_learn_alone_and_are_merged(tiny: ElasticEncoder) -> None:
    model = tiny.checkpoint.blocks.model
    names = [name for name, _ in model.named_parameters()]
    before = tiny.encode(TEXTS, [Size(3, 32)])[Size(3, 32)]
    add_adapters(model, LoRA(rank=2, alpha=4, targets=["query", "value"]))
    student = Student(tiny, only="lora_")
    assert set(student.trained()) == {name for name, _ in student.parameters() if "lora_" in name}
    np.testing.assert_allclose(tiny.encode(TEXTS, [Size(3, 32)])[Size(3, 32)], before, atol=1e-6)
    with torch.no_grad():
        for each in student.trained().values():
            each.add_(0.05)
    adapted = tiny.encode(TEXTS, [Size(3, 32)])[Size(3, 32)]
    assert np.abs(adapted - before).max() > 1e-3
    merge_adapters(model)
    assert [name for name, _ in model.named_parameters()] == names
    np.testing.assert_allclose(tiny.encode(TEXTS, [Size(3, 32)])[Size(3, 32)], adapted, atol=1e-5)


def test_adapters_for_layers_that_there_are_not(tiny: ElasticEncoder) -> None:
    with pytest.raises(ConfigError, match=r"it has .*query"):
        add_adapters(tiny.checkpoint.blocks.model, LoRA(targets=["no_such_layer"]))
