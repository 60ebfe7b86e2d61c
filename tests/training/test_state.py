"""A training state comes back as it was, belongs to one configuration, and survives a kill and a full disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rag_ese.training.state as state
from rag_ese.errors import ConfigError, StorageError
from rag_ese.training.state import load_state, save_state

CONFIG = {"lr": 0.1, "seed": 0}


def trained(seed: int) -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
    torch.manual_seed(seed)
    parameters = {"backbone.a/b": nn.Parameter(torch.randn(3, 2)), "heads.c": nn.Parameter(torch.randn(2))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(3):
        sum(each.pow(2).sum() for each in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return parameters, optimizer


def save(
    folder: Path, seed: int = 0, extra: Mapping[str, Tensor] | None = None, **counters: Any
) -> dict[str, nn.Parameter]:
    parameters, optimizer = trained(seed)
    save_state(folder, CONFIG, counters, parameters, optimizer, extra or {})
    return parameters


def test_weights_optimiser_and_counters_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    before, optimizer = trained(0)
    save_state(folder, CONFIG, {"step": 3, "best": 0.25}, before, optimizer, {"covariance": torch.eye(2)})
    after, fresh = trained(1)
    found = load_state(folder, CONFIG, after, fresh)
    assert found is not None
    assert found[0] == {"step": 3, "best": 0.25} and torch.equal(found[1]["covariance"], torch.eye(2))
    for (name, one), other in zip(before.items(), after.values(), strict=True):
        assert torch.equal(one, other), name
        for key, value in optimizer.state[one].items():
            assert torch.equal(torch.as_tensor(value), fresh.state[other][key]), key
    for parameters, each in ((before, optimizer), (after, fresh)):  # and so the next step is the same
        sum(p.pow(3).sum() for p in parameters.values()).backward()
        each.step()
    assert all(torch.equal(one, other) for one, other in zip(before.values(), after.values(), strict=True))


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state", CONFIG, *trained(0)) is None


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    save(tmp_path / "state")
    with pytest.raises(ConfigError, match=r"lr was 0\.1, is 0\.2.*another --out"):
        load_state(tmp_path / "state", {**CONFIG, "lr": 0.2}, *trained(0))


def test_killed_between_the_renames(tmp_path: Path) -> None:
    kept = save(tmp_path / "state", step=7)
    (tmp_path / "state").rename(tmp_path / ".state.previous")
    parameters, optimizer = trained(1)
    found = load_state(tmp_path / "state", CONFIG, parameters, optimizer)
    assert found is not None and found[0]["step"] == 7
    assert torch.equal(parameters["heads.c"], kept["heads.c"])


def test_a_full_disk_keeps_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save(tmp_path / "state", step=1)

    def full(tensors: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(StorageError, match="the disk is full"):
        save(tmp_path / "state", seed=5, step=2)
    parameters, optimizer = trained(1)
    found = load_state(tmp_path / "state", CONFIG, parameters, optimizer)
    assert found is not None and found[0]["step"] == 1 and torch.equal(parameters["heads.c"], kept["heads.c"])


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    save(tmp_path / "state")
    (tmp_path / "state" / state.TENSORS).write_bytes(b"short")
    with pytest.raises(StorageError, match="remove it to start anew"):
        load_state(tmp_path / "state", CONFIG, *trained(0))
