"""Questions and passages: HotpotQA from the hub, from a file or from the bundled sample, and further corpora."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

from rag_ese.data.corpus import pool
from rag_ese.data.hotpotqa import HotpotQA, load, resolve_gold
from rag_ese.data.hub import load_hub, reachable
from rag_ese.data.records import Setting
from rag_ese.errors import DataError, HubUnreachableError

__all__ = ["HotpotQA", "Setting", "load_hotpotqa", "load_hub", "load_sample", "pool", "reachable", "resolve_gold"]


def load_hotpotqa(
    data: str = "auto",
    setting: Setting = "distractor",
    split: str = "validation",
    limit: int | None = None,
    seed: int = 0,
    notify: Callable[[str], None] = warnings.warn,
) -> HotpotQA:
    """HotpotQA from where `data` says: "hub", "sample", a path, or "auto".

    "auto" takes the hub and, where it cannot be reached, the bundled sample: then `fallback` is set and `notify` is
    called with a sentence that says so. The sample has only the distractor setting, so "auto" has no substitute for
    fullwiki and raises HubUnreachableError. `split` matters to the hub alone. `limit` and `seed`: see
    `rag_ese.data.hotpotqa.collect`.
    """
    if data == "sample":
        return load_sample(setting, limit, seed)
    if data not in ("auto", "hub"):
        return load(Path(data).expanduser(), setting, limit, seed)
    try:
        return load_hub(setting, split, limit=limit, seed=seed)
    except HubUnreachableError as error:
        if data == "hub" or setting != "distractor":
            raise
        substitute = load_sample(setting, limit, seed)
        fallback = f"{error}; the bundled sample stands in for HotpotQA {setting} {split}"
        notify(
            f"WARNING: THIS IS NOT HOTPOTQA but the {len(substitute.questions)} questions of the bundled sample, whose "
            f"scores cannot be compared with published ones: {error}"
        )
        return replace(substitute, fallback=fallback)


def load_sample(setting: Setting = "distractor", limit: int | None = None, seed: int = 0) -> HotpotQA:
    """The small set that was written for this project and is installed with it, in HotpotQA's official form."""
    if setting != "distractor":
        raise DataError(f"the bundled sample has no {setting} setting; use distractor, or the path of a file")
    with resources.as_file(_sample()) as path:
        if not path.is_file():
            raise DataError(f"the bundled sample {path} is missing from this installation; install rag-ese again")
        return replace(load(path, setting, limit, seed), source="bundled sample")


def _sample() -> resources.abc.Traversable:
    return resources.files("rag_ese.data") / "sample" / "hotpotqa_sample.json"
