"""The results of an STS evaluation, and the files that they are kept in: metrics.json and report.md."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_ese.errors import disk_errors
from rag_ese.types import Size

SCHEMA = 1

SetScores = Mapping[str, float]
"""Set -> Spearman's correlation of cosine and gold, in points of 100."""


@dataclass
class ModelScores:
    """One model: its score of every set at every size, and of its rotated last layer at every width."""

    name: str
    revision: str
    dtype: str
    depth: int
    width: int
    layers: list[int]
    dims: list[int]
    scores: dict[Size, SetScores]
    controls: dict[str, dict[int, SetScores]]
    encoding: dict[str, float]

    @property
    def last(self) -> int:
        """The deepest layer that was measured."""
        return self.layers[-1]

    def average(self, size: Size) -> float | None:
        """The mean over the sets; None for a width that was not measured."""
        return mean(self.scores[size]) if size in self.scores else None

    def shallow(self, dim: int) -> float | None:
        """The mean of `average` over the measured layers but the deepest; None where there are none."""
        if len(self.layers) < 2 or dim not in self.dims:
            return None
        return float(np.mean([mean(self.scores[Size(layer, dim)]) for layer in self.layers[:-1]]))

    def control(self, name: str, dim: int) -> float | None:
        """The mean over the sets of the last layer, rotated."""
        return mean(self.controls[name][dim]) if dim in self.controls[name] else None

    def summary(self) -> dict[str, Any]:
        """Everything, with sizes by name and points rounded to 4 decimals."""
        head = {key: value for key, value in vars(self).items() if key not in ("scores", "controls")}
        averages = {str(size): round(mean(scores), 4) for size, scores in self.scores.items()}
        shallow = {str(dim): self.shallow(dim) for dim in self.dims}
        return {
            **head,
            "average": averages,
            "shallow_average": {dim: value if value is None else round(value, 4) for dim, value in shallow.items()},
            "per_set": {str(size): _rounded(scores) for size, scores in self.scores.items()},
            "controls": {
                name: {str(dim): {"average": round(mean(s), 4), **_rounded(s)} for dim, s in by_dim.items()}
                for name, by_dim in self.controls.items()
            },
        }


@dataclass(frozen=True)
class Difference:
    """The first model's average minus another's, at the last layers or averaged over the shallow ones; points of 100.

    `dim` is a width that both have, or "full" for each one's own; `low` and `high` bound it with 95%
    and are None where no resample has a rank correlation.
    """

    other: str
    layers: str
    dim: str
    difference: float
    low: float | None
    high: float | None

    def summary(self) -> dict[str, Any]:
        """Plain values, rounded to 4 decimals."""
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in vars(self).items()}


@dataclass
class StsResults:
    """A whole evaluation; `models` begins with the one that the others are compared with."""

    command: str
    config: dict[str, Any]
    data: list[dict[str, Any]]
    control_texts: dict[str, Any] | None
    models: list[ModelScores]
    differences: list[Difference]
    hardware: dict[str, Any]
    versions: dict[str, str]
    peak_memory_bytes: int
    notes: list[str]

    @property
    def pairs(self) -> int:
        return sum(each["pairs"] for each in self.data)

    def summary(self) -> dict[str, Any]:
        """What metrics.json holds and --json prints."""
        return {
            "schema": SCHEMA,
            **vars(self),
            "metric": "Spearman's rank correlation of cosine and gold score x 100",
            "seed": self.config["seed"],
            "models": [model.summary() for model in self.models],
            "differences": [each.summary() for each in self.differences],
        }

    def write(self, folder: Path, report: str) -> None:
        """Writes report.md, then metrics.json in one step: where it is, all is there."""
        with disk_errors("writing the results to", folder):
            (folder / "metrics.json").unlink(missing_ok=True)
            (folder / "report.md").write_text(report, encoding="utf-8")
            draft = folder / "metrics.json.draft"
            draft.write_text(json.dumps(self.summary(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(draft, folder / "metrics.json")


def mean(scores: SetScores) -> float:
    """The plain mean over the sets, each counting the same."""
    return float(np.mean(list(scores.values())))


def _rounded(scores: SetScores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}
