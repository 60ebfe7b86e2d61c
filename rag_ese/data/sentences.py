"""Splits running text into sentences by rules, without a model and without losing a character."""

from __future__ import annotations

import re
from itertools import pairwise

# Every repetition is possessive or starts at a fixed place, so that no text takes more than linear time.
_END = re.compile(
    r"""(?<![.!?…]) (?P<mark> [.!?…]++ ) (?P<close> ["'”’»)\]]*+ ) (?= \s++ ["'“‘«(\[¿¡]*+ (?P<next> \w++ ) )
      | [。！？]++ [」』”’）]*+                              # these scripts put no blank between sentences
      | (?<=\S) (?= [^\S\n]*+ \n [^\S\n]*+ \n )             # a blank line ends a heading or a list item
    """,
    re.VERBOSE,
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«—–/-]+$")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # "J", "U.S", "e.g"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BEFORE_NAME = _words(
    "dr mr mrs ms messrs mme mlle prof rev hon fr gen col maj capt cmdr lt sgt cpl pvt adm gov sen rep pres st ste mt "
    "ft vs esp det insp"
)
_BEFORE_NUMBER = _words("no nos vol vols fig figs p pp op ca circa jan feb mar apr jun jul aug sep sept oct nov dec")
# After these, as after initials, only a word that usually begins a sentence begins one.
_EITHER = _words("jr sr inc co corp ltd bros llc plc dept univ assn ave blvd rd etc al est approx cf ed eds viz ph.d")
_BEGINNERS = _words(
    "the a an it its he his she her they their we this that these those there in on at as after before although while "
    "when since during for from by with however but and if both many most some one two other also according following"
)


def split(text: str) -> tuple[str, ...]:
    """Sentences whose concatenation is exactly `text`. As in HotpotQA, blanks start the next sentence.

    No sentence is blank unless the whole text is; an empty text has no sentences.

    >>> split('Dr. J. K. Lee moved to the U.S. in 1999. "Why?" nobody asked.')
    ('Dr. J. K. Lee moved to the U.S. in 1999.', ' "Why?" nobody asked.')
    """
    last = len(text.rstrip())
    cuts = [0, *(match.end() for match in _END.finditer(text) if match.end() < last and _ends(text, match)), len(text)]
    return tuple(text[start:end] for start, end in pairwise(cuts) if end > start)


def _ends(text: str, mark: re.Match[str]) -> bool:
    """Whether a sentence ends at this mark; at a single full stop the words on both sides decide."""
    following = mark["next"]
    if following is None:
        return True
    if following[0].islower():
        return False
    if mark["mark"] != "." or mark["close"]:
        return True
    word = _LAST_WORD.search(text, max(0, mark.start() - 40), mark.start())
    last = word[0].lower() if word else ""
    if last in _BEFORE_NAME:
        return False
    if last in _BEFORE_NUMBER and following[0].isdigit():
        return False
    if last in _EITHER or _INITIALS.fullmatch(last):
        return following.lower() in _BEGINNERS and not following.isupper()
    return True
