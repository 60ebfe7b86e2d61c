"""One HotpotQA record, in the official form or the hub's column form, to a Question and its context passages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from rag_ese.data.files import text, texts
from rag_ese.errors import DataError
from rag_ese.types import Passage, Question, SupportingFact

Setting = Literal["distractor", "fullwiki"]

_SETTINGS: tuple[Setting, ...] = ("distractor", "fullwiki")


def check(setting: str) -> None:
    """Raises DataError for a setting that HotpotQA does not have."""
    if setting not in _SETTINGS:
        raise DataError(f"unknown setting {setting!r}: the settings are {' and '.join(_SETTINGS)}")


def parse(record: object, where: str, setting: Setting = "distractor") -> tuple[Question, tuple[Passage, ...]]:
    """Reads one record; `where` is the place in the file, for the errors.

    In the distractor setting the passages are the context's, and `gold` holds those whose title is in supporting_facts
    (each distinct passage once; two passages of one title both). In the fullwiki setting the context is not read: there
    are no passages and `gold` is empty until `resolve_gold`.

    Tolerated, because published files have them: a supporting sentence number beyond the end of its passage, blank
    sentences, missing `type` and `level`, fields that are not HotpotQA's. Everything else that is missing or of the
    wrong type raises DataError with the question's id.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is a {type(record).__name__}, where an object with a question is needed")
    name = text(record.get("_id", record.get("id")), "_id", where)
    where = f"{where} ({name})"
    question = text(record.get("question"), "question", where)
    if not question.strip():
        raise DataError(f"{where}: the question is empty; write it or remove the record")
    facts = _facts(record.get("supporting_facts"), where)
    answer = record.get("answer")
    if answer is None or answer == "" or not facts:
        raise DataError(
            f"{where} has no {'supporting facts' if answer else 'answer'}: HotpotQA's test split has no gold; use the "
            "validation or the train split"
        )
    passages = _passages(record.get("context"), where) if setting == "distractor" else ()
    return (
        Question(
            id=name,
            text=question,
            answer=text(answer, "answer", where),
            type=text(record.get("type") or "", "type", where),
            level=text(record.get("level") or "", "level", where),
            gold=_gold(facts, passages, where) if setting == "distractor" else (),
            supporting_facts=facts,
        ),
        passages,
    )


def _facts(value: object, where: str) -> tuple[SupportingFact, ...]:
    facts = []
    for title, number in _pairs(value, "supporting_facts", "sent_id", where) if value is not None else ():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise DataError(
                f"{where}: the supporting sentence of {title!r} is {number!r}, where 0 or more is needed; correct it"
            )
        facts.append((text(title, "supporting_facts title", where), number))
    return tuple(facts)


def _passages(value: object, where: str) -> tuple[Passage, ...]:
    passages = [
        Passage(text(title, "context title", where), texts(sentences, f"context {title!r}", where))
        for title, sentences in _pairs(value, "context", "sentences", where)
    ]
    if not passages:
        raise DataError(f"{where} has 0 context passages, which only the setting fullwiki allows; use that setting")
    return tuple(passages)


def _gold(facts: tuple[SupportingFact, ...], passages: tuple[Passage, ...], where: str) -> tuple[str, ...]:
    missing = {title for title, _ in facts} - {passage.title for passage in passages}
    if missing:
        raise DataError(
            f"{where}: the supporting title {min(missing)!r} is not among its {len(passages)} context passages; remove "
            "the question, or use the setting fullwiki with a corpus that holds the passage"
        )
    titles = {title for title, _ in facts}
    return tuple(dict.fromkeys(passage.id for passage in passages if passage.title in titles))


def _pairs(value: object, name: str, second: str, where: str) -> list[tuple[object, object]]:
    """The official list of pairs, or the hub's two columns `title` and `second`, as pairs."""
    if isinstance(value, Mapping):
        columns = [column for key in ("title", second) if isinstance(column := value.get(key), list | tuple)]
        if len(columns) != 2 or len(columns[0]) != len(columns[1]):
            raise DataError(f"{where}: the field {name!r} needs two lists of one length, 'title' and {second!r}")
        return list(zip(*columns, strict=True))
    if not isinstance(value, list | tuple):
        shown = "missing" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{where}: the field {name!r} is {shown}, where a list of pairs is needed; correct the record")
    for pair in value:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(f"{where}: the field {name!r} holds {str(pair)[:40]!r}, where a pair is needed; correct it")
    return [(first, last) for first, last in value]
