"""`python -m rag_ese.index`: builds, extends, changes, shows and checks indexes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from rag_ese.cli import Command, notice, run
from rag_ese.config import POSITIONAL, StrictModel
from rag_ese.data import corpus, pool
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import ConfigError, DataError
from rag_ese.index import LivingIndex, Store, build
from rag_ese.index.estimate import estimate
from rag_ese.index.kinds import factory_string, kind_for
from rag_ese.index.living import is_living
from rag_ese.indexing import IndexConfig, check_dtype, data_entry, extended, make_plan, sizes_of


class PathConfig(StrictModel):
    """The options of `inspect` and `verify`."""

    path: Path = Field(description="the index's folder", json_schema_extra=POSITIONAL)


class ExtendConfig(EncoderConfig):
    """The options of `extend`."""

    path: Path = Field(description="the index's folder", json_schema_extra=POSITIONAL)
    sizes: str = Field(description="sizes to add: 64,128 (at every depth of --layers) or L3-d64")
    layers: str = Field("", description="depths for the bare widths of --sizes (default: full depth)")


class LivingConfig(EncoderConfig):
    """The options of `add`."""

    path: Path = Field(description="a living index, or an index, which becomes one", json_schema_extra=POSITIONAL)
    corpus: str = Field(description="passages to add: JSONL files or BEIR folders, separated by commas")


class DeleteConfig(PathConfig):
    """The options of `delete`."""

    ids: str = Field("", description="ids of passages, separated by commas")
    ids_file: Path | None = Field(None, description="file with one id per line")

    def names(self) -> list[str]:
        """The ids of both options. Raises ConfigError where there is none, DataError for a file that cannot be read."""
        try:
            lines = self.ids_file.read_text(encoding="utf-8").splitlines() if self.ids_file else []
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the ids in {self.ids_file}: {error}; name a text file") from error
        names = [name.strip() for name in [*self.ids.split(","), *lines] if name.strip()]
        if not names:
            raise ConfigError("no id was given: use --ids A,B or --ids-file FILE")
        return names


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


def add(config: LivingConfig) -> None:
    index = living(config.path)
    encoder = config.load_encoder()
    index.check_model(encoder.name, encoder.revision)
    check_dtype(index.plan, index.folder, encoder)
    sources = [Path(part.strip()).expanduser() for part in config.corpus.split(",") if part.strip()]
    passages = [passage for source in sources for passage in corpus.read(source)]
    if not passages:
        raise DataError(f"{config.corpus} has 0 passages: name a file with at least one")
    show_living(index.add(passages, encoder))


def delete(config: DeleteConfig) -> None:
    names = config.names()
    show_living(living(config.path).delete(names))


def compact(config: PathConfig) -> None:
    show_living(living(config.path).compact().clean())


def living(path: Path) -> LivingIndex:
    """The living index in a folder; an index that is not one becomes its first segment, where it is."""
    return LivingIndex.open(path) if is_living(path) else LivingIndex.create(path, Store(path))


def inspect(config: PathConfig) -> None:
    if is_living(config.path):
        show_living(LivingIndex.open(config.path))
    else:
        show(Store(config.path))


def verify(config: PathConfig) -> None:
    store = LivingIndex.open(config.path) if is_living(config.path) else Store(config.path)
    files, size = store.verify()
    found = f"{files} files, {decimal(size)}"
    Console(soft_wrap=True).print(f"{config.path}: {found}, all as they were built", markup=False)


def show_living(index: LivingIndex) -> None:
    """Prints what a living index holds."""
    table = Table("segment", "passages", "living", "index", title=f"{index.folder}", title_justify="left")
    for entry, store, start in zip(index.generation.segments, index.stores, index.starts, strict=False):
        alive = int(index.live[start : start + len(store)].sum())
        table.add_row(entry.name, f"{len(store):,}", f"{alive:,}", store.manifest.plan.kind)
    console = Console(soft_wrap=True)
    console.print(table)
    sizes = ", ".join(map(str, index.sizes))
    console.print(f"{len(index):,} passages, generation {index.generation.number}, sizes {sizes}", highlight=False)
    model = index.plan.model
    console.print(f"model {model.name} at revision {model.revision}, {model.dtype}", highlight=False)


def show(store: Store) -> None:
    """Prints what a store holds."""
    plan = store.manifest.plan
    if plan.data.fallback:
        notice(f"WARNING: {plan.data.fallback}")
    table = Table("size", "index", "bytes", title=f"{store.folder}", title_justify="left")
    for size in store.sizes:
        kind = factory_string(kind_for(plan.kind, size), size.dim, len(store))
        table.add_row(str(size), kind, decimal(store.index_bytes(size)))
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
    "add": Command(LivingConfig, add, "add passages to an index, in place of those with the same id"),
    "delete": Command(DeleteConfig, delete, "delete passages of an index by id"),
    "compact": Command(PathConfig, compact, "merge what was added to an index and drop what was deleted; no encoding"),
    "inspect": Command(PathConfig, inspect, "show what an index holds"),
    "verify": Command(PathConfig, verify, "compare every file of an index with its checksum"),
}


if __name__ == "__main__":
    run("rag_ese.index", COMMANDS)
