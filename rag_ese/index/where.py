"""Filters on metadata: what a passage must be like to be searched at all.

A filter is a mapping, every entry of which must hold, or a function of a passage's metadata, or a ready mask over rows:

    {"source": "wiki"}                       equal
    {"source": ["wiki", "news"]}             equal to one of them
    {"year": {">=": 1990, "<": 2000}}        compared; the comparisons are ==, !=, <, <=, >, >= and in

A passage without the name fails, whatever the comparison. Numbers compare with numbers, strings with strings; true and
false are equal only to themselves.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rag_ese.errors import ConfigError
from rag_ese.types import Bools, Metadata

Where = Mapping[str, Any] | Callable[[Metadata], bool] | Bools
_Test = Callable[[Any], bool]

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def mask(where: Where, rows: Sequence[Metadata], known: Iterable[str]) -> Bools:
    """Which of the rows the filter lets through (n, bool).

    Raises ConfigError for a filter that cannot be read, or that names what is not among the `known` names: a filter
    with a slip of the pen would otherwise look like an answer without hits.
    """
    if isinstance(where, np.ndarray):
        return ready(where, len(rows))
    if callable(where):
        return np.fromiter((bool(where(row)) for row in rows), np.bool_, len(rows))
    tests = {name: _test(name, wanted) for name, wanted in where.items()}
    names = {*known}
    for name in tests:
        if name not in names:
            shown = ", ".join(sorted(names)) or "none"
            raise ConfigError(f"no passage has the metadata {name!r} that the filter asks for: there is {shown}")
    passing = (all(name in row and test(row[name]) for name, test in tests.items()) for row in rows)
    return np.fromiter(passing, np.bool_, len(rows))


def ready(where: Bools, count: int) -> Bools:
    """A mask that was given as such; raises ConfigError where it is none for `count` rows."""
    if where.shape != (count,) or where.dtype != np.bool_:
        raise ConfigError(f"a mask of shape {where.shape} and type {where.dtype} cannot filter {count} rows")
    return where


def _test(name: str, wanted: Any) -> _Test:
    if isinstance(wanted, Mapping):
        if not wanted:
            raise ConfigError(f"the filter on {name!r} compares with nothing: write for example {{'>=': 1990}}")
        tests = [_comparison(name, sign, value) for sign, value in wanted.items()]
        return lambda value: all(test(value) for test in tests)
    return _any_of(name, wanted) if isinstance(wanted, list | tuple | set | frozenset) else _equal(name, wanted)


def _comparison(name: str, sign: str, wanted: Any) -> _Test:
    if sign == "in":
        if not isinstance(wanted, list | tuple | set | frozenset):
            raise ConfigError(f"the filter on {name!r} has 'in' with {wanted!r}: write a list")
        return _any_of(name, wanted)
    if sign in ("==", "!="):
        equal = _equal(name, wanted)
        return equal if sign == "==" else lambda value: not equal(value)
    if sign not in _ORDER:
        raise ConfigError(f"the filter on {name!r} compares with {sign!r}: choose ==, !=, {', '.join(_ORDER)} or in")
    if isinstance(wanted, bool):
        raise ConfigError(f"the filter on {name!r} orders by {wanted!r}, which has no order: use == or !=")
    compare, kind = _ORDER[sign], _kind(name, wanted)
    return lambda value: _kind(name, value) == kind and compare(value, wanted)


def _any_of(name: str, wanted: Iterable[Any]) -> _Test:
    members = {(_kind(name, each), each) for each in wanted}
    return lambda value: (_kind(name, value), value) in members


def _equal(name: str, wanted: Any) -> _Test:
    return _any_of(name, [wanted])


def _kind(name: str, value: Any) -> str:
    for kind, types in (("truth", bool), ("number", int | float), ("string", str)):
        if isinstance(value, types):
            return kind
    raise ConfigError(
        f"the filter on {name!r} has {value!r}, a {type(value).__name__}: use strings, numbers, true and false"
    )
