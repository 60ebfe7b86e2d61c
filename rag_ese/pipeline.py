"""Retrieve, then answer: the whole of retrieval-augmented generation in one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag_ese.generator import Generator, Prompt
from rag_ese.index.searchable import Searchable
from rag_ese.retriever import Searcher
from rag_ese.types import Answer, Ranking


@dataclass(frozen=True)
class Pipeline:
    """Answers questions from the `top_k` best passages of a store."""

    store: Searchable
    searcher: Searcher
    generator: Generator
    top_k: int = 10

    def answer(
        self, questions: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[tuple[Answer, Ranking]]:
        """One answer per question, and the ranking that it was read from."""
        rankings = self.searcher.search(questions)
        return list(zip(self.read(questions, rankings, progress), rankings, strict=True))

    def read(
        self, questions: Sequence[str], rankings: Sequence[Ranking], progress: Callable[[int], None] | None = None
    ) -> list[Answer]:
        """Answers from rankings that are already there. `progress` is told the number done."""
        return self.generator.generate(prompts(self.store, questions, rankings, self.top_k), progress)


def prompts(store: Searchable, questions: Sequence[str], rankings: Sequence[Ranking], top_k: int) -> list[Prompt]:
    """What a generator is given: each question with its `top_k` best passages."""
    return [
        Prompt(question, tuple(store.passages[int(row)] for row in ranking.rows[:top_k]))
        for question, ranking in zip(questions, rankings, strict=True)
    ]
