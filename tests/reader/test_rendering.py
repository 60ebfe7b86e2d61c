from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from rag_ese.data.readings import Gold, Reading, read_readings
from rag_ese.reader.model import CLOSED, LONGEST
from rag_ese.reader.rendering import Distractors, Example, Shares, render
from rag_ese.reader.windows import Cutter
from rag_ese.types import Passage


def said(row: Reading, example: Example, cutter: Cutter) -> set[str]:
    """The right spans in words: the owner of a span is the one of the row's passages that holds these tokens."""
    words = set()
    for first, last in example.spans:
        ids = example.window.ids[first : last + 1].tolist()
        for passage in row.passages:
            tokens = cutter.tokens(passage.text)
            for place in range(len(tokens) - len(ids) + 1):
                if tokens.ids[place : place + len(ids)].tolist() == ids:
                    words.add(passage.text[tokens.starts[place] : tokens.ends[place + len(ids) - 1]])
    return words


def test_right_spans_are_the_answer_in_every_form(rows: Path, hops: Path, cutter: Cutter) -> None:
    for file in (rows, hops):
        readings = list(read_readings(file))
        distractors = Distractors(readings)
        for number, row in enumerate(readings):
            for shares in (Shares(0, 0), Shares(1, 0)):
                example = render(row, distractors, shares, cutter, random.Random(number))
                if row.closed:
                    assert example.closed == CLOSED.index(row.closed)
                else:
                    right = row.passages[row.gold[0].passage].text[row.gold[0].start : row.gold[0].end]
                    assert said(row, example, cutter) == {right}
            example = render(row, distractors, Shares(0, 1), cutter, random.Random(number))
            assert example.spans == () and example.closed == CLOSED.index("")
            assert example.gold(50) == [50 * LONGEST]


def test_two_hops_are_seen_together_in_both_orders(hops: Path, cutter: Cutter) -> None:
    row = next(read_readings(hops))
    examples = [render(row, Distractors([row]), Shares(0, 0), cutter, random.Random(seed)) for seed in range(20)]
    assert {tuple(stretch.passage for stretch in each.window.stretches) for each in examples} == {(0, 1), (1, 0)}


def test_long_passages_are_cut_around_the_answer(cutter: Cutter) -> None:
    text = "Nothing here. " * 100 + "Oslo" + " is far away." * 100
    row = Reading("Where?", (Passage("T", (text,)),), (Gold(0, 1400, 1404),))
    seen = set()
    for seed in range(10):
        example = render(row, Distractors([row]), Shares(0, 0), cutter, random.Random(seed))
        assert len(example.window) == cutter.max_tokens
        assert said(row, example, cutter) == {"Oslo"}
        seen.add(example.spans)
    assert len(seen) > 1


def test_distractors_lack_the_answer() -> None:
    row = Reading("Where?", (Passage("T", ("In Oslo.",)),), (Gold(0, 3, 7),))
    others = [Reading("Who?", (Passage("T", (text,)),), ()) for text in ("OSLO again.", "Nothing.", "Rome.")]
    drawn = {Distractors([row, *others]).draw(row, random.Random(seed)) for seed in range(50)}
    assert {each.text for each in drawn if each} == {"Nothing.", "Rome."}


def test_gold_numbers_are_those_of_the_padded_batch(cutter: Cutter, rows: Path) -> None:
    row = next(read_readings(rows))
    example = render(row, Distractors([row]), Shares(0, 0), cutter, random.Random(0))
    scores = np.zeros((70, LONGEST))
    for first, last in example.spans:
        scores[first, last - first] = 1
    assert np.flatnonzero(scores).tolist() == sorted(example.gold(70))
