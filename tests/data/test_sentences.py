"""The splitter loses nothing, and cuts where a reader would."""

from __future__ import annotations

import doctest
import random
import time

import pytest

from rag_ese.data import sentences
from rag_ese.data.sentences import split


@pytest.mark.parametrize(
    "expected",
    [
        ["One sentence."],
        ["It rained.", " We left.", "  Nobody came!", "\nWhy?"],
        ["He was born in St. Louis, Mo. on Jan. 5, 1901.", " He died in Dec. 1950 in Leeds.", " 1951 was better."],
        ["J. K. Rowling met Dr. Smith.", " They talked."],
        ["George W. Bush flew to Washington, D.C. with Sen. Lee.", " It was late."],
        ["They moved to the U.S. in 1999.", " The U.S. Army followed."],
        ["She left the U.S.", " The rest stayed."],
        ["It was made by Warner Bros. Pictures and Acme Inc. in No. 5 Lane.", " It cost $3.50."],
        ['He said "Go away!"', " Then he left (at 5 p.m.).", ' "Fine," she said.'],
        ["What?!", " Really…", " Yes."],
        ["See e.g. the manual, i.e. Vol. 2, pp. 3 ff.", " It helps."],
        ["A heading", "\n\nThe text begins here.", "\n \nIt ends."],
        ["これは文です。", "次の文です。"],
        ["He answered no.", " Nobody asked again."],
    ],
)
def test_splits_where_a_reader_would(expected: list[str]) -> None:
    assert list(split("".join(expected))) == expected


def test_empty_and_blank_texts() -> None:
    assert split("") == ()
    assert split(" \n\n ") == (" \n\n ",)
    assert split("  One.  ") == ("  One.  ",)


def test_nothing_is_lost_and_no_sentence_is_blank() -> None:
    draw = random.Random(0)
    pieces = [
        *'aZ1é日.!?…。"”()[]\n\t ',
        "  ",
        "\n\n",
        "\u00a0",
        "\u2028",
        "Dr.",
        "U.S.",
        "The ",
        "It",
        "No. 5",
        "...",
        "\x00",
        "🙂",
    ]
    split_somewhere = 0
    for _ in range(20_000):
        text = "".join(draw.choices(pieces, k=draw.randrange(30)))
        result = split(text)
        assert "".join(result) == text
        assert all(sentence.strip() for sentence in result) or (len(result) <= 1 and not text.strip()), text
        assert all(sentence == sentence.rstrip() for sentence in result[:-1]), text
        split_somewhere += len(result) > 1
    assert split_somewhere > 5000


@pytest.mark.parametrize("unit", [".", "\n", " ", '"', "A. ", "No. ", "? ", "。", "a.\n\n", '."'])
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    start = time.monotonic()
    split(unit * 100_000)
    assert time.monotonic() - start < 10  # quadratic time would be minutes


def test_the_docstring_is_true() -> None:
    assert doctest.testmod(sentences).failed == 0
