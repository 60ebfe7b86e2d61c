"""The elastic encoder: texts in, embeddings at any depth and width out, in one pass that runs no block too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from torch import Tensor

from rag_ese.encoder.batching import batches, pad
from rag_ese.encoder.blocks import Pass
from rag_ese.encoder.checkpoint import Checkpoint, load_checkpoint
from rag_ese.encoder.device import choose_device, choose_dtype
from rag_ese.encoder.heads import Head
from rag_ese.encoder.names import resolve
from rag_ese.errors import SizeError
from rag_ese.types import Float32s, Size

Role = Literal["query", "passage"]
_PROMPT_NAMES: dict[Role, tuple[str, ...]] = {"query": ("query",), "passage": ("document", "passage", "corpus")}


class ElasticEncoder:
    """A sentence encoder that is scalable in depth and width.

    >>> encoder = ElasticEncoder.load("embedded")                                          # doctest: +SKIP
    >>> vectors = encoder.encode(["a text"], [Size(2, 64), Size(6, 768)])                  # doctest: +SKIP
    >>> vectors[Size(2, 64)].shape                                                         # doctest: +SKIP
    (1, 64)
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str, device: torch.device, token_budget: int | None = None
    ) -> None:
        self.name = name
        self.revision = checkpoint.revision
        self.device = device
        self.dtype = next(checkpoint.blocks.model.parameters()).dtype
        self.depth = checkpoint.blocks.depth
        self.width = checkpoint.head.width
        self.max_tokens = checkpoint.max_tokens
        self.checkpoint = checkpoint
        self.token_budget = token_budget or (2048 if device.type == "cpu" else 65536)
        checkpoint.blocks.model.to(device)
        self._pooling = checkpoint.pooling
        self._head = checkpoint.head.to(device)
        self._pad_id = checkpoint.tokenizer.pad_token_id or 0
        self._tokenizer = checkpoint.tokenizer.backend_tokenizer
        # Set once here: setting it per call, as the wrapper does, is not safe with several threads.
        self._tokenizer.enable_truncation(self.max_tokens, direction=checkpoint.tokenizer.truncation_side)
        self._tokenizer.no_padding()
        if checkpoint.lower_case:
            present = self._tokenizer.normalizer
            self._tokenizer.normalizer = NormalizerSequence([Lowercase(), *([present] if present else [])])

    @classmethod
    def load(
        cls,
        model: str | Path = "embedded",
        dtype: str = "auto",
        device: str = "auto",
        revision: str | None = None,
        token_budget: int | None = None,
    ) -> ElasticEncoder:
        """Loads `embedded` (the default), `embedded-raw`, a folder, or a hub name (at `revision`).

        `dtype` is float32, bfloat16, float16 or auto: half precision where the device computes faster in it.
        `token_budget` is the padded size of a batch, rows x tokens (default: what is fast on the device).
        """
        where = choose_device(device)
        source = resolve(str(model), revision)
        checkpoint = load_checkpoint(source.path, choose_dtype(dtype, where), source.heads)
        return cls(checkpoint, str(model), where, token_budget)

    def check(self, sizes: Iterable[Size]) -> None:
        """Raises SizeError for a size that the model does not have."""
        for size in sizes:
            if size.layers > self.depth or size.dim > self.width:
                raise SizeError(
                    f"the model {self.name} has no size {size}: it has layers 1 to {self.depth} and 1 to {self.width} "
                    "dimensions"
                )

    def encode(
        self,
        texts: Sequence[str],
        sizes: Sequence[Size],
        role: Role = "passage",
        normalize: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> dict[Size, Float32s]:
        """Embeds `texts` at every size in one pass: size -> len(texts) x size.dim, float32, unit length.

        Truncated first, normalised after. `progress` is told how many texts are done, batch by batch.
        """
        self.check(sizes)
        widest = {size.layers: max(each.dim for each in sizes if each.layers == size.layers) for size in sizes}
        full = self.encode_layers(texts, sorted(widest), role, max(widest.values(), default=1), progress)
        cut = {size: full[size.layers][:, : size.dim] for size in sizes}
        return {size: _unit(vectors) if normalize else vectors.copy() for size, vectors in cut.items()}

    def encode_layers(
        self,
        texts: Sequence[str],
        layers: Sequence[int],
        role: Role = "passage",
        dim: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, Float32s]:
        """The first `dim` dimensions (default all) at each of `layers`, not normalised: layer -> len(texts) x dim."""
        dim = dim or self.width
        self.check(Size(layer, dim) for layer in layers)
        output = {layer: np.empty((len(texts), dim), np.float32) for layer in layers}
        for batch in self._batches(texts, role):
            for layer, vectors in batch.embed(layers).items():
                output[layer][batch.positions] = vectors[:, :dim].cpu().numpy()
            if progress:
                progress(len(batch.positions))
        return output

    def pool_layers(
        self,
        texts: Sequence[str],
        layers: Sequence[int],
        role: Role = "passage",
        progress: Callable[[int], None] | None = None,
    ) -> dict[int, Float32s]:
        """What heads are fitted on, pooled vectors before the linear map: layer -> len(texts) x (modes * hidden)."""
        rows: dict[int, list[Float32s]] = {layer: [] for layer in layers}
        order: list[int] = []
        for batch in self._batches(texts, role):
            for layer, pooled in batch.pool(layers).items():
                rows[layer].append(pooled.cpu().numpy())
            order += batch.positions
            if progress:
                progress(len(batch.positions))
        back = np.argsort(order)
        none = np.empty((0, self.checkpoint.blocks.config.hidden_size * len(self._pooling.modes)), np.float32)
        return {layer: np.concatenate([none, *parts])[back] for layer, parts in rows.items()}

    def begin(self, texts: Sequence[str], role: Role = "query") -> Encoding:
        """Starts embedding `texts`; nothing runs until a size is asked for; deeper sizes go on from shallower ones."""
        return Encoding(self, list(self._batches(texts, role)), len(texts))

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """The token ids of each text under its role's prompt, special tokens included, cut to `max_tokens`."""
        return self._tokenize([self._prompt(role)[0] + text for text in texts])

    def pool_with_gradient(
        self,
        rows: Sequence[Sequence[int]],
        role: Role,
        layers: Sequence[int],
        weigh: Callable[[int, Tensor], Tensor],
    ) -> dict[int, Tensor]:
        """For training: one padded pass over token rows, pooled at each of `layers`: layer -> rows x pooled width.

        `weigh` is the trained head's. Layer 0, which only training ever asks for, is the embedding output.
        """
        inputs = pad(rows, self._pad_id, self.device)
        run = Pass(self.checkpoint.blocks, inputs)
        hidden = run.run([layer for layer in layers if layer > 0])
        if 0 in layers and run.embedding_output is not None:
            hidden = {0: run.embedding_output, **hidden}
        prompt_tokens = self._prompt(role)[1]
        mask = inputs["attention_mask"]
        return {layer: self._pooling(weigh(layer, hidden[layer]), mask, prompt_tokens) for layer in layers}

    def replace_head(self, head: Head) -> None:
        """Embeds with `head` from now on."""
        self.checkpoint.head = head
        self._head = head.to(self.device)
        self.width = head.width

    def _batches(self, texts: Sequence[str], role: Role) -> Iterable[_Batch]:
        prompt_tokens = self._prompt(role)[1]
        rows = self.tokenize(texts, role)
        for positions in batches([len(row) for row in rows], self.token_budget):
            inputs = pad([rows[position] for position in positions], self._pad_id, self.device)
            yield _Batch(self, positions, inputs, prompt_tokens)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids; an empty text is one padding token where the tokenizer adds no special ones."""
        return [encoded.ids or [self._pad_id] for encoded in self._tokenizer.encode_batch_fast(list(texts))]

    def _prompt(self, role: Role) -> tuple[str, int]:
        """The prompt of a role, and how many tokens it takes at the front of a text.

        The default prompt is for models that name no prompt for queries or passages, not even an empty one.
        """
        prompts = self.checkpoint.prompts
        has_roles = any(name in prompts for names in _PROMPT_NAMES.values() for name in names)
        names = _PROMPT_NAMES[role] if has_roles else (self.checkpoint.default_prompt or "",)
        prompt = next((prompts[name] for name in names if prompts.get(name)), "")
        if not prompt or self._pooling.include_prompt:
            return prompt, 0
        ids = self._tokenize([prompt])[0]
        return prompt, len(ids) - (ids[-1] in self.checkpoint.tokenizer.all_special_ids)


class Encoding:
    """Texts on their way through the encoder. `at` a deeper size continues where a shallower one stopped."""

    def __init__(self, encoder: ElasticEncoder, batches: list[_Batch], count: int) -> None:
        self._encoder = encoder
        self._batches = batches
        self._count = count

    def at(self, size: Size) -> Float32s:
        """The embeddings at `size`: texts x size.dim, float32, unit length."""
        self._encoder.check([size])
        output = np.empty((self._count, size.dim), np.float32)
        for batch in self._batches:
            output[batch.positions] = batch.embed([size.layers])[size.layers][:, : size.dim].cpu().numpy()
        return _unit(output)


class _Batch:
    """One padded batch, the pass over it, and what has been pooled so far."""

    def __init__(
        self, encoder: ElasticEncoder, positions: list[int], inputs: dict[str, Tensor], prompt_tokens: int
    ) -> None:
        self.positions = positions
        self._encoder = encoder
        self._inputs = inputs
        self._prompt_tokens = prompt_tokens
        self._pass = Pass(encoder.checkpoint.blocks, inputs)
        self._pooled: dict[int, Tensor] = {}

    @torch.inference_mode()
    def embed(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """The embeddings at each of `layers`: layer -> B x width, float32, not normalised."""
        head = self._encoder._head
        pooled = self.pool(sorted(set().union(*(head.layers_for(layer) for layer in layers))))
        return {layer: head(layer, pooled) for layer in layers}

    @torch.inference_mode()
    def pool(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """The pooled vectors at each of `layers`: layer -> B x pooled width, float32."""
        missing = [layer for layer in layers if layer not in self._pooled]
        if missing and min(missing) <= self._pass.layer:
            self._pass = Pass(self._encoder.checkpoint.blocks, self._inputs)
        if missing:
            for layer, hidden in self._pass.run(missing).items():
                states = self._encoder._head.weigh(layer, hidden)
                self._pooled[layer] = self._encoder._pooling(
                    states, self._inputs["attention_mask"], self._prompt_tokens
                )
        return {layer: self._pooled[layer] for layer in layers}


def _unit(vectors: Float32s) -> Float32s:
    """Rows scaled to length 1; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)
