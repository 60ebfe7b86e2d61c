"""A batch of rows as columns of texts, embedded in chunks of similar length and put together again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rag_ese.data.training_rows import Row
from rag_ese.encoder.elastic import Role
from rag_ese.training.gradient_cache import Chunk
from rag_ese.training.student import Student


@dataclass(frozen=True)
class TextColumn:
    """One column of a batch: a text of each row, all of one role."""

    role: Role
    texts: tuple[str, ...]


def text_columns(rows: Sequence[Row], negatives: int, draw: random.Random) -> list[TextColumn]:
    """The columns of a homogeneous batch: what every row has, then up to `negatives` hard negatives drawn from each.

    A row's first two texts belong together; the others are its hard negatives. Rows with few negatives limit the
    number of columns of the whole batch.
    """
    count = min(negatives, min(len(row.texts) for row in rows) - 2)
    chosen = [[0, 1, *sorted(draw.sample(range(2, len(row.texts)), count))] for row in rows]
    return [
        TextColumn(rows[0].roles[picked[0]], tuple(row.texts[place] for row, place in zip(rows, picked, strict=True)))
        for picked in zip(*chosen, strict=True)
    ]


def labels_of(rows: Sequence[Row], columns: Sequence[TextColumn]) -> Tensor:
    """What the base loss is told of a batch: scores of scored pairs (B, float), identities of passages otherwise.

    Identities are B x (columns - 1) integers, the same number for the same text, so that a passage that occurs twice in
    a batch is no negative of its own question.
    """
    if rows[0].label is not None:
        return torch.tensor([row.label for row in rows], dtype=torch.float32)
    number: dict[str, int] = {}
    passages = zip(*(column.texts for column in columns[1:]), strict=True)
    return torch.tensor([[number.setdefault(text, len(number)) for text in texts] for texts in passages])


class Plan:
    """Which distinct texts are embedded in which chunk, and where each goes."""

    def __init__(
        self, columns: Sequence[TextColumn], student: Student, limits: Mapping[Role, int], budget: int
    ) -> None:
        self.chunks: list[tuple[Role, list[list[int]]]] = []
        place: dict[tuple[Role, str], int] = {}
        for role in dict.fromkeys(column.role for column in columns):
            texts = list(dict.fromkeys(text for column in columns if column.role == role for text in column.texts))
            rows = student.tokenize(texts, role, limits[role])
            for chunk in student.chunks(rows, budget):
                for row in chunk:
                    place[role, texts[row]] = len(place)
                self.chunks.append((role, [rows[row] for row in chunk]))
        self._places = [torch.tensor([place[column.role, text] for text in column.texts]) for column in columns]

    @property
    def tokens(self) -> int:
        """True tokens, without padding."""
        return sum(len(row) for _, rows in self.chunks for row in rows)

    def embedders(self, student: Student, layers: Sequence[int]) -> list[Chunk]:
        """One function per chunk that embeds it at `layers`."""
        return [partial(student.embed, rows, role, layers) for role, rows in self.chunks]

    def assemble(self, chunks: Sequence[Mapping[int, Tensor]]) -> dict[int, list[Tensor]]:
        """The chunks' embeddings as columns: layer -> one B x width tensor per column."""
        layers = list(chunks[0])
        whole = {layer: torch.cat([chunk[layer] for chunk in chunks]) for layer in layers}
        return {layer: [whole[layer][places.to(whole[layer].device)] for places in self._places] for layer in layers}
