"""Search where memory really is small: the funnel and FAISS's IndexRefine, each in a process that may not use more.

    mkdir /sys/fs/cgroup/memory/small && echo 600M > /sys/fs/cgroup/memory/small/memory.limit_in_bytes   # as root
    python benchmarks/small_memory.py --index indexes/hotpotqa --questions TRAIN.json.gz,TRAIN.jsonl.gz \
        --work /tmp/made --group /sys/fs/cgroup/memory/small

The limit holds the program, what it has allocated and the pages of files that it has read, so vectors are only kept as
long as there is room. Both contenders have the same full vectors on the disk: ours as rows of the store, FAISS's as a
flat index, mapped (IO_FLAG_MMAP_IFC), over which IndexRefine re-ranks what its base keeps. They take turns, each turn a
new process (benchmarks/small_memory_turn.py) that answers questions one at a time and begins with nothing in memory;
the first 300 are not timed. FAISS keeps the codes of its base in memory. How many are re-ranked should be chosen for
equal recall, which the table shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from made import brute_force, encoded, made_store, questions, truncating
from pydantic import Field
from rich.console import Console
from rich.table import Table

from rag_ese.cli import Command, run
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import ConfigError
from rag_ese.index import Store
from rag_ese.index.kinds import faiss_module
from rag_ese.index.store import index_file
from rag_ese.retriever import Funnel
from rag_ese.retriever.recall import recalls
from rag_ese.types import Int64s, Size

_UNTIMED = 300
"""Questions at the beginning of a turn."""
_LIMITS = ("memory.limit_in_bytes", "memory.max")
"""Of a cgroup, in its first and second version."""


class SmallMemoryConfig(EncoderConfig):
    """What is searched, and in how much memory."""

    index: Path = Field(..., description="an index folder with full-width vectors")
    questions: str = Field(..., description="files of training questions, separated by commas")
    work: Path = Field(..., description="a folder for the made stores; kept, and used again")
    group: Path = Field(..., description="the folder of a memory cgroup with a limit, which this user may join")
    count: int = Field(1_000_000, ge=1000, description="vectors")
    noise: float = Field(0.4, ge=0, description="length of the noise added to each")
    kind: str = Field("pq4; L6-d320=sq8", description="kinds of index of our funnel")
    funnel: str = Field("L6-d128:2000 > L6-d320:150 > L6-d768:10", description="our funnel")
    bases: str = Field(
        "128:PQ64x4fs:2000,256:PQ128x4fs:700,512:PQ256x4fs:350,320:SQ8:100",
        description="IndexRefine's bases, each WIDTH:FAISS FACTORY STRING:how many are re-ranked",
    )
    queries: int = Field(500, ge=_UNTIMED + 20, description="questions of a turn")
    turns: int = Field(2, ge=1, description="turns of each contender")
    seed: int = Field(0, description="seed of the draws")


def measure(config: SmallMemoryConfig) -> None:
    limit = _limit(config.group)
    setting, exact = _prepared(config)
    store = Store(Path(setting["store"]), verify=False)
    ways = {f"rag_ese funnel, {config.kind}: {config.funnel}": ("funnel", setting)}
    for text in config.bases.split(","):
        dim, factory, kept = text.split(":")
        base = _base(config.work, store, int(dim), factory)
        own = {"base": str(base), "kept": int(kept)}
        ways[f"FAISS IndexRefine, {factory} of {dim}, {kept} kept, vectors mapped"] = ("refine", {**setting, **own})
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(config.turns):
        for name, (way, given) in ways.items():
            _forget(config.work)
            child = Path(__file__).with_name("small_memory_turn.py")
            command = [sys.executable, str(child), way, json.dumps(given)]
            turns[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    table = Table("", "p50 ms", "p99 ms", "to ours", "p99", "recall@10", "read per question", "memory")
    ours = _quantiles(next(iter(turns.values())))
    for name, each in turns.items():
        times = _quantiles(each)
        recall = np.mean([recalls([np.array(rows) for rows in turn["rows"]], exact).mean() for turn in each])
        read = np.mean([turn["read"] / len(turn["seconds"]) for turn in each])
        table.add_row(
            name,
            *(f"{1e3 * time:.1f}" for time in times),
            *(f"{ratio:.1f}x" for ratio in times / ours),
            f"{recall:.4f}",
            f"{read / 1e6:.2f} MB",
            f"{max(turn['allocated'] for turn in each) / 1e6:.0f} MB",
        )
    console = Console(width=170, highlight=False)
    console.print(table)
    console.print(
        f"{config.count} x {setting['width']}, {config.count * setting['width'] * 4 / 1e6:.0f} MB on the disk; "
        f"{limit / 1e6:.0f} MB for a process with all the pages that it reads (memory: what it allocates itself); "
        f"{config.turns} turns of {config.queries - _UNTIMED} questions; load average {os.getloadavg()[0]:.1f}"
    )


def _quantiles(turns: list[dict[str, Any]]) -> Any:
    """p50 and p99 in seconds."""
    return np.quantile(np.concatenate([turn["seconds"] for turn in turns]), [0.5, 0.99])


def _limit(group: Path) -> int:
    """The group's limit in bytes."""
    for name in _LIMITS:
        text = (group / name).read_text().strip() if (group / name).exists() else ""
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    raise ConfigError(
        f"{group} is no memory cgroup with a limit: make one as benchmarks/small_memory.py says at its top"
    )


def _prepared(config: SmallMemoryConfig) -> tuple[dict[str, Any], Int64s]:
    """What a turn needs, on the disk, and the rows of an exact search (Q x 10)."""
    source, encoder = Store(config.index), config.load_encoder()
    source.check_model(encoder.name, encoder.revision)
    layer, made = max(source.manifest.plan.layers), str(config.work / str(config.count))
    full, funnel = Size(layer, source.width), Funnel.parse(config.funnel, layer, source.width)
    given = (config.count, config.noise, config.seed, "float32")
    name = config.kind.replace("; ", "-").replace("=", "-")
    dims = [stage.size.dim for stage in funnel.stages[:-1]]
    store = made_store(Path(f"{made}-{name}"), source, config.kind, dims, *given)
    flat = made_store(Path(f"{made}-flat"), source, "flat", [full.dim], *given)
    vectors = store.vectors(layer).rows(slice(None), full.dim)  # mapped
    asked = encoded(encoder, questions(config.questions, config.queries, config.seed), full)
    queries = config.work / "queries.npy"
    np.save(queries, asked)
    setting = {
        "group": str(config.group),
        "untimed": _UNTIMED,
        "queries": str(queries),
        "width": full.dim,
        "store": str(store.folder),
        "funnel": str(funnel),
        "flat": str(flat.folder / index_file(full)),
    }
    return setting, brute_force(vectors, asked, 10)


def _base(work: Path, store: Store, dim: int, factory: str) -> Path:
    """The file of IndexRefine's base."""
    file = work / f"{len(store)}-{dim}-{factory}.faiss"
    if not file.exists():
        vectors = store.vectors(max(store.manifest.plan.layers)).rows(slice(None), store.width)
        faiss_module().write_index(truncating(vectors, dim, factory), str(file))
    return file


def _forget(work: Path) -> None:
    """Lets go of what the system keeps of the files in `work`, so that a turn pays for what it reads."""
    os.sync()
    for path in work.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


if __name__ == "__main__":
    run("benchmarks/small_memory", {"": Command(SmallMemoryConfig, measure, "the funnel in little memory")})
