"""Mines hard negatives: `python -m rag_ese.training.mine --pairs FILES --out FILE.jsonl.gz`."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal

from pydantic import Field

from rag_ese.cli import Command, notice, run
from rag_ese.data import corpus, hotpotqa
from rag_ese.data.files import suffix
from rag_ese.data.pairs import read
from rag_ese.encoder.config import EncoderConfig
from rag_ese.errors import ConfigError, DataError, StorageError, disk_errors
from rag_ese.progress import progress_bar
from rag_ese.training.mining import Dense, Hybrid, Lexical, Mined, Rules, Scorer, Short, mine, pool_of
from rag_ese.types import Passage, Size


class MineConfig(EncoderConfig):
    """What is searched, how, and what is taken."""

    pairs: str = Field(description="question-passage pairs: JSONL or HotpotQA files, separated by commas")
    out: Path = Field(description="the .jsonl or .jsonl.gz file to write: the pairs with their negatives")
    pool: str = Field("", description="further passages: JSONL or HotpotQA files or BEIR folders, separated by commas")
    system: Literal["dense", "bm25", "hybrid"] = Field("dense", description="what ranks: dense, bm25 or hybrid")
    size: str = Field("", description="size of the embeddings, such as L6-d128 (default: full)")
    negatives: int = Field(Rules.negatives, ge=1, description="negatives per pair")
    depth: int = Field(Rules.depth, ge=1, description="how far down the ranking negatives are looked for")
    skip: int = Field(Rules.skip, ge=0, description="so many of the best are passed over")
    max_share: float = Field(
        Rules.max_share, gt=0, description="negatives score below this share of the positive's score"
    )
    answer_filter: bool = Field(
        Rules.answer_filter, description="no negative with an answer's words, where answers are known"
    )
    short: Short = Field(
        Rules.short, description="pairs with fewer negatives: fill (with random passages), keep or drop"
    )

    def rules(self) -> Rules:
        if self.skip >= self.depth:
            raise ConfigError(f"skipping {self.skip} of the best {self.depth} leaves nothing: raise --depth")
        return Rules(self.negatives, self.depth, self.skip, self.max_share, self.answer_filter, self.short)


def main(config: MineConfig) -> None:
    rules = config.rules()
    if suffix(config.out) != ".jsonl":
        raise ConfigError(f"{config.out} has another ending than .jsonl or .jsonl.gz, by which it is read: rename it")
    if config.out.exists():
        raise StorageError(f"{config.out} exists: give another --out, or remove it")
    sources = [(path.name, pair) for path in _paths(config.pairs) for pair in read(path)]
    pairs = [pair for _, pair in sources]
    if not pairs:
        raise DataError(f"{config.pairs} holds 0 question-passage pairs: name a file with question and context")
    pool = pool_of(pairs, (passage for path in _paths(config.pool) for passage in _read_passages(path)))
    source = {(pair.question, pair.passage): name for name, pair in reversed(sources)}
    with tempfile.TemporaryDirectory() as folder:
        scorer = _scorer(config, pool, Path(folder))
        with progress_bar("mining", len(source)) as advance:
            short, count = _write(config.out, _counted(mine(pairs, pool, scorer, rules), advance), source, rules)
    remedy = {"fill": "filled with random passages", "keep": "kept with fewer", "drop": "left out"}[rules.short]
    notice(
        f"{config.out}: {count:,} of {len(source):,} pairs, negatives from {len(pool):,} passages; for {short:,} pairs "
        f"({short / len(source):.1%}) fewer than {rules.negatives} were found, and they are {remedy}"
    )


def _scorer(config: MineConfig, pool: list[Passage], folder: Path) -> Scorer:
    if config.system == "bm25":
        return Lexical(pool, folder)
    encoder = config.load_encoder()
    size = Size.parse(config.size, encoder.depth, encoder.width) if config.size else Size(encoder.depth, encoder.width)
    encoder.check([size])
    with progress_bar(f"encoding at {size}", len(pool)) as advance:
        vectors = encoder.encode([passage.full for passage in pool], [size], progress=advance)[size]
    dense = Dense(vectors, lambda questions: encoder.encode(questions, [size], "query")[size])
    return dense if config.system == "dense" else Hybrid(dense, Lexical(pool, folder))


def _write(out: Path, mined: Iterable[Mined], source: dict[tuple[str, str], str], rules: Rules) -> tuple[int, int]:
    """Writes the rows, whole or not at all; returns how many had too few negatives, and how many were written."""
    short = count = 0
    draft = out.with_name(f".{out.name}.draft")
    with disk_errors("writing", out), ExitStack() as stack:
        out.parent.mkdir(parents=True, exist_ok=True)
        stack.callback(draft.unlink, missing_ok=True)
        with draft.open("wb") as raw, _compressed(raw, out) as file:
            for each in mined:
                short += each.found < rules.negatives
                if each.found < rules.negatives and rules.short == "drop":
                    continue
                count += 1
                file.write(json.dumps(_record(each, source), ensure_ascii=False).encode() + b"\n")
        os.replace(draft, out)
    return short, count


def _record(mined: Mined, source: dict[tuple[str, str], str]) -> dict[str, object]:
    pair = mined.pair
    return {
        "question": pair.question,
        "title": pair.title,
        "context": pair.context,
        "negatives": mined.negatives,
        "mined": mined.found,
        "source": source[pair.question, pair.passage],
    }


def _compressed(raw: IO[bytes], out: Path) -> IO[bytes]:
    """Without name and time, so that the same rows are the same bytes."""
    return gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if out.suffix == ".gz" else raw  # type: ignore[return-value]


def _counted(mined: Iterable[Mined], advance: Callable[[int], None]) -> Iterator[Mined]:
    for each in mined:
        yield each
        advance(1)


def _read_passages(path: Path) -> Iterable[Passage]:
    """Passages of a JSONL file or BEIR folder, or the context passages of a HotpotQA file."""
    return hotpotqa.load(path).passages if suffix(path) == ".json" else corpus.read(path)


def _paths(text: str) -> list[Path]:
    return [Path(part.strip()).expanduser() for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    run("rag_ese.training.mine", {"": Command(MineConfig, main, "mine hard negatives for question-passage pairs")})
