"""`python -m rag_ese.plan`: proposes a funnel for a recall, a latency and a memory, with what it promises."""

from __future__ import annotations

import json
import sys

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from rag_ese.cli import Command, notice, run
from rag_ese.plan.choose import Outcome, Row, make_plan
from rag_ese.plan.config import PlanConfig
from rag_ese.retriever.search_plan import Recall


def main(config: PlanConfig) -> None:
    """Plans, writes the plan file, and shows what it was chosen from."""
    outcome = make_plan(config, notice)
    outcome.plan.write(config.out)
    if config.as_json:
        rows = [_plain(row) for row in outcome.rows]
        summary = {"plan": outcome.plan.model_dump(mode="json"), "candidates": outcome.candidates, "measured": rows}
        json.dump(summary, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(table(outcome))
    console.print(promise(outcome), highlight=False, markup=False)
    console.print(f"The plan is in {config.out}", highlight=False, markup=False)


def table(outcome: Outcome) -> Table:
    """What was measured on the choosing half, fastest first; the chosen one in bold."""
    plan = outcome.plan
    title = f"{outcome.candidates:,} funnels surveyed on {plan.recall_when_chosen.queries} questions; measured:"
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left")
    shown.add_column("")
    shown.add_column("funnel", overflow="fold")
    for name in (f"recall@{plan.k} [95%]", "p50 ms", "p99 ms", "p99 w/o encoding", "RAM", "mapped"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in outcome.rows:
        chosen = row is outcome.chosen
        shown.add_row(*_cells(row, "▶" if chosen else ""), style="bold" if chosen else "")
    return shown


def promise(outcome: Outcome) -> str:
    """What the chosen funnel reaches on the other half."""
    plan = outcome.plan
    return (
        f"Chosen: {plan.funnel}. On {plan.recall.queries} questions that had no part in the choice: recall@{plan.k} "
        f"{_interval(plan.recall)} of the exact {plan.reference}, p50 {plan.latency.p50_ms:.1f} ms, p99 "
        f"{plan.latency.p99_ms:.1f} ms ({plan.latency.search_p99_ms:.1f} ms without encoding the query); "
        f"{decimal(plan.bytes.index)} of index in memory, full vectors mapped from a file of "
        f"{decimal(plan.bytes.mapped_vectors)}."
    )


def _cells(row: Row, mark: str) -> list[str]:
    times = (row.latency.p50_ms, row.latency.p99_ms, row.latency.search_p99_ms)
    mapped = decimal(row.bytes.mapped_vectors) if row.bytes.mapped_vectors else "–"
    return [
        mark,
        str(row.funnel),
        _interval(row.recall),
        *(f"{time:.1f}" for time in times),
        decimal(row.bytes.index),
        mapped,
    ]


def _interval(recall: Recall) -> str:
    return f"{recall.mean:.4f} [{recall.low:.4f}, {recall.high:.4f}]"


def _plain(row: Row) -> dict[str, object]:
    parts = {"recall": row.recall, "latency": row.latency, "bytes": row.bytes}
    return {"funnel": str(row.funnel), **{name: part.model_dump() for name, part in parts.items()}}


COMMANDS = {"": Command(PlanConfig, main, "propose a funnel that meets a recall, a latency and a memory")}


if __name__ == "__main__":
    run("rag_ese.plan", COMMANDS)
