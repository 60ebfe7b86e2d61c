"""Questions made by hand, in HotpotQA's official form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONTEXT = [
    ["Ada Bridge", ["Ada Bridge spans the Lune.", " It opened in 1901."]],
    ["Lune", ["The Lune is a river."]],
    ["Noise", ["Nothing of use."]],
]


def make(name: str = "q1", **changes: Any) -> dict[str, Any]:
    record = {
        "_id": name,
        "question": "Which river does Ada Bridge span?",
        "answer": "Lune",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [["Ada Bridge", 0], ["Lune", 0]],
        "context": CONTEXT,
    }
    return {**record, **changes}


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    return make


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as the official JSON list."""

    def write(*records: Any, name: str = "hotpot.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(list(records)), encoding="utf-8")
        return path

    return write
