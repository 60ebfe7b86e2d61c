"""What goes into a generator and what every backend offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rag_ese.errors import GeneratorError
from rag_ese.types import Answer, Passage


@dataclass(frozen=True)
class Prompt:
    """A question and what was retrieved for it, best passage first."""

    question: str
    passages: tuple[Passage, ...]


class Generator(ABC):
    """Answers questions from their passages. A backend implements `stream` and sets the two names."""

    name: str
    """For people: the backend and the model, such as `vllm:org/model`."""

    fingerprint: str
    """For caches: everything that determines an answer besides the prompt itself. Equal strings, equal answers."""

    @abstractmethod
    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """Yields (position in `prompts`, answer) as answers are done, each position once, in any order.

        Raises GeneratorError when some cannot be answered, after yielding all those that could be.
        """

    def generate(self, prompts: Sequence[Prompt], progress: Callable[[int], None] | None = None) -> list[Answer]:
        """The answers in the order of `prompts`. `progress` is called with the number done after each answer."""
        answers: dict[int, Answer] = {}
        for position, answer in self.stream(prompts):
            answers[position] = answer
            if progress:
                progress(len(answers))
        if len(answers) != len(prompts):
            raise GeneratorError(
                f"{self.name} answered {len(answers)} of {len(prompts)} questions without saying why: "
                "report this as a bug of the backend"
            )
        return [answers[position] for position in range(len(prompts))]
