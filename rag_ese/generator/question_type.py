"""What kind of answer a question asks for, read from its words alone."""

from __future__ import annotations

import re
from enum import Enum, auto


class Kind(Enum):
    YES_NO = auto()
    CHOICE = auto()
    """One of two named options."""
    SHARED = auto()
    """What two things have in common."""
    YEAR = auto()
    DATE = auto()
    NUMBER = auto()
    PERSON = auto()
    PLACE = auto()
    OTHER = auto()


_PERSONS = (
    "actor actress author singer director writer composer player politician man woman person musician founder king "
    "queen president artist producer poet novelist comedian rapper songwriter guitarist scientist businessman designer"
)
_PLACES = "city country state county town village place location province region island district continent nation river"
_PATTERNS = [
    (Kind.YES_NO, r"^(?:is|are|was|were|do|does|did|has|have|had|can|could)\b(?!.*\bor\b)"),
    (Kind.CHOICE, r"\bor\b[^,]*$|\b(?:which|who|what)\b.*\bbetween\b.*\band\b|^between\b"),
    (Kind.SHARED, r"\bin common\b|\bshare|\b(?:what|which)\b.*\bboth\b|\bboth\b.*\b(?:what|which)\b"),
    (Kind.YEAR, r"\b(?:what|which|the) years?\b"),
    (Kind.DATE, r"\bwhen\b|\b(?:what|which) (?:date|day|month)\b"),
    (Kind.NUMBER, r"\bhow (?:many|much|old|long|tall|large|big|far|high)\b|\b(?:population|number of|percentage)\b"),
    (Kind.PERSON, rf"\bwho(?:m|se)?\b|\b(?:what|which)(?: [\w-]+)?? (?:[\w-]+ )?(?:{'|'.join(_PERSONS.split())})\b"),
    (Kind.PLACE, rf"\bwhere\b|\b(?:what|which)(?: [\w-]+)? (?:{'|'.join(_PLACES.split())})\b"),
]
_COMPILED = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS]

_DIRECTIONS = [
    (-1, "year", r"\b(?:first|earlier|earliest|older|oldest|elder|before)\b"),
    (+1, "year", r"\b(?:later|latest|last|younger|youngest|newer|newest|recent|recently|after)\b"),
    (
        +1,
        "number",
        r"\b(?:more|most|larger|largest|longer|longest|higher|highest|greater|bigger|biggest|taller|tallest)\b",
    ),
    (-1, "number", r"\b(?:fewer|fewest|smaller|smallest|shorter|shortest|lower|lowest|less|least)\b"),
]


def kind_of(question: str) -> Kind:
    """The first kind whose words the question has.

    >>> kind_of("Which magazine was started first, Arthur's Magazine or First for Women?")
    <Kind.CHOICE: 2>
    >>> kind_of("In what year was the founder born?")
    <Kind.YEAR: 4>
    """
    question = question.strip().rstrip("?. ")
    return next((kind for kind, pattern in _COMPILED if pattern.search(question)), Kind.OTHER)


YES_OR_NO = ("yes", "no")


def asks_yes_or_no(question: str) -> bool:
    """Whether only `yes` and `no` answer it.

    >>> asks_yes_or_no("Are both magazines monthly?"), asks_yes_or_no("Is it a river or a lake?")
    (True, False)
    """
    return kind_of(question) is Kind.YES_NO


def direction_of(question: str) -> tuple[int, str] | None:
    """What a choice compares: +1 or -1 for the larger or the smaller, and `year` or `number`; None for neither."""
    found = ((sign, what) for sign, what, words in _DIRECTIONS if re.search(words, question, re.IGNORECASE))
    return next(found, None)
