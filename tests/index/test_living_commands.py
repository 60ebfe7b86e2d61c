"""add, delete and compact on the command line: what they do, and what they refuse in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_ese.encoder.config import EncoderConfig
from rag_ese.index import LivingIndex, Store, build
from rag_ese.index.lock import exclusive
from rag_ese.types import Passage

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(
    tmp_path: Path,
    encoder: Any,
    passages: Callable[[int], list[Passage]],
    plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    encoder.dtype, encoder.check = "float32", lambda sizes: None
    monkeypatch.setattr(EncoderConfig, "load_encoder", lambda self: encoder)
    monkeypatch.chdir(tmp_path)
    records = [{"title": f"More {n}", "text": "A bridge.", "metadata": {"year": 1990 + n}} for n in range(3)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "bad.jsonl").write_text('{"title": "x", "text": "y"}\n{"title": "x", "text": 5}\n')
    (tmp_path / "list.jsonl").write_text('{"title": "x", "text": "y", "metadata": {"tags": ["a"]}}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "ids.txt").write_text(f"{passages(5)[0].id}\n{passages(5)[1].id}\n\n")
    return build(tmp_path / "mine", plan(), lambda: passages(5), encoder)


def test_a_life(store: Store, run_main: Main) -> None:
    code, said, _ = run_main("index", "add", "mine", "--corpus", "more.jsonl")
    assert code == 0 and "8 passages, generation 2" in said
    code, said, _ = run_main("index", "delete", "mine", "--ids-file", "ids.txt")
    assert code == 0 and "6 passages, generation 3" in said
    assert run_main("index", "inspect", "mine")[1] == said
    code, said, _ = run_main("index", "compact", "mine")
    assert code == 0 and "6 passages, generation 4" in said
    assert "all as they were built" in run_main("index", "verify", "mine")[1]
    index = LivingIndex.open(Path("mine"))
    assert int(index.matching({"year": {">": 1990}}).sum()) == 2
    assert [path.name for path in Path("mine/segments").iterdir()] == ["000004-merged"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["delete", "mine", "--ids", "feedfeedfeedfeed,x"], "mine does not know 2 of 2 ids, the first is 'feed"),
        (["delete", "mine"], "no id was given: use --ids A,B or --ids-file FILE"),
        (["delete", "mine", "--ids-file", "gone.txt"], "cannot read the ids in gone.txt"),
        (["add", "mine", "--corpus", "bad.jsonl"], "bad.jsonl, line 2: the field 'text' is of type int"),
        (["add", "mine", "--corpus", "list.jsonl"], "list.jsonl, line 1: the field 'metadata.tags' is [\"a\"], where"),
        (["add", "mine", "--corpus", "empty.jsonl"], "empty.jsonl has 0 passages"),
        (["add", "gone", "--corpus", "more.jsonl"], "gone holds no complete index"),
        (["extend", "mine", "--sizes", "L4-d8"], "mine is a living index, which evaluation and extend do not take"),
    ],
)
def test_refusals(store: Store, run_main: Main, arguments: list[str], message: str) -> None:
    LivingIndex.create(store.folder, store)
    code, printed, said = run_main("index", *arguments)
    assert (code, printed) == (2, "") and said.startswith(f"error: {message}") and said.count("\n") == 1, said


def test_another_encoder_and_another_writer(store: Store, run_main: Main, encoder: Any) -> None:
    LivingIndex.create(store.folder, store)
    with exclusive(store.folder, "writing to"):
        code, _, said = run_main("index", "add", "mine", "--corpus", "more.jsonl")
        assert code == 2 and said.startswith("error: another process is writing to mine: wait")
    encoder.dtype = "bfloat16"
    code, _, said = run_main("index", "add", "mine", "--corpus", "more.jsonl")
    assert code == 2 and "was built in float32, and the encoder that should add passages runs in bfloat16" in said
    encoder.revision = "r2"
    code, _, said = run_main("index", "add", "mine", "--corpus", "more.jsonl")
    assert code == 2 and "mine was built with fake at revision r1, but the model in use is fake at revision r2" in said
