"""The fast funnel against FAISS and torch: the same vectors, the same questions, one run.

    python benchmarks/funnel.py --index indexes/hotpotqa --questions TRAIN.json.gz,TRAIN.jsonl.gz --work /tmp/made

Vectors are made from an index folder's (benchmarks/made.py). For every way of searching, the fastest setting is chosen
that finds `--recall` of the exact results on one half of the questions, one for single questions and one for batches;
times and recall are then those of the other half, one question at a time, all contenders taking turns. FAISS's
IndexRefine stands over an IndexPreTransform that takes the first dimensions and brings them to unit length, as our
index does; its base is the best of those tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from given import Given
from made import Search, bandwidth, brute_force, encoded, flops, in_turns, made_store, questions, timed, truncating
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.encoder.config import EncoderConfig
from rag_ese.eval.cost import hardware, versions
from rag_ese.index import Store
from rag_ese.index.kinds import exceptions, faiss_module, lists_for
from rag_ese.retriever import ExactIndex, Funnel, FunnelSearcher
from rag_ese.retriever.recall import recalls
from rag_ese.retriever.search_plan import index_bytes
from rag_ese.types import Float32s, Int64s, Size

PLAIN = "FAISS FlatIP"
_MIDDLES = (30, 50, 70, 100, 150, 200, 300)
_BATCH = 64
_SHORTLISTS = (50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 4000)


class FunnelConfig(EncoderConfig):
    """What is searched, and how often."""

    index: Path = Field(..., description="an index folder with full-width vectors")
    questions: str = Field(..., description="files of training questions, separated by commas")
    work: Path = Field(..., description="a folder for the made stores; kept, and used again")
    count: int = Field(1_000_000, ge=1000, description="vectors")
    noise: float = Field(0.4, ge=0, description="length of the noise added to each")
    dims: str = Field("128,256", description="widths of our first stage")
    kinds: str = Field("sketch,ivf-sketch,pq4,pq4; L6-d256=sq8", description="kinds of index of our first stage")
    bases: str = Field(
        "64:SQfp16,128:SQfp16,128:SQ8,128:PQ64x4fs,256:PQ128x4fs,128:IVF,SQ8",
        description="IndexRefine's bases, each WIDTH:FAISS FACTORY STRING; IVF: with as many lists as our kind ivf has",
    )
    panorama: int = Field(12, ge=0, description="levels of FlatIPPanorama; 0: leave it out")
    queries: int = Field(400, ge=20, description="questions, half of them to choose settings on")
    batches: int = Field(5, ge=1, description="batches of 64 that are timed")
    burst: int = Field(20, ge=1, description="questions per turn")
    recall: float = Field(0.99, gt=0, le=1, description="recall that a setting must reach")
    k: int = Field(10, ge=1, description="results per question")
    exact: bool = Field(True, description="certified exact search among the contenders")
    seed: int = Field(0, description="seed of the draws")


@dataclass(frozen=True)
class Contender:
    """A way of searching at a setting, or at one for single questions and one for batches.

    `resident`: bytes that every search may read, the mapped vectors apart.
    """

    name: str
    setting: str
    search: Search
    batch: Search
    resident: int


def fastest(
    name: str, settings: Iterator[Contender], chosen_on: Float32s, exact: Int64s, recall: float
) -> Contender | None:
    """The settings with the lowest median times among those that reach `recall`."""
    alone: list[tuple[float, Contender]] = []
    together: list[tuple[float, Contender]] = []
    highest = 0.0
    for each in settings:
        found = float(recalls(list(each.batch(chosen_on)), exact).mean())
        highest = max(highest, found)
        if found < recall:
            continue
        each.search(chosen_on[:1])
        singles = timed(each.search, [chosen_on[at : at + 1] for at in range(15)])
        alone.append((float(np.median(singles)), each))
        together.append((float(np.median(timed(each.batch, [chosen_on[:_BATCH]] * 3))), each))
    if not alone:
        print(f"{name}: no setting reaches recall {recall}: {highest:.4f} at most", flush=True)
        return None
    (time_of_one, one), (time_of_many, many) = (min(those, key=lambda pair: pair[0]) for those in (alone, together))
    setting = one.setting if one is many else f"{one.setting}; batches: {many.setting}"
    print(f"{name}: {setting}, {time_of_one * 1e3:.2f} and {time_of_many * 1e3:.1f} ms", flush=True)
    return Contender(name, setting, one.search, many.batch, max(one.resident, many.resident))


def ours(config: FunnelConfig, store: Store, encoder: Any, dim: int) -> Iterator[Contender]:
    """Funnels over a store, from question vectors, by the searcher that serves; the smallest shortlists first."""
    layer = max(store.manifest.plan.layers)
    small, full, kinds = Size(layer, dim), Size(layer, store.width), store.manifest.plan.kind
    middles = [f" > {size}:{keep}" for size in exceptions(kinds) for keep in _MIDDLES] or [""]
    for middle, keep in product(middles, _SHORTLISTS):
        if middle and int(middle.split(":")[1]) >= keep:
            continue
        text = f"{small}:{keep}{middle} > {full}:{config.k}"
        searcher = FunnelSearcher(store, encoder, Funnel.parse(text, layer, full.dim))

        def search(queries: Float32s, searcher: FunnelSearcher = searcher) -> Int64s:
            return np.stack([ranking.rows for ranking in searcher.follow(Given(queries))])

        held = index_bytes(store, Funnel.parse(text, layer, full.dim))
        yield Contender("", f"{kinds} {searcher.name}", search, search, held)


def refined(config: FunnelConfig, base: Any, refine: Any, name: str) -> Iterator[Contender]:
    """IndexRefine over `base`, which is an IndexPreTransform: shortlists, lists that are searched, threads."""
    faiss = faiss_module()
    index = faiss.IndexRefine(base, refine)
    inner = faiss.downcast_index(base.index)
    lists = inner.nlist if isinstance(inner, faiss.IndexIVF) else 0
    size = getattr(inner, "code_size", 0) * base.ntotal + 8 * base.ntotal * bool(lists) + 4 * lists * inner.d
    size = max(size, int(inner.sa_code_size() * base.ntotal) if not lists else size)
    for probes in [max(1, lists // part) for part in (32, 16, 8, 4, 2)] if lists else [0]:
        for keep in _SHORTLISTS:

            def search(queries: Float32s, threads: int, probes: int = probes, keep: int = keep) -> Int64s:
                faiss.omp_set_num_threads(threads)
                if probes:
                    inner.nprobe = probes
                    inner.parallel_mode = 1 if len(queries) == 1 else 0
                index.k_factor = keep / config.k
                return index.search(queries, config.k)[1]  # type: ignore[no-any-return]

            cores = os.cpu_count() or 1
            for threads in sorted({1, cores}):
                setting = f"{name}, {keep} kept{f', {probes} probes' if probes else ''}, {threads} threads"
                yield Contender("", setting, partial(search, threads=threads), partial(search, threads=cores), size)


def pruned(settings: Iterator[Contender], chosen_on: Float32s, exact: Int64s, recall: float) -> Iterator[Contender]:
    """Settings near the recall on 100 questions, until three of a kind reach it: larger shortlists only cost more."""
    beyond, kind = 0, ""
    for each in settings:
        here = each.setting.split(" kept")[-1]
        same = (here.split(" probes")[0] if "probes" in here else "") + each.setting.partition(" > ")[2]
        if same != kind:
            kind, beyond = same, 0
        if beyond >= 3:
            continue
        found = float(recalls(list(each.batch(chosen_on[:100])), exact[:100]).mean())
        beyond += found >= recall
        if found >= recall - 0.004:
            yield each


def bases(config: FunnelConfig, vectors: Float32s) -> Iterator[tuple[str, Any]]:
    """IndexRefine's bases, filled."""
    for text in config.bases.replace("IVF,", "IVF;").split(","):
        dim_text, factory = text.replace("IVF;", f"IVF{lists_for(len(vectors))},").split(":")
        dim = int(dim_text)
        began = time.perf_counter()
        base = truncating(vectors, dim, factory)
        print(f"built {text} in {time.perf_counter() - began:.0f} s", flush=True)
        yield f"{factory} of {dim}", base


def contenders(
    config: FunnelConfig, flat: Any, vectors: Float32s, queries: Float32s, exact: Int64s, encoder: Any
) -> Iterator[Contender]:
    """All of them at their best setting."""
    faiss, k = faiss_module(), config.k
    cores = os.cpu_count() or 1

    def by(index: Any, threads: int) -> Search:
        def search(some: Float32s) -> Int64s:
            faiss.omp_set_num_threads(threads)
            return index.search(some, k)[1]  # type: ignore[no-any-return]

        return search

    yield Contender(PLAIN, "1 thread for one, BLAS from 1000 on", by(flat, 1), by(flat, cores), vectors.nbytes)
    matrix = torch.from_numpy(vectors)

    def multiplied(some: Float32s) -> Int64s:
        torch.set_num_threads(cores)  # FAISS's setting is torch's too, where they share a runtime
        return torch.topk(torch.from_numpy(some) @ matrix.T, k).indices.numpy()  # type: ignore[no-any-return]

    yield Contender("torch matmul + topk", f"{cores} threads", multiplied, multiplied, vectors.nbytes)
    if config.panorama:
        index = faiss.index_factory(vectors.shape[1], f"FlatIPPanorama{config.panorama}", faiss.METRIC_INNER_PRODUCT)
        index.add(vectors)
        name = f"{config.panorama} levels"
        yield Contender("FAISS FlatIPPanorama", name, by(index, cores), by(index, cores), vectors.nbytes)
    for name, base in bases(config, vectors):
        settings = pruned(refined(config, base, flat, name), queries, exact, config.recall)
        if best := fastest(f"IndexRefine, {name}", settings, queries, exact, config.recall):
            yield replace(best, name=f"FAISS IndexRefine, {name}")
    if config.exact:
        index = ExactIndex.build(vectors)
        both: Callable[[Float32s], Int64s] = lambda some: index.search(some, k)[1]  # noqa: E731
        yield Contender("rag_ese exact", "certified", both, both, index.layout.nbytes)
    source = Store(config.index)
    dims = [int(dim) for dim in config.dims.split(",")]
    for kind in config.kinds.split(","):
        store = stored(config, source, kind, dims)
        for dim in dims:
            if f"L{max(store.manifest.plan.layers)}-d{dim}" in exceptions(kind):
                continue  # a middle stage
            settings = pruned(ours(config, store, encoder, dim), queries, exact, config.recall)
            if best := fastest(f"{kind} {dim}", settings, queries, exact, config.recall):
                yield replace(best, name=f"rag_ese funnel, {kind} of {dim}")


def stored(config: FunnelConfig, source: Store, kind: str, dims: list[int]) -> Store:
    folder = config.work / f"{config.count}-{kind.replace('; ', '-').replace('=', '-')}"
    return made_store(folder, source, kind, dims, config.count, config.noise, config.seed, "float32")


def measure(config: FunnelConfig) -> None:
    faiss, encoder, source = faiss_module(), config.load_encoder(), Store(config.index)
    source.check_model(encoder.name, encoder.revision)
    layer = max(source.manifest.plan.layers)
    texts = questions(config.questions, config.queries, config.seed)
    asked = encoded(encoder, texts, Size(layer, source.width))
    store = stored(config, source, config.kinds.split(",")[0], [int(dim) for dim in config.dims.split(",")])
    flat = faiss.IndexFlatIP(source.width)
    for start in range(0, len(store), 65536):
        flat.add(store.vectors(layer).rows(slice(start, start + 65536), source.width))
    vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(-1, flat.d)
    exact = brute_force(vectors, asked, config.k)
    half = len(asked) // 2
    all_of_them = list(contenders(config, flat, vectors, asked[:half], exact[:half], encoder))
    judged, right = asked[half:], exact[half:]
    print(f"load average {os.getloadavg()[0]:.1f}; timing", flush=True)
    alone = in_turns({each.name: each.search for each in all_of_them}, judged, config.burst)
    draw = np.random.default_rng(config.seed)
    batches = [judged[draw.integers(0, len(judged), _BATCH)] for _ in range(config.batches)]
    together: dict[str, list[float]] = {each.name: [] for each in all_of_them}
    for batch in batches:
        for each in all_of_them:
            each.batch(batch[:8])
            together[each.name] += timed(each.batch, [batch])
    table = Table("", "setting", "p50 ms", "p99 ms", "x p50", "x p99", "64: ms", "x", "recall, 64", "resident")
    for each in all_of_them:
        one, many = np.array(alone[each.name]) * 1e3, np.array(together[each.name]) * 1e3
        plain, plain_many = np.array(alone[PLAIN]) * 1e3, np.array(together[PLAIN]) * 1e3
        ratios = [np.quantile(plain, q) / np.quantile(one, q) for q in (0.5, 0.99)]
        found = recalls([each.search(judged[at : at + 1])[0] for at in range(len(judged))], right).mean()
        found_together = recalls(list(each.batch(judged)), right).mean()
        table.add_row(
            each.name,
            each.setting,
            *(f"{np.quantile(one, q):.2f}" for q in (0.5, 0.99)),
            *(f"{ratio:.1f}" for ratio in ratios),
            f"{np.median(many):.1f}",
            f"{np.median(plain_many) / np.median(many):.1f}",
            f"{found:.4f} {found_together:.4f}",
            f"{each.resident / vectors.nbytes:.1%}",
        )
    console = Console(width=190, highlight=False)
    console.print(table)
    rate, speed = bandwidth(vectors), flops()
    console.print(
        f"{len(vectors)} x {vectors.shape[1]}, {len(judged)} questions; load average {os.getloadavg()[0]:.1f}; memory "
        f"{rate / 1e9:.1f} GB/s: a full scan takes at least {vectors.nbytes / rate * 1e3:.1f} ms, a sketch of 256 "
        f"{len(vectors) * 128 / rate * 1e3:.2f} ms; products {speed / 1e9:.0f} GFLOP/s: 64 questions in full at least "
        f"{2 * 64 * vectors.size / speed * 1e3:.0f} ms"
    )
    console.print(f"{hardware()['cpu']}, {hardware()['threads']} threads; {versions()}")


if __name__ == "__main__":
    run("benchmarks/funnel", {"": Command(FunnelConfig, measure, "the fast funnel against FAISS and torch")})
