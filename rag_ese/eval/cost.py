"""What a system costs: time per query, memory, and the machine that it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_ese.retriever import Searcher

_WARM_UP = 5


def latency(searcher: Searcher, queries: Sequence[str]) -> dict[str, float] | None:
    """Milliseconds from text to ranking, encoding included, one query at a time: p50, p99 and how many were timed."""
    if not queries:
        return None
    for query in queries[:_WARM_UP]:
        searcher.search([query])
    times = []
    for query in queries:
        began = time.perf_counter()
        searcher.search([query])
        times.append(1000 * (time.perf_counter() - began))
    p50, p99 = np.percentile(times, [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3), "queries": len(times)}


def peak_memory() -> int:
    """The most bytes of memory that this process has held so far (resident, touched parts of mapped files included)."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def hardware() -> dict[str, object]:
    """The machine, as a person would name it."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    names = ["rag-ese", "torch", "transformers", "numpy", "bm25s", "pytrec-eval-terrier"]
    found = {"python": platform.python_version()}
    for name in [*names, "faiss-cpu", "faiss-gpu"]:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
