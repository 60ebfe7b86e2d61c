"""Funnels and sizes as they are written."""

from __future__ import annotations

import pytest

from rag_ese.errors import ConfigError, SizeError
from rag_ese.retriever import Funnel, Stage
from rag_ese.types import Size, parse_sizes


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("L3-d64:200 > L6-d768:10", "L3-d64:200 > L6-d768:10"),
        ("64:5", "L6-d64:5"),
        (" l2-D8:7>L3:7 >d9:1 ", "L2-d8:7 > L3-d768:7 > L6-d9:1"),
    ],
)
def test_funnels_are_read_and_printed(text: str, read: str) -> None:
    funnel = Funnel.parse(text, 6, 768)
    assert str(funnel) == read and Funnel.parse(read, 6, 768) == funnel
    assert funnel.keep == funnel.stages[-1].keep


def test_the_docstrings_are_true() -> None:
    assert str(Funnel.parse("L3-d64:200 > 768:10", depth=6, width=768)) == "L3-d64:200 > L6-d768:10"
    assert str(Size.parse("128", depth=6)) == "L6-d128"
    sizes = parse_sizes("L3-d64,128", depth=6, width=768, layers=[2, 6])
    assert [str(size) for size in sizes] == ["L3-d64", "L2-d128", "L6-d128"]


def test_one_stage_is_a_plain_search() -> None:
    assert Funnel.single(Size(3, 64), 10) == Funnel.parse("L3-d64:10", 6, 768) == Funnel((Stage(Size(3, 64), 10),))


@pytest.mark.parametrize("text", ["", ">", "64", "64:", ":10", "64:10 >", "64:10:5", "64:-1", "64:x", "64:10, 768:5"])
def test_garbage_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write SIZE:KEEP stages joined by >, such as 'L3-d64:200 > L6-d768:10'"):
        Funnel.parse(text, 6, 768)


@pytest.mark.parametrize("text", ["64:0", "64:10 > 768:20", "64:10 > 768:5 > 768:6"])
def test_stages_keep_fewer_and_fewer(text: str) -> None:
    with pytest.raises(ConfigError, match="at least 1 passage and at most as many as the stage before"):
        Funnel.parse(text, 6, 768)
    with pytest.raises(ConfigError, match="at least 1 passage"):
        Funnel(())


@pytest.mark.parametrize("text", ["L6-d128:9 > L6-d64:5", "L6-d64:9 > L2-d64:5", "L2-d64:9 > L6-d768:8 > L4-d512:5"])
def test_a_smaller_size_does_not_re_rank_a_larger_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is out of order: L\d-d\d+ comes after L6-d\d+, which knows more"):
        Funnel.parse(text, 6, 768)


@pytest.mark.parametrize("text", ["L6-d64:9 > L6-d64:5", "L2-d128:9 > L6-d64:5", "L6-d64:9 > L2-d768:5"])
def test_sizes_that_are_equal_or_not_to_be_compared_are_left_to_the_user(text: str) -> None:
    assert str(Funnel.parse(text, 6, 768)) == text


@pytest.mark.parametrize("text", ["-64", "L3d", "L-3", "3.5", "L3--64", "L3-d64-d8", "wide", "L", ""])
def test_sizes_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SizeError, match="cannot read the size"):
        Size.parse(text, 6, 768)


@pytest.mark.parametrize("text", ["0", "L0-d64", "L3-d0"])
def test_sizes_start_at_one(text: str) -> None:
    with pytest.raises(SizeError, match="start at 1"):
        Size.parse(text, 6, 768)


def test_bare_sizes_need_the_model() -> None:
    for text in ("64", "L3"):
        with pytest.raises(SizeError):
            Size.parse(text)
    with pytest.raises(SizeError, match="no size was given"):
        parse_sizes(" , ", 6, 768)
