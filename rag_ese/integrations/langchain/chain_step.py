"""This project's generators as the last step of a LangChain chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableConfig

from rag_ese.data.sentences import split
from rag_ese.generator import Generator, Prompt
from rag_ese.types import Passage

Asked = Mapping[str, Any]
"""{"question": str, "context": list[Document]}"""


def answering(generator: Generator) -> Runnable[Asked, str]:
    """A step that reads the answer to `question` from the documents in `context`; a batch is one call.

    >>> from langchain_core.runnables import RunnablePassthrough
    >>> from rag_ese.generator import ExtractiveReader
    >>> documents = [Document("The bridge opened in 1932.", metadata={"title": "Bridge"})]
    >>> asked = {"context": lambda question: documents, "question": RunnablePassthrough()}
    >>> chain = asked | answering(ExtractiveReader())
    >>> chain.invoke("In which year was the bridge opened?")
    '1932'
    """
    return _Answering(generator)


class _Answering(Runnable[Asked, str]):
    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.name = generator.name

    def invoke(self, input: Asked, config: RunnableConfig | None = None, **_: Any) -> str:
        return self._call_with_config(self._answer, input, config)

    def batch(
        self,
        inputs: list[Asked],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **_: Any,
    ) -> list[str]:
        return self._batch_with_config(self._answers, inputs, config, return_exceptions=return_exceptions)

    def _answer(self, asked: Asked) -> str:
        return self._generator.generate([_prompt(asked)])[0].text

    def _answers(self, asked: list[Asked]) -> list[Exception | str]:
        return [answer.text for answer in self._generator.generate([_prompt(each) for each in asked])]


def _prompt(asked: Asked) -> Prompt:
    return Prompt(asked["question"], tuple(_passage(document) for document in asked["context"]))


def _passage(document: Document) -> Passage:
    return Passage(str(document.metadata.get("title", "")), tuple(split(document.page_content)))
