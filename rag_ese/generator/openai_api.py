"""Any server that speaks the OpenAI API: `vllm serve`, llama.cpp, Ollama, hosted models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.fitting import fit
from rag_ese.generator.prompt import PROTOCOL, PromptTemplate, load_prompt
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.types import Answer

_GIVE_UP = 16
"""So many failures in a row mean that the server is gone: the questions that are still waiting are not sent."""


class OpenAIGenerator(Generator):
    """Chat completions at temperature 0, several at once, repeated with back-off by the client library.

    The key is taken from OPENAI_API_KEY (`EMPTY` where unset, which local servers accept). The server's tokenizer is
    unknown here, so prompts are kept within `max_chars` characters; `timeout` is in seconds per attempt.
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
        self.name = f"openai:{url}#{model}"
        self.fingerprint = (
            f"{self.name} prompt={self._template.hash} {self._decoding} max_chars={max_chars} protocol={PROTOCOL}"
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream; after the last answer, raises GeneratorError with the number that failed."""
        failed = row = 0
        reason: Exception | None = None
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
                    failed, row, reason = failed + 1, row + 1, reason or error
                if row == _GIVE_UP:
                    for waiting in positions:
                        waiting.cancel()
        finally:
            pool.shutdown(cancel_futures=True)
        if reason:
            cancelled = sum(future.cancelled() for future in positions)
            answered = len(prompts) - failed - cancelled
            raise GeneratorError(
                f"{self.name} answered {answered} of {len(prompts)} questions, {failed} failed after up to "
                f"{self._retries} repetitions and {cancelled} were not sent: {reason}; with a cache the same command "
                "asks only for the missing ones"
            ) from reason

    def _answer(self, prompt: Prompt) -> Answer:
        prompt, usage = fit(prompt, self._length, self._max_chars, "characters")
        try:
            completion = self._client.chat.completions.create(
                model=self._model, messages=self._template.messages(prompt), **self._decoding
            )
        except self._errors as error:
            raise GeneratorError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
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

    def _length(self, prompt: Prompt) -> int:
        return sum(len(message["content"]) for message in self._template.messages(prompt))
