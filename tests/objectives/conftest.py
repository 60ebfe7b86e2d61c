"""What the tests of the objectives share: random columns, and the two public packages that they are compared with."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def columns() -> Callable[..., list[Tensor]]:
    """count columns of rows x width, double precision, correlated by row, that want gradients."""

    def make(seed: int, rows: int = 6, width: int = 8, count: int = 3) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        common = torch.randn(rows, width, generator=draw, dtype=torch.float64)
        noise = [torch.randn(rows, width, generator=draw, dtype=torch.float64) for _ in range(count)]
        return [(common + each).requires_grad_() for each in noise]

    return make


@pytest.fixture(scope="session")
def angle_emb() -> Any:
    """angle-emb 0.6.1. It imports bitsandbytes, which it needs for quantised models only: an empty module stands in."""
    absent = "bitsandbytes" not in sys.modules
    if absent:
        stub = ModuleType("bitsandbytes")
        stub.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
        sys.modules["bitsandbytes"] = stub
    try:
        version = importlib.metadata.version("angle-emb")
        module = importlib.import_module("angle_emb.angle")
    except ImportError as error:  # PackageNotFoundError is one
        pytest.skip(f"angle-emb, the reference implementation, cannot be imported: {error}")
    finally:
        if absent:
            del sys.modules["bitsandbytes"]  # and peft, which has seen it, is to forget it
            if peft := sys.modules.get("peft.import_utils"):
                peft.is_bnb_available.cache_clear()
    if version != "0.6.1":
        pytest.skip(f"angle-emb is {version}, the reference is 0.6.1")
    return module
