"""Training by plain attention against the library's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

from rag_ese.training.plain_attention import use_plain_attention

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def gradients(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of a sum over the states of three texts, two of them padded."""
    ids = torch.randint(5, 50, (3, 40), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 25:] = 0
    mask[2, 1:] = 0
    model.zero_grad()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    (states.float() ** 3)[mask == 1].mean().backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_library(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SMALL), add_pooling_layer=False).eval()
    theirs = gradients(model, dtype)
    use_plain_attention(model)
    assert model.config._attn_implementation == "rag_ese_plain"
    ours = gradients(model, dtype)
    assert ours.keys() == theirs.keys()
    scale = max(float(each.abs().max()) for each in theirs.values())
    for name, each in ours.items():
        torch.testing.assert_close(each, theirs[name], atol=scale * (1e-5 if dtype == torch.float32 else 0.02), rtol=0)


def test_with_dropout_the_library_attends() -> None:
    torch.manual_seed(0)
    options = {**SMALL, "attention_probs_dropout_prob": 0.3, "hidden_dropout_prob": 0.0}
    model = BertModel(BertConfig(**options), add_pooling_layer=False).train()
    theirs = gradients(model, torch.float32)
    use_plain_attention(model)
    for name, each in gradients(model, torch.float32).items():
        torch.testing.assert_close(each, theirs[name])


@pytest.mark.parametrize("model", [MPNetModel(MPNetConfig(**SMALL)), BertModel(BertConfig(**SMALL, is_decoder=True))])
def test_other_models_stay_as_they_are(model: nn.Module) -> None:
    before = model.config._attn_implementation
    use_plain_attention(model)
    assert model.config._attn_implementation == before
