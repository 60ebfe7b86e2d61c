"""Windows cover every passage, keep its title, and are each one text of it."""

from __future__ import annotations

from rag_ese.data.windows import windows

PASSAGE = "A harbour\nThe harbour is old. Boats come in May. The crane fell. It was mended. None paid. Then came rain."


def test_every_sentence_begins_a_window() -> None:
    starts = ["The harbour", "Boats come", "The crane", "It was", "None paid", "Then came"]
    found = [window.removeprefix("A harbour\n") for window in windows([PASSAGE])]
    assert [window[: len(start)] for window, start in zip(found, starts, strict=True)] == starts


def test_lengths_take_turns_and_the_title_stays() -> None:
    found = windows([PASSAGE])
    assert all(window.startswith("A harbour\n") for window in found)
    assert [window.count(".") for window in found] == [1, 1, 2, 2, 2, 1]  # the fifth would be 3, but two are left


def test_a_text_occurs_once() -> None:
    assert windows([PASSAGE, PASSAGE]) == windows([PASSAGE])
    assert windows(["Yes. Yes. Yes."]) == ["Yes."]


def test_without_a_title_and_without_a_text() -> None:
    assert windows(["Alone. Here."]) == ["Alone.", "Here."]
    assert windows(["", " ", "Title\n"]) == []
