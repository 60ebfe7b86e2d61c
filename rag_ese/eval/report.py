"""The results for people: a table in the console, and a page in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.table import Table

from rag_ese.eval.evidence import markdown_evidence
from rag_ese.eval.losses import ANSWERED, TOP, markdown_table
from rag_ese.eval.results import Results, SystemResult

_LOSSES = (
    "Questions, each counted once, where the first of its gold passages is lost: not in the index at all; not in what "
    f"the first stage keeps; kept by it, but not in the final top {TOP}; or all gold in the top {TOP} and an answer F1 "
    f"below {ANSWERED:g} (only with a generator)."
)

Column = tuple[str, Callable[[SystemResult], str]]

_KINDS = {
    "size": "sizes",
    "exact": "sizes",
    "funnel": "funnels",
    "BM25": "controls",
    "hybrid": "controls",
    "control": "rotations",
}


def _points(metric: str) -> Callable[[SystemResult], str]:
    def cell(system: SystemResult) -> str:
        mean = system.mean(metric)
        return "–" if mean is None else f"{100 * mean:.1f}"

    return cell


def _change(metric: str) -> Callable[[SystemResult], str]:
    """The difference to the reference in points; a star where its 95% interval leaves out 0."""

    def cell(system: SystemResult) -> str:
        difference = system.differences.get(metric)
        if not difference:
            return ""
        star = "" if difference["low"] <= 0 <= difference["high"] else "*"
        return f"{100 * difference['mean']:+.1f}{star}"

    return cell


def _interval(metric: str) -> Callable[[SystemResult], str]:
    def cell(system: SystemResult) -> str:
        difference = system.differences.get(metric)
        if not difference:
            return ""
        mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
        return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"

    return cell


def _milliseconds(which: str) -> Callable[[SystemResult], str]:
    return lambda system: f"{system.latency[which]:.1f}" if system.latency else "–"


def _bytes(system: SystemResult) -> str:
    return decimal(system.index_bytes)


_CONSOLE: list[Column] = [
    ("nDCG@10", _points("ndcg@10")),
    ("Δ", _change("ndcg@10")),
    ("both@10", _points("both_gold@10")),
    ("EM", _points("em")),
    ("F1", _points("f1")),
    ("Δ F1", _change("f1")),
    ("p50 ms", _milliseconds("p50_ms")),
    ("p99 ms", _milliseconds("p99_ms")),
    ("index", _bytes),
]

_RETRIEVAL: list[Column] = [
    ("nDCG@10", _points("ndcg@10")),
    ("Δ nDCG@10 [95%]", _interval("ndcg@10")),
    ("both-gold@10", _points("both_gold@10")),
    ("Δ both-gold@10 [95%]", _interval("both_gold@10")),
    ("both-gold@5", _points("both_gold@5")),
    ("support-recall@10", _points("support_recall@10")),
    ("support-recall@100", _points("support_recall@100")),
    ("answer-hit@10", _points("answer_hit@10")),
    ("MRR@10", _points("mrr@10")),
    ("MAP@10", _points("map@10")),
]

_ANSWERS: list[Column] = [
    ("EM", _points("em")),
    ("Δ EM [95%]", _interval("em")),
    ("F1", _points("f1")),
    ("Δ F1 [95%]", _interval("f1")),
    ("precision", _points("precision")),
    ("recall", _points("recall")),
    ("sp EM", _points("sp_em")),
    ("sp F1", _points("sp_f1")),
    ("joint EM", _points("joint_em")),
    ("joint F1", _points("joint_f1")),
]

_COST: list[Column] = [
    ("index", _bytes),
    ("full vectors behind it", lambda system: decimal(system.vector_bytes) if system.vector_bytes else "–"),
    ("p50 ms", _milliseconds("p50_ms")),
    ("p99 ms", _milliseconds("p99_ms")),
]


def console_table(results: Results) -> Table:
    """The rows with what most people ask first: quality, its loss against the full size, time, memory."""
    columns = [column for column in _CONSOLE if results.generator or column[0] not in ("EM", "F1", "Δ F1")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=_title(results), title_justify="left")
    table.add_column("size", overflow="fold")
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for system in results.systems:
        if previous and _KINDS[system.kind] != previous:
            table.add_section()
        previous = _KINDS[system.kind]
        style = "bold" if system.name == results.reference else ""
        table.add_row(system.name, *(cell(system) for _, cell in columns), style=style)
    return table


def legend(results: Results) -> str:
    """What the columns of the console table mean."""
    generator, top_k = results.generator, results.config["top_k"]
    read = f"; answers by {generator['name']} from the top {top_k}" if generator else ""
    return (
        f"Quality in points of 100. Δ: difference to {results.reference}, * where its 95% bootstrap interval leaves "
        f"out 0. both@10: both gold passages among the first 10. p50, p99: one query from text to ranking{read}."
    )


def markdown(results: Results, picture: str | None = None) -> str:
    """The whole report; `picture` is the file name of the plot beside it."""
    parts = [f"# {_title(results)}"]
    parts += [f"> **{note}**" if note.startswith("WARNING") else f"> {note}" for note in results.notes]
    parts.append(_facts(results))
    if picture:
        parts.append(f"![quality against index size]({picture})")
    parts += ["## Retrieval", _markdown_table(results, _RETRIEVAL)]
    if results.generator:
        parts += ["## Answers", _markdown_table(results, _ANSWERS)]
    if examples := markdown_evidence(results):
        parts += ["## Where answers stand", examples]
    if losses := markdown_table(results.systems):
        parts += ["## Where funnels lose questions", losses, _LOSSES]
    parts += ["## Cost", _markdown_table(results, _COST), _cost_notes(results)]
    parts += [
        f"All quality figures are points of 100. Δ is the mean paired difference to {results.reference} with its 95% "
        f"percentile bootstrap interval ({results.config['resamples']:,} resamples over questions, seed "
        f"{results.config['seed']}). A question without hits or without an answer counts 0. answer-hit leaves out "
        "yes/no questions. A dash: not measured, because the system was not asked that deep or names no evidence."
    ]
    return "\n\n".join(parts) + "\n"


def _title(results: Results) -> str:
    sample = " (NOT HotpotQA: the bundled sample)" if "sample" in results.data["source"] else ""
    return f"{len(results.questions)} questions over {results.pool['passages']:,} passages{sample}"


def _facts(results: Results) -> str:
    machine = results.hardware
    generator = results.generator["name"] if results.generator else "none (retrieval only)"
    facts: dict[str, Any] = {
        "Command": f"`{results.command}`",
        "Questions": f"{results.data['source']} at {results.data['revision']}",
        "Pool": f"{results.pool['name']} at {results.pool['revision']}",
        "Model": f"{results.model['name']} at {results.model['revision']}, passages in {results.model['dtype']}, "
        f"queries in {results.query_dtype}",
        "Generator": generator,
        "Machine": f"{machine['cpu']}, {machine['cores']} cores, {decimal(machine['memory_bytes'])}, GPU "
        f"{machine['gpu'] or 'none'}",
        "Versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "Seed": results.config["seed"],
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _markdown_table(results: Results, columns: list[Column]) -> str:
    lines = [["size", *(name for name, _ in columns)], ["---", *("---:" for _ in columns)]]
    lines += [[system.name, *(cell(system) for _, cell in columns)] for system in results.systems]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cost_notes(results: Results) -> str:
    notes = [
        "A search touches the whole index of its size; full vectors are mapped from disk and only the short-listed "
        f"rows are read. Peak memory of the whole run, model included: {decimal(results.peak_memory_bytes)}."
    ]
    if results.encoding:
        rate = results.encoding["passages"] / max(results.encoding["seconds"], 1e-9)
        layers = ", ".join(f"L{layer}" for layer in results.encoding["layers"])
        notes.append(f"The passages were encoded at {rate:.0f} per second, {layers} in one pass.")
    return " ".join(notes)
