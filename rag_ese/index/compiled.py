"""What the loops that numba compiles share: how many threads run them, and asking memory ahead. Imports numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

_LINE = 64  # bytes that memory hands over at once


@contextmanager
def threads(wanted: int) -> Iterator[None]:
    """Between 1 and the usual number of threads, for the loops inside the block."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(before, wanted)))
    try:
        yield
    finally:
        numba.set_num_threads(before)


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch_line(_: Any, array: Any, offset: Any) -> Any:
    """LLVM's prefetch, for reading, of the line at `offset` bytes from the beginning of `array`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        place = builder.gep(builder.bitcast(data, pointer), [values[1]])
        builder.call(function, [place, number(0), number(3), number(1)])  # to read, keep it near, data
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.intp), generate


def _prefetch(array: Any, first: Any, count: Any) -> None:
    """Asks memory for `count` bytes of `array` (bytes, contiguous) from `first` on, without waiting for them."""
    for offset in range(first, first + count, _LINE):
        _prefetch_line(array, offset)


prefetch = numba.njit(_prefetch, inline="always")
