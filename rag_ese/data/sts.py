"""Sentence pairs with a gold similarity: the seven STS sets in the protocol of SentEval, from tab-separated files.

STS 2012 to 2016 (Agirre et al., SemEval), the STS benchmark (Cer et al. 2017) and SICK-R (Marelli et al. 2014). The
protocol is SentEval's (Conneau and Kiela 2018) with the subsets of a year concatenated ("all"), as SimCSE and ESE do.

A file has a header line that names the columns `score`, `sentence1` and `sentence2`; other columns are ignored, and
quotation marks mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_ese.data import files
from rag_ese.errors import ConfigError, DataError

Split = Literal["test", "dev"]

SENTEVAL: dict[Split, dict[str, int]] = {
    "test": {
        "sts12": 3108,
        "sts13": 1500,
        "sts14": 3750,
        "sts15": 3000,
        "sts16": 1186,
        "stsb_test": 1379,
        "sickr_test": 4927,
    },
    "dev": {"stsb_dev": 1500, "sickr_trial": 500},
}
"""The sets of each split and how many pairs they have; `dev` is for choosing, `test` for the final measurement."""

_COLUMNS = ("score", "sentence1", "sentence2")


@dataclass(frozen=True)
class PairSet:
    """A set: row n of `first` and of `second` are a pair whose gold similarity is row n of `gold`."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    gold: tuple[float, ...]
    revision: str
    """The fingerprint of the file."""

    def __len__(self) -> int:
        return len(self.gold)


def load_sets(folder: Path, split: Split = "test", names: Sequence[str] = ()) -> list[PairSet]:
    """The sets of `split`, or those of them that are named, in the order of the papers; NAME.tsv in `folder` each."""
    known = SENTEVAL[split]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"the {split} split has no set {unknown[0]!r}: choose among {', '.join(known)}")
    paths = [folder / f"{name}.tsv" for name in known if not names or name in names]
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name the one that holds {', '.join(path.name for path in paths)}")
    if missing := [path.name for path in paths if not path.exists()]:
        raise DataError(f"{folder} lacks {', '.join(missing)}: add them, or choose what there is with --sets")
    return [read_set(path) for path in paths]


def read_set(path: Path) -> PairSet:
    """All pairs of one file. Raises DataError with the line's number for a row that cannot be scored."""
    revision = files.fingerprint(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8; convert the file to UTF-8") from error
    header = lines[0].rstrip("\r").split("\t")
    if absent := [name for name in _COLUMNS if name not in header]:
        raise DataError(f"{path}, line 1 names no column {absent[0]}: it must name score, sentence1 and sentence2")
    rows = [
        _row(line.rstrip("\r").split("\t"), header, f"{path}, line {number}")
        for number, line in enumerate(lines[1:], 2)
        if line.rstrip("\r")
    ]
    if not rows:
        raise DataError(f"{path} holds no pairs: download it again")
    gold, first, second = zip(*rows, strict=True)
    if min(gold) == max(gold):
        raise DataError(f"{path}: every gold score is {gold[0]:g}, so no rank correlation is defined; correct the file")
    return PairSet(path.stem, first, second, gold, revision)


def read_texts(path: Path) -> list[str]:
    """The distinct texts of a .jsonl or .jsonl.gz file of training pairs, in their order.

    A line has premise and hypothesis, question and context, or sentence1 and sentence2.
    """
    kinds = (("premise", "hypothesis"), ("question", "context"), ("sentence1", "sentence2"))
    found: dict[str, None] = {}
    for number, row in files.read_jsonl(path):
        where = f"{path}, line {number}"
        names = next((kind for kind in kinds if isinstance(row, dict) and kind[0] in row), None)
        if names is None or not isinstance(row, dict):
            raise DataError(f"{where}: no pair of texts; it needs {', or '.join(' and '.join(kind) for kind in kinds)}")
        found.update((files.text(row.get(name), name, where), None) for name in names)
    return list(found)


def _row(cells: list[str], header: list[str], where: str) -> tuple[float, str, str]:
    if len(cells) != len(header):
        raise DataError(f"{where}: {len(cells)} columns where the header names {len(header)}; correct the line")
    score, first, second = (cells[header.index(name)] for name in _COLUMNS)
    try:
        gold = float(score)
    except ValueError as error:
        raise DataError(f"{where}: the score {score!r} is not a number; correct the line") from error
    if not math.isfinite(gold):
        raise DataError(f"{where}: the score {score!r} is not finite; correct the line or leave the pair out")
    if not first.strip() or not second.strip():
        raise DataError(f"{where}: a sentence is empty; correct the line or leave the pair out")
    return gold, first, second
