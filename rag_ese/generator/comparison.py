"""Questions about two named things: are both so, which of them, what do they share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag_ese.generator.base import Prompt
from rag_ese.generator.question_type import Kind, direction_of, kind_of
from rag_ese.generator.spans import STOPWORDS, bare_title, content_stems, first_date, numbers, stems
from rag_ese.types import Answer, Passage, SupportingFact

_FILLERS = content_stems("same located considered type kind common share other or named")
_MONTHS = content_stems("January February March April May June July August September October November December")


@dataclass(frozen=True)
class _Named:
    """A passage whose title the question names, and how the question spells it."""

    mention: str
    passage: Passage

    @property
    def fact(self) -> SupportingFact:
        return self.passage.title, 0


def answer_comparison(prompt: Prompt) -> Answer | None:
    """The answer where the question compares two passages that it names, else None."""
    kind = kind_of(prompt.question)
    rules = {Kind.YES_NO: _yes_or_no, Kind.CHOICE: _choice, Kind.SHARED: _shared}
    pair = _named(prompt)
    if kind not in rules or len(pair) != 2:
        return None
    text = rules[kind](prompt.question, pair[0], pair[1])
    return Answer(text, (pair[0].fact, pair[1].fact)) if text else None


def _named(prompt: Prompt) -> list[_Named]:
    """The passages whose titles stand in the question, in the question's order; of overlapping titles the longest."""
    question, found = prompt.question.lower(), dict[int, _Named]()
    for passage in sorted(prompt.passages, key=lambda passage: -len(bare_title(passage.title))):
        title = bare_title(passage.title)
        start = question.find(title.lower())
        if start >= 0 and title:
            found[start] = _Named(prompt.question[start : start + len(title)], passage)
            question = question[:start] + "\0" * len(title) + question[start + len(title) :]
    return [found[start] for start in sorted(found)]


def _asked(question: str, first: _Named, second: _Named) -> set[str]:
    """The stems of the property that the question asks about."""
    return content_stems(question) - content_stems(f"{first.mention} {second.mention}") - _FILLERS


def _yes_or_no(question: str, first: _Named, second: _Named) -> str:
    """`same`: do the first sentences share a proper noun? else: do both passages speak of what is asked?"""
    direction = direction_of(question)
    if direction and direction[1] == "year":
        return "yes" if _compare(direction, first, second) is first else "no"
    if re.search(r"\bsame\b", question):
        return "yes" if _proper(first) & _proper(second) else "no"
    asked = _asked(question, first, second)
    met = [len(asked & set(stems(one.passage.text))) for one in (first, second)]
    return "yes" if 2 * min(met) >= len(asked) else "no"


def _proper(named: _Named) -> set[str]:
    """The capitalised words of the first sentence, nationalities among them, without title and months."""
    names = " ".join(re.findall(r"\b[A-Z]\w+", _opening(named)))
    return content_stems(names) - content_stems(named.passage.title) - _MONTHS


def _opening(named: _Named) -> str:
    return named.passage.sentences[0] if named.passage.sentences else ""


def _choice(question: str, first: _Named, second: _Named) -> str:
    """The one with the smaller or larger date or number where that is asked, else the one that fits the question."""
    direction = direction_of(question)
    chosen = _compare(direction, first, second) if direction else None
    if chosen is None:
        asked = _asked(question, first, second)
        fits = [len(asked & set(stems(one.passage.text))) for one in (first, second)]
        chosen = second if fits[1] > fits[0] else first
    return chosen.mention


def _compare(direction: tuple[int, str], first: _Named, second: _Named) -> _Named | None:
    sign, what = direction
    if what == "year":
        dates = first_date(first.passage.text), first_date(second.passage.text)
        if dates[0] is None or dates[1] is None or dates[0] == dates[1]:
            return None
        return first if (dates[0] > dates[1]) == (sign > 0) else second
    sizes = [max(numbers(one.passage.text), default=None) for one in (first, second)]
    if sizes[0] is None or sizes[1] is None or sizes[0] == sizes[1]:
        return None
    return first if (sizes[0] > sizes[1]) == (sign > 0) else second


def _shared(question: str, first: _Named, second: _Named) -> str | None:
    """The longest run of words that both first sentences have and the question has not."""
    known = content_stems(question) | _MONTHS
    runs = [_runs(_opening(one), known | content_stems(one.passage.title)) for one in (first, second)]
    common = [run for run in runs[0] if run in runs[1]]
    return max(common, key=len) if common else None


def _runs(sentence: str, known: set[str]) -> dict[str, None]:
    """Every run of one to three content words, in lower case, by its first occurrence."""
    words = re.findall(r"\w+", sentence)
    found = dict[str, None]()
    for start in range(len(words)):
        for end in range(start + 1, min(start + 4, len(words) + 1)):
            run = words[start:end]
            if any(word.lower() in STOPWORDS or word.lower()[:6] in known or word.isdigit() for word in run):
                break
            found[" ".join(run)] = None
    return found
