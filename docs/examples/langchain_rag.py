"""Retrieve and answer with LangChain: the retriever and this project's reader, no language model and no network.

python docs/examples/langchain_rag.py indexes/mine "Where was the architect of the Sydney Opera House born?"
"""

import sys

from langchain_core.runnables import Runnable, RunnablePassthrough

from rag_ese.generator import ExtractiveReader
from rag_ese.integrations.langchain import EseRetriever, answering


def chain(index: str, **options: object) -> Runnable[str, str]:
    retriever = EseRetriever(index=index, k=10, **options)
    return {"context": retriever, "question": RunnablePassthrough()} | answering(ExtractiveReader())


if __name__ == "__main__":
    print(chain(sys.argv[1]).invoke(sys.argv[2]))
