"""Any server that speaks the OpenAI API: vLLM's, llama.cpp, Ollama, hosted models."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import Any

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.fitting import fit, over_context
from rag_ese.generator.prompt import PROTOCOL, PromptTemplate, load_prompt
from rag_ese.generator.question_type import YES_OR_NO, asks_yes_or_no
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.types import Answer

_GIVE_UP = 16
"""So many failures in a row mean that the server is gone: the questions that are still waiting are not sent."""
_SHRINK = 0.75
"""A prompt that the server finds too long is tried again at this share of its length, with fewer passages."""


class OpenAIGenerator(Generator):
    """Chat completions at temperature 0, several at once, repeated with back-off by the client library.

    The key is taken from OPENAI_API_KEY (`EMPTY` where unset, which local servers accept). The server's tokenizer is
    unknown here, so prompts are kept within `max_chars` characters, and one that the server refuses as too long is sent
    again with fewer passages. What asks for yes or no can only be answered so where the server is vLLM's, which says
    so in its list of models (`yes_no_choice`). `timeout` is in seconds per attempt.
    The fingerprint cannot see which weights the server holds: use another cache when they change under the same name.
    """

    def __init__(
        self,
        url: str,
        model: str,
        template: PromptTemplate | None = None,
        *,
        max_tokens: int = 64,
        seed: int = 0,
        concurrency: int = 8,
        retries: int = 4,
        timeout: float = 120.0,
        max_chars: int = 24_000,
        yes_no_choice: bool = True,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai", "the OpenAI-compatible backend") from error

        self._errors = (openai.OpenAIError, ValueError)  # a body that is not JSON is a ValueError
        self._client = openai.OpenAI(
            base_url=url, api_key=os.environ.get("OPENAI_API_KEY") or "EMPTY", timeout=timeout, max_retries=retries
        )
        self._model, self._template = model, template or load_prompt()
        self._decoding: dict[str, Any] = {"temperature": 0.0, "seed": seed, "max_tokens": max_tokens}
        self._concurrency, self._retries, self._max_chars = concurrency, retries, max_chars
        self._yes_no_choice = yes_no_choice
        self.name = f"openai:{url}#{model}"
        self.fingerprint = (
            f"{self.name} prompt={self._template.hash} {self._decoding} max_chars={max_chars} "
            f"yes_no_choice={yes_no_choice} protocol={PROTOCOL}"
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream; after the last answer, raises GeneratorError with the number that failed."""
        failures: Counter[str] = Counter()
        row = 0
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            positions = {pool.submit(self._answer, prompt): position for position, prompt in enumerate(prompts)}
            for future in as_completed(positions):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    row = 0
                    yield positions[future], future.result()
                elif not isinstance(error, GeneratorError):
                    raise error
                else:
                    row += 1
                    failures[str(error)] += 1
                if row == _GIVE_UP:
                    for waiting in positions:
                        waiting.cancel()
        finally:
            pool.shutdown(cancel_futures=True)
        if failures:
            raise self._summary(len(prompts), failures, sum(future.cancelled() for future in positions))

    def _summary(self, asked: int, failures: Counter[str], unsent: int) -> GeneratorError:
        failed = failures.total()
        (reason, count), *others = failures.most_common()
        and_others = f" (and {len(others)} other reasons)" if others else ""
        return GeneratorError(
            f"{self.name} answered {asked - failed - unsent} of {asked} questions, {failed} failed after up to "
            f"{self._retries} repetitions and {unsent} were not sent: {count} with {reason}{and_others}; with a cache "
            "the same command asks only for the missing ones"
        )

    def _answer(self, prompt: Prompt) -> Answer:
        limit = self._max_chars
        while True:
            fitted, usage = fit(prompt, self._length, limit, "characters")
            try:
                return self._ask(fitted, usage)
            except self._errors as error:
                if not over_context(str(error)) or not fitted.passages:
                    raise GeneratorError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
            bare = self._length(Prompt(prompt.question, ()))
            limit = max(bare, int(_SHRINK * self._length(fitted)))

    def _ask(self, prompt: Prompt, usage: dict[str, int]) -> Answer:
        completion = self._client.chat.completions.create(
            model=self._model,
            messages=self._template.messages(prompt),
            **self._decoding,
            **self._choice(prompt.question),
        )
        if getattr(completion, "choices", None) is None:
            raise GeneratorError(f"the reply is no chat completion but {str(completion)[:80]!r}: check the URL")
        if completion.usage:
            usage = {
                **usage,
                "prompt_tokens": completion.usage.prompt_tokens or 0,
                "completion_tokens": completion.usage.completion_tokens or 0,
            }
        message = completion.choices[0].message if completion.choices else None
        said = message.content if message else None
        return Answer(extract_short_answer(said or ""), usage=usage)

    def _choice(self, question: str) -> dict[str, Any]:
        if not self._yes_no_choice or not asks_yes_or_no(question) or not self._is_vllm:
            return {}
        return {"extra_body": {"structured_outputs": {"choice": [*YES_OR_NO]}}}

    @cached_property
    def _is_vllm(self) -> bool:
        """Asked once, when the first question of yes or no is sent."""
        try:
            models = self._client.with_options(max_retries=0).models.list()
            return any(getattr(model, "owned_by", None) == "vllm" for model in models)
        except (*self._errors, AttributeError, TypeError):  # no list of models: a server of another kind
            return False

    def _length(self, prompt: Prompt) -> int:
        return sum(len(message["content"]) for message in self._template.messages(prompt))
