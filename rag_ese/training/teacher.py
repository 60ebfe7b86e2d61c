"""The frozen model that a student is aligned with: full-size embeddings of the very texts of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rag_ese.encoder.elastic import ElasticEncoder, Role
from rag_ese.training.student import Student
from rag_ese.types import Float32s


class Teacher:
    """Embeds each distinct text once (texts are cut as the student's are) and remembers it in half precision."""

    def __init__(self, encoder: ElasticEncoder, limits: dict[Role, int], chunk_tokens: int) -> None:
        self._student = Student(encoder)
        self._student.train(dropout=False)
        self._limits = limits
        self._chunk_tokens = chunk_tokens
        self._known: dict[tuple[Role, str], np.ndarray] = {}

    def embed(self, texts: Sequence[str], role: Role) -> Tensor:
        """texts x width, float32, on the device of the teacher, without gradients."""
        new = list(dict.fromkeys(text for text in texts if (role, text) not in self._known))
        if new:
            for text, vector in zip(new, self._compute(new, role), strict=True):
                self._known[role, text] = vector.astype(np.float16)
        rows = np.stack([self._known[role, text] for text in texts])
        return torch.from_numpy(rows).to(self._student.encoder.device, torch.float32)

    @torch.no_grad()
    def _compute(self, texts: Sequence[str], role: Role) -> Float32s:
        encoder = self._student.encoder
        rows = self._student.tokenize(texts, role, self._limits[role])
        output = np.empty((len(texts), encoder.width), np.float32)
        for chunk in self._student.chunks(rows, self._chunk_tokens):
            embedded = self._student.embed([rows[row] for row in chunk], role, [encoder.depth])[encoder.depth]
            unit = torch.nn.functional.normalize(embedded.float(), dim=1)
            output[chunk] = unit.cpu().numpy()
        return output
