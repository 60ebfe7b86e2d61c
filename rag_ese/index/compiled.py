"""What all loops that numba compiles share: how many threads run them. Importing it imports numba."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba


@contextmanager
def threads(wanted: int) -> Iterator[None]:
    """Between 1 and the usual number of threads, for the loops inside the block."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(before, wanted)))
    try:
        yield
    finally:
        numba.set_num_threads(before)
