"""From what a language model wrote to the short answer that is scored."""

from __future__ import annotations

import re

_THINKING = re.compile(r"^.*</think(?:ing)?>|<think(?:ing)?>.*$", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^\W*(?:(?:the |final |short )*answer)(?: is\b|\s*\**\s*:)[\s*:]*", re.IGNORECASE)
_QUOTES = "\"'`*“”‘’"
_ABBREVIATION = re.compile(r"(?:\b[A-Za-z]\.)+$|\b(?:Jr|Sr|Inc|Co|Ltd|St)\.$")


def extract_short_answer(raw: str) -> str:
    """The first line of what was said, without thinking, an `Answer:` label, quotes and the final period.

    Thinking is everything up to the last `</think>`, and everything after a `<think>` that was never closed: a model
    that ran out of tokens while thinking has not answered, and gets the empty answer.

    >>> extract_short_answer('<think>Hmm. Paris?</think>\\n\\nAnswer: "Paris".\\nBecause it is.')
    'Paris'
    >>> extract_short_answer("U.S.")
    'U.S.'
    """
    said = _LABEL.sub("", _THINKING.sub("", raw).strip())
    line = said.strip().split("\n", 1)[0].strip()
    if not _ABBREVIATION.search(line):
        line = line.strip(_QUOTES).removesuffix(".")
    return line.strip(_QUOTES + " ")
