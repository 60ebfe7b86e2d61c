from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from rag_ese.reader.weights import Reader
from rag_ese.reader.windows import Cutter, Stretch, strides
from rag_ese.types import Passage


def test_every_candidate_maps_back_to_its_characters(
    reader: Reader, cutter: Cutter, passages: tuple[Passage, ...]
) -> None:
    window = cutter.window("Who was Béla?", passages, [Stretch(1, 2, 9), Stretch(0, 0, 12)])
    for place in np.flatnonzero(window.owner >= 0).tolist():
        passage, first, last = window.locate(place, place)
        tokens = cutter.tokens(passages[passage].text)
        assert first == last and tokens.ids[first] == window.ids[place]
        own = passages[passage].text[tokens.starts[first] : tokens.ends[first]]
        again = reader.tokenizer(own, add_special_tokens=False)["input_ids"]
        piece = reader.tokenizer.convert_ids_to_tokens(int(window.ids[place]))
        assert piece.startswith("##") or again == [window.ids[place]]
        assert window.place(passage, first, last) == (place, place)
    assert window.place(1, 0, 2) is None


def test_a_window_reads_as_it_should(reader: Reader, cutter: Cutter, passages: tuple[Passage, ...]) -> None:
    window = cutter.window("Who?", passages, [Stretch(2, 0, 3)])
    assert reader.tokenizer.decode(window.ids) == "[CLS] who? [SEP] oslo : oslo is the [SEP]"
    assert window.types.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert window.owner.tolist() == [-1, -1, -1, -1, -1, -1, 0, 0, 0, -1]
    room = cutter.room("Who?", [passages[2]])
    assert len(cutter.window("Who?", passages, [Stretch(2, 0, 3)])) - 3 + room == cutter.max_tokens


def test_characters_to_tokens(cutter: Cutter) -> None:
    tokens = cutter.tokens("Oslo, not Rome")
    assert tokens.cover(0, 4) == (0, 0)
    assert tokens.cover(0, 5) == (0, 1)
    assert tokens.cover(10, 14) == (3, 3)
    assert tokens.cover(5, 6) is None


@pytest.mark.parametrize(("length", "room", "overlap"), [(5, 10, 2), (10, 10, 2), (11, 10, 2), (97, 10, 4)])
def test_strides_cover_everything(length: int, room: int, overlap: int) -> None:
    parts = list(strides(length, room, overlap))
    assert set().union(*(range(*part) for part in parts)) == set(range(length))
    assert all(last - first <= room for first, last in parts)
    assert all(left[1] - right[0] >= overlap for left, right in pairwise(parts))
