"""The results of a study, and the files that they are kept in.

metrics.json       schema version, configuration, revisions, hardware, seed, means, differences, per-question scores
predictions.jsonl  one line per question and system: answer, evidence, gold
runs/NAME.trec     one TREC run per system
report.md          for people
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rag_ese.errors import disk_errors
from rag_ese.eval.retrieval import write_trec_run
from rag_ese.eval.significance import paired_difference
from rag_ese.types import Answer, Question

SCHEMA = 1
COMPARED = ("ndcg@10", "both_gold@10", "em", "f1")
"""The metrics whose difference to the full size is tested."""


@dataclass
class SystemResult:
    """One row: what it is, what it costs, and its value of every metric for every question."""

    name: str
    kind: str
    size: str | None
    index_bytes: int
    vector_bytes: int
    latency: dict[str, float] | None
    values: dict[str, list[float | None]]
    rankings: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    """Of a funnel: how many questions it loses where (`rag_ese.eval.losses.FATES`)."""

    base: str = ""
    """Of two hops: the row of one hop."""
    against: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Paired differences to further rows, by their names."""
    reading: dict[str, float | int | None] = field(default_factory=dict)
    """Answers generated in this run, questions per second, reading's share of the time (`rag_ese.eval.reading`)."""

    @property
    def usage(self) -> dict[str, int]:
        """Tokens and what else the backend counted, over all answers."""
        return _usage(self.answers.values())

    @property
    def empty_answers(self) -> int:
        return sum(not answer.text for answer in self.answers.values())

    def mean(self, metric: str) -> float | None:
        """The mean over the questions that have a value (absent answers have 0); None where none has."""
        known = [value for value in self.values.get(metric, []) if value is not None]
        return float(np.mean(known)) if known else None

    def summary(self) -> dict[str, Any]:
        """The row without its per-question values."""
        means = {metric: self.mean(metric) for metric in self.values}
        return {
            "name": self.name,
            "kind": self.kind,
            "size": self.size,
            "metrics": {metric: None if mean is None else round(mean, 6) for metric, mean in means.items()},
            "difference_to_reference": self.differences,
            "losses": self.losses,
            "latency": self.latency,
            "index_bytes": self.index_bytes,
            "vector_bytes": self.vector_bytes,
            "difference_to": self.against,
            "reading": self.reading,
            "empty_answers": self.empty_answers,
            "usage": self.usage,
        }


@dataclass
class Results:
    """A whole study."""

    command: str
    config: dict[str, Any]
    data: dict[str, Any]
    pool: dict[str, Any]
    model: dict[str, Any]
    query_dtype: str
    generator: dict[str, str] | None
    answers: dict[str, int]
    encoding: dict[str, Any] | None
    hardware: dict[str, Any]
    versions: dict[str, str]
    peak_memory_bytes: int
    notes: list[str]
    reference: str
    questions: list[Question]
    systems: list[SystemResult]
    examples: str = ""
    """Questions with their evidence, as Markdown."""

    def summary(self) -> dict[str, Any]:
        """Everything but the per-question scores."""
        head = {key: value for key, value in vars(self).items() if key not in ("questions", "systems", "examples")}
        return {
            "schema": SCHEMA,
            **head,
            "seed": self.config["seed"],
            "question_count": len(self.questions),
            "systems": [system.summary() for system in self.systems],
        }

    def write(self, folder: Path, report: str) -> None:
        """Writes all files to `folder`; metrics.json comes last and in one step: where it is, all is there."""
        with disk_errors("writing the results to", folder):
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").unlink(missing_ok=True)
            for stale in (folder / "runs").glob("*.trec"):
                stale.unlink()
            for system in self.systems:
                name = file_name(system.name)
                if system.rankings:
                    write_trec_run(folder / "runs" / f"{name}.trec", name, system.rankings)
            self._write_predictions(folder / "predictions.jsonl")
            (folder / "report.md").write_text(report, encoding="utf-8")
            scores = {system.name: _rounded(system.values) for system in self.systems}
            ids = [question.id for question in self.questions]
            content = {**self.summary(), "question_ids": ids, "per_question": scores}
            draft = folder / "metrics.json.draft"
            draft.write_text(_dump(content), encoding="utf-8")
            os.replace(draft, folder / "metrics.json")

    def _write_predictions(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for system in self.systems:
                for question in self.questions:
                    answer = system.answers.get(question.id)
                    line = {
                        "id": question.id,
                        "system": system.name,
                        "answer": answer and answer.text,
                        "supporting_facts": answer and answer.supporting_facts,
                        "evidence": answer and answer.evidence and asdict(answer.evidence),
                        "gold": question.answer,
                    }
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")


def compare(systems: Sequence[SystemResult], reference: str, resamples: int, seed: int) -> None:
    """Fills in every system's paired difference to the system named `reference`, metric by metric."""
    full = next(system for system in systems if system.name == reference)
    for system in systems:
        if system is not full:
            system.differences = _differences(system, full, resamples, seed)


def contrast(systems: Sequence[SystemResult], other: str, resamples: int, seed: int, bases: bool = False) -> None:
    """Fills in paired differences to the row named `other` where there is one; with `bases` to each row's own base."""
    rows = {system.name: system for system in systems}
    for system in systems:
        base = rows.get(system.base if bases else other)
        if base and base is not system:
            system.against[base.name] = _differences(system, base, resamples, seed)


def _differences(system: SystemResult, other: SystemResult, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    found = {}
    for metric in COMPARED:
        if system.mean(metric) is not None and other.mean(metric) is not None:
            interval = paired_difference(system.values[metric], other.values[metric], resamples, seed)
            found[metric] = {
                key: value if value is None else round(value, 6) for key, value in interval._asdict().items()
            }
    return found


def file_name(system: str) -> str:
    """A system's name as a file name: `L3-d64:200 > L6-d768:10` becomes `L3-d64_200_L6-d768_10`."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", system).strip("_")


def _usage(answers: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for answer in answers:
        for name, count in answer.usage.items():
            total[name] = total.get(name, 0) + count
    return total


def _rounded(values: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    return {name: [None if each is None else round(each, 5) for each in column] for name, column in values.items()}


def _dump(content: dict[str, Any]) -> str:
    """Indented, but for the long lists of per-question values: one line each."""
    long = {**content.pop("per_question")}
    ids = content.pop("question_ids")
    head = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    rows = ",\n".join(
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(metric)}: {json.dumps(column)}" for metric, column in columns.items())
        + "\n  }"
        for name, columns in long.items()
    )
    return f'{head[:-2]},\n "question_ids": {json.dumps(ids)},\n "per_question": {{\n{rows}\n }}\n}}\n'
