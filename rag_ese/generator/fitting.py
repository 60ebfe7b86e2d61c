"""Keeps a prompt within a model's context: passages give way from the end, the question never does."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from rag_ese.errors import GeneratorError
from rag_ese.generator.base import Prompt
from rag_ese.types import Passage

Fitted = tuple[int, Prompt, dict[str, int]]
"""(position, prompt that fits, what was left out)"""
_OVER_CONTEXT = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:context|model|sequence) length", re.IGNORECASE
)


def fit_all(
    prompts: Sequence[Prompt], length: Callable[[Prompt], int], limit: int
) -> tuple[list[Fitted], GeneratorError | None]:
    """`fit` in tokens for many prompts: those that fit, and the first error of the others, to be raised at the end."""
    fitted: list[Fitted] = []
    failure: GeneratorError | None = None
    for position, prompt in enumerate(prompts):
        try:
            fitted.append((position, *fit(prompt, length, limit, "tokens")))
        except GeneratorError as error:
            failure = failure or error
    return fitted, failure


def fit(prompt: Prompt, length: Callable[[Prompt], int], limit: int, unit: str) -> tuple[Prompt, dict[str, int]]:
    """The longest prefix of the passages whose rendering is at most `limit` long, and what was left out.

    `length` measures the whole rendered prompt in `unit` (tokens or characters) and grows with the passages. Where
    not even the best passage fits, it loses sentences from its end. What was left out comes as counts for
    `Answer.usage`: dropped_passages and cut_passages, absent when zero.
    Raises GeneratorError when the question alone is longer than `limit`.
    """
    if length(prompt) <= limit:
        return prompt, {}

    def keeping(count: int) -> Prompt:
        return replace(prompt, passages=prompt.passages[:count])

    kept = bisect_right(range(len(prompt.passages) + 1), limit, key=lambda count: length(keeping(count))) - 1
    if kept < 0:
        raise GeneratorError(
            f"a question takes {length(keeping(0))} {unit} without any passage but the model reads at most {limit}: "
            "choose a model with a longer context or fewer answer tokens"
        )
    if kept > 0:
        return keeping(kept), {"dropped_passages": len(prompt.passages) - kept}

    best = prompt.passages[0]

    def cutting(count: int) -> Prompt:
        return replace(prompt, passages=(Passage(best.title, best.sentences[:count]),))

    sentences = bisect_right(range(1, len(best.sentences) + 1), limit, key=lambda count: length(cutting(count)))
    if not sentences:
        return keeping(0), {"dropped_passages": len(prompt.passages)}
    dropped = {"dropped_passages": len(prompt.passages) - 1} if len(prompt.passages) > 1 else {}
    return cutting(sentences), {**dropped, "cut_passages": 1}


def over_context(error: str) -> bool:
    """Whether a server's error says that the prompt is too long, in the words of vLLM, OpenAI, llama.cpp or Ollama."""
    return bool(_OVER_CONTEXT.search(error))
