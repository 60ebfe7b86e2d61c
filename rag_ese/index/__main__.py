"""`python -m rag_ese.index`: builds, extends, shows and checks stores."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from rag_ese.cli import Command, notice, run
from rag_ese.config import POSITIONAL, StrictModel
from rag_ese.data import pool
from rag_ese.encoder.config import EncoderConfig
from rag_ese.index import Store, build
from rag_ese.index.estimate import estimate
from rag_ese.index.kinds import factory_string
from rag_ese.indexing import IndexConfig, data_entry, extended, make_plan, sizes_of


class PathConfig(StrictModel):
    """The options of `inspect` and `verify`."""

    path: Path = Field(description="the index's folder", json_schema_extra=POSITIONAL)


class ExtendConfig(EncoderConfig):
    """The options of `extend`."""

    path: Path = Field(description="the index's folder", json_schema_extra=POSITIONAL)
    sizes: str = Field(description="sizes to add: 64,128 (at every depth of --layers) or L3-d64")
    layers: str = Field("", description="depths for the bare widths of --sizes (default: full depth)")


def hotpotqa(config: IndexConfig) -> None:
    hotpot = config.load(notice)
    encoder = config.load_encoder()
    folder = config.folder(hotpot)
    plan = make_plan(config, data_entry(config, hotpot), encoder, sizes_of(config.sizes, config.layers, encoder))
    corpora = config.corpora()
    if config.dry_run:
        costs = estimate(plan, pool(hotpot, corpora), encoder)
        table = Table("", "estimate", title=f"{folder} (not built)", title_justify="left")
        table.add_row("passages", f"{costs.passages:,}")
        table.add_row("encoding time", f"{costs.seconds / 60:.1f} min on {encoder.device} in {plan.model.dtype}")
        table.add_row("memory beside the model", decimal(costs.ram))
        table.add_row("disk", decimal(costs.disk))
        table.add_row("indexes", "\n".join(f"{size}: {kind}" for size, kind in costs.kinds.items()))
        Console().print(table)
        return
    show(build(folder, plan, lambda: pool(hotpot, corpora), encoder, config.overwrite))


def extend_store(config: ExtendConfig) -> None:
    encoder = config.load_encoder()
    show(extended(config.path, sizes_of(config.sizes, config.layers, encoder), encoder))


def inspect(config: PathConfig) -> None:
    show(Store(config.path))


def verify(config: PathConfig) -> None:
    store = Store(config.path)
    found = f"{len(store.manifest.files)} files, {decimal(store.verify())}"
    Console(soft_wrap=True).print(f"{config.path}: {found}, all as they were built", markup=False)


def show(store: Store) -> None:
    """Prints what a store holds."""
    plan = store.manifest.plan
    if plan.data.fallback:
        notice(f"WARNING: {plan.data.fallback}")
    table = Table("size", "index", "bytes", title=f"{store.folder}", title_justify="left")
    for size in store.sizes:
        table.add_row(str(size), factory_string(plan.kind, size.dim, len(store)), decimal(store.index_bytes(size)))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(f"{len(store):,} passages of {plan.data.name}", highlight=False)
    console.print(f"model {plan.model.name} at revision {plan.model.revision}, {plan.model.dtype}", highlight=False)
    total = sum(entry.bytes for entry in store.manifest.files.values())
    layers = ", ".join(f"L{layer}" for layer in plan.layers)
    bm25 = ", BM25" if plan.bm25 else ""
    console.print(f"full vectors ({plan.stored}) of {layers}{bm25}; {decimal(total)} in all", highlight=False)


COMMANDS = {
    "hotpotqa": Command(IndexConfig, hotpotqa, "index HotpotQA passages (and further ones) at several sizes"),
    "extend": Command(ExtendConfig, extend_store, "add sizes to an index"),
    "inspect": Command(PathConfig, inspect, "show what an index holds"),
    "verify": Command(PathConfig, verify, "compare every file of an index with its checksum"),
}


if __name__ == "__main__":
    run("rag_ese.index", COMMANDS)
