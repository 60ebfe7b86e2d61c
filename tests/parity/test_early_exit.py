"""Early exit against full passes and against transformers' own hidden states, for every architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.blocks import BlockModel, Pass
from rag_ese.encoder.pooling import Pooling
from rag_ese.errors import SizeError
from rag_ese.types import Size

DEPTH, VOCABULARY, PAD = 5, 60, 1
_SHARED = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "initializer_range": 0.3, "max_position_embeddings": 40}
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
_DISTIL = {"dim": 32, "hidden_dim": 48, "n_layers": DEPTH, "n_heads": 4}

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(**_SHARED, **_SIZES),
    "roberta": lambda: RobertaConfig(**_SHARED, **_SIZES),
    "mpnet": lambda: MPNetConfig(**_SHARED, **_SIZES),
    "distilbert": lambda: DistilBertConfig(**_SHARED, **_DISTIL),
    "modernbert": lambda: ModernBertConfig(
        **_SHARED, **_SIZES, local_attention=4, global_attn_every_n_layers=3, initializer_cutoff_factor=2.0
    ),
    "qwen2": lambda: Qwen2Config(**_SHARED, **_SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**_SHARED, **_SIZES, num_key_value_heads=2, head_dim=8),
}
FINAL_NORM = {"modernbert": "final_norm", "qwen2": "norm", "qwen3": "norm"}


@pytest.fixture(params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_gradients_one_thread() -> Iterator[None]:
    """Tiny matrices are slowed down by torch's own threads where other processes compete for the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def build(kind: str) -> nn.Module:
    """The same random model at every call; its norms, too, are no identity. Its weights are as a file's would be."""
    torch.manual_seed(3)
    with torch.inference_mode(False), torch.no_grad():
        model: nn.Module = AutoModel.from_config(CONFIGS[kind]()).eval()
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(lengths: tuple[int, ...] = (12, 7, 3), seed: int = 0) -> dict[str, Tensor]:
    """Right-padded random tokens."""
    ids = torch.randint(
        PAD + 1, VOCABULARY, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(seed)
    )
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    return {"input_ids": ids * mask + PAD * (1 - mask), "attention_mask": mask}


def full_pass(model: BlockModel, inputs: dict[str, Tensor]) -> dict[int, Tensor]:
    return Pass(model, inputs).run(range(1, DEPTH + 1))


def test_an_early_exit_equals_the_full_pass_bit_for_bit(kind: str) -> None:
    model = BlockModel(build(kind))
    full = full_pass(model, batch())
    for layer in range(1, DEPTH + 1):
        assert torch.equal(Pass(model, batch()).run([layer])[layer], full[layer])
        assert layer == 1 or not torch.allclose(full[layer], full[layer - 1], atol=1e-2)


def test_layers_are_transformers_hidden_states(kind: str) -> None:
    """Its hidden_states are before the final norm, except for the last, which is after it."""
    reference = build(kind)
    output = reference(**batch(), output_hidden_states=True)
    norm = getattr(reference, FINAL_NORM[kind]) if kind in FINAL_NORM else nn.Identity()
    ours = full_pass(BlockModel(build(kind)), batch())
    near = 1e-5 if kind in ("bert", "roberta") else 0  # their blocks are packed
    for layer in range(1, DEPTH):
        torch.testing.assert_close(ours[layer], norm(output.hidden_states[layer]), atol=near, rtol=near)
    torch.testing.assert_close(ours[DEPTH], output.hidden_states[DEPTH], atol=near, rtol=near)
    torch.testing.assert_close(ours[DEPTH], output.last_hidden_state, atol=near, rtol=near)


def test_blocks_beyond_the_layer_do_not_run(kind: str) -> None:
    model = build(kind)
    calls = [0] * DEPTH
    for number, block in enumerate(_blocks(model)):
        block.forward = _counting(block.forward, calls, number)
    with torch.inference_mode(False), torch.no_grad():  # in inference mode some blocks are packed, and not called
        run = Pass(BlockModel(model), batch())
        run.run([2])
        assert calls == [1, 1, 0, 0, 0]
        assert run.layer == 2
        run.run([3, 4])
        assert calls == [1, 1, 1, 1, 0]


def test_continuing_gives_the_bits_of_one_deep_pass(kind: str) -> None:
    model = BlockModel(build(kind))
    full = full_pass(model, batch())
    for steps in ([[1], [2], [3], [4], [5]], [[2], [5]], [[1, 3], [4, 5]]):
        run = Pass(model, batch())
        for layers in steps:
            for layer, hidden in run.run(layers).items():
                assert torch.equal(hidden, full[layer])


def test_interleaved_passes_do_not_disturb_each_other(kind: str) -> None:
    model = BlockModel(build(kind))
    inputs = [batch(seed=1), batch((4, 9), seed=2)]
    expected = [full_pass(model, each)[4] for each in inputs]
    runs = [Pass(model, each) for each in inputs]
    for run in runs:
        run.run([2])
    for run, states in zip(runs, expected, strict=True):
        assert torch.equal(run.run([4])[4], states)


def test_a_padded_batch_gives_the_vectors_of_single_texts(kind: str) -> None:
    model, inputs = BlockModel(build(kind)), batch()
    pooling = Pooling(("lasttoken", "mean", "cls", "max"))
    together = full_pass(model, inputs)
    for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
        for layer, hidden in full_pass(model, alone).items():
            pooled = pooling(together[layer], inputs["attention_mask"])[row]
            torch.testing.assert_close(pooled, pooling(hidden, alone["attention_mask"])[0], atol=1e-5, rtol=1e-5)


def test_outside_of_a_pass_the_model_behaves_as_before(kind: str) -> None:
    reference, model = build(kind), BlockModel(build(kind))
    Pass(model, batch()).run([2])
    expected = reference(**batch(), output_hidden_states=True)
    output = model.model(**batch(), output_hidden_states=True)
    assert torch.equal(output.last_hidden_state, expected.last_hidden_state)
    assert len(output.hidden_states) == DEPTH + 1
    assert all(map(torch.equal, output.hidden_states, expected.hidden_states))


def test_a_pass_says_which_blocks_remain() -> None:
    run = Pass(BlockModel(build("bert")), batch())
    run.run([2])
    for layers in ([2], [1, 3], [6], []):
        with pytest.raises(SizeError, match="blocks 3 to 5 remain"):
            run.run(layers)


def test_eight_threads_run_passes_at_once(kind: str) -> None:
    model = BlockModel(build(kind))
    jobs = [(batch((3 + seed, 5), seed), 1 + seed % DEPTH) for seed in range(24)]

    def states(job: tuple[dict[str, Tensor], int]) -> Tensor:
        inputs, layer = job
        with torch.inference_mode():
            return Pass(model, inputs).run([layer])[layer]

    expected = [states(job) for job in jobs]
    with ThreadPoolExecutor(8) as threads:
        for found, wanted in zip(threads.map(states, jobs), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_eight_threads_encode_different_texts_at_once() -> None:
    encoder = ElasticEncoder.load("embedded", "float32", "cpu")
    jobs = [
        ([f"text {job} number {row} " + "long " * (job * row) for row in range(4)], Size(1 + job % 6, 100))
        for job in range(24)
    ]

    def encode(job: tuple[list[str], Size]) -> Any:
        return encoder.encode(job[0], [job[1]])[job[1]]

    expected = [encode(job) for job in jobs]
    with ThreadPoolExecutor(8) as threads:
        for found, wanted in zip(threads.map(encode, jobs), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """Found without the code under test: the longest list of modules."""
    return list(max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len))


def _counting(forward: Callable[..., Any], calls: list[int], number: int) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[number] += 1
        return forward(*args, **kwargs)

    return counted
