"""`python -m rag_ese.eval`: what each size costs, in a table and in files."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import datetime

from rich.console import Console

from rag_ese.cli import Command, notice, run
from rag_ese.errors import MissingExtraError, disk_errors
from rag_ese.eval.config import RUNS, EvalConfig
from rag_ese.eval.hotpotqa import evaluate
from rag_ese.eval.plot import FILE, draw
from rag_ese.eval.report import console_table, legend, markdown


def hotpotqa(config: EvalConfig) -> None:
    out = config.out or RUNS / f"hotpotqa-{datetime.now():%Y%m%d-%H%M%S}"
    with disk_errors("creating", out):  # better refused now than after the work
        out.mkdir(parents=True, exist_ok=True)
    try:
        results = evaluate(config, notice)
    except BaseException:
        with suppress(OSError):
            out.rmdir()  # where it is empty: a refused command leaves no folder
        raise
    picture = out / FILE
    try:
        with disk_errors("writing", picture):
            draw(results, picture)
    except MissingExtraError as missing:
        notice(f"no picture: {missing}")
        picture.unlink(missing_ok=True)
    results.write(out, markdown(results, FILE if picture.exists() else None))
    if config.as_json:
        json.dump(results.summary(), sys.stdout, indent=1, default=str)
        sys.stdout.write("\n")
        return
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(console_table(results))
    console.print(legend(results), highlight=False, style="dim")
    for note in results.notes:
        if note.startswith("WARNING"):
            notice(note, "bold yellow")
    console.print(f"Report, scores, predictions and runs are in {out}", highlight=False)


COMMANDS = {"hotpotqa": Command(EvalConfig, hotpotqa, "retrieval and answer quality, time and memory by size")}


if __name__ == "__main__":
    run("rag_ese.eval", COMMANDS)
