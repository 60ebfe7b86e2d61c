"""Where the questions come from is never a secret."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag_ese import data
from rag_ese.data import hub
from rag_ese.data.hotpotqa import HotpotQA
from rag_ese.errors import DataError, HubUnreachableError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda: "no network in tests")


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, record: Callable[..., dict[str, Any]], file: Callable[..., Path]) -> Path:
    path = file(record("s1"), record("s2"))
    monkeypatch.setattr(data, "_sample", lambda: path)
    return path


def test_auto_falls_back_loudly(offline: None, sample: Path) -> None:
    said: list[str] = []
    hotpot = data.load_hotpotqa("auto", notify=said.append)
    assert [question.id for question in hotpot.questions] == ["s1", "s2"]
    assert hotpot.source == "bundled sample"
    assert hotpot.fallback is not None and "no network in tests" in hotpot.fallback
    assert len(said) == 1 and said[0].startswith("WARNING") and "2 questions" in said[0] and "no network" in said[0]


def test_the_fallback_is_heard_even_without_a_listener(offline: None, sample: Path) -> None:
    with pytest.warns(UserWarning, match="NOT HOTPOTQA"):
        data.load_hotpotqa()


def test_auto_prefers_the_hub(monkeypatch: pytest.MonkeyPatch, sample: Path) -> None:
    real = HotpotQA([], [], "the hub", "1")
    asked = []

    def load_hub(*place: str, **choice: Any) -> HotpotQA:
        asked.append((place, choice))
        return real

    monkeypatch.setattr(data, "load_hub", load_hub)
    assert data.load_hotpotqa("auto", "fullwiki", "train", 3, 4, pytest.fail) is real
    assert asked == [(("fullwiki", "train"), {"limit": 3, "seed": 4})]


def test_hub_has_no_substitute(offline: None, sample: Path) -> None:
    with pytest.raises(HubUnreachableError, match="no network in tests"):
        data.load_hotpotqa("hub", notify=pytest.fail)
    with pytest.raises(HubUnreachableError):
        data.load_hotpotqa("auto", setting="fullwiki", notify=pytest.fail)


def test_sample_and_path_are_not_fallbacks(offline: None, sample: Path) -> None:
    chosen = data.load_hotpotqa("sample", limit=1, notify=pytest.fail)
    assert len(chosen.questions) == 1 and chosen.fallback is None and chosen.source == "bundled sample"
    by_path = data.load_hotpotqa(str(sample), notify=pytest.fail)
    assert by_path.source == str(sample) and by_path.fallback is None and by_path.revision == chosen.revision


def test_sample_errors(monkeypatch: pytest.MonkeyPatch, sample: Path) -> None:
    with pytest.raises(DataError, match="no fullwiki setting"):
        data.load_hotpotqa("sample", setting="fullwiki")
    sample.unlink()
    with pytest.raises(DataError, match="missing from this installation"):
        data.load_hotpotqa("sample")


def test_the_sample_is_looked_for_inside_the_package() -> None:
    location = Path(str(data._sample()))
    assert location == Path(data.__file__).parent / "sample" / "hotpotqa_sample.json"


def test_the_bundled_sample_is_sound() -> None:
    hotpot = data.load_sample()
    lengths = {(passage.title, passage.id): len(passage.sentences) for passage in hotpot.passages}
    for question in hotpot.questions:
        assert len(question.gold) >= 2, question.id
        for title, number in question.supporting_facts:
            assert any(
                number < n for (name, passage), n in lengths.items() if name == title and passage in question.gold
            )
