"""Packed blocks against the library's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from rag_ese.encoder import packed_block
from rag_ese.encoder.packed_block import PackedBlock, pack_blocks

FAMILY = [(BertConfig, BertModel), (RobertaConfig, RobertaModel), (XLMRobertaConfig, XLMRobertaModel)]
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 60,
    "initializer_range": 0.3,
}


def small(config: Any = BertConfig, model: Any = BertModel, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = model(config(**{**SMALL, **options})).eval()
    return made


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Three texts, two of them padded."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (3, 40), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 25:] = 0
    mask[2, 1:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[PackedBlock]:
    """The packed blocks that have run."""
    ran: list[PackedBlock] = []
    call = PackedBlock.__call__

    def noted(self: PackedBlock, hidden: Tensor, mask: Tensor | None) -> Tensor:
        ran.append(self)
        return call(self, hidden, mask)

    monkeypatch.setattr(PackedBlock, "__call__", noted)
    return ran


def states(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The last states of what is no padding."""
    with torch.inference_mode():
        return model(**inputs).last_hidden_state[inputs["attention_mask"] == 1]  # type: ignore[no-any-return]


needs_kernels = pytest.mark.skipif(
    not packed_block.has_kernels(torch.float32), reason="this torch has no packed products of oneDNN"
)
needs_bf16 = pytest.mark.skipif(
    not packed_block.has_kernels(torch.bfloat16), reason="no packed products in bfloat16 on this processor"
)


@needs_kernels
@pytest.mark.parametrize(("config", "model"), FAMILY)
def test_states_are_those_of_the_library(
    config: Any, model: Any, inputs: dict[str, Tensor], counted: list[PackedBlock]
) -> None:
    own = small(config, model)
    expected = states(own, inputs)
    pack_blocks(own)
    np.testing.assert_allclose(states(own, inputs), expected, atol=2e-5)
    whole = {name: each[:1] for name, each in inputs.items()}  # no mask reaches the blocks
    np.testing.assert_allclose(states(own, whole), expected[:40], atol=2e-5)
    assert len(counted) == 6
    assert len(set(map(id, counted))) == 3, "packed once"


@needs_bf16
def test_half_precision_is_as_near_to_float32_as_the_library(
    inputs: dict[str, Tensor], counted: list[PackedBlock]
) -> None:
    exact = states(small(), inputs)
    model = small().to(torch.bfloat16)
    theirs = (states(model, inputs).float() - exact).abs().mean()
    pack_blocks(model)
    ours = (states(model, inputs).float() - exact).abs().mean()
    assert len(counted) == 3
    assert ours < 1.2 * theirs


def written(model: nn.Module) -> None:
    with torch.no_grad():
        model.encoder.layer[1].intermediate.dense.bias.add_(1)  # type: ignore[union-attr, index]


def replaced_weight(model: nn.Module) -> None:
    model.encoder.layer[1].output.dense.weight = nn.Parameter(torch.ones(32, 48))  # type: ignore[union-attr, index]


def other_data(model: nn.Module) -> None:
    model.encoder.layer[1].output.dense.weight.data = torch.ones(32, 48)  # type: ignore[union-attr, index]


def replaced_map(model: nn.Module) -> None:
    torch.manual_seed(2)
    model.encoder.layer[1].attention.self.value = nn.Linear(32, 32)  # type: ignore[union-attr, index]


def adapted(model: nn.Module) -> None:
    """A map that is no plain one any more, as adapters make it."""

    class Doubled(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            return 2 * super().forward(hidden)

    model.encoder.layer[1].attention.self.value = Doubled(32, 32)  # type: ignore[union-attr, index]


@needs_kernels
@pytest.mark.parametrize("change", [written, replaced_weight, other_data, replaced_map, adapted])
def test_changed_weights_count(change: Callable[[nn.Module], None], inputs: dict[str, Tensor]) -> None:
    model = small()
    pack_blocks(model)
    before = states(model, inputs)
    change(model)
    after = states(model, inputs)
    for module in model.modules():
        module.__dict__.pop("forward", None)
    np.testing.assert_allclose(after, states(model, inputs), atol=2e-5)
    assert (after - before).abs().max() > 1e-3


def test_weights_that_do_not_count_their_changes_are_not_packed(
    inputs: dict[str, Tensor], counted: list[PackedBlock]
) -> None:
    with torch.inference_mode():
        model = small()
    expected = states(model, inputs)
    pack_blocks(model)
    assert torch.equal(states(model, inputs), expected)
    assert counted == []


def test_training_runs_the_blocks_of_the_library(inputs: dict[str, Tensor], counted: list[PackedBlock]) -> None:
    model = small()
    pack_blocks(model)
    model(**inputs).last_hidden_state.sum().backward()
    with torch.no_grad():
        model(**inputs)
    assert counted == []
    assert all(p.grad is not None for name, p in model.named_parameters() if "encoder" in name)


@pytest.mark.parametrize(
    "model",
    [
        small(hidden_act="relu"),
        small(hidden_act="gelu_new"),
        small(is_decoder=True),
        small(MPNetConfig, MPNetModel),
        small().to(torch.float16),
    ],
    ids=["relu", "approximate GELU", "decoder", "MPNet", "float16"],
)
def test_other_blocks_run_as_they_are(model: nn.Module, inputs: dict[str, Tensor], counted: list[PackedBlock]) -> None:
    expected = states(model, inputs)
    pack_blocks(model)
    assert torch.equal(states(model, inputs), expected)
    assert counted == []


def test_without_the_kernels_blocks_run_as_they_are(
    inputs: dict[str, Tensor], counted: list[PackedBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_block, "has_kernels", packed_block.has_kernels.__wrapped__)  # nothing remembered
    monkeypatch.setattr(packed_block, "_pack", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator")))
    model = small()
    expected = states(model, inputs)
    pack_blocks(model)
    assert torch.equal(states(model, inputs), expected)
    assert counted == []


@needs_kernels
def test_a_pass_in_two_parts_gives_the_same_bits(counted: list[PackedBlock]) -> None:
    from rag_ese.encoder.blocks import BlockModel, Pass

    model = BlockModel(small())
    inputs = {"input_ids": torch.arange(5, 25)[None], "attention_mask": torch.ones(1, 20, dtype=torch.long)}
    with torch.inference_mode():
        whole = Pass(model, inputs).run([1, 3])
        parts = Pass(model, inputs)
        first, rest = parts.run([1]), parts.run([3])
    assert len(counted) == 6
    assert torch.equal(whole[1], first[1])
    assert torch.equal(whole[3], rest[3])
