"""Two runs of the size study side by side: paired differences of the rows that both have, question by question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from rich import box
from rich.table import Table

from rag_ese.config import POSITIONAL, StrictModel
from rag_ese.errors import ConfigError, DataError
from rag_ese.eval.significance import Interval, paired_difference

METRICS = {"ndcg@10": "nDCG@10", "both_gold@10": "both-gold@10", "f1": "answer F1"}


class CompareConfig(StrictModel):
    """Which runs are compared."""

    run: Path = Field(description="folder of a run, with metrics.json", json_schema_extra=POSITIONAL)
    to: str = Field(description="folders of other runs on the same questions, separated by commas")
    rows: str = Field("", description="PCA L6-d64=L6-d64 compares a row with another one; several separated by commas")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples")
    seed: int = Field(0, description="seed of the bootstrap")


Row = tuple[str, str, str, Mapping[str, Interval], Mapping[str, tuple[float, float]]]
"""Row of the run, the other run's folder name, its row, the differences and the two means by metric."""


def compare_runs(config: CompareConfig) -> list[Row]:
    """Every row of the run with its counterpart in each other run: run minus other, points of 1, paired bootstrap."""
    mine = _read(config.run)
    pairs = [part.split("=") for part in config.rows.split(",") if part.strip()]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise ConfigError(f"--rows {'='.join(bad[0])!r} does not name two rows: write ROW=OTHER ROW")
    found: list[Row] = []
    for name in (part.strip() for part in config.to.split(",") if part.strip()):
        theirs = _read(Path(name))
        if mine["question_ids"] != theirs["question_ids"]:
            raise DataError(
                f"{config.run} and {name} have other questions: compare runs on the same --data and --limit"
            )
        scores, others = mine["per_question"], theirs["per_question"]
        wanted = [(first.strip(), second.strip()) for first, second in pairs] or [
            (row, row) for row in scores if row in others
        ]
        for row, other in wanted:
            if row not in scores or other not in others:
                where, known = (config.run, scores) if row not in scores else (name, others)
                raise ConfigError(
                    f"{where} has no row {row if row not in scores else other!r}: it has {', '.join(known)}"
                )
            found.append(_compared(config, row, Path(name).name, other, scores[row], others[other]))
    if not found:
        raise ConfigError(f"{config.run} and {config.to} share no row: name pairs of rows with --rows")
    return found


def table(rows: Sequence[Row]) -> Table:
    """Means and differences in points of 100; * where the 95% interval leaves out 0."""
    shown = [metric for metric in METRICS if any(metric in row[3] for row in rows)]
    result = Table("size", "against", *(f"{METRICS[metric]}, Δ [95%]" for metric in shown), box=box.SIMPLE_HEAD)
    for name, run, other, differences, means in rows:
        cells = [_cell(differences[metric], means[metric]) if metric in differences else "–" for metric in shown]
        result.add_row(name, f"{run}: {other}" if other != name else run, *cells)
    return result


def _compared(
    config: CompareConfig, row: str, run: str, other: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> Row:
    differences, means = {}, {}
    for metric in METRICS:
        first, second = mine.get(metric), theirs.get(metric)
        if first and second and None not in first and None not in second:
            differences[metric] = paired_difference(first, second, config.resamples, config.seed)
            means[metric] = (sum(first) / len(first), sum(second) / len(second))
    return row, run, other, differences, means


def _cell(interval: Interval, means: tuple[float, float]) -> str:
    star = "*" if interval.low > 0 or interval.high < 0 else ""
    low, high = 100 * interval.low, 100 * interval.high
    mine, theirs = 100 * means[0], 100 * means[1]
    return f"{mine:.1f} - {theirs:.1f} = {mine - theirs:+.1f}{star} [{low:+.1f}, {high:+.1f}]"


def _read(folder: Path) -> dict[str, Any]:
    file = folder / "metrics.json"
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        content["question_ids"], content["per_question"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not the result of a size study: name the folder of a finished run") from error
    return content
