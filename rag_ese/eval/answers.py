"""HotpotQA's official answer metrics (Yang et al. 2018, arXiv:1809.09600; the semantics of hotpot_evaluate_v1).

Two quirks of the official script are kept, so that numbers compare: the overlap of tokens is 0 whenever either side is
yes, no or noanswer and the two differ; and two strings that both normalise to nothing have EM 1 and F1 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rag_ese.types import Answer, Question, SupportingFact

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_CLOSED = ("yes", "no", "noanswer")


class AnswerScores(NamedTuple):
    """Values between 0 and 1: exact match, F1, precision and recall of one question."""

    em: float
    f1: float
    precision: float
    recall: float


METRICS = tuple(prefix + name for prefix in ("", "sp_", "joint_") for name in AnswerScores._fields)
"""em, f1, precision, recall of the answer; with sp_ those of the supporting facts, with joint_ those of both."""

_ZERO = AnswerScores(0.0, 0.0, 0.0, 0.0)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, with single blanks.

    >>> normalise("The  Charlotte-Hornets, a team")
    'charlottehornets team'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score_answer(prediction: str, gold: str) -> AnswerScores:
    """Compares two answers as bags of normalised tokens.

    >>> score_answer("Charlotte Hornets", "the Hornets")
    AnswerScores(em=0.0, f1=0.6666666666666666, precision=0.5, recall=1.0)
    """
    predicted, expected = normalise(prediction), normalise(gold)
    if predicted != expected and (predicted in _CLOSED or expected in _CLOSED):
        return _ZERO
    tokens, wanted = predicted.split(), expected.split()
    return _scores(predicted == expected, (Counter(tokens) & Counter(wanted)).total(), len(tokens), len(wanted))


def score_supporting(predicted: Iterable[SupportingFact], gold: Iterable[SupportingFact]) -> AnswerScores:
    """Compares two sets of (title, sentence number)."""
    found, wanted = set(map(tuple, predicted)), set(map(tuple, gold))
    return _scores(found == wanted, len(found & wanted), len(found), len(wanted))


def joint(answer: AnswerScores, supporting: AnswerScores) -> AnswerScores:
    """Products of EM, of precision and of recall; F1 is computed from the two products."""
    precision, recall = answer.precision * supporting.precision, answer.recall * supporting.recall
    return AnswerScores(answer.em * supporting.em, _f1(precision, recall), precision, recall)


def score(answers: Mapping[str, Answer], questions: Sequence[Question]) -> dict[str, list[float | None]]:
    """Per-question values of every metric in METRICS, in the order of `questions`; `answers` by question id.

    A question without an answer counts 0. Where no answer names evidence, the supporting and joint values are None, not
    0: the system did not try. Where some do, a question without evidence counts 0. Answers to other questions are
    ignored.
    """
    names_evidence = any(answer.supporting_facts is not None for answer in answers.values())
    values: dict[str, list[float | None]] = {metric: [] for metric in METRICS}
    for question in questions:
        answer = answers.get(question.id)
        own = score_answer(answer.text, question.answer) if answer else _ZERO
        facts = answer.supporting_facts if answer else None
        supporting = score_supporting(facts, question.supporting_facts) if facts is not None else _ZERO
        evidence = (*supporting, *joint(own, supporting)) if names_evidence else (None,) * 8
        for metric, value in zip(METRICS, (*own, *evidence), strict=True):
            values[metric].append(value)
    return values


def _scores(equal: bool, common: int, predicted: int, expected: int) -> AnswerScores:
    precision = common / predicted if predicted else 0.0
    recall = common / expected if expected else 0.0
    return AnswerScores(float(equal), _f1(precision, recall), precision, recall)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
