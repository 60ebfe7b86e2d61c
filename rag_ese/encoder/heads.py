"""From pooled vectors to the sentence embedding: what comes between the pooling and the truncation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rag_ese.encoder.gates import TokenGate
from rag_ese.errors import ModelError
from rag_ese.types import Size


class Head(Protocol):
    """Turns the pooled vectors of one depth into the embedding of that depth."""

    width: int
    """The embedding's full number of dimensions."""

    def layers_for(self, layer: int) -> set[int]:
        """The layers whose pooled vectors are needed for an embedding at depth `layer`; none is deeper than it."""

    def weigh(self, layer: int, hidden: Tensor) -> Tensor:
        """The token states of `layer` (B x T x hidden) as they go into the pooling."""

    def __call__(self, layer: int, pooled: Mapping[int, Tensor]) -> Tensor:
        """The embedding (B x width, float32, not yet normalised) at depth `layer`."""

    def to(self, device: torch.device) -> Head:
        """The same head on `device`."""


class ModuleHead:
    """The modules after the pooling in a sentence-transformers folder (Dense, LayerNorm, Normalize), at any depth."""

    def __init__(self, modules: Sequence[nn.Module], width: int) -> None:
        self.modules = nn.Sequential(*modules).eval()
        self.width = width

    def layers_for(self, layer: int) -> set[int]:
        return {layer}

    def weigh(self, layer: int, hidden: Tensor) -> Tensor:
        return hidden

    def __call__(self, layer: int, pooled: Mapping[int, Tensor]) -> Tensor:
        output: Tensor = self.modules(pooled[layer])
        return output

    def to(self, device: torch.device) -> ModuleHead:
        self.modules.to(device)
        return self


class ViewHeads:
    """One linear map per depth, over the pooled vectors of that depth beside those of a shallow view.

    The shallow view adds what the deep layers have forgotten (names and rare words). `weights[n]` is width x (2 hidden)
    and `biases[n]` is width; their order of input is [layer n, shallow view]. A layer before the view is its own view.
    With `gates`, one for every layer, tokens are weighted before they are pooled.
    """

    def __init__(
        self,
        view: int,
        weights: Mapping[int, Tensor],
        biases: Mapping[int, Tensor],
        gates: Mapping[int, TokenGate] | None = None,
    ) -> None:
        self.view = view
        self.weights = {layer: weight.float() for layer, weight in weights.items()}
        self.biases = {layer: bias.float() for layer, bias in biases.items()}
        self.gates = {layer: TokenGate(gate.weight.float(), gate.bias.float()) for layer, gate in (gates or {}).items()}
        self.width = next(iter(self.biases.values())).shape[0]

    def layers_for(self, layer: int) -> set[int]:
        return {layer, min(layer, self.view)}

    def weigh(self, layer: int, hidden: Tensor) -> Tensor:
        return self.gates[layer](hidden) if layer in self.gates else hidden

    def __call__(self, layer: int, pooled: Mapping[int, Tensor]) -> Tensor:
        views = torch.cat([pooled[layer], pooled[min(layer, self.view)]], dim=1)
        return nn.functional.linear(views, self.weights[layer], self.biases[layer])

    def to(self, device: torch.device) -> ViewHeads:
        return ViewHeads(
            self.view,
            {layer: weight.to(device) for layer, weight in self.weights.items()},
            {layer: bias.to(device) for layer, bias in self.biases.items()},
            {layer: gate.to(device) for layer, gate in self.gates.items()},
        )

    def rotated(self, rotation: Tensor) -> ViewHeads:
        """The heads whose embedding, at every depth, is this one's times `rotation` (width x width)."""
        return ViewHeads(
            self.view,
            {layer: rotation.T @ weight for layer, weight in self.weights.items()},
            {layer: rotation.T @ bias for layer, bias in self.biases.items()},
            self.gates,
        )

    def cut(self, size: Size) -> ViewHeads:
        """The heads of every depth up to `size.layers`, with the first `size.dim` dimensions, on the CPU."""
        kept = range(1, size.layers + 1)
        weights, biases = ({n: each[n][: size.dim].cpu() for n in kept} for each in (self.weights, self.biases))
        cpu = torch.device("cpu")
        return ViewHeads(self.view, weights, biases, {n: self.gates[n].to(cpu) for n in kept if n in self.gates})

    def state(self) -> dict[str, Tensor]:
        """The tensors under the names they have in a file."""
        return {
            **{f"layer.{layer}.weight": weight for layer, weight in self.weights.items()},
            **{f"layer.{layer}.bias": bias for layer, bias in self.biases.items()},
            **{f"layer.{layer}.gate.weight": gate.weight for layer, gate in self.gates.items()},
            **{f"layer.{layer}.gate.bias": gate.bias for layer, gate in self.gates.items()},
        }

    @classmethod
    def from_state(cls, view: int, state: Mapping[str, Tensor]) -> ViewHeads:
        names = [re.fullmatch(r"layer\.(\d+)\.(gate\.)?(weight|bias)", name) for name in state]
        layers = sorted({int(name[1]) for name in names if name})
        gated = any(name[2] for name in names if name)
        if not layers or None in names:
            raise ModelError(f"the elastic heads hold {sorted(state)[:3]}, but need layer.N.weight and layer.N.bias")
        try:
            weights, biases = ({n: state[f"layer.{n}.{part}"] for n in layers} for part in ("weight", "bias"))
            own = layers if gated else []
            gates = {n: TokenGate(state[f"layer.{n}.gate.weight"], state[f"layer.{n}.gate.bias"]) for n in own}
        except KeyError as error:
            raise ModelError(f"the elastic heads lack the tensor {error}: the file is not complete") from error
        return cls(view, weights, biases, gates)
