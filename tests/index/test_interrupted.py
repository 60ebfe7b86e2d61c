"""Killed anywhere, or stopped by a full disk: the same command again finishes, with the bytes of an unbroken run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("kill_points.py")


def run(*arguments: object) -> Any:
    done = subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("job", "kind", "step", "least"),
    [
        ("build", "flat", 1, 60),
        ("build", "hnsw", 7, 8),
        ("extend", "flat", 2, 20),
        ("extend", "sq8", 7, 5),
        ("overwrite", "flat", 4, 12),
        ("add", "flat", 3, 20),
        ("delete", "flat", 1, 8),
        ("compact", "flat", 3, 20),
    ],
)
def test_killed_at_every_step(tmp_path: Path, job: str, kind: str, step: int, least: int) -> None:
    assert run(job, kind, tmp_path, step)["killed"] >= least


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_a_disk_that_refuses_is_one_sentence(tmp_path: Path, kind: str) -> None:
    for message in run("full", kind, tmp_path)["refused"]:
        assert message.startswith("error: building the index in ") and message.count("\n") == 1
        assert "would be larger than this system allows; free space" in message
