from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator import CachedGenerator, OpenAIGenerator, Prompt
from rag_ese.types import Answer

Ask = Callable[..., Prompt]


def completion(text: str | None) -> tuple[int, dict[str, Any]]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][1]["content"].rsplit("Question: ", 1)[1])


def test_what_is_sent_and_what_comes_back(ask: Ask, serve: Any) -> None:
    server = serve(lambda body, attempt: completion("Answer: Paris."))
    generator = OpenAIGenerator(server.url, "org/model", max_tokens=16, seed=3)
    assert generator.generate([ask("Where?", A="In Paris.")]) == [
        Answer("Paris", usage={"prompt_tokens": 7, "completion_tokens": 2})
    ]
    (body,) = server.requests
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("org/model", 0.0, 3, 16)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert server.headers[0]["Authorization"] == "Bearer EMPTY"
    assert f"openai:{server.url}#org/model prompt=" in generator.fingerprint


def test_the_key_of_the_environment(ask: Ask, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda body, attempt: completion("x"))
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    generator = OpenAIGenerator(server.url, "m")
    generator.generate([ask("Where?")])
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in generator.fingerprint


def test_order_is_kept_under_concurrency(ask: Ask, serve: Any) -> None:
    def reply(body: dict[str, Any], attempt: int) -> Any:
        time.sleep(0.02 * (int(question(body)) % 4 == 0))
        return completion(f"number {question(body)}")

    generator = OpenAIGenerator(serve(reply).url, "m", concurrency=4)
    prompts = [ask(str(number)) for number in range(24)]
    assert [answer.text for answer in generator.generate(prompts)] == [f"number {number}" for number in range(24)]


def test_too_many_requests_then_success(ask: Ask, serve: Any) -> None:
    server = serve(lambda body, attempt: completion("Paris") if attempt else (429, {"error": {"message": "slow down"}}))
    assert OpenAIGenerator(server.url, "m").generate([ask("Where?")])[0].text == "Paris"
    assert len(server.requests) == 2


def test_one_failure_loses_no_other_answer(ask: Ask, serve: Any) -> None:
    def reply(body: dict[str, Any], attempt: int) -> Any:
        return (500, {"error": {"message": "broken"}}) if question(body) == "2" else completion("fine")

    server = serve(reply)
    generator = OpenAIGenerator(server.url, "m", retries=1)
    answers: dict[int, Answer] = {}
    with pytest.raises(GeneratorError, match=r"answered 5 of 6 questions, 1 failed .* 0 were not sent.*broken"):
        answers.update(generator.stream([ask(str(number)) for number in range(6)]))
    with pytest.raises(GeneratorError):
        for position, answer in generator.stream([ask(str(number)) for number in range(6)]):
            answers[position] = answer
    assert sorted(answers) == [0, 1, 3, 4, 5]
    assert sum(question(body) == "2" for body in server.requests) == 4


def test_the_cache_keeps_what_was_answered(ask: Ask, serve: Any, tmp_path: Any) -> None:
    broken = True

    def reply(body: dict[str, Any], attempt: int) -> Any:
        return (500, {}) if broken and question(body) == "2" else completion(question(body))

    server = serve(reply)
    generator = CachedGenerator(OpenAIGenerator(server.url, "m", retries=0), tmp_path / "answers.sqlite")
    prompts = [ask(str(number)) for number in range(6)]
    with pytest.raises(GeneratorError, match="answered 5 of 6"):
        generator.generate(prompts)
    broken = False
    assert [answer.text for answer in generator.generate(prompts)] == list("012345")
    assert len(server.requests) == 7


def test_a_dead_server_is_not_asked_to_the_end(ask: Ask, serve: Any) -> None:
    server = serve(lambda body, attempt: (500, {"error": {"message": "down"}}))
    generator = OpenAIGenerator(server.url, "m", retries=0, concurrency=2)
    with pytest.raises(GeneratorError, match=r"answered 0 of 200 questions.* [1-9]\d* were not sent"):
        generator.generate([ask(str(number)) for number in range(200)])
    assert len(server.requests) < 200


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((200, "<html>hello</html>"), "no chat completion but '<html>hello</html>': check the URL"),
        ((200, {"error": "no such model"}), "no chat completion"),
        ((404, {"error": {"message": "no model m"}}), "NotFoundError.*no model m"),
        ((401, {"error": {"message": "bad key"}}), "AuthenticationError.*bad key"),
    ],
)
def test_refusals_are_one_sentence(ask: Ask, serve: Any, reply: Any, message: str) -> None:
    server = serve(lambda body, attempt: reply)
    with pytest.raises(GeneratorError, match=message) as caught:
        OpenAIGenerator(server.url, "m", retries=0).generate([ask("Where?")])
    assert "\n" not in str(caught.value)


def test_a_body_that_only_claims_to_be_json(ask: Ask, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler

    send = BaseHTTPRequestHandler.send_header
    monkeypatch.setattr(
        BaseHTTPRequestHandler,
        "send_header",
        lambda self, key, value: send(self, key, "application/json" if key == "Content-Type" else value),
    )
    server = serve(lambda body, attempt: (200, "{broken"))
    with pytest.raises(GeneratorError, match="answered 0 of 1"):
        OpenAIGenerator(server.url, "m", retries=0).generate([ask("Where?")])


def test_nobody_listens(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(GeneratorError, match="APIConnectionError"):
        OpenAIGenerator("http://127.0.0.1:9/v1", "m", retries=0).generate([ask("Where?")])


@pytest.mark.parametrize("empty", [completion(None), completion(""), (200, {"choices": []})])
def test_an_empty_generation_is_an_empty_answer(ask: Ask, serve: Any, empty: Any) -> None:
    server = serve(lambda body, attempt: empty)
    assert OpenAIGenerator(server.url, "m").generate([ask("Where?")])[0].text == ""


def test_passages_are_dropped_and_the_question_stays(ask: Ask, serve: Any) -> None:
    server = serve(lambda body, attempt: completion("x"))
    prompt = ask("Where is the very last word?", A="a" * 300, B="b" * 3000)
    (answer,) = OpenAIGenerator(server.url, "m", max_chars=1200).generate([prompt])
    assert answer.usage["dropped_passages"] == 1
    assert question(server.requests[0]) == prompt.question


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"\.\[openai\]"):
        OpenAIGenerator("http://127.0.0.1:9/v1", "m")


def too_long(body: dict[str, Any], limit: int) -> bool:
    return sum(len(message["content"]) for message in body["messages"]) > limit


CONTEXT = (400, {"error": {"message": "This model's maximum context length is 512 tokens.", "code": 400}})


def test_a_prompt_over_the_context_is_sent_with_fewer_passages(ask: Ask, serve: Any) -> None:
    server = serve(lambda body, attempt: CONTEXT if too_long(body, 1500) else completion("x"))
    prompt = ask("Where is the very last word?", **{letter: letter * 400 for letter in "ABCDEF"})
    (answer,) = OpenAIGenerator(server.url, "m", retries=0).generate([prompt])
    assert 1 <= answer.usage["dropped_passages"] <= 5
    assert {question(body) for body in server.requests} == {prompt.question}
    lengths = [sum(len(message["content"]) for message in body["messages"]) for body in server.requests]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] <= 1500 < lengths[-2]


def test_a_question_over_the_context_is_an_error_that_loses_no_other(ask: Ask, serve: Any, tmp_path: Any) -> None:
    server = serve(lambda body, attempt: CONTEXT if too_long(body, 1500) else completion("fine"))
    generator = CachedGenerator(OpenAIGenerator(server.url, "m", retries=0), tmp_path / "answers.sqlite")
    prompts = [ask("Who?"), ask("Where? " * 300, A="There."), ask("When?")]
    with pytest.raises(GeneratorError, match=r"answered 2 of 3 questions, 1 failed .*maximum context length"):
        generator.generate(prompts)
    asked = len(server.requests)
    generator.generate([prompts[0], prompts[2]])
    assert len(server.requests) == asked


def test_failures_are_counted_by_their_reason(ask: Ask, serve: Any) -> None:
    def reply(body: dict[str, Any], attempt: int) -> Any:
        number = int(question(body))
        broken = (200, "<html>busy</html>"), (500, {"error": {"message": "down"}}), completion("fine")
        return broken[min(number % 5, 2)]

    generator = OpenAIGenerator(serve(reply).url, "m", retries=0)
    with pytest.raises(
        GeneratorError, match=r"answered 6 of 11 questions, 5 failed .*: 3 with .*\(and 1 other reasons\)"
    ):
        generator.generate([ask(str(number)) for number in range(11)])


@pytest.mark.parametrize(("owner", "offered"), [("vllm", True), ("somebody", False), (None, False)])
def test_yes_or_no_is_a_choice_where_the_server_is_vllm(ask: Ask, serve: Any, owner: str | None, offered: bool) -> None:
    server = serve(lambda body, attempt: completion("yes"))
    if owner:
        server.models = [{"id": "m", "object": "model", "created": 0, "owned_by": owner}]
    generator = OpenAIGenerator(server.url, "m", concurrency=1)
    generator.generate([ask("Are both long?"), ask("Which is long?"), ask("Is it wide?")])
    choices = {question(body): body.get("structured_outputs") for body in server.requests}
    choice = {"choice": ["yes", "no"]} if offered else None
    assert choices == {"Are both long?": choice, "Which is long?": None, "Is it wide?": choice}
    assert server.listed == 1


def test_a_killed_process_does_not_ask_twice(ask: Ask, serve: Any, tmp_path: Any) -> None:
    server = serve(lambda body, attempt: completion(question(body)))
    code = f"""
import os, signal
from rag_ese.generator import CachedGenerator, OpenAIGenerator, Prompt
generator = CachedGenerator(OpenAIGenerator({server.url!r}, "m", concurrency=1), {str(tmp_path / "answers.sqlite")!r})
for number, _ in enumerate(generator.stream([Prompt(letter, ()) for letter in "abcdefgh"])):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    before = {question(body) for body in server.requests}
    assert before >= set("abcd")
    generator = CachedGenerator(OpenAIGenerator(server.url, "m"), tmp_path / "answers.sqlite")
    prompts = [ask(letter) for letter in "abcdefgh"]
    assert [answer.text for answer in generator.generate(prompts)] == list("abcdefgh")
    times = Counter(question(body) for body in server.requests)
    assert all(times[letter] == 1 for letter in "abcd") and generator.hits == 4
