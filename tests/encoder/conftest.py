"""A tiny random BERT of 4 layers and 32 dimensions, and the embedded model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from rag_ese.encoder import ElasticEncoder

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
WORDS = "a the river town painter born flows through where was which long word query passage of and not one two"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny matrices are slowed down by torch's own threads where other processes compete for the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def embedded() -> ElasticEncoder:
    return ElasticEncoder.load("embedded", "float32", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model as a plain Hugging Face folder."""
    torch.manual_seed(3)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *WORDS.split()])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    path = tmp_path / "tiny"
    BertModel(config, add_pooling_layer=False).save_pretrained(path)
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL).save_pretrained(path)
    return path


@pytest.fixture
def tiny(folder: Path) -> ElasticEncoder:
    return ElasticEncoder.load(folder, "float32", "cpu")
