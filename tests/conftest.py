"""An encoder without a model, and stores made with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_ese.types import Float32s, Passage, Size

WORDS = ["river", "bridge", "city", "painter", "novel", "opened", "crossed", "wrote", "north", "small", "ancient"]


class FakeEncoder:
    """Vectors drawn from a hash of text and layer, or those of `known`, by text; it notes what it was asked."""

    name, revision, depth = "fake", "r1", 6

    def __init__(self, width: int = 24, known: dict[int, dict[str, Float32s]] | None = None) -> None:
        self.width = width
        self.known = known or {}
        self.calls: list[tuple[int, tuple[int, ...]]] = []
        """The number of texts and the layers of every encode."""
        self.asked: list[Size] = []
        """The sizes that encodings were taken to, in order."""
        self.begun: list[int] = []
        """The number of texts of every encoding that was begun."""

    def encode_layers(
        self, texts: Sequence[str], layers: Sequence[int], *, progress: Callable[[int], None] | None = None
    ) -> dict[int, Float32s]:
        self.calls.append((len(texts), tuple(layers)))
        if progress:
            progress(len(texts))
        return {layer: self.raw(texts, layer) for layer in layers}

    def begin(self, texts: Sequence[str]) -> FakeEncoding:
        self.begun.append(len(texts))
        return FakeEncoding(self, texts)

    def raw(self, texts: Sequence[str], layer: int) -> Float32s:
        return np.stack([self._vector(text, layer) for text in texts])

    def _vector(self, text: str, layer: int) -> Float32s:
        if text in self.known.get(layer, {}):
            return self.known[layer][text]
        seed = int.from_bytes(hashlib.blake2b(f"{layer} {text}".encode(), digest_size=8).digest())
        return np.random.default_rng(seed).normal(size=self.width).astype(np.float32)


class FakeEncoding:
    """Queries of a FakeEncoder."""

    def __init__(self, encoder: FakeEncoder, texts: Sequence[str]) -> None:
        self._encoder, self._texts = encoder, texts

    def at(self, size: Size) -> Float32s:
        self._encoder.asked.append(size)
        return unit(self._encoder.raw(self._texts, size.layers)[:, : size.dim])


def unit(vectors: Float32s) -> Float32s:
    """The definition, in float64: rows of length 1, zero rows left alone."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def make_passages(count: int) -> list[Passage]:
    """Passages of a few words each, all different, some with letters beyond ASCII."""
    draw = np.random.default_rng(7)
    texts = [" ".join(draw.choice(WORDS, size=6)) for _ in range(count)]
    return [Passage(f"Título {n}", (f"{text}.", f" Number {n}.")) for n, text in enumerate(texts)]


def make_plan(sizes: str = "L2-d8,L6-d8,L6-d24", encoder: FakeEncoder | None = None, **changes: Any) -> Any:
    from rag_ese.index import DataEntry, ModelEntry, Plan

    model = encoder or FakeEncoder()
    entry = ModelEntry(
        name=model.name,
        revision=model.revision,
        dtype="float32",
        batch_tokens=1,
        depth=model.depth,
        width=model.width,
    )
    parsed = sorted(Size.parse(size) for size in sizes.split(","))
    values: dict[str, Any] = {
        "model": entry,
        "data": DataEntry(name="made", revision="1"),
        "layers": tuple(sorted({size.layers for size in parsed})),
        "sizes": tuple(map(str, parsed)),
        "kind": "flat",
        "stored": "float32",
        "shard": 4,
        "bm25": True,
    }
    return Plan(**{**values, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def passages() -> Callable[[int], list[Passage]]:
    return make_passages


@pytest.fixture
def plan() -> Callable[..., Any]:
    return make_plan


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    return contents


@pytest.fixture
def store_of(tmp_path: Path) -> Callable[..., Any]:
    """store_of({layer: vectors}, sizes, kind=...) is a store of these vectors and the encoder that made them."""
    from rag_ese.index import build

    def make(vectors: dict[int, Float32s], sizes: str, **changes: Any) -> Any:
        count, width = next(iter(vectors.values())).shape
        rows = [Passage(f"p{row}", (" ".join(WORDS[row % 7 : row % 7 + 3]) + ".",)) for row in range(count)]
        known = {
            layer: {passage.full: vector for passage, vector in zip(rows, matrix, strict=True)}
            for layer, matrix in vectors.items()
        }
        encoder = FakeEncoder(width, known)
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        plan = make_plan(sizes, encoder, **{"shard": 1000, "bm25": False, **changes})
        return build(folder, plan, lambda: rows, encoder), encoder

    return make


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """run_main(program, arguments) is what a command line gives: exit code, standard output, standard error."""
    from rag_ese.cli import run

    def main(program: str, *arguments: object) -> tuple[int, str, str]:
        from rag_ese.eval.__main__ import COMMANDS as EVAL
        from rag_ese.index.__main__ import COMMANDS as INDEX
        from rag_ese.plan.__main__ import COMMANDS as PLAN

        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(
                f"rag_ese.{program}",
                {"eval": EVAL, "index": INDEX, "plan": PLAN}[program],
                [str(each) for each in arguments],
            )
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    yield main
