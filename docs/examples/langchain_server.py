"""The same with a language model behind `vllm serve`, or any other server that speaks the OpenAI API.

vllm serve MODEL
python docs/examples/langchain_server.py indexes/mine http://127.0.0.1:8000/v1 MODEL "Where was ... born?"
"""

import sys

from langchain_core.runnables import Runnable, RunnablePassthrough

from rag_ese.generator import OpenAIGenerator
from rag_ese.integrations.langchain import EseRetriever, answering


def chain(index: str, url: str, model: str, **options: object) -> Runnable[str, str]:
    retriever = EseRetriever(index=index, k=10, **options)
    return {"context": retriever, "question": RunnablePassthrough()} | answering(OpenAIGenerator(url, model))


if __name__ == "__main__":
    index, url, model, question = sys.argv[1:]
    print(chain(index, url, model).invoke(question))
