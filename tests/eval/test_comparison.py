"""Rows of two runs are paired by question, and what cannot be paired is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rag_ese.config import load
from rag_ese.errors import ConfigError, DataError
from rag_ese.eval.comparison import CompareConfig, compare_runs, table

COUNT = 60


def write(folder: Path, rows: dict[str, Any], ids: list[str] | None = None) -> Path:
    folder.mkdir()
    content = {"question_ids": ids or [f"q{number}" for number in range(COUNT)], "per_question": rows}
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    draw = np.random.default_rng(0)
    base = draw.random(COUNT)
    better = np.clip(base + 0.2 + 0.1 * draw.normal(size=COUNT), 0, 1)
    values = {"ndcg@10": better.tolist(), "both_gold@10": [1.0] * COUNT}
    first = write(tmp_path / "new", {"L6-d64": values, "L6-d768": {"ndcg@10": base.tolist()}})
    second = write(tmp_path / "old", {"L6-d64": {"ndcg@10": base.tolist(), "both_gold@10": [0.0, 1.0] * (COUNT // 2)}})
    return first, second


def config(run: Path, to: str, **options: Any) -> CompareConfig:
    return load(CompareConfig, None, {"run": run, "to": to, "resamples": 500, **options})


def test_shared_rows_are_paired(runs: tuple[Path, Path]) -> None:
    [(row, run, other, differences, means)] = compare_runs(config(runs[0], str(runs[1])))
    assert (row, run, other) == ("L6-d64", "old", "L6-d64")
    new, old = (json.loads((each / "metrics.json").read_text())["per_question"]["L6-d64"]["ndcg@10"] for each in runs)
    assert differences["ndcg@10"].mean == pytest.approx(np.mean(np.subtract(new, old)))
    assert means["ndcg@10"] == pytest.approx((np.mean(new), np.mean(old)))
    assert differences["ndcg@10"].low > 0 and differences["both_gold@10"].mean == pytest.approx(0.5)


def test_named_rows_are_paired(runs: tuple[Path, Path]) -> None:
    [(row, _, other, differences, _)] = compare_runs(config(runs[0], str(runs[1]), rows="L6-d768 = L6-d64"))
    assert (row, other) == ("L6-d768", "L6-d64") and differences["ndcg@10"].mean == 0


def test_the_table_shows_points_and_a_star(runs: tuple[Path, Path]) -> None:
    console = Console(width=140, record=True)
    console.print(table(compare_runs(config(runs[0], str(runs[1])))))
    text = console.export_text()
    assert "100.0 - 50.0 = +50.0*" in text and "answer F1" not in text


def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = write(tmp_path / "others", {"L6-d64": {}}, ids=["a"])
    with pytest.raises(DataError, match="have other questions"):
        compare_runs(config(runs[0], str(other)))
    with pytest.raises(DataError, match="is not the result of a size study"):
        compare_runs(config(runs[0], str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="has no row 'L9-d9': it has L6-d64"):
        compare_runs(config(runs[0], str(runs[1]), rows="L9-d9=L6-d64"))
    with pytest.raises(ConfigError, match="does not name two rows"):
        compare_runs(config(runs[0], str(runs[1]), rows="L6-d64"))
    bare = write(tmp_path / "bare", {"BM25": {}})
    with pytest.raises(ConfigError, match="share no row"):
        compare_runs(config(runs[0], str(bare)))
