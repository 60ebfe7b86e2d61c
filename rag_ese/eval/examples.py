"""A few questions with what was read for them: the evidence, and the answer marked in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rag_ese.generator import Prompt
from rag_ese.types import Answer, Question

_EACH = 3
"""So many questions of those that were answered rightly, and of the others."""
_SENTENCES = 2
"""So many sentences are shown where the generator names no evidence."""


def choose(f1: Sequence[float | None]) -> list[int]:
    """Positions: the first few with an F1 of 1, then the first few with less."""
    right = [position for position, value in enumerate(f1) if value == 1]
    wrong = [position for position, value in enumerate(f1) if value is not None and value < 1]
    return [*right[:_EACH], *wrong[:_EACH]]


def markdown(question: Question, prompt: Prompt, answer: Answer, f1: float | None) -> str:
    """One question: its answer beside the gold one, and the sentences, with the answer in bold where it stands."""
    said = f"{_plain(answer.text)!r}" if answer.text else "no answer"
    lines = [
        f"**{_plain(question.text)}**",
        "",
        f"Answered {said}, gold {_plain(question.answer)!r}, F1 {100 * (f1 or 0):.0f}.",
    ]
    named = answer.supporting_facts is not None
    shown = [*(_named(prompt, answer) if named else _holding(prompt, answer.text))]
    lines += [f"- {_plain(title)}: {_mark(sentence, answer.text)}" for title, sentence in shown]
    if not shown:
        lines.append("- no evidence was named" if named else "- no sentence that was read holds the answer")
    return "\n".join(["", *lines])


def section(
    questions: Sequence[Question], prompts: Sequence[Prompt], answers: Mapping[str, Answer], f1: Sequence[float | None]
) -> str:
    """All chosen questions as Markdown."""
    return "\n".join(
        markdown(questions[position], prompts[position], answers[questions[position].id], f1[position])
        for position in choose(f1)
    ).strip()


def _named(prompt: Prompt, answer: Answer) -> Iterator[tuple[str, str]]:
    """The sentences that the answer names as its evidence."""
    for title, number in dict.fromkeys(answer.supporting_facts or ()):
        for passage in prompt.passages:
            if passage.title == title and number < len(passage.sentences):
                yield title, passage.sentences[number]
                break


def _holding(prompt: Prompt, text: str) -> list[tuple[str, str]]:
    """The first sentences that hold the answer, for generators that name no evidence."""
    found = ((passage.title, each) for passage in prompt.passages for each in passage.sentences if _stands(each, text))
    return [sentence for _, sentence in zip(range(_SENTENCES), found, strict=False)]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(text)}(?!\w)", re.IGNORECASE)


def _stands(sentence: str, text: str) -> bool:
    return bool(text) and bool(_pattern(text).search(sentence))


def _mark(sentence: str, text: str) -> str:
    # marked before escaping, so that an answer with an asterisk is found; the marks are put in last
    marked = _pattern(text).sub(lambda match: f"\0{match[0]}\1", sentence) if text else sentence
    return _plain(marked).replace("\0", "**").replace("\1", "**")


def _plain(text: str) -> str:
    """On one line, and without a meaning in Markdown."""
    return re.sub(r"([*_`|<>\[\]])", r"\\\1", " ".join(text.split()))
