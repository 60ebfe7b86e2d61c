"""Pieces of text that can be answers: names, titles in quotes, dates, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_CARDINALS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_DATE = rf"(?:(?:{_MONTHS}) \d{{1,2}},? \d{{4}}|\d{{1,2}} (?:{_MONTHS}) \d{{4}}|(?:{_MONTHS}) \d{{4}})"
_CAPITAL = r"(?:[A-Z][\w'’&.-]*[\w]|[A-Z]\.?)"
_SPAN = re.compile(
    rf"(?P<date>{_DATE})"
    r"|(?P<year>\b1\d{3}\b|\b20\d{2}\b)"
    rf"|(?P<number>\$?\b\d[\d,.]*\d?\b%?(?: (?:million|billion|percent))?|\b(?:{_CARDINALS})\b)"
    r'|"(?P<quoted>[^"]{2,60})"'
    rf"|(?P<name>{_CAPITAL}(?: (?:(?:of|the|and|de|von|van|la) ){{0,2}}{_CAPITAL})*)"
)
_WORD = re.compile(r"\w+")
_MONTH_NUMBERS = {month: number for number, month in enumerate(_MONTHS.split("|"), 1)}
_FUNCTION_WORDS = """
    a an the of in on at to for from by with and or as is are was were be been being do does did has have had that this
    these those it its he she his her him they their them who whom whose which what when where why how not also than
    then there into about between both one
"""
# Adjectives that stand before a noun more often than they answer anything.
_NATIONALITIES = """
    american british english french german canadian australian italian spanish russian japanese indian irish swedish
    scottish welsh korean chinese dutch european polish
"""
STOPWORDS = frozenset(_FUNCTION_WORDS.split())
_IGNORED = STOPWORDS.union(_NATIONALITIES.split(), (month.lower() for month in _MONTH_NUMBERS))


@dataclass(frozen=True)
class Span:
    text: str
    kind: str
    """date, year, number, quoted or name."""
    start: int
    """Position of the first word within the sentence, counted in words."""


def stems(text: str) -> list[str]:
    """The words in lower case, cut to six letters: direct, director and directed become equal."""
    return [word[:6] for word in _WORD.findall(text.lower())]


def content_stems(text: str) -> set[str]:
    """The distinct stems of the words that carry content."""
    return {word[:6] for word in _WORD.findall(text.lower()) if word not in STOPWORDS}


def spans(sentence: str) -> Iterator[Span]:
    """Every candidate of a sentence, from left to right.

    >>> [(span.text, span.kind) for span in spans('"Big" (1988) is by Penny Marshall.')]
    [('Big', 'quoted'), ('1988', 'year'), ('Penny Marshall', 'name')]
    """
    for match in _SPAN.finditer(sentence):
        kind = str(match.lastgroup)
        text = match[kind].strip(" .,'").removesuffix("'s")
        if kind != "name" or not {*text.lower().split()} <= _IGNORED:
            yield Span(text, kind, len(_WORD.findall(sentence, 0, match.start())))


def first_date(text: str) -> tuple[int, int, int] | None:
    """The first date or year of a text as (year, month, day), with 0 for what is not said."""
    for span in spans(text):
        if span.kind in {"date", "year"}:
            numbers = sorted((int(number) for number in re.findall(r"\d+", span.text)), reverse=True)
            month = next((number for name, number in _MONTH_NUMBERS.items() if name in span.text), 0)
            return numbers[0], month, numbers[1] if len(numbers) > 1 else 0
    return None


def numbers(text: str) -> list[float]:
    """The plain numbers of a text (no years, no dates), `million` and `billion` multiplied out."""
    found = []
    for span in spans(text):
        digits = re.sub(r"[^\d.]", "", span.text).strip(".")
        if span.kind == "number" and digits.count(".") < 2 and digits:
            found.append(float(digits) * (1e6 if "million" in span.text else 1e9 if "billion" in span.text else 1))
    return found


def bare_title(title: str) -> str:
    """A title without its disambiguation: `Big (film)` is `Big`."""
    return re.sub(r" \([^)]*\)$", "", title)
