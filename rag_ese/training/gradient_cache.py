"""Contrastive batches larger than memory: embeddings first, gradients with respect to them, then each chunk again.

The loss of a contrastive batch couples all its texts, but reaches the weights only through the embeddings. So: embed
every chunk without a graph, let the objective differentiate the loss with respect to the embeddings alone (at all
layers at once), and run each chunk a second time with a graph to pass those gradients on. Memory is bounded by one
chunk, the price is one more forward pass. Gao et al. 2021, "Scaling deep contrastive learning batch size under memory
limited setup" (arXiv 2101.06983). Random state is restored per chunk, so that dropout is the same in both passes.

Across processes each one embeds its own share; all see the whole batch's embeddings and compute the same loss; each
passes on the gradients of its share, and the sum over processes is the gradient of the whole batch, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

Chunk = Callable[[], Mapping[int, Tensor]]
"""Embeds one chunk: layer -> rows x width."""

Loss = Callable[[Sequence[Mapping[int, Tensor]]], dict[str, Tensor]]
"""The named loss parts of the embeddings of every chunk, in order."""


def backward(chunks: Sequence[Chunk], loss: Loss, cached: bool) -> dict[str, float]:
    """Adds the gradients of the summed loss parts to the weights behind `chunks`; returns the parts.

    `cached` embeds every chunk twice to hold the graph of one at a time. With several processes (torch.distributed)
    it is always so; chunk i belongs to process i modulo their number, and the caller sums gradients afterwards.
    """
    if not cached and _processes() == 1:
        parts = loss([chunk() for chunk in chunks])
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        return _floats(parts)
    mine = range(_rank(), len(chunks), _processes())
    states: dict[int, tuple[Tensor, list[Tensor]]] = {}
    embedded: list[dict[int, Tensor]] = [{} for _ in chunks]
    with torch.no_grad():
        for number in mine:
            states[number] = _random_state()
            embedded[number] = {layer: each.float() for layer, each in chunks[number]().items()}
    leaves = [{layer: each.requires_grad_() for layer, each in chunk.items()} for chunk in _gathered(embedded)]
    parts = loss(leaves)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    after = _random_state()
    for number in mine:
        _set_random_state(states[number])
        again = chunks[number]()
        pairs = [(each, leaves[number][layer].grad) for layer, each in again.items()]
        used = [(each, gradient) for each, gradient in pairs if gradient is not None]
        torch.autograd.backward([each for each, _ in used], [gradient for _, gradient in used])
    _set_random_state(after)
    return _floats(parts)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sums the gradients of all processes, in place; nothing happens with one process."""
    if _processes() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def _gathered(embedded: list[dict[int, Tensor]]) -> list[dict[int, Tensor]]:
    """Every chunk's embeddings, each sent by the process that has them."""
    if _processes() == 1:
        return embedded
    device = next((each.device for chunk in embedded for each in chunk.values()), torch.device("cpu"))
    shapes: list[object] = [{layer: tuple(each.shape) for layer, each in chunk.items()} for chunk in embedded]
    everyone: list[list[dict[int, tuple[int, ...]]]] = [[] for _ in range(_processes())]
    dist.all_gather_object(everyone, shapes)
    for number, chunk in enumerate(embedded):
        owner = number % _processes()
        for layer, shape in everyone[owner][number].items():
            tensor = chunk[layer].contiguous() if owner == _rank() else torch.empty(shape, device=device)
            dist.broadcast(tensor, owner)
            chunk[layer] = tensor
    return embedded


def _floats(parts: Mapping[str, Tensor]) -> dict[str, float]:
    values = torch.stack([part.detach() for part in parts.values()]).tolist()
    return dict(zip(parts, values, strict=True))


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
