"""Where the encoder runs, and in which precision."""

from __future__ import annotations

import torch

from rag_ese.errors import ConfigError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU; a device that is named must be there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: write auto, cpu, cuda, cuda:0 or mps") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(_has_mps())}
    if device.type not in counts:
        raise ConfigError(f"unknown device {name!r}: write auto, cpu, cuda, cuda:0 or mps")
    if (device.index or 0) >= counts[device.type]:
        raise ConfigError(f"the device {name} is not available on this machine: use --device auto or cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` takes bfloat16 where the device computes in it natively, and float32 elsewhere."""
    if name in _DTYPES:
        return _DTYPES[name]
    if name != "auto":
        raise ConfigError(f"unknown dtype {name!r}: write auto, {', '.join(_DTYPES)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    native = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if native else torch.float32


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
