"""vLLM itself, offline and as a server, against transformers: a tiny model, greedy, token for token.

`.ci/vllm` makes an environment with vLLM and runs this.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rag_ese.errors import GeneratorError
from rag_ese.generator import CachedGenerator, OpenAIGenerator, Prompt, TransformersGenerator, VLLMGenerator
from rag_ese.generator.short_answer import extract_short_answer

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        find_spec("vllm") is None, reason="vLLM is not installed: .ci/vllm makes an environment with it"
    ),
]
Ask = Callable[..., Prompt]
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
TOKENS = 12


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    from rag_ese.types import Passage

    passages = [Passage(f"River {n}", (f"The river {n} flows. ", "It is long. ") * n) for n in range(1, 5)]
    return [Prompt(f"Which river is number {n}?" * (n % 3 + 1), tuple(passages[: n % 3])) for n in range(9)]


@pytest.fixture(scope="module")
def expected(tiny_llama: Path, prompts: list[Prompt]) -> list[list[int]]:
    """transformers' own greedy tokens, one prompt at a time, without anything of this project but the prompt's text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rag_ese.generator import load_prompt

    tokenizer, found = AutoTokenizer.from_pretrained(tiny_llama), []
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, torch_dtype=torch.float32).eval()
    for prompt in prompts:
        text = tokenizer.apply_chat_template(load_prompt().messages(prompt), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            output = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :].tolist()
        found.append(output[: output.index(2)] if 2 in output else output)
    return found


@pytest.fixture(scope="module")
def engine(tiny_llama: Path) -> Iterator[VLLMGenerator]:
    os.environ.update(CPU)
    yield VLLMGenerator(
        str(tiny_llama),
        max_tokens=TOKENS,
        dtype="float32",
        enforce_eager=True,
        gpu_memory_utilization=0.3,
        max_model_len=512,
    )


@pytest.fixture(scope="module")
def server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(tiny_llama),
        "--port",
        str(port),
    ]
    command += ["--host", "127.0.0.1", "--served-model-name", "tiny", "--enforce-eager", "--dtype", "float32"]
    command += ["--max-model-len", "512", "--gpu-memory-utilization", "0.3"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env={**os.environ, **CPU}, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 400
        while not _answers(f"http://127.0.0.1:{port}/v1/models"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(json.load(reply))
    except (OSError, urllib.error.URLError):
        return False


def test_the_engine_equals_transformers_token_for_token(
    engine: VLLMGenerator, prompts: list[Prompt], expected: list[list[int]], tiny_llama: Path
) -> None:
    outputs = engine.complete(prompts)
    tokens = [[token for token in output.outputs[0].token_ids if token != 2] for output in outputs]
    assert tokens == expected and len({tuple(each) for each in tokens}) > 2
    ours = TransformersGenerator(str(tiny_llama), max_tokens=TOKENS, batch_size=4, device="cpu").generate(prompts)
    said = [answer.text.rstrip("\ufffd") for answer in engine.generate(prompts)]
    assert said == [answer.text.rstrip("\ufffd") for answer in ours]


def test_the_engine_caches_prefixes(engine: VLLMGenerator) -> None:
    assert engine._engine.llm_engine.vllm_config.cache_config.enable_prefix_caching


def test_the_engine_answers_yes_or_no(engine: VLLMGenerator, ask: Ask) -> None:
    answers = engine.generate([ask("Are both rivers long?", A="The river."), ask("Which river is it?", A="The river.")])
    assert answers[0].text in ("yes", "no") and answers[1].text not in ("yes", "no")


def test_the_engine_never_truncates_the_question(engine: VLLMGenerator, ask: Ask) -> None:
    prompt = ask("Which river is the last word?", A="Rome.", B="The city of Paris. " * 200)
    (answer,) = engine.generate([prompt])
    assert answer.usage["dropped_passages"] == 1 and answer.usage["prompt_tokens"] <= 512 - TOKENS
    with pytest.raises(GeneratorError, match=f"reads at most {512 - TOKENS}"):
        engine.generate([ask("Which? " * 400)])


def test_the_server_equals_transformers(
    server: str, prompts: list[Prompt], expected: list[list[int]], tiny_llama: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    answers = OpenAIGenerator(server, "tiny", max_tokens=TOKENS, concurrency=4).generate(prompts)
    said = [extract_short_answer(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in expected]
    # the server's detokeniser leaves out a character that the last token began and did not finish
    assert [answer.text for answer in answers] == [text.rstrip("\ufffd") for text in said]
    for answer, tokens in zip(answers, expected, strict=True):  # vLLM counts the end of the sequence
        assert answer.usage["completion_tokens"] == min(len(tokens) + 1, TOKENS)


def test_the_servers_own_tokens(
    server: str, prompts: list[Prompt], expected: list[list[int]], tiny_llama: Path
) -> None:
    from transformers import AutoTokenizer

    from rag_ese.generator import load_prompt

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    for prompt, tokens in zip(prompts, expected, strict=True):
        body = {"model": "tiny", "messages": load_prompt().messages(prompt), "temperature": 0, "max_tokens": TOKENS}
        reply = _post(f"{server}/chat/completions", {**body, "return_token_ids": True})
        assert [token for token in reply["choices"][0]["token_ids"] if token != 2] == tokens, tokenizer.decode(tokens)


def test_the_server_answers_yes_or_no(server: str, ask: Ask) -> None:
    generator = OpenAIGenerator(server, "tiny", max_tokens=TOKENS)
    assert generator.generate([ask("Are both rivers long?", A="The river.")])[0].text in ("yes", "no")


def test_a_prompt_over_the_servers_context_loses_passages_and_no_question(
    server: str, ask: Ask, tmp_path: Path
) -> None:
    long = ask("Which river is the last word?", A="Rome.", B="The city of Paris. " * 200)
    short = ask("Which river is it?", A="The river.")
    generator = CachedGenerator(OpenAIGenerator(server, "tiny", max_tokens=TOKENS), tmp_path / "answers.sqlite")
    answers = generator.generate([long, short])
    assert answers[0].usage["dropped_passages"] == 1 and "dropped_passages" not in answers[1].usage
    with pytest.raises(GeneratorError, match=r"answered 0 of 1 questions, 1 failed .*maximum context length"):
        generator.generate([short, ask("Which? " * 400)])


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)
