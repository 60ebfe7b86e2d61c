"""What building a store will cost, before it is built: time from a measured sample, memory and disk by arithmetic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rag_ese.errors import DataError
from rag_ese.index.kinds import factory_string, kind_for, new_index, streams
from rag_ese.index.manifest import Plan
from rag_ese.index.passages import EMPTY_POOL
from rag_ese.index.vectors import DTYPES, LayerEncoder
from rag_ese.types import Passage, Size

_SAMPLE = 256
_BM25_BYTES_PER_WORD = 40  # word numbers, scores and their positions, all held at once while bm25s builds


@dataclass(frozen=True)
class Estimate:
    """Sizes in bytes, time in seconds."""

    passages: int
    seconds: float
    ram: int
    disk: int
    kinds: dict[str, str]
    """Size -> the FAISS factory string it gets."""


def estimate(plan: Plan, passages: Iterable[Passage], encoder: LayerEncoder) -> Estimate:
    """Reads the passages once (to count them) and encodes a sample of 256 spread over the first 4096."""
    head: list[Passage] = []
    count = text_bytes = 0
    for passage in passages:
        count += 1
        text_bytes += len(passage.full.encode())
        if count <= 4096:
            head.append(passage)
    if not count:
        raise DataError(EMPTY_POOL)
    sample = head[:: max(1, len(head) // _SAMPLE)][:_SAMPLE]
    rate = _rate(encoder, [passage.full for passage in sample], plan.layers)
    sizes = [Size.parse(size) for size in plan.sizes]
    kinds = {size: kind_for(plan.kind, size) for size in sizes}
    codes = {size: _code_bytes(kinds[size], size.dim, count) for size in sizes}
    row = plan.model.width * np.dtype(DTYPES[plan.stored]).itemsize
    bm25 = text_bytes // 6 * _BM25_BYTES_PER_WORD if plan.bm25 else 0
    held = [codes[size] for size in sizes if not streams(new_index(kinds[size], size.dim, count))]
    return Estimate(
        passages=count,
        seconds=count / rate,
        ram=max([plan.shard * plan.model.width * 4 * len(plan.layers), bm25, *held]),
        disk=text_bytes + count * (16 + row * len(plan.layers)) + sum(codes.values()) + bm25 // 3,
        kinds={str(size): factory_string(kinds[size], size.dim, count) for size in sizes},
    )


def _rate(encoder: LayerEncoder, texts: Sequence[str], layers: Sequence[int]) -> float:
    encoder.encode_layers(texts[:32], layers)  # the first pass of a process is slower
    began = time.perf_counter()
    encoder.encode_layers(texts, layers)
    return len(texts) / (time.perf_counter() - began)


def _code_bytes(kind: str, dim: int, count: int) -> int:
    index = new_index(kind, dim, count)
    links = 2 * 32 * 4 if "HNSW" in factory_string(kind, dim, count) else 8
    try:
        return count * (int(index.sa_code_size()) + links)
    except RuntimeError:  # kinds without a code of their own keep float32
        return count * (4 * dim + links)
