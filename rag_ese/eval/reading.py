"""Answers to the questions of one row, and what reading them took: time, tokens, money."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rag_ese.generator import CachedGenerator, Generator, Prompt
from rag_ese.progress import progress_bar
from rag_ese.types import Answer, Question


@dataclass(frozen=True)
class Reading:
    """Answers by question id; how many of them were generated now, not found in the cache, and in how many seconds."""

    answers: dict[str, Answer]
    generated: int
    seconds: float

    def speed(self, search_seconds: float) -> dict[str, float | int | None]:
        """Questions read per second, and reading's share of the time that a question takes, 0 to 1, batches of all
        questions. None where every answer was found in the cache. `search_seconds` is what finding the passages of all
        questions took.
        """
        speed: dict[str, float | int | None] = {"generated": self.generated, "per_second": None, "share": None}
        if self.generated and self.seconds > 0:
            each = self.seconds / self.generated
            searched = search_seconds / max(len(self.answers), 1)
            speed |= {"per_second": round(1 / each, 3), "share": round(each / (each + searched), 4)}
        return speed


def read(name: str, questions: Sequence[Question], prompts: Sequence[Prompt], generator: Generator) -> Reading:
    """The generator's answers to `prompts`, one per question, with a progress bar."""
    done, missed, began = 0, _misses(generator), time.perf_counter()
    with progress_bar(f"answering from {name}", len(prompts)) as advance:

        def report(total: int) -> None:
            nonlocal done
            advance(total - done)
            done = total

        answers = generator.generate(prompts, report)
    seconds = time.perf_counter() - began
    generated = _misses(generator) - missed if isinstance(generator, CachedGenerator) else len(prompts)
    by_id = {question.id: answer for question, answer in zip(questions, answers, strict=True)}
    return Reading(by_id, generated, seconds)


def price(usage: dict[str, int], price_in: float, price_out: float) -> float:
    """What the tokens cost, at prices per million; as if no answer had been in the cache."""
    return (usage.get("prompt_tokens", 0) * price_in + usage.get("completion_tokens", 0) * price_out) / 1e6


def _misses(generator: Generator) -> int:
    return generator.misses if isinstance(generator, CachedGenerator) else 0
