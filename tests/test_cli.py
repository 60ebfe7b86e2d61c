"""What is wrong with a command is one sentence on standard error and exit code 2; standard output stays empty."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_ese import cli
from rag_ese.errors import ConfigError, StorageError, disk_errors
from rag_ese.index import Store, build
from rag_ese.types import Passage

Main = Callable[..., tuple[int, str, str]]

QUESTION = {
    "_id": "q1",
    "question": "Which river does Ada Bridge span?",
    "answer": "Lune",
    "type": "bridge",
    "level": "easy",
    "supporting_facts": [["Ada Bridge", 0], ["Lune", 0]],
    "context": [["Ada Bridge", ["Ada Bridge spans the Lune."]], ["Lune", ["The Lune is a river."]]],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good.json, bad.json and file."""
    monkeypatch.chdir(tmp_path)
    second = {**QUESTION, "_id": "q2", "question": "Is the Lune a river?", "answer": "yes"}
    (tmp_path / "good.json").write_text(json.dumps([QUESTION, second]))
    (tmp_path / "bad.json").write_text('[\n {"_id": "q1",\n  "question": ?}\n]')
    (tmp_path / "bare.json").write_text(json.dumps([{key: QUESTION[key] for key in QUESTION if key != "context"}]))
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.fixture
def store(here: Path, encoder: Any, passages: Callable[[int], list[Passage]], plan: Callable[..., Any]) -> Store:
    """The index `built`, made with the encoder `fake` at revision r1."""
    return build(here / "built", plan(), lambda: passages(3), encoder)


def refused(result: tuple[int, str, str]) -> str:
    """The one sentence."""
    code, printed, said = result
    assert code == 2 and printed == "", said
    assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, said
    assert "Traceback" not in said
    return said.removeprefix("error: ").removesuffix("\n")


INDEX = ["index", "hotpotqa", "--data", "good.json"]
EVAL = ["eval", "hotpotqa", "--data", "good.json", "--generator", "none"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*EVAL[:2], "--data", "gone.json"], "gone.json does not exist; check the path"),
        ([*EVAL[:2], "--data", "bad.json"], "bad.json, line 3, column 15: malformed JSON (Expecting value)"),
        ([*EVAL[:2], "--data", "file"], "file has an unknown ending; HotpotQA files end in .json"),
        ([*INDEX[:2], "--data", "."], ". is a folder; name the file in it"),
        ([*INDEX[:2], "--data", "bare.json"], "bare.json, question 1 (q1): the field 'context' is"),
        ([*EVAL, "--limit", "0"], "limit: input should be greater than or equal to 1, got '0'"),
        ([*EVAL, "--limit", "many"], "limit: input should be a valid integer"),
        ([*EVAL, "--setting", "wiki"], "setting: input should be 'distractor' or 'fullwiki', got 'wiki'"),
        ([*EVAL, "--out", "file"], "creating file failed: a file of that name is in the way"),
        ([*EVAL, "--out", "file/below"], "creating file/below failed: a part of the path is a file, not a folder"),
        ([*INDEX, "--model", "./gone"], "there is no model folder gone"),
        ([*INDEX, "--model", "."], "is not a model folder"),
        ([*INDEX, "--dtype", "float8"], "float8"),
        ([*INDEX, "--device", "abacus"], "abacus"),
        ([*INDEX, "--corpus", "gone.jsonl"], "gone.jsonl does not exist; check the path"),
        ([*INDEX, "--corpus", "file"], "file has an unknown ending; a corpus is a .jsonl"),
        ([*INDEX, "--sizes", "1024"], "no size L6-d1024: it has layers 1 to 6 and 1 to 768 dimensions"),
        ([*INDEX, "--sizes", "L7-d64"], "no size L7-d64: it has layers 1 to 6"),
        ([*INDEX, "--sizes", "64", "--layers", "2,7"], "no size L7-d64: it has layers 1 to 6"),
        ([*INDEX, "--sizes", "L0-d64"], "size L0-d64 is not possible: layers and dimensions start at 1"),
        ([*INDEX, "--sizes", "64", "--layers", "0"], "size L0-d64 is not possible"),
        ([*INDEX, "--sizes", "wide"], "cannot read the size 'wide': write L3-d64"),
        ([*INDEX, "--sizes", ""], "no size was given"),
        ([*INDEX, "--layers", "2;4"], "cannot read the layers '2;4': write numbers such as 2,4,6"),
        ([*INDEX, "--layers", "²"], "cannot read the layers '²'"),
        ([*INDEX, "--kind", "garbage"], "FAISS knows no index 'garbage' for 64 dimensions: choose flat, fp16"),
        ([*INDEX, "--stored", "int4"], "stored: input should be 'float32' or 'float16', got 'int4'"),
        ([*INDEX, "--shard", "0"], "shard: input should be greater than or equal to 1"),
        ([*INDEX, "--out", "file"], "a file of that name is in the way"),
        ([*INDEX, "--out", "file/below"], "a part of the path is a file, not a folder"),
        ([*INDEX, "--out", ".", "--name", "file", "--overwrite"], "file exists and is not an index"),
        ([*INDEX, "--name", "../up"], "the name '../up' is not a plain folder name"),
        ([*EVAL, "--kind", "pq4; 256=sq8"], "the kind 'pq4; 256=sq8' is for L6-d256, which is not built"),
        ([*EVAL, "--kind", "pq4; 64"], "cannot read '64' in the kind 'pq4; 64'"),
        ([*EVAL, "--funnel", "garbage"], "cannot read the funnel stage 'garbage': write SIZE:KEEP stages"),
        ([*EVAL, "--funnel", "64:5 > 64:9"], "the funnel 'L6-d64:5 > L6-d64:9' cannot run"),
        ([*EVAL, "--funnel", "64:5 > 1024:3"], "no size L6-d1024"),
        ([*EVAL[:-1], "garbage"], "there is no generator 'garbage': write auto, none, reader[:FOLDER], rules,"),
        ([*EVAL, "--prompt", "gone"], "there is no prompt 'gone': choose hotpotqa-v1"),
        ([*EVAL[:-1], "rules", "--cache", "file/x"], "creating the folder file failed"),
        ([*EVAL[:-1], "rules", "--cache", "file"], "the answer cache file is damaged or no cache"),
        ([*EVAL, "--index", "nowhere"], "nowhere holds no complete index: build one with python -m rag_ese.index"),
        ([*EVAL, "--index", "x", "--corpus", "y"], "--corpus belongs to the index"),
        (["index", "inspect", "nowhere"], "nowhere holds no complete index"),
        (["index", "verify", "file"], "file holds no complete index"),
        (["index", "extend", "nowhere"], "sizes is not given: sizes to add"),
        (["index", "extend", "nowhere", "--sizes", "64"], "nowhere holds no complete index"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input(here: Path, run_main: Main, command: list[str], message: str) -> None:
    assert message in refused(run_main(*command))
    assert (here / "file").read_text() == "mine"
    assert [*here.glob("eval/runs/hotpotqa-*")] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sizes: '64'\nsises: '128'\n", "unknown key 'sises' in config.yaml: the keys are"),
        ("sizes: [64\n", "config.yaml is not valid YAML"),
        ("- sizes\n", "config.yaml holds a list, not a list of key: value lines"),
        ("seed: 2020-99-99\n", "config.yaml is not valid YAML"),
        ("limit: few\n", "limit in config.yaml: input should be a valid integer"),
        ("sizes: 'é\udcff'\n", "config.yaml is not valid YAML"),
        (None, "cannot read the configuration file config.yaml: No such file or directory"),
    ],
)
def test_wrong_configuration_files(here: Path, run_main: Main, content: str | None, message: str) -> None:
    if content is not None:
        (here / "config.yaml").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert message in refused(run_main(*EVAL, "--config", "config.yaml"))


def test_an_index_of_another_model(store: Store, run_main: Main) -> None:
    message = "built was built with fake at revision r1, but the model in use is embedded at revision "
    assert message in refused(run_main(*EVAL, "--index", "built"))
    assert message in refused(run_main("index", "extend", "built", "--sizes", "32"))


def test_a_truncated_index(store: Store, run_main: Main) -> None:
    path = store.folder / "faiss" / "L6-d24.faiss"
    os.truncate(path, 100)
    for command in ([*EVAL, "--index", "built"], ["index", "inspect", "built"], ["index", "verify", "built"]):
        assert "L6-d24.faiss has 100 bytes instead of" in refused(run_main(*command))


def test_a_changed_index(store: Store, run_main: Main) -> None:
    path = store.folder / "faiss" / "L6-d24.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run_main("index", "inspect", "built")[0] == 0
    assert "L6-d24.faiss has changed since it was built" in refused(run_main("index", "verify", "built"))


def test_an_index_that_stays_as_it_was_asked_for(here: Path, run_main: Main) -> None:
    assert run_main(*INDEX, "--sizes", "16", "--name", "one", "--dtype", "float32")[0] == 0
    assert run_main(*INDEX, "--sizes", "16", "--name", "one", "--dtype", "float32")[0] == 0
    again = [*INDEX, "--name", "one", "--dtype", "float32", "--sizes"]
    assert "sizes L6-d16 there, L6-d24 here" in refused(run_main(*again, "24"))
    assert "kind flat there, sq8 here" in refused(run_main(*again, "16", "--kind", "sq8"))
    named = [*EVAL, "--index", "indexes/one", "--sizes", "16"]
    assert "kind hnsw was asked for, but indexes/one was built with flat" in refused(run_main(*named, "--kind", "hnsw"))
    extend = ["index", "extend", "indexes/one", "--sizes", "L3-d16"]
    message = "built in float32, and the encoder that should add layer 3 runs in bfloat16: add --dtype float32"
    assert message in refused(run_main(*extend, "--dtype", "bfloat16"))
    assert run_main(*extend, "--dtype", "float32")[0] == 0
    other = json.dumps([{**QUESTION, "supporting_facts": [["Sea", 0]], "context": [["Sea", ["The sea."]]]}])
    (here / "other.json").write_text(other)
    foreign = ["eval", "hotpotqa", "--data", "other.json", "--generator", "none", "--index", "indexes/one"]
    message = "indexes/one holds none of the 1 gold passages of other.json"
    assert message in refused(run_main(*foreign, "--sizes", "16", "--dtype", "float32"))


def test_dry_run_builds_nothing(here: Path, run_main: Main) -> None:
    code, printed, _ = run_main(*INDEX, "--sizes", "16,64", "--kind", "hnsw", "--dry-run")
    assert code == 0 and "not built" in printed and "L6-d64: HNSW32" in printed
    assert not (here / "indexes").exists()


def test_the_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    clean = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and "OFFLINE" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "rag_ese.index", "hotpotqa", "--data", "hub"],
        cwd=tmp_path,
        env={**clean, "HF_ENDPOINT": f"http://127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "the Hugging Face hub cannot be reached" in refused((done.returncode, done.stdout, done.stderr))
    assert list(tmp_path.iterdir()) == []


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Callable[[], None]:
        def action() -> None:
            raise error

        return action

    assert cli.guarded(lambda: None) == 0
    assert cli.guarded(fail(ConfigError("[bold]no[/bold]"))) == 2
    assert capsys.readouterr().err == "error: [bold]no[/bold]\n"  # not taken for markup
    assert cli.guarded(fail(OSError(28, "No space left on device"))) == 2
    assert capsys.readouterr().err.startswith("error: writing to the disk failed: the disk is full; free space")
    assert cli.guarded(fail(KeyboardInterrupt())) == 130
    assert "run the same command again" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a bug shows its traceback
        cli.guarded(fail(ZeroDivisionError()))


def test_what_the_disk_says() -> None:
    for error in (OSError(28, ""), OSError("200 requested and 100 written")):
        with pytest.raises(StorageError, match=r"^saving x failed: .*; free space or"), disk_errors("saving", "x"):
            raise error
    for other in (OSError("something else"), OSError(4, "")):
        with pytest.raises(OSError, match=r"something else|Errno 4"), disk_errors("saving", "x"):
            raise other


def test_long_sentences_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    cli.notice("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1
