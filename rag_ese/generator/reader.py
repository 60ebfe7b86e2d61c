"""A generator without any model: it finds the sentences that share the question's rare words and picks a span there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rag_ese.generator.base import Generator, Prompt
from rag_ese.generator.comparison import answer_comparison
from rag_ese.generator.identity import code_hash
from rag_ese.generator.question_type import Kind, kind_of
from rag_ese.generator.spans import Span, bare_title, content_stems, spans, stems
from rag_ese.types import Answer, Passage, SupportingFact

_BEST = 5
"""So many sentences are searched for the answer."""
_TITLE = 0.5
"""What a question word counts that only the title of the sentence's passage has."""
_BRIDGE = 0.8
"""What a sentence gains when the best sentences name its passage, as a share of the best sentence's score."""
_WANTED = {
    Kind.YEAR: {"year": 1.0, "date": 1.0},
    Kind.DATE: {"date": 1.0, "year": 0.8},
    Kind.NUMBER: {"number": 1.0},
    Kind.PERSON: {"name": 1.0},
    Kind.PLACE: {"name": 1.0},
    Kind.OTHER: {"name": 0.8, "quoted": 0.8, "number": 0.1},
}
"""How well a kind of span suits a kind of question; what is not listed does not suit."""


@dataclass
class _Sentence:
    passage: Passage
    rank: int
    number: int
    text: str
    words: list[str]
    score: float = 0.0

    @property
    def fact(self) -> tuple[str, int]:
        return self.passage.title, self.number


class ExtractiveReader(Generator):
    """Answers by word overlap and rules; deterministic, and fast enough to try a pipeline on any machine.

    Its supporting facts are the sentence of the answer and the best sentence of another passage: a question of two
    hops has one in each. It is a stand-in for a language model, not a rival.
    """

    name = "rules"

    def __init__(self) -> None:
        self.fingerprint = f"rules code={code_hash('reader', 'comparison', 'question_type', 'spans')}"

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Answer]]:
        """As Generator.stream, in order; a question without passages gets the empty answer."""
        for position, prompt in enumerate(prompts):
            yield position, read(prompt)


def read(prompt: Prompt) -> Answer:
    """The answer to one question."""
    if not any(passage.sentences for passage in prompt.passages):
        return Answer("", ())
    compared = answer_comparison(prompt)
    if compared:
        return compared
    idf = _idf(prompt)
    ranked = rank_sentences(prompt, idf)
    sentence, text = _best_span(prompt.question, ranked[:_BEST], idf) or (ranked[0], ranked[0].passage.title)
    others = (other.fact for other in ranked if other.passage is not sentence.passage)
    return Answer(text, (sentence.fact, *islice(others, 1)))


def sentences_by_rules(prompt: Prompt) -> list[SupportingFact]:
    """Every sentence, best first, by the words that it shares with the question; none where there are no sentences."""
    if not any(passage.sentences for passage in prompt.passages):
        return []
    return [sentence.fact for sentence in rank_sentences(prompt, _idf(prompt))]


def _idf(prompt: Prompt) -> dict[str, float]:
    """Weights of the question's stems over the sentences at hand, smoothed: few passages say little about rarity."""
    asked = content_stems(prompt.question)
    sentences = [content_stems(sentence) for passage in prompt.passages for sentence in passage.sentences]
    counts = Counter(word for words in sentences for word in words & asked)
    return {word: math.log(1 + (len(sentences) + 10) / (counts[word] + 1)) for word in asked}


def rank_sentences(prompt: Prompt, idf: dict[str, float]) -> list[_Sentence]:
    """Every sentence, best first: overlap with the question, then a second hop through the titles that are named."""
    # fsum: the same total in whatever order a set gives its words, so that equal scores stay equal in every process
    found: list[_Sentence] = []
    for rank, passage in enumerate(prompt.passages):
        title = content_stems(passage.title)
        for number, text in enumerate(passage.sentences):
            words = stems(text)
            own = math.fsum(idf[word] for word in set(words) & idf.keys())
            inherited = math.fsum(idf.get(word, 0) for word in title - set(words))
            found.append(_Sentence(passage, rank, number, text, words, own + _TITLE * inherited))
    top = max(sentence.score for sentence in found)
    leaders = sorted(found, key=lambda sentence: -sentence.score)[:3]
    for sentence in found:
        name = bare_title(sentence.passage.title)
        if any(leader.passage is not sentence.passage and name in leader.text for leader in leaders):
            sentence.score += _BRIDGE * top
    return sorted(found, key=lambda sentence: (-sentence.score, sentence.rank, sentence.number))


def _best_span(question: str, ranked: list[_Sentence], idf: dict[str, float]) -> tuple[_Sentence, str] | None:
    kind = kind_of(question)
    wanted = _WANTED.get(kind, _WANTED[Kind.OTHER])
    asked = content_stems(question)
    best: tuple[float, _Sentence, str] | None = None
    for sentence in ranked:
        title = Span(bare_title(sentence.passage.title), "name", 0)
        for span in [title, *spans(sentence.text)]:
            words = content_stems(span.text)
            if span.kind not in wanted or not words or words <= asked:
                continue
            near = sum(
                idf[word] / (1 + abs(place - span.start)) for place, word in enumerate(sentence.words) if word in idf
            )
            score = sentence.score * wanted[span.kind] + near
            if best is None or score > best[0]:
                best = score, sentence, span.text[-4:] if kind is Kind.YEAR else span.text
    return best[1:] if best else None
