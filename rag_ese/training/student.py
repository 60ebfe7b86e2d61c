"""The encoder as it is trained: any depth of a batch of texts, with gradients, through the very pass that serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from rag_ese.encoder.batching import batches
from rag_ese.encoder.elastic import ElasticEncoder, Role
from rag_ese.encoder.gates import TokenGate, open_gate
from rag_ese.encoder.heads import Head, ModuleHead, ViewHeads
from rag_ese.errors import ConfigError
from rag_ese.training.plain_attention import use_plain_attention

Embeddings = dict[int, Tensor]
"""layer -> texts x width, not normalised."""


class Student:
    """Wraps an encoder in float32 whose backbone and heads learn. Embeddings and their gradients are float32.

    `frozen` are substrings of names of the backbone's parameters that stay as they are; where `only` is given, just
    the names that hold it learn (the adapters of LoRA). `half` runs the blocks in bfloat16 (autocast):
    weights, gradients and optimiser stay in float32. With `gates`, heads that have no token gates begin with open ones.
    """

    def __init__(
        self,
        encoder: ElasticEncoder,
        frozen: Sequence[str] = (),
        half: bool = False,
        only: str = "",
        gates: bool = False,
    ) -> None:
        self.encoder = encoder
        self.half = half
        self.backbone: nn.Module = encoder.checkpoint.blocks.model
        if half and encoder.device.type == "cpu":
            use_plain_attention(self.backbone)
        head = _gated(encoder) if gates else encoder.checkpoint.head
        self.heads = _trainable(head)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(only in name and not any(part in name for part in frozen))
        if not any(parameter.requires_grad for _, parameter in self.parameters()):
            raise ConfigError(f"freeze {', '.join(frozen)} leaves no parameter of {encoder.name} to train")

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter with its name, `backbone.` or `heads.` in front."""
        for name, parameter in self.backbone.named_parameters():
            yield f"backbone.{name}", parameter
        for name, parameter in self.heads.named_parameters():
            yield f"heads.{name}", parameter

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that learn."""
        return {name: parameter for name, parameter in self.parameters() if parameter.requires_grad}

    def tokenize(self, texts: Sequence[str], role: Role, limit: int) -> list[list[int]]:
        """Token ids under the role's prompt, cut to `limit` tokens; a final special token stays at the end."""
        whole = self.encoder.tokenize(texts, role)
        return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in whole]

    def chunks(self, rows: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
        """Positions of `rows` by similar length, each group at most `budget` padded tokens."""
        return list(batches([len(row) for row in rows], budget))

    def embed(self, rows: Sequence[Sequence[int]], role: Role, layers: Sequence[int]) -> Embeddings:
        """One padded pass over token rows (texts of one role): layer -> len(rows) x width."""
        with self._precision():
            pooled = self.encoder.pool_with_gradient(rows, role, self._needed(layers), self._weigh)
        return {layer: self._head(layer, pooled) for layer in layers}

    def train(self, dropout: bool) -> None:
        """Training mode: dropout as the backbone has it, or none."""
        self.backbone.train(dropout)

    def publish(self) -> None:
        """Hands the heads as they are now to the encoder, so that it encodes with what has been learned."""
        self.backbone.eval()
        if isinstance(self.heads, ViewParameters):
            self.encoder.replace_head(self.heads.as_heads())

    def _needed(self, layers: Sequence[int]) -> list[int]:
        head = self.encoder.checkpoint.head
        return sorted(set().union(*(head.layers_for(layer) for layer in layers)))

    def _head(self, layer: int, pooled: Mapping[int, Tensor]) -> Tensor:
        output: Tensor = (
            self.heads(layer, pooled) if isinstance(self.heads, ViewParameters) else self.heads(pooled[layer])
        )
        return output

    def _weigh(self, layer: int, hidden: Tensor) -> Tensor:
        return self.heads.weigh(layer, hidden) if isinstance(self.heads, ViewParameters) else hidden

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.encoder.device.type, torch.bfloat16) if self.half else nullcontext()


class ViewParameters(nn.Module):
    """ViewHeads as parameters (same arithmetic, same names)."""

    def __init__(self, heads: ViewHeads) -> None:
        super().__init__()
        self.view = heads.view
        self.weights = nn.ParameterDict({str(layer): nn.Parameter(w.clone()) for layer, w in heads.weights.items()})
        self.biases = nn.ParameterDict({str(layer): nn.Parameter(b.clone()) for layer, b in heads.biases.items()})
        gates = heads.gates.items()
        self.gate_weights = nn.ParameterDict({str(layer): nn.Parameter(gate.weight.clone()) for layer, gate in gates})
        self.gate_biases = nn.ParameterDict({str(layer): nn.Parameter(gate.bias.clone()) for layer, gate in gates})

    def as_heads(self) -> ViewHeads:
        """The heads as they are now, detached from training."""
        return ViewHeads(
            self.view,
            {int(layer): weight.detach().clone() for layer, weight in self.weights.items()},
            {int(layer): bias.detach().clone() for layer, bias in self.biases.items()},
            {
                int(layer): TokenGate(weight.detach().clone(), self.gate_biases[layer].detach().clone())
                for layer, weight in self.gate_weights.items()
            },
        )

    def weigh(self, layer: int, hidden: Tensor) -> Tensor:
        if str(layer) not in self.gate_weights:
            return hidden
        return TokenGate(self.gate_weights[str(layer)], self.gate_biases[str(layer)])(hidden)

    def forward(self, layer: int, pooled: Mapping[int, Tensor]) -> Tensor:
        if str(layer) not in self.weights:
            raise ConfigError(
                f"the elastic heads have no map for layer {layer}: train an encoder without heads (embedded-raw) for it"
            )
        views = torch.cat([pooled[layer], pooled[min(layer, self.view)]], dim=1)
        return nn.functional.linear(views, self.weights[str(layer)], self.biases[str(layer)])


def _trainable(head: Head) -> nn.Module:
    if isinstance(head, ViewHeads):
        return ViewParameters(head)
    if isinstance(head, ModuleHead):
        return head.modules
    raise ConfigError(f"heads of the kind {type(head).__name__} cannot be trained")


def _gated(encoder: ElasticEncoder) -> ViewHeads:
    """The encoder's heads, with open gates at every layer where they have none."""
    heads = encoder.checkpoint.head
    if not isinstance(heads, ViewHeads):
        raise ConfigError(
            f"{encoder.name} has no elastic heads, to which token gates belong: take a model that fit_heads made"
        )
    hidden = int(encoder.checkpoint.blocks.config.hidden_size)
    new = {layer: open_gate(hidden) for layer in heads.weights}
    return ViewHeads(heads.view, heads.weights, heads.biases, heads.gates or new)
