"""What a run writes down as it goes: one JSON object a step in log.jsonl, and TensorBoard events where asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_ese.errors import MissingExtraError, disk_errors


class Journal:
    """Appends to `folder`/log.jsonl; a resumed run first drops the lines after the step that it goes on from."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._file = folder / "log.jsonl"
        with disk_errors("writing the log to", self._file):
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else []
            kept = [line for line in lines if _step(line) <= step]
            self._file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._events: Any = _events(folder) if tensorboard else None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Notes `values` (numbers and names) under the number of a step."""
        with disk_errors("writing the log to", self._file), self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._events:
            for name, value in _flat(values).items():
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        if self._events:
            self._events.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut off when the run was killed


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    maps = {key: each for key, each in values.items() if isinstance(each, Mapping)}
    nested = {f"{key}/{name}": value for key, each in maps.items() for name, value in each.items()}
    return {key: each for key, each in {**values, **nested}.items() if isinstance(each, int | float)}


def _events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("train", "the TensorBoard log") from error
    return SummaryWriter(str(folder / "tensorboard"))
