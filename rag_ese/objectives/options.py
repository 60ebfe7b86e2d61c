"""What a user may ask for: names, options, layers and dimensions, checked in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from rag_ese.errors import ConfigError, SizeError
from rag_ese.types import Size

T = TypeVar("T")


def pick(what: str, name: str, table: Mapping[str, T]) -> T:
    """The entry `name` of `table`; a ConfigError lists the names that there are."""
    if name not in table:
        raise ConfigError(f"there is no {what} {name!r}: choose one of {', '.join(table)}")
    return table[name]


def check_options(what: str, given: Iterable[str], valid: Sequence[str]) -> None:
    """ConfigError unless every option in `given` is one of `valid`."""
    unknown = [name for name in given if name not in valid]
    if unknown:
        options = ", ".join(valid) or "none"
        raise ConfigError(f"{what} has no option {', '.join(map(repr, unknown))}: its options are {options}")


def check_size(size: Size | str, depth: int, width: int) -> Size:
    """The size (`L2-d64`; `64` means full depth), if a model of `depth` layers and `width` dimensions has it."""
    size = size if isinstance(size, Size) else Size.parse(str(size), depth, width)
    if size.layers > depth or size.dim > width:
        raise SizeError(f"the size {size} is larger than the model, {Size(depth, width)}: choose a smaller one")
    return size


def check_dims(dims: Iterable[int], width: int) -> tuple[int, ...]:
    """Distinct dimensions, ascending, each between 1 and `width`."""
    return _ascending("dimensions", dims, width)


def check_layers(layers: Iterable[int], depth: int) -> tuple[int, ...]:
    """Distinct layers, ascending, each between 1 and `depth`."""
    return _ascending("layers", layers, depth)


def check_depth(objective: str, depth: int) -> None:
    """SizeError for a model with nothing between its first and its last layer to train."""
    if depth < 2:
        raise SizeError(f"{objective} trains layers below the last, and this model has {depth}: use mrl instead")


def _ascending(what: str, numbers: Iterable[int], limit: int) -> tuple[int, ...]:
    chosen = sorted(set(numbers))
    if not chosen:
        raise SizeError(f"no {what} were given: name some between 1 and {limit}")
    if chosen[0] < 1 or chosen[-1] > limit:
        raise SizeError(
            f"the {what} {', '.join(map(str, chosen))} are not all between 1 and {limit}: the model has no others"
        )
    return tuple(chosen)
