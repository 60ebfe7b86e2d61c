"""What the tests of the generators share."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rag_ese.generator import Prompt
from rag_ese.types import Passage

Reply = tuple[int, str | bytes | dict[str, Any]]
"""Status and body; a dictionary is sent as JSON, anything else as plain text."""


@pytest.fixture
def ask() -> Callable[..., Prompt]:
    """ask("question?", Title="First sentence.| Second.") is a prompt with these passages."""

    def make(question: str, passages: dict[str, str] | None = None, /, **more: str) -> Prompt:
        return Prompt(
            question,
            tuple(Passage(title, tuple(text.split("|"))) for title, text in {**(passages or {}), **more}.items()),
        )

    return make


class Server:
    """A scripted HTTP server on 127.0.0.1: `reply(body, attempt)` gives the response to each request."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.models: list[dict[str, Any]] = []
        """What the server says it serves; without any it does not know the question."""
        self.listed = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    server.listed += 1
                self._send(*((200, {"object": "list", "data": server.models}) if server.models else (404, {})))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    attempt = sum(body == earlier for earlier in server.requests)
                    server.requests.append(body)
                    server.headers.append({name.title(): value for name, value in self.headers.items()})
                self._send(*reply(body, attempt))

            def _send(self, status: int, content: str | bytes | dict[str, Any]) -> None:
                is_json = isinstance(content, dict)
                data = (
                    json.dumps(content).encode()
                    if is_json
                    else content.encode()
                    if isinstance(content, str)
                    else content
                )
                self.send_response(status)
                self.send_header("Content-Type", "application/json" if is_json else "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After-Ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    servers: list[Server] = []

    def start(reply: Callable[[dict[str, Any], int], Reply]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised Llama of two blocks with its own tokenizer and chat template, 512 positions."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["The question asks which river flows through the city of Paris."] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,  # heads of 64: vLLM's attention on the CPU takes no smaller ones than 32
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,  # large, so that the greedy choice is far from a tie
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return folder
