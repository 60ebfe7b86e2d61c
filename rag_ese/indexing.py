"""From options to a store: loads data and encoder, builds, extends, estimates; for the index and eval commands."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rag_ese.config import StrictModel
from rag_ese.data import HotpotQA, pool
from rag_ese.data.config import DataConfig
from rag_ese.encoder import ElasticEncoder
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import ConfigError, StoreError, StoreMismatchError
from rag_ese.index import DataEntry, ModelEntry, Plan, Store, build, extend
from rag_ese.index.kinds import exceptions
from rag_ese.index.living import is_living
from rag_ese.index.vectors import layers_of
from rag_ese.types import Size, parse_sizes

INDEXES = Path("indexes")


class StoreConfig(StrictModel):
    """What a store holds and how it is built."""

    kind: str = Field(
        "flat",
        description="index: flat, fp16, sq8, hnsw, ivf, panorama, pq4, sketch, ivf-sketch, or a FAISS factory string; "
        "sizes of another kind after it: pq4; L6-d256=sq8",
    )
    stored: Literal["float32", "float16"] = Field("float32", description="precision of the full vectors on disk")
    shard: int = Field(4096, ge=1, description="passages encoded between two writes to disk")
    bm25: bool = Field(True, description="also build the BM25 index (control and hybrid)")


class IndexConfig(DataConfig, EncoderConfig, StoreConfig):
    """The options of `python -m rag_ese.index hotpotqa`."""

    sizes: str = Field("64,128,768", description="sizes: 64,128 (at every depth of --layers) or L3-d64")
    layers: str = Field("", description="depths for the bare widths of --sizes, such as 2,4,6 (default: full depth)")
    out: Path = Field(INDEXES, description="folder for indexes")
    name: str = Field("", description="the index's name in that folder (default: from data and model)")
    dry_run: bool = Field(False, description="only print the estimated time, memory and disk")
    overwrite: bool = Field(False, description="replace an index of the same name")

    def folder(self, hotpot: HotpotQA) -> Path:
        if self.name and (Path(self.name).name != self.name or self.name.startswith(".")):
            raise ConfigError(f"the name {self.name!r} is not a plain folder name: use letters, digits, - and _")
        return self.out / (self.name or default_name(hotpot, self.model))


def default_name(hotpot: HotpotQA, model: str) -> str:
    """A readable folder name, such as `hotpot_dev_distractor_700-embedded`."""
    source = Path(hotpot.source).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_]+", "-", f"{source}-{Path(model).name}").strip("-")


def read_layers(text: str) -> list[int]:
    """`2,4,6` as numbers."""
    parts = [part.strip().lstrip("Ll") for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"cannot read the layers {text!r}: write numbers such as 2,4,6")
    return [int(part) for part in parts]


def make_plan(config: StoreConfig, data: DataEntry, encoder: ElasticEncoder, sizes: list[Size]) -> Plan:
    """What the store will be, to the last byte."""
    encoder.check(sizes)
    return Plan(
        model=ModelEntry(
            name=encoder.name,
            revision=encoder.revision,
            dtype=_dtype(encoder),
            batch_tokens=encoder.token_budget,
            depth=encoder.depth,
            width=encoder.width,
        ),
        data=data,
        layers=tuple(layers_of(sizes)),
        sizes=tuple(map(str, sizes)),
        kind=_kinds(config.kind, sizes, encoder),
        stored=config.stored,
        shard=config.shard,
        bm25=config.bm25,
    )


def _kinds(kinds: str, sizes: list[Size], encoder: ElasticEncoder) -> str:
    """The kinds with all sizes in full. Raises ConfigError where one of them is not built."""
    own = {Size.parse(text, encoder.depth, encoder.width): kind for text, kind in exceptions(kinds).items()}
    if unknown := sorted(own.keys() - {*sizes}):
        raise ConfigError(
            f"the kind {kinds!r} is for {', '.join(map(str, unknown))}, which is not built: the sizes are "
            f"{', '.join(map(str, sizes))}"
        )
    return "; ".join([kinds.split(";")[0].strip(), *(f"{size}={own[size]}" for size in sorted(own))])


def data_entry(config: DataConfig, hotpot: HotpotQA) -> DataEntry:
    """Where the pool came from."""
    return DataEntry(name=config.pool_name(hotpot), revision=config.pool_revision(hotpot), fallback=hotpot.fallback)


def automatic_store(
    config: DataConfig,
    store: StoreConfig,
    hotpot: HotpotQA,
    encoder: ElasticEncoder,
    sizes: list[Size],
    notify: Callable[[str], None],
) -> Store:
    """Builds a store for an evaluation that was given none, or finds the one that was built before and adds to it."""
    plan = make_plan(store, data_entry(config, hotpot), encoder, sizes)
    fixed = {part: words for part, words in plan.words().items() if part not in ("sizes", "layers")}
    key = hashlib.blake2b(json.dumps(fixed).encode(), digest_size=4).hexdigest()
    folder = INDEXES / f"{default_name(hotpot, encoder.name)}-{key}"
    if folder.exists():
        notify(f"index: found {folder}")
        return completed(folder, sizes, encoder, notify)
    notify(f"index: building {folder}")
    # What overwrite replaces here is at most an interrupted build of other sizes.
    return build(folder, plan, lambda: pool(hotpot, config.corpora()), encoder, overwrite=True)


def completed(folder: Path, sizes: Sequence[Size], encoder: ElasticEncoder, notify: Callable[[str], None]) -> Store:
    """The store with the sizes that it lacks added to it, which `notify` is told about."""
    refuse_living(folder)
    store = Store(folder)
    store.check_model(encoder.name, encoder.revision)
    missing = sorted({*sizes} - {*store.sizes})
    if not missing:
        return store
    layers = [layer for layer in layers_of(missing) if layer not in store.manifest.plan.layers]
    work = f"encoding {len(store):,} passages at {', '.join(f'L{layer}' for layer in layers)}" if layers else "quick"
    notify(f"adding {', '.join(map(str, missing))} to {folder}, which lacks them ({work})")
    return extended(folder, missing, encoder)


def extended(folder: Path, sizes: Sequence[Size], encoder: ElasticEncoder) -> Store:
    """The store with `sizes` added; depths that it lacks are encoded, in the precision that it was built in."""
    refuse_living(folder)
    built = Store(folder).manifest.plan
    new_layers = [layer for layer in layers_of(sizes) if layer not in built.layers]
    if new_layers:
        check_dtype(built, folder, encoder, f"layer {new_layers[0]}")
    return extend(folder, sizes, encoder)


def refuse_living(folder: Path) -> None:
    """Raises StoreError for a living index, whose folder may also hold the store that it began as."""
    if is_living(folder):
        raise StoreError(
            f"{folder} is a living index, which evaluation and extend do not take: name an index built whole, or one "
            f"of {folder / 'segments'}"
        )


def check_dtype(built: Plan, folder: Path, encoder: ElasticEncoder, what: str = "passages") -> None:
    """Raises StoreMismatchError where the encoder computes in another precision than the one that began the index."""
    if _dtype(encoder) != built.model.dtype:
        raise StoreMismatchError(
            f"{folder} was built in {built.model.dtype}, and the encoder that should add {what} runs in "
            f"{_dtype(encoder)}: add --dtype {built.model.dtype}"
        )


def _dtype(encoder: ElasticEncoder) -> str:
    return str(encoder.dtype).removeprefix("torch.")


def sizes_of(text: str, layers: str, encoder: ElasticEncoder) -> list[Size]:
    """The sizes on the command line, checked against the encoder, smallest first."""
    sizes = sorted(parse_sizes(text, encoder.depth, encoder.width, read_layers(layers)))
    encoder.check(sizes)
    return sizes
