"""Any causal language model of the transformers library, on CUDA, MPS or the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from rag_ese.errors import GeneratorError
from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.encoding import encode, load_tokenizer
from rag_ese.generator.fitting import fit_all
from rag_ese.generator.identity import model_identity
from rag_ese.generator.prompt import PROTOCOL, PromptTemplate, load_prompt
from rag_ese.generator.short_answer import extract_short_answer
from rag_ese.types import Answer


class TransformersGenerator(Generator):
    """Greedy answers in batches, padded on the left. The model is loaded at the first question that it has to answer.

    Prompts are kept within the model's positions minus `max_tokens`, at most `max_prompt_tokens`. Code that comes with
    a model is never run. Raises GeneratorError when the model cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        template: PromptTemplate | None = None,
        *,
        max_tokens: int = 64,
        batch_size: int = 8,
        max_prompt_tokens: int = 8192,
        device: str | None = None,
    ) -> None:
        self._name, self._template, self._max_tokens = model, template or load_prompt(), max_tokens
        self._batch_size, self._max_prompt_tokens = batch_size, max_prompt_tokens
        self._device = device or _best_device()
        self.name = f"hf:{model}"
        self.fingerprint = (
            f"{self.name}@{model_identity(model)} transformers={version('transformers')} device={self._device} "
            f"prompt={self._template.hash} greedy max_tokens={max_tokens} batch_size={batch_size} "
            f"max_prompt_tokens={max_prompt_tokens} protocol={PROTOCOL}"
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream, a batch at a time, longest prompts first: similar lengths need little padding."""
        fitted, failure = fit_all(prompts, self._length, self._limit())
        encoded = [(self._encode(prompt), position, dropped) for position, prompt, dropped in fitted]
        encoded.sort(key=lambda each: -len(each[0]))
        for start in range(0, len(encoded), self._batch_size):
            batch = encoded[start : start + self._batch_size]
            for (ids, position, dropped), tokens in zip(
                batch, self.complete([ids for ids, _, _ in batch]), strict=True
            ):
                text = self._tokenizer.decode(tokens, skip_special_tokens=True)
                usage = {**dropped, "prompt_tokens": len(ids), "completion_tokens": len(tokens)}
                yield position, Answer(extract_short_answer(text), usage=usage)
        if failure:
            raise failure

    def complete(self, encoded: Sequence[list[int]]) -> list[list[int]]:
        """The greedy continuation of each list of token ids, as one batch, without the end-of-sequence token."""
        import torch

        width = max(map(len, encoded))
        padding = self._padding()
        ids = torch.tensor([[padding] * (width - len(each)) + each for each in encoded], device=self._device)
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in encoded], device=self._device)
        try:
            with torch.inference_mode():
                output = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=self._max_tokens,
                    do_sample=False,
                    # None, because a model's own settings for sampling would only cause warnings here
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=padding,
                )
        except torch.cuda.OutOfMemoryError as error:
            raise GeneratorError(
                f"{self.name} ran out of memory on {self._device} with {len(encoded)} prompts of up to {width} tokens: "
                f"choose a batch size below {len(encoded)} or fewer prompt tokens"
            ) from error
        return [self._until_end(row) for row in output[:, width:].tolist()]

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForCausalLM

        try:
            # the old spelling of `dtype`, which every supported version understands
            model: Any = AutoModelForCausalLM.from_pretrained(self._name, torch_dtype="auto", trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise GeneratorError(
                f"transformers cannot load the language model {self._name!r}: {' '.join(str(error).split())[:300]}"
            ) from error
        return model.to(self._device).eval()

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._name)

    def _limit(self) -> int:
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min(self._max_prompt_tokens, (positions or self._max_prompt_tokens) - self._max_tokens)

    def _encode(self, prompt: Prompt) -> list[int]:
        return encode(self._tokenizer, self._template, prompt)

    def _length(self, prompt: Prompt) -> int:
        return len(self._encode(prompt))

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _padding(self) -> int:
        """Any id will do where the tokenizer has none: padded positions are masked, and the ends are cut off."""
        padding = self._tokenizer.pad_token_id
        return padding if padding is not None else min(self._ends(), default=0)

    def _until_end(self, tokens: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(tokens) if token in self._ends()), len(tokens))
        return tokens[:end]


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
