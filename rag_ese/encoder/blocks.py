"""Runs a Transformer block by block, stops early, and goes on later: the one place that says what "layer n" is.

Layer n: n blocks have run (1-based; the embedding output is not a layer), and where the architecture ends in a norm
(ModernBERT, Qwen, Llama) that norm is applied to intermediate states too. Works with any Hugging Face model that keeps
its blocks in one list: the model's own forward prepares embeddings, masks and positions; each block is intercepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from rag_ese.encoder.packed_block import packed_forward
from rag_ese.errors import ModelError, SizeError

_FINAL_NORMS = ("final_norm", "norm", "ln_f", "final_layer_norm", "final_layernorm")


class BlockModel:
    """A Hugging Face model whose blocks can be run a few at a time.

    Outside of a `Pass` the wrapped model behaves as before. Passes of several threads do not disturb each other.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config: Any = model.config
        self.blocks, parent = _find_blocks(model)
        self.final_norm: nn.Module | None = next(
            (getattr(parent, name) for name in _FINAL_NORMS if isinstance(getattr(parent, name, None), nn.Module)), None
        )
        if isinstance(getattr(model, "pooler", None), nn.Module):
            model.pooler = None  # type: ignore[assignment]  # never used here, and costs time
        self.forwards = [packed_forward(block) for block in self.blocks]
        """What runs each block."""
        for number, block in enumerate(self.blocks):
            block.forward = _intercept(number, block.forward)

    @property
    def depth(self) -> int:
        """How many blocks the model has."""
        return len(self.blocks)


class Pass:
    """One forward pass over one batch that runs only as many blocks as it is asked for.

    `inputs` are the model's own (input_ids and attention_mask, B x T).
    """

    def __init__(self, model: BlockModel, inputs: dict[str, Tensor]) -> None:
        self._model = model
        self._inputs = inputs
        self._hidden: Tensor | None = None
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._wanted: Sequence[int] = ()
        self._kept: dict[int, Tensor] = {}
        self._returns_tuple = False
        self.layer = 0
        """How many blocks have run."""
        self.embedding_output: Tensor | None = None
        """What the first block was given (B x T x hidden), once the pass has begun."""

    def run(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """The hidden states (B x T x hidden) at each of `layers`, running just the blocks that they need.

        A later call continues where the last one stopped; every layer asked for must lie deeper than that.
        """
        depth = self._model.depth
        if not layers or min(layers) <= self.layer or max(layers) > depth:
            raise SizeError(f"layers {list(layers)} cannot be run: blocks {self.layer + 1} to {depth} remain")
        self._wanted, self._kept = layers, {}
        if self._hidden is None:
            token = _CURRENT.set(self)
            try:
                self._model.model(**self._inputs)
            finally:
                _CURRENT.reset(token)
        else:
            while self.layer < max(layers):
                args, kwargs = self._calls[self.layer]
                self._step(self._hidden, args, kwargs)
        return self._kept

    def _step(self, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the next block."""
        output = self._model.forwards[self.layer](hidden, *args, **kwargs)
        self._returns_tuple = isinstance(output, tuple)
        self._hidden = output[0] if self._returns_tuple else output
        self.layer += 1
        if self.layer in self._wanted:
            norm = self._model.final_norm
            self._kept[self.layer] = self._hidden if norm is None else norm(self._hidden)
        return output

    def intercepted(self, number: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called in place of block `number` (0-based): runs it, or notes how to run it later and leaves it out."""
        self._calls.append((args, kwargs))
        if number == 0:
            self.embedding_output = hidden
        if number < max(self._wanted):
            return self._step(hidden, args, kwargs)
        return (hidden,) if self._returns_tuple else hidden


_CURRENT: ContextVar[Pass | None] = ContextVar("current pass", default=None)


def _intercept(number: int, block: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        current = _CURRENT.get()
        if current is None:
            return block(*args, **kwargs)
        if args:
            return current.intercepted(number, args[0], args[1:], kwargs)
        return current.intercepted(number, kwargs.pop("hidden_states"), (), kwargs)

    return forward


def _find_blocks(model: nn.Module) -> tuple[nn.ModuleList, nn.Module]:
    """The list of blocks, and the module that holds it."""
    config: Any = model.config
    count = getattr(config, "num_hidden_layers", 0)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists or getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is not supported: it does not keep its blocks in one list; use an encoder such as "
            "BERT, RoBERTa, MPNet, DistilBERT or ModernBERT, or a decoder such as Qwen3"
        )
    name, blocks = min(lists, key=lambda found: found[0].count("."))
    return blocks, model.get_submodule(name.rpartition(".")[0])
