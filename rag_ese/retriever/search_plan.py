"""A search plan: the funnel that a planner chose for an index, what it promises, and what the promise rests on.

Not to be confused with `rag_ese.index.Plan`, which says what a store is built from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import xxhash
from pydantic import ConfigDict, Field, ValidationError

from rag_ese.config import StrictModel
from rag_ese.errors import ConfigError, StoreMismatchError, disk_errors
from rag_ese.index.kinds import has_codes
from rag_ese.index.manifest import Manifest
from rag_ese.index.store import Store, index_file
from rag_ese.index.vectors import vector_file
from rag_ese.retriever.funnel import Funnel
from rag_ese.retriever.searchers import FunnelSearcher, QueryEncoder
from rag_ese.types import Size

_ASIDE = ("faiss/", "vectors/", "bm25/")
"""Files of a store that a funnel may do without."""


class Entry(StrictModel):
    """A part of a plan; numbers that are not finite are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


class Recall(Entry):
    """Mean recall over `queries` queries with its 95% interval, each 0 to 1."""

    mean: float = Field(ge=0, le=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    queries: int = Field(ge=1)


class Latency(Entry):
    """Milliseconds of one query at a time: from text to ranking, and from query vectors to ranking."""

    p50_ms: float = Field(ge=0)
    p99_ms: float = Field(ge=0)
    search_p50_ms: float = Field(ge=0)
    search_p99_ms: float = Field(ge=0)
    queries: int = Field(ge=1)


class Bytes(Entry):
    """What is resident (the first stage's index), and the file of full vectors that re-ranking maps and reads from."""

    index: int = Field(ge=0)
    mapped_vectors: int = Field(ge=0)


class Asked(Entry):
    """What the plan was to meet."""

    recall: float = Field(gt=0, le=1)
    p99_ms: float = Field(gt=0)
    ram_bytes: int = Field(gt=0)


class Source(Entry):
    """The questions that it was measured on."""

    name: str
    revision: str
    count: int = Field(ge=1)


class Basis(Entry):
    """The model and the index that it was measured with. `index` is the folder's name, for people."""

    model: str
    revision: str
    index: str
    kind: str
    fingerprint: str


class SearchPlan(Entry):
    """The funnel, its promise on queries like those it was measured on, and what it was measured with."""

    format: Literal[1] = 1
    funnel: str
    k: int = Field(ge=1)
    reference: str
    """The size whose exact search the recall is measured against."""
    asked: Asked
    recall: Recall
    """On queries that had no part in the choice: the promise."""
    recall_when_chosen: Recall
    """On the queries that it was chosen on; by the choice itself somewhat too good."""
    latency: Latency
    bytes: Bytes
    questions: Source
    basis: Basis
    hardware: str
    seed: int
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path) -> SearchPlan:
        """Reads a plan file. Raises ConfigError where it cannot be read, is no plan, or holds NaN."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"cannot read the plan {path}: {error.strerror}; make one with {COMMAND}") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(
                f"{path} is not a search plan: {key}: {first['msg'].lower()} (1 of {error.error_count()} faults); "
                f"make one with {COMMAND}"
            ) from error
        except ValueError as error:  # not UTF-8, not JSON
            raise ConfigError(f"{path} is not a search plan, for it is not JSON: make one with {COMMAND}") from error

    def write(self, path: Path) -> None:
        """Writes the plan as JSON; an interrupted write leaves the file that was there."""
        draft = path.with_name(path.name + ".draft")
        with disk_errors("writing the plan", path):
            draft.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
            draft.replace(path)

    def parsed(self, depth: int, width: int) -> Funnel:
        """The funnel, for a model of `depth` and `width`."""
        return Funnel.parse(self.funnel, depth, width)

    def check(self, store: Store, encoder: QueryEncoder) -> None:
        """Raises StoreMismatchError, naming both, where the encoder or the index is not the one that was measured."""
        if encoder.revision != self.basis.revision:
            raise StoreMismatchError(
                f"the plan was made with the model {self.basis.model} at revision {self.basis.revision}, but the model "
                f"in use is {encoder.name} at revision {encoder.revision}: plan again with {COMMAND}"
            )
        store.check_model(encoder.name, encoder.revision)
        here = fingerprint(store.manifest, self.parsed(store.depth, store.width))
        if here != self.basis.fingerprint:
            raise StoreMismatchError(
                f"the plan was made for the index {self.basis.index} with fingerprint {self.basis.fingerprint}, but "
                f"{store.folder} has fingerprint {here}: plan again with {COMMAND}"
            )

    def searcher(self, store: Store, encoder: QueryEncoder) -> FunnelSearcher:
        """The searcher of this plan over the index and with the encoder that it was made for."""
        self.check(store, encoder)
        return FunnelSearcher(store, encoder, self.parsed(store.depth, store.width))


COMMAND = "python -m rag_ese.plan"


def searched(manifest: Manifest, funnel: Funnel) -> list[Size]:
    """The sizes whose index `funnel` reads: the first stage's, and those in the middle that have 8-bit codes."""
    first, *later = (stage.size for stage in funnel.stages)
    plan, middle = manifest.plan, dict.fromkeys(later[:-1])
    return [first, *(size for size in middle if str(size) in plan.sizes and has_codes(plan.kind, size))]


def index_bytes(store: Store, funnel: Funnel) -> int:
    """The bytes of the indexes that `funnel` reads."""
    return sum(store.index_bytes(size) for size in searched(store.manifest, funnel))


def fingerprint(manifest: Manifest, funnel: Funnel) -> str:
    """A hash of all that the manifest says of what `funnel` searches (16 hexadecimal digits).

    Sizes that the funnel does not use are left out, so that adding one to the store does not make its plans void.
    """
    used = {index_file(size) for size in searched(manifest, funnel)}
    used |= {vector_file(stage.size.layers) for stage in funnel.stages[1:]}
    content = manifest.model_dump(mode="json")
    for name in ("sizes", "layers", "bm25"):
        content["plan"].pop(name)
    content["files"] = {
        name: entry for name, entry in content["files"].items() if name in used or not name.startswith(_ASIDE)
    }
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())
