"""BM25 over the passages of a store, through bm25s (its defaults, English stop words): the control for every size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

from rag_ese.errors import StoreCorruptError
from rag_ese.types import Float32s, Passage, Ranking

FOLDER = "bm25"


def build_bm25(folder: Path, passages: Sequence[Passage]) -> None:
    """Writes the BM25 index of `passages` to `folder`/bm25, in whole or not at all.

    Unlike the vectors, the word numbers of all passages (8 bytes a word) and their scores are held in memory meanwhile.
    """
    tokenizer = bm25s.tokenization.Tokenizer(stopwords="en")
    texts = (passages[row].full for row in range(len(passages)))
    words = list(tokenizer.streaming_tokenize(texts))
    index = bm25s.BM25()
    index.index((words, tokenizer.get_vocab_dict()), show_progress=False)
    draft = folder / (FOLDER + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    index.save(str(draft), show_progress=False)
    os.replace(draft, folder / FOLDER)


class BM25:
    """Scores passages by the words that they share with a query."""

    def __init__(self, folder: Path) -> None:
        try:
            self._index = bm25s.BM25.load(str(folder / FOLDER), mmap=True)
        except (OSError, ValueError, KeyError) as error:
            raise StoreCorruptError(f"the BM25 index in {folder} cannot be read: build the index again") from error

    def scores(self, query: str) -> Float32s:
        """The score of every passage (float32), 0 where no word is shared."""
        words = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
        known = [word for word in words if word in self._index.vocab_dict]
        if not known:
            return np.zeros(self._index.scores["num_docs"], np.float32)
        return np.asarray(self._index.get_scores(known), dtype=np.float32)

    def search(self, query: str, k: int) -> Ranking:
        """The best `k` passages that share a word with the query, by score, then by row."""
        return best(self.scores(query), k, above=0.0)


def best(scores: Float32s, k: int, above: float = -np.inf) -> Ranking:
    """The rows with the `k` highest scores over `above`, best first; equal scores in order of row."""
    k = min(k, len(scores))
    cut = np.partition(scores, -k)[-k] if k else np.inf
    rows = np.flatnonzero((scores >= cut) & (scores > above))
    rows = rows[np.argsort(-scores[rows], kind="stable")][:k]
    return Ranking(rows.astype(np.int64), scores[rows])
