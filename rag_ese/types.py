"""The nouns that every part of the project shares."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_ese.errors import SizeError

Bools = npt.NDArray[np.bool_]
Float32s = npt.NDArray[np.float32]
Int64s = npt.NDArray[np.int64]

_SIZE = re.compile(r"(?:[Ll](\d+))?(?:(?:(?<=\d)-)?[Dd]?(\d+))?")


@dataclass(frozen=True, order=True)
class Size:
    """How big an embedding is: how many Transformer blocks ran, and how many leading dimensions are kept.

    >>> Size.parse("L3-d64")
    Size(layers=3, dim=64)
    >>> str(Size.parse("128", depth=6))
    'L6-d128'
    """

    layers: int
    dim: int

    def __post_init__(self) -> None:
        if self.layers < 1 or self.dim < 1:
            raise SizeError(f"size L{self.layers}-d{self.dim} is not possible: layers and dimensions start at 1")

    def __str__(self) -> str:
        return f"L{self.layers}-d{self.dim}"

    @classmethod
    def parse(cls, text: str, depth: int | None = None, width: int | None = None) -> Size:
        """Reads `L3-d64`; with the model's `depth` also `64` (full depth), with its `width` also `L3` (full width)."""
        match = _SIZE.fullmatch(text.strip())
        layers = int(match[1]) if match and match[1] else depth
        dim = int(match[2]) if match and match[2] else width
        if not match or not match[0] or layers is None or dim is None:
            raise SizeError(f"cannot read the size {text!r}: write L3-d64 (3 layers, 64 dimensions) or 64 (full depth)")
        return cls(layers, dim)


def parse_sizes(text: str, depth: int, width: int, layers: Sequence[int] = ()) -> list[Size]:
    """Reads `L3-d64,128,768`. A bare width stands for full depth, or for every depth of `layers` where that is given.

    >>> [str(size) for size in parse_sizes("L3-d64,128", depth=6, width=768, layers=[2, 6])]
    ['L3-d64', 'L2-d128', 'L6-d128']
    """
    sizes: dict[Size, None] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        depths = layers if layers and part.isdigit() else [depth]
        sizes.update((Size.parse(part, each, width), None) for each in depths)
    if not sizes:
        raise SizeError("no size was given: write for example --sizes 64,128,768")
    return list(sizes)


Metadata = Mapping[str, str | int | float | bool]
"""Names and plain values, such as {"year": 1990, "source": "wiki"}."""


@dataclass(frozen=True)
class Passage:
    """A passage of the pool. Sentences keep their leading blank, so that joining them gives the text back.

    `metadata` is what filters look at; it is neither encoded nor part of the id.
    """

    title: str
    sentences: tuple[str, ...]
    metadata: Metadata = field(default_factory=dict, hash=False)

    @cached_property
    def text(self) -> str:
        return "".join(self.sentences)

    @cached_property
    def full(self) -> str:
        """What is encoded: title, newline, text."""
        return f"{self.title}\n{self.text}"

    @cached_property
    def id(self) -> str:
        """Stable across runs and pools: a hash of title and text (16 hexadecimal digits)."""
        return hashlib.blake2b(self.full.encode(), digest_size=8).hexdigest()


SupportingFact = tuple[str, int]
"""(title, 0-based sentence number), as in HotpotQA."""


@dataclass(frozen=True)
class Question:
    """A question with its gold answer and its gold evidence. `gold` holds the ids of the passages that support it."""

    id: str
    text: str
    answer: str
    type: str = ""
    level: str = ""
    gold: tuple[str, ...] = ()
    supporting_facts: tuple[SupportingFact, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """What a retriever found for one query, best first: rows of the pool (int64) and their scores (float32)."""

    rows: Int64s
    scores: Float32s

    def __len__(self) -> int:
        return len(self.rows)

    def top(self, k: int) -> Ranking:
        return Ranking(self.rows[:k], self.scores[:k])


@dataclass(frozen=True)
class Evidence:
    """Where a reader found its answer: characters `start` to `end` (exclusive) of the text of the passage `id`.

    Yes and no stand nowhere: `start` and `end` are both where the sentence begins that supports them most. `score` is
    between 0 and 1, comparable within one reader. `sentence` is the text around the answer.
    """

    id: str
    title: str
    start: int
    end: int
    score: float
    sentence: str
    sentence_start: int

    def marked(self, mark: str = "**") -> str:
        """The sentence with the answer between two marks.

        >>> Evidence("f3", "Ada Lovelace", 24, 28, 0.9, "She was born in 1815.", 8).marked()
        'She was born in **1815**.'
        """
        first, last = self.start - self.sentence_start, self.end - self.sentence_start
        answer = self.sentence[first:last]
        return f"{self.sentence[:first]}{mark}{answer}{mark}{self.sentence[last:]}" if answer else self.sentence


@dataclass(frozen=True)
class Answer:
    """What a generator said. `supporting_facts` is None where the generator names no evidence."""

    text: str
    supporting_facts: tuple[SupportingFact, ...] | None = None
    usage: dict[str, int] = field(default_factory=dict)
    """Counts such as prompt_tokens and completion_tokens, where the backend reports them."""
    evidence: Evidence | None = None
    """Where the answer stands, from generators that read it off a passage."""
