"""Rows that encoders are trained on: question-passage pairs, triplets and scored sentence pairs, out of files."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import xxhash

from rag_ese.data import corpus, hotpotqa, pairs
from rag_ese.data.held_out import HasTexts
from rag_ese.data.pairs import filled
from rag_ese.data.sources import read_source
from rag_ese.errors import ConfigError, DataError

Kind = Literal["pairs", "triplets", "scored"]
Role = Literal["query", "passage"]
Records = Iterable[tuple[str, object]]
R = TypeVar("R", bound=HasTexts)

_NLI = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
_PASSAGE: tuple[Role] = ("passage",)
_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Row:
    """Texts that belong together. The first two match as well as `label` says, or fully where it is None; every
    further text is a hard negative of the first."""

    texts: tuple[str, ...]
    roles: tuple[Role, ...]
    label: float | None = None


def read_rows(path: Path, kind: str = "auto") -> Iterator[Row]:
    """The rows of a .jsonl, .json or .tsv file (or .gz of these), all of one kind.

    =========================  ==========================================================================
    fields of the first row    rows
    =========================  ==========================================================================
    question, context          pairs: see `rag_ese.data.pairs.parse`; HotpotQA's files too
    anchor, positive,          triplets
    negative
    premise, hypothesis,       triplets: one for each premise that has both, of its first entailment and
    label                      its first contradiction, as SimCSE trains; or, when `kind` says scored, scored
                               pairs: entailment 1, neutral 0.5, contradiction 0
    sentence1, sentence2,      scored
    score or label
    =========================  ==========================================================================

    Raises DataError with the line of a row that is not of this form, ConfigError for a kind that there is not.
    """
    if kind not in ("auto", "pairs", "triplets", "scored"):
        raise ConfigError(f"unknown kind of rows {kind!r}: choose pairs, triplets, scored or auto")
    records = read_source(path)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path} holds 0 rows: check that it was downloaded to its end")
    readers = _readers(*first)
    chosen = next(iter(readers)) if kind == "auto" else kind
    if chosen not in readers:
        raise DataError(f"{first[0]} has the fields of {' or '.join(readers)}, not of {kind}: choose that or auto")
    return readers[chosen](chain([first], records))


def kind_of(rows: Sequence[Row]) -> Kind:
    """The kind of a data set: scored where rows have labels; triplets where each has one negative; else pairs."""
    if rows and rows[0].label is not None:
        return "scored"
    return "triplets" if all(len(row.texts) == 3 for row in rows) else "pairs"


def without(rows: Iterable[Row], forbidden: Iterable[Path]) -> tuple[list[Row], int]:
    """The rows that share nothing with evaluation files, and how many were left out.

    The files: HotpotQA (questions and all context passages), passages (.jsonl with title and text, or a BEIR folder),
    or anything that `read_rows` reads. Compared are words alone (no case, no punctuation), passages with and without
    their title. A row is left out when one of its first two texts is found there, or all of its hard negatives; from
    other rows the hard negatives that are found are taken away.
    """
    known = _all_known(forbidden)
    kept, dropped = [], 0
    for row in rows:
        found = [not known.isdisjoint(_keys(text)) for text in row.texts]
        if any(found[:2]) or (found[2:] and all(found[2:])):
            dropped += 1
        elif any(found):
            clean = [place for place, bad in enumerate(found) if not bad]
            texts, roles = tuple(row.texts[place] for place in clean), tuple(row.roles[place] for place in clean)
            kept.append(replace(row, texts=texts, roles=roles))
        else:
            kept.append(row)
    return kept, dropped


def free_of(rows: Iterable[R], forbidden: Iterable[Path]) -> list[R]:
    """The rows of which no text stands in evaluation files, compared as `without` compares."""
    known = _all_known(forbidden)
    return [row for row in rows if all(known.isdisjoint(_keys(text)) for text in row.texts)]


def _all_known(files: Iterable[Path]) -> frozenset[int]:
    return frozenset[int]().union(*(_known(path, corpus.fingerprint(path)) for path in files))


def words_of(text: str) -> str:
    """The text's words, lower case, joined by blanks: equal for texts that differ in case, marks and blanks alone."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))


def _readers(where: str, record: object) -> dict[str, Callable[[Records], Iterator[Row]]]:
    """What the fields of a file's first record can be read as, the default first."""
    fields = record.keys() if isinstance(record, Mapping) else set()
    if {"question", "context"} <= fields:
        return {"pairs": _pairs}
    if {"premise", "hypothesis"} <= fields:
        return {"triplets": _nli_triplets, "scored": _nli_scored}
    if {"anchor", "positive"} <= fields:
        return {"triplets": _triplets}
    if {"sentence1", "sentence2"} <= fields:
        return {"scored": _scored}
    raise DataError(
        f"{where} has no question and context, anchor and positive, premise and hypothesis, or sentence1 and "
        "sentence2: rename its fields"
    )


def _pairs(records: Records) -> Iterator[Row]:
    for where, record in records:
        for pair in pairs.parse(record, where):
            passages = (pair.passage, *pair.negatives)
            yield Row((pair.question, *passages), ("query", *_PASSAGE * len(passages)))


def _triplets(records: Records) -> Iterator[Row]:
    for where, record in records:
        anchor, positive, negative = _fields(record, where, "anchor", "positive", "negative")
        yield Row((anchor, positive, negative), ("query", "passage", "passage"))


def _nli_triplets(records: Records) -> Iterator[Row]:
    entailed: dict[str, str] = {}
    contradicted: dict[str, str] = {}
    for premise, hypothesis, label in _nli(records):
        side = {1.0: entailed, 0.0: contradicted}.get(label)
        if side is not None and premise != hypothesis:
            side.setdefault(premise, hypothesis)
    for premise, positive in entailed.items():
        negative = contradicted.get(premise, positive)
        if negative != positive:
            yield Row((premise, positive, negative), ("query", "query", "query"))


def _nli_scored(records: Records) -> Iterator[Row]:
    return (Row((premise, hypothesis), ("query", "query"), label) for premise, hypothesis, label in _nli(records))


def _nli(records: Records) -> Iterator[tuple[str, str, float]]:
    for where, record in records:
        premise, hypothesis, label = _fields(record, where, "premise", "hypothesis", "label")
        if label not in _NLI:
            raise DataError(f"{where}: the label {label!r} is not one of {', '.join(_NLI)}; correct it or leave it out")
        yield premise, hypothesis, _NLI[label]


def _scored(records: Records) -> Iterator[Row]:
    for where, record in records:
        first, second = _fields(record, where, "sentence1", "sentence2")
        yield Row((first, second), ("query", "query"), _score(record, where))


def _score(record: object, where: str) -> float:
    fields = record if isinstance(record, Mapping) else {}
    name = "score" if "score" in fields else "label"
    value = fields.get(name)
    try:
        score = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        shown = "missing" if value is None else repr(value)
        raise DataError(f"{where}: the field {name!r} is {shown}, where a finite number is needed; correct the row")
    return score


def _fields(record: object, where: str, *names: str) -> list[str]:
    if not isinstance(record, Mapping):
        raise DataError(f"{where} is a {type(record).__name__}, where an object with {' and '.join(names)} is needed")
    return [filled(record, name, where) for name in names]


@lru_cache(maxsize=16)
def _known(path: Path, fingerprint: str) -> frozenset[int]:
    """The keys of an evaluation file, remembered because each of several data sets is compared with it."""
    return frozenset(key for text in _texts_of(path) for key in _keys(text))


def _texts_of(path: Path) -> Iterator[str]:
    first = None if path.is_dir() else next(read_source(path), None)
    fields = first[1].keys() if first and isinstance(first[1], Mapping) else set()
    if path.is_dir() or ("question" not in fields and fields & {"text", "sentences"}):
        yield from (passage.full for passage in corpus.read(path))
    elif "supporting_facts" in fields:
        loaded = hotpotqa.load(path)
        yield from (question.text for question in loaded.questions)
        yield from (passage.full for passage in loaded.passages)
    else:
        kind = "scored" if "premise" in fields else "auto"
        yield from (text for row in read_rows(path, kind) for text in row.texts)


def _keys(text: str) -> set[int]:
    """Hashes of the words of a text, and of what follows its first line, where a passage's title is."""
    parts = {words_of(text), words_of(text.partition("\n")[2])} - {""}
    return {xxhash.xxh3_64_intdigest(words.encode()) for words in parts}
