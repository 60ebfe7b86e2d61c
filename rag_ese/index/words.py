"""Word counts of a segment, and BM25 over several segments as if their living passages were one pool.

bm25s keeps finished scores, which depend on the pool: on how rare a word is and how long passages are. Where passages
come and go, the counts are kept instead, and the formula (bm25s's default: Lucene's, k1 1.5, b 0.75) is applied to them
when a query is there. Scores therefore are those of a pool built afresh.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import bm25s
import numpy as np
import numpy.typing as npt

from rag_ese.index.lexical import best
from rag_ese.types import Bools, Float32s, Int64s, Passage, Ranking

WORDS, STARTS, ROWS, COUNTS, LENGTHS = "words.txt", "starts.int64", "rows.int64", "counts.int32", "lengths.int64"
WORD_FILES = (WORDS, STARTS, ROWS, COUNTS, LENGTHS)
K1, B = 1.5, 0.75


def build_words(folder: Path, passages: Sequence[Passage]) -> None:
    """Writes the word counts of `passages` to `folder`, in whole or not at all. Holds all word numbers meanwhile."""
    tokenizer = bm25s.tokenization.Tokenizer(stopwords="en")
    texts = (passages[row].full for row in range(len(passages)))
    numbers = [np.asarray(each, np.int64) for each in tokenizer.streaming_tokenize(texts)]
    vocabulary = tokenizer.get_vocab_dict()
    lengths = np.array([len(each) for each in numbers], np.int64)
    keys = np.concatenate([*numbers, np.empty(0, np.int64)]) * len(numbers)
    keys += np.repeat(np.arange(len(numbers)), lengths)
    keys, counts = np.unique(keys, return_counts=True)
    words = sorted(vocabulary, key=lambda word: int(vocabulary[word]))
    starts = np.searchsorted(keys, np.arange(len(words) + 1) * len(numbers))
    draft = folder.with_name(f".{folder.name}.draft")
    for old in (draft, folder):
        shutil.rmtree(old, ignore_errors=True)
    draft.mkdir(parents=True)
    (draft / WORDS).write_text("\n".join(words), encoding="utf-8")
    starts.astype(np.int64).tofile(draft / STARTS)
    (keys % len(numbers)).astype(np.int64).tofile(draft / ROWS)
    counts.astype(np.int32).tofile(draft / COUNTS)
    lengths.tofile(draft / LENGTHS)
    os.replace(draft, folder)


class Words:
    """The word counts of one segment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lengths = np.fromfile(folder / LENGTHS, np.int64)
        self._starts = np.fromfile(folder / STARTS, np.int64)
        self._rows = _mapped(folder / ROWS, np.int64)
        self._counts = _mapped(folder / COUNTS, np.int32)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        words = (self._folder / WORDS).read_text(encoding="utf-8").split("\n")
        return {word: number for number, word in enumerate(words[: len(self._starts) - 1])}

    def postings(self, word: str) -> tuple[Int64s, npt.NDArray[np.int32]]:
        """The rows that have `word`, in ascending order, and how often each has it."""
        number = self._numbers.get(word)
        if number is None:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        piece = slice(self._starts[number], self._starts[number + 1])
        return np.asarray(self._rows[piece], np.int64), np.asarray(self._counts[piece], np.int32)


class LivingBM25:
    """BM25 over segments; `live` (rows of all segments, bool) says which rows count and can be found."""

    def __init__(self, segments: Sequence[Words], live: Bools) -> None:
        self._segments, self._live = segments, live
        self._lengths = np.concatenate([words.lengths for words in segments])
        self._starts = np.cumsum([0, *(len(words.lengths) for words in segments)])
        self._count = int(np.count_nonzero(live))
        self._mean = float(self._lengths[live].mean()) if self._count else 0.0

    def scores(self, query: str) -> Float32s:
        """The score of every row (float32): 0 where no word is shared, and for rows that do not live."""
        words = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
        scores = np.zeros(len(self._live), np.float32)
        for word in words:
            rows, counts = self._postings(word)
            if len(rows):
                rarity = np.log(1 + (self._count - len(rows) + 0.5) / (len(rows) + 0.5))
                weight = K1 * (1 - B + B * self._lengths[rows] / self._mean)
                scores[rows] += (rarity * counts / (weight + counts)).astype(np.float32)
        return scores

    def search(self, query: str, k: int) -> Ranking:
        """The best `k` passages that share a word with the query, by score, then by row."""
        return best(self.scores(query), k, above=0.0)

    def _postings(self, word: str) -> tuple[Int64s, npt.NDArray[np.int32]]:
        found = [words.postings(word) for words in self._segments]
        rows = np.concatenate([part[0] + start for part, start in zip(found, self._starts[:-1], strict=True)])
        counts = np.concatenate([part[1] for part in found])
        living = self._live[rows]
        return rows[living], counts[living]


def _mapped(path: Path, kind: type[np.integer]) -> npt.NDArray[np.integer]:
    """A file without a byte cannot be mapped."""
    return np.memmap(path, kind, "r") if path.stat().st_size else np.empty(0, kind)
