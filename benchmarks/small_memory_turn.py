"""One contender's turn of benchmarks/small_memory.py: a process without torch, which would take half of the memory.

Its arguments are `funnel` or `refine` and the setting as JSON; it writes times, rows and bytes as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from given import Given

from rag_ese.index import Store
from rag_ese.index.kinds import faiss_module
from rag_ese.retriever import Funnel, FunnelSearcher
from rag_ese.types import Float32s

Search = Callable[[Float32s], list[int]]


def funnel(setting: dict[str, Any]) -> Search:
    store = Store(Path(setting["store"]), verify=False)
    model = store.manifest.plan.model  # in the place of an encoder, which has its name and revision, too
    searcher = FunnelSearcher(store, cast(Any, model), Funnel.parse(setting["funnel"], store.depth, store.width))
    return lambda query: searcher.follow(Given(query))[0].rows.tolist()


def refine(setting: dict[str, Any]) -> Search:
    faiss = faiss_module()
    faiss.omp_set_num_threads(1)
    base, flat = faiss.read_index(setting["base"]), faiss.read_index(setting["flat"], faiss.IO_FLAG_MMAP_IFC)
    index = faiss.IndexRefine(base, flat)
    index.k_factor = setting["kept"] / 10
    return lambda query: index.search(query, 10)[1][0].tolist()


def main(way: str, setting: dict[str, Any]) -> None:
    (Path(setting["group"]) / "cgroup.procs").write_text(str(os.getpid()))
    search = {"funnel": funnel, "refine": refine}[way](setting)
    queries = np.load(setting["queries"])
    seconds: list[float] = []
    rows = []
    before = 0
    for number in range(len(queries)):
        if number == setting["untimed"]:
            before = read()
        began = time.perf_counter()
        rows.append(search(queries[number : number + 1]))
        if number >= setting["untimed"]:
            seconds.append(time.perf_counter() - began)
    told = {"seconds": seconds, "rows": rows, "read": read() - before, "allocated": allocated()}
    json.dump(told, sys.stdout)


def read() -> int:
    """Bytes that this process has had the disk read so far."""
    return _table("/proc/self/io")["read_bytes"]


def allocated() -> int:
    """Bytes of memory that are not pages of files."""
    return _table("/proc/self/status", "RssAnon")["RssAnon"] * 1024


def _table(path: str, *only: str) -> dict[str, int]:
    lines = (line.split(":") for line in Path(path).read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in lines if not only or name in only}


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
