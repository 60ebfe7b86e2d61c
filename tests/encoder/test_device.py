"""Devices and precisions."""

from __future__ import annotations

import pytest
import torch

from rag_ese.encoder.device import choose_device, choose_dtype
from rag_ese.errors import ConfigError

CPU = torch.device("cpu")


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 1)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:0") == torch.device("cuda:0")
    _gpus(monkeypatch, 0)
    assert choose_device("auto") == choose_device("cpu") == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 0)])
def test_a_named_device_must_be_there(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int) -> None:
    _gpus(monkeypatch, gpus)
    with pytest.raises(ConfigError, match=f"the device {name} is not available"):
        choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown device '{name}': write auto, cpu, cuda"):
        choose_device(name)


def test_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_dtype("float16", CPU) == torch.float16
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_dtype("auto", CPU) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_dtype("auto", CPU) == torch.bfloat16
    assert choose_dtype("auto", torch.device("mps")) == torch.float32
    with pytest.raises(ConfigError, match="unknown dtype 'int8': write auto, float32, bfloat16, float16"):
        choose_dtype("int8", CPU)
