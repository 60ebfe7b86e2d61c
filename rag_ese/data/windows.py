"""Unlabelled texts for distillation: windows of one to three sentences out of passages, each under its title.

Short windows give a student more different texts for the same number of tokens than whole passages do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rag_ese.data.sentences import split
from rag_ese.data.training_rows import Row

_SPANS = (1, 1, 2, 2, 3)


def windowed(rows: Iterable[Row]) -> list[Row]:
    """(question, window) for every window and every question of each passage, in turn.

    Hard negatives are passages, too. A window need not hold what its question asks for: the rows are for distillation.
    """
    questions: dict[str, list[Row]] = {}
    for row in rows:
        for passage in row.texts[1:]:
            questions.setdefault(passage, []).append(row)
    found = []
    for passage, own in questions.items():
        parts = windows([passage])
        for turn in range(max(len(own), len(parts)) if parts else 0):
            row = own[turn % len(own)]
            found.append(Row((row.texts[0], parts[turn % len(parts)]), row.roles[:2], row.label))
    return found


def windows(passages: Iterable[str]) -> list[str]:
    """One window per sentence of each distinct passage ("title\\ntext", or text alone), in order, each text once.

    The window that begins at sentence i is 1, 1, 2, 2 or 3 sentences long, in turn, and no longer than the passage.

    >>> windows(["Title\\nOne. Two. Three."])
    ['Title\\nOne.', 'Title\\nTwo.', 'Title\\nThree.']
    """
    return list(dict.fromkeys(window for passage in dict.fromkeys(passages) for window in _of(passage)))


def _of(passage: str) -> Iterator[str]:
    title, newline, body = passage.rpartition("\n") if passage.count("\n") == 1 else ("", "", passage)
    sentences = split(body)
    for start in range(len(sentences)):
        text = "".join(sentences[start : start + _SPANS[start % len(_SPANS)]]).strip()
        if text:
            yield f"{title}{newline}{text}"
