"""What the reader sees at once: a question and stretches of one or two passages, as tokens that know their characters.

    [CLS] question [SEP] title : text [SEP] title : text [SEP]

Tokens of a title may be read but are no part of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rag_ese.types import Int64s, Passage

MAX_QUESTION = 64
MAX_TITLE = 16


@dataclass(frozen=True)
class Tokens:
    """A text as tokens: their ids and the characters that each covers, `starts` to `ends` (exclusive)."""

    ids: Int64s
    starts: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.ids)

    def cover(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last token that touch the characters `start` to `end`; None where there are none."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left")) - 1
        return (first, last) if first <= last else None


class Stretch(NamedTuple):
    """Tokens `first` to `last` (exclusive) of a passage."""

    passage: int
    first: int
    last: int


@dataclass(frozen=True)
class Window:
    """One input of the model: T tokens.

    `owner` says for each token to which stretch it belongs (its place in `stretches`), and -1 for what is no candidate
    for an answer; `types` are 0 for the question and 1 for the passages.
    """

    ids: Int64s
    types: Int64s
    owner: Int64s
    stretches: tuple[Stretch, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> bytes:
        """The same for windows that the model cannot tell apart."""
        return self.ids.tobytes() + self.owner.tobytes()

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where in the window each stretch begins."""
        return tuple(int(np.argmax(self.owner == number)) for number in range(len(self.stretches)))

    def locate(self, first: int, last: int) -> tuple[int, int, int]:
        """(passage, first token, last token of that passage) of the window's tokens `first` to `last` (inclusive)."""
        number = int(self.owner[first])
        stretch, offset = self.stretches[number], self.offsets[number]
        return stretch.passage, stretch.first + first - offset, stretch.first + last - offset

    def place(self, passage: int, first: int, last: int) -> tuple[int, int] | None:
        """The reverse of `locate`: None where the window does not hold these tokens whole."""
        for stretch, offset in zip(self.stretches, self.offsets, strict=True):
            if stretch.passage == passage and stretch.first <= first and last < stretch.last:
                return first - stretch.first + offset, last - stretch.first + offset
        return None


class Cutter:
    """Cuts texts into tokens, each distinct text once, and puts windows together."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._cls, self._sep = int(tokenizer.cls_token_id), int(tokenizer.sep_token_id)
        self._colon = int(tokenizer.convert_tokens_to_ids(":"))
        self._known: dict[str, Tokens] = {}

    def learn(self, texts: Sequence[str]) -> None:
        """Tokenizes together what `tokens` will be asked for; one call is many times faster than many."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if not new:
            return
        encoded = self._tokenizer(new, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for text, ids, offsets in zip(new, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
            self._known[text] = Tokens(np.array(ids, dtype=np.int64), places[:, 0].copy(), places[:, 1].copy())

    def tokens(self, text: str) -> Tokens:
        self.learn([text])
        return self._known[text]

    def room(self, question: str, passages: Sequence[Passage]) -> int:
        """How many tokens of the passages' texts fit beside the question and the titles."""
        titles = sum(len(self._title(passage)) for passage in passages)
        return self.max_tokens - 2 - len(self._question(question)) - titles - len(passages)

    def window(self, question: str, passages: Sequence[Passage], stretches: Sequence[Stretch]) -> Window:
        """The window of a question and stretches; `passages` are what their numbers mean."""
        parts: list[Sequence[int] | Int64s] = [[self._cls], self._question(question), [self._sep]]
        owners = [-1] * 3
        for number, stretch in enumerate(stretches):
            passage = passages[stretch.passage]
            ids = self.tokens(passage.text).ids[stretch.first : stretch.last]
            parts += [self._title(passage), ids, [self._sep]]
            owners += [-1, number, -1]
        lengths = [len(part) for part in parts]
        ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
        types = (np.arange(len(ids)) >= sum(lengths[:3])).astype(np.int64)
        return Window(ids, types, np.repeat(np.array(owners, dtype=np.int64), lengths), tuple(stretches))

    def _question(self, question: str) -> Int64s:
        return self.tokens(question).ids[:MAX_QUESTION]

    def _title(self, passage: Passage) -> Int64s:
        ids = self.tokens(passage.title).ids[:MAX_TITLE]
        return np.append(ids, self._colon) if len(ids) else ids


def strides(length: int, room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """(first, last) of stretches of at most `room` tokens that cover `length`, each overlapping the one before.

    >>> list(strides(10, 6, 2))
    [(0, 6), (4, 10)]
    """
    first = 0
    while first + room < length:
        yield first, first + room
        first += room - overlap
    yield max(0, min(first, length - room)), length
