"""What a model's name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag_ese.encoder import names
from rag_ese.encoder.names import Source, resolve
from rag_ese.errors import ModelError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What the hub was asked for."""
    calls: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None) -> Path:
        calls.append((name, revision))
        return Path("from-hub")

    monkeypatch.setattr(names, "_download", download)
    return calls


def test_embedded_is_the_raw_folder_with_our_heads(asked: list[tuple[str, str | None]]) -> None:
    embedded, raw = resolve("embedded"), resolve("embedded-raw")
    assert embedded.path == raw.path
    assert raw.heads is None
    assert embedded.heads is not None
    assert (embedded.heads / "elastic.json").exists()
    assert asked == []


def test_folders_stay_folders(
    asked: list[tuple[str, str | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("owner/model", "./nothing", "../nothing", "/no/model", "nothing", "a/b/c"):
        assert resolve(name) == Source(Path(name))
    assert resolve("~/model") == Source(tmp_path / "model")
    assert asked == []


def test_owner_and_name_is_asked_of_the_hub(asked: list[tuple[str, str | None]]) -> None:
    assert resolve("owner/model", "abc") == Source(Path("from-hub"))
    assert asked == [("owner/model", "abc")]


def test_a_hub_that_does_not_deliver_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError) as caught:
        resolve("owner/model")
    assert str(caught.value) == (
        "there is no folder owner/model, and the hub did not deliver a model of that name: no route"
    )
