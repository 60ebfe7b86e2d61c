"""The command's options: what is refused, in one sentence and with exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.errors import ConfigError
from rag_ese.plan.config import read_bytes

Main = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recall", "0"], "recall: 0 is not above 0 and at most 1: give a share such as 0.99"),
        (["--recall", "1.01"], "recall: 1.01 is not above 0 and at most 1"),
        (["--recall", "nan"], "recall: nan is not above 0 and at most 1"),
        (["--p99-ms", "nan"], "nan is not a time above 0"),
        (["--p99-ms", "inf"], "inf is not a time above 0"),
        (["--p99-ms", "-3"], "-3 is not a time above 0"),
        (["--ram", "lots"], "cannot read the memory 'lots': write a number and a unit, such as 512MB or 2GiB"),
        (["--ram", "nan"], "cannot read the memory 'nan'"),
        (["--ram", "0MB"], "the memory '0MB' is not an amount"),
        (["--k", "7"], "k 7 is not possible over a pool of 6 passages: choose 1 to 6"),
        (["--k", "0"], "k 0 is not possible"),
        (["--k", "2"], "holds 0 questions"),
    ],
)
def test_what_is_refused(
    store_of: Callable[..., Any], run_main: Main, tmp_path: Path, options: list[str], message: str
) -> None:
    store, _ = store_of({6: np.eye(6, 24, dtype=np.float32)}, "L6-d24")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    out = tmp_path / "plan.json"
    code, printed, said = run_main("plan", "--index", store.folder, "--questions", empty, "--out", out, *options)
    assert (code, printed) == (2, "") and message in said and len(said.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [("4096", 4096), ("1kB", 1000), ("1 KiB", 1024), ("512mb", 512 * 10**6), ("1.5GiB", 3 << 29), ("2T", 2 * 10**12)],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert read_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "-5MB", "5XB", "1e3", "5 M B", "9" * 30])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="the memory"):
        read_bytes(text)
