"""Hard negatives: passages that rank high for a question and yet do not answer it.

The guard against false negatives is a share of the positive's own score, as in NV-Retriever (Moreira et al. 2024,
arXiv:2407.15831): what scores nearly as high as the positive probably answers the question too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import xxhash

from rag_ese.data.pairs import Pair, join
from rag_ese.data.training_rows import words_of
from rag_ese.index.lexical import BM25, best, build_bm25
from rag_ese.types import Float32s, Passage

_QUESTIONS = 256  # scored together: 4 bytes for each of them and each passage are in memory

Short = Literal["fill", "keep", "drop"]
Embed = Callable[[Sequence[str]], Float32s]
"""Questions to unit vectors, one a line."""


class Scorer(Protocol):
    """Scores all passages of a pool; those at or below `floor` do not match at all."""

    floor: float

    def scores(self, questions: Sequence[str]) -> Float32s:
        """One line per question, one column per passage."""
        ...


class Dense:
    """Inner products of `passages` (one unit vector a line) with what `embed` makes of the questions."""

    floor = -np.inf

    def __init__(self, passages: Float32s, embed: Embed) -> None:
        self._passages, self._embed = passages, embed

    def scores(self, questions: Sequence[str]) -> Float32s:
        return np.asarray(self._embed(questions) @ self._passages.T, dtype=np.float32)


class Lexical:
    """BM25, with its index in `folder`."""

    floor = 0.0

    def __init__(self, passages: Sequence[Passage], folder: Path) -> None:
        build_bm25(folder, passages)
        self._bm25 = BM25(folder)

    def scores(self, questions: Sequence[str]) -> Float32s:
        return np.stack([self._bm25.scores(question) for question in questions])


class Hybrid:
    """Dense + `weight` * BM25, the latter divided by the question's best: the sum that `rag_ese.retriever` ranks by."""

    floor = -np.inf

    def __init__(self, dense: Scorer, lexical: Scorer, weight: float = 0.5) -> None:
        self._dense, self._lexical, self._weight = dense, lexical, np.float32(weight)

    def scores(self, questions: Sequence[str]) -> Float32s:
        words = self._lexical.scores(questions)
        top = words.max(axis=1, keepdims=True, initial=0.0)
        share = words / np.where(top > 0, top, 1)
        return np.asarray(self._dense.scores(questions) + self._weight * share, dtype=np.float32)


@dataclass(frozen=True)
class Rules:
    """What is taken from a ranking in which the question's own passages do not stand."""

    negatives: int = 4
    depth: int = 50
    """The best so many are looked at, ..."""
    skip: int = 0
    """... but for the first so many."""
    max_share: float = 0.95
    """Only what scores less than this share of the positive's score."""
    answer_filter: bool = True
    """Nothing that has an answer's words in it."""
    short: Short = "fill"
    """Pairs with fewer: filled with random passages, kept as they are, or dropped."""


@dataclass(frozen=True)
class Mined:
    """A pair with its negatives, the first `found` of them from the ranking, best first, the others random."""

    pair: Pair
    negatives: tuple[str, ...]
    found: int


def pool_of(pairs: Iterable[Pair], further: Iterable[Passage] = ()) -> list[Passage]:
    """The distinct passages of the pairs, then further ones."""
    pool = {passage.id: passage for passage in map(_passage, pairs)}
    for passage in further:
        if passage.text.strip():
            pool.setdefault(passage.id, passage)
    return list(pool.values())


def mine(pairs: Sequence[Pair], pool: Sequence[Passage], scorer: Scorer, rules: Rules) -> Iterator[Mined]:
    """The pairs (each distinct question and passage once, in order) with negatives out of `pool`, which holds theirs.

    No negative is a passage of the same question, or a text that holds one, or a part of one.
    """
    miner = _Miner(pairs, pool, rules)
    first: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.question, pair.passage), pair)
    distinct = list(first.values())
    for start in range(0, len(distinct), _QUESTIONS):
        part = distinct[start : start + _QUESTIONS]
        lines = scorer.scores([pair.question for pair in part])
        yield from (miner.mine(pair, line, scorer.floor) for pair, line in zip(part, lines, strict=True))


class _Miner:
    def __init__(self, pairs: Sequence[Pair], pool: Sequence[Passage], rules: Rules) -> None:
        self.pool, self.rules = pool, rules
        self.row = {passage.id: row for row, passage in enumerate(pool)}
        self.own: dict[str, dict[int, None]] = {}
        self.answers: dict[str, set[str]] = {}
        for pair in pairs:
            question = words_of(pair.question)
            self.own.setdefault(question, {})[self.row[_passage(pair).id]] = None
            answers = self.answers.setdefault(question, set())
            answers.update(words for answer in pair.answers if (words := words_of(answer)))
        self.words = lru_cache(maxsize=1 << 16)(self._words)

    def mine(self, pair: Pair, scores: Float32s, floor: float) -> Mined:
        question = words_of(pair.question)
        bar = self.rules.max_share * float(scores[self.row[_passage(pair).id]])
        others = scores.copy()
        others[list(self.own[question])] = -np.inf
        ranking = best(others, self.rules.depth, above=floor)
        looked_at = zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True)
        chosen = [
            row
            for place, (row, score) in enumerate(looked_at)
            if place >= self.rules.skip and score < bar and self._allowed(question, row)
        ][: self.rules.negatives]
        found = len(chosen)
        if self.rules.short == "fill":
            chosen += self._random(pair, question, {*ranking.rows.tolist(), *self.own[question]}, found)
        return Mined(pair, tuple(join(self.pool[row].title, self.pool[row].text) for row in chosen), found)

    def _random(self, pair: Pair, question: str, seen: set[int], found: int) -> list[int]:
        """As many allowed passages as are missing, drawn by the question itself, so the same in every run."""
        missing = self.rules.negatives - found
        if not missing or len(seen) == len(self.pool):
            return []
        rng = np.random.default_rng(xxhash.xxh3_64_intdigest(pair.question.encode()))
        drawn: list[int] = []
        for row in rng.permutation(len(self.pool)).tolist():
            if len(drawn) == missing:
                break
            if row not in seen and self._allowed(question, row):
                drawn.append(row)
        return drawn

    def _allowed(self, question: str, row: int) -> bool:
        full, body = self.words(row)
        if any(
            f" {own} " in full or body in f" {own} "
            for own in (self.words(each)[1][1:-1] for each in self.own[question])
        ):
            return False
        return not (self.rules.answer_filter and any(f" {answer} " in full for answer in self.answers[question]))

    def _words(self, row: int) -> tuple[str, str]:
        """The words of title and text, and of the text alone, each with a blank at both ends."""
        passage = self.pool[row]
        return f" {words_of(passage.full)} ", f" {words_of(passage.text)} "


def _passage(pair: Pair) -> Passage:
    return Passage(pair.title, (pair.context,))
