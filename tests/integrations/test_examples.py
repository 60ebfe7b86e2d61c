"""docs/examples, run as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from rag_ese.generator import ExtractiveReader, Prompt
from rag_ese.index import Store
from rag_ese.integrations.langchain import EseRetriever, EseVectorStore

Example = Callable[[str], Any]
QUESTION = "In which year was the bridge opened?"


async def test_rag(example: Example, sample_index: Path, embedded: Any) -> None:
    chain = example("rag").chain(str(sample_index), encoder=embedded)
    passages = Store(sample_index).passages
    retrieved = EseRetriever(index=str(sample_index), encoder=embedded, k=10).invoke(QUESTION)
    by_id = {passage.id: passage for passage in passages}
    prompt = Prompt(QUESTION, tuple(by_id[str(each.id)] for each in retrieved))
    [expected] = ExtractiveReader().generate([prompt])
    assert chain.invoke(QUESTION) == expected.text
    assert expected.text
    assert await chain.ainvoke(QUESTION) == expected.text
    assert chain.batch([QUESTION] * 3) == [expected.text] * 3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat server on 127.0.0.1 that answers with its request's number, and the requests it got."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": f"Answer: number {len(requests)}."}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            body = json.dumps(
                {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", requests
    http.shutdown()
    http.server_close()


def test_server(example: Example, sample_index: Path, embedded: Any, server: tuple[str, list[dict[str, Any]]]) -> None:
    url, requests = server
    chain = example("server").chain(str(sample_index), url, "org/model", encoder=embedded)
    assert chain.invoke(QUESTION) == "number 1"
    [request] = requests
    assert request["model"] == "org/model"
    said = request["messages"][-1]["content"]
    assert QUESTION in said
    first = EseRetriever(index=str(sample_index), encoder=embedded, k=1).invoke(QUESTION)[0]
    assert first.metadata["title"] in said
    assert first.page_content.strip() in said


class CallsOnce(BaseChatModel):
    """A chat model that searches for the user's words, then repeats what it was given."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        self.__dict__["tool"] = tools[0].name
        return self

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            said = AIMessage(content=f"I read: {last.content}")
        else:
            call = {"name": self.__dict__["tool"], "args": {"query": last.content}, "id": "call-1"}
            said = AIMessage(content="", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=said)])


async def test_agent(example: Example, sample_index: Path, embedded: Any) -> None:
    retriever = EseRetriever(index=str(sample_index), encoder=embedded, k=2)
    agent = example("agent").agent(CallsOnce(), retriever)
    wanted = "\n\n".join(f"{each.metadata['title']}: {each.page_content}" for each in retriever.invoke(QUESTION))
    for done in (
        agent.invoke({"messages": [HumanMessage(QUESTION)]}),
        await agent.ainvoke({"messages": [HumanMessage(QUESTION)]}),
    ):
        assert done["messages"][-1].content == f"I read: {wanted}"


def test_migrate(example: Example, write: Any, hashed: Any, tmp_path: Path) -> None:
    folder = write(faiss.IndexFlatIP(4), np.eye(4)[:3])
    assert example("migrate").migrate(str(folder), str(tmp_path / "new"), hashed(4)) == 3
    store = EseVectorStore.load(tmp_path / "new", hashed(4))
    assert store.similarity_search_by_vector([1, 0, 0, 0], k=1)[0].page_content == "a bridge"
