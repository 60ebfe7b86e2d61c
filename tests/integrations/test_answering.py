"""Generators as steps of chains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from langchain_core.documents import Document

from rag_ese.generator import Generator, Prompt
from rag_ese.integrations.langchain import answering
from rag_ese.types import Answer


class Noting(Generator):
    name = fingerprint = "noting"

    def __init__(self) -> None:
        self.calls: list[Sequence[Prompt]] = []

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        self.calls.append(prompts)
        for position, prompt in enumerate(prompts):
            yield position, Answer(prompt.question.upper())


CONTEXT = [Document("It opened in 1932. It is long.", metadata={"title": "Bridge"}), Document("No title.")]


async def test_questions_and_documents_become_prompts() -> None:
    generator = Noting()
    step = answering(generator)
    assert step.invoke({"question": "when?", "context": CONTEXT}) == "WHEN?"
    assert await step.ainvoke({"question": "where?", "context": []}) == "WHERE?"
    [[prompt], [bare]] = generator.calls
    assert [(each.title, each.text) for each in prompt.passages] == [
        ("Bridge", "It opened in 1932. It is long."),
        ("", "No title."),
    ]
    assert prompt.passages[0].sentences == ("It opened in 1932.", " It is long.")
    assert bare.passages == ()


def test_a_batch_is_one_call_of_the_generator() -> None:
    generator = Noting()
    asked = [{"question": str(n), "context": CONTEXT} for n in "abc"]
    assert answering(generator).batch(asked) == ["A", "B", "C"]
    assert [len(prompts) for prompts in generator.calls] == [3]
