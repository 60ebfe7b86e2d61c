"""`python -m rag_ese.eval`: what each size costs, in a table and in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from rag_ese.cli import Command, notice, run
from rag_ese.errors import MissingExtraError, disk_errors
from rag_ese.eval import comparison, plot, report, sts_plot, sts_report
from rag_ese.eval import hotpotqa as hotpotqa_study
from rag_ese.eval import squad as squad_study
from rag_ese.eval import sts as sts_study
from rag_ese.eval.comparison import CompareConfig
from rag_ese.eval.config import RUNS, EvalConfig
from rag_ese.eval.squad import SquadConfig
from rag_ese.eval.sts_config import StsConfig


def hotpotqa(config: EvalConfig) -> None:
    with _folder(config.out, "hotpotqa") as out:
        results = hotpotqa_study.evaluate(config, notice)
    picture = _picture(out / plot.FILE, lambda path: plot.draw(results, path))
    results.write(out, report.markdown(results, picture))
    if config.as_json:
        return _print_json(results.summary())
    _show([report.console_table(results)], report.legend(results), results.notes, 110)
    return _say(f"Report, scores, predictions and runs are in {out}")


def sts(config: StsConfig) -> None:
    with _folder(config.out, "sts") as out:
        results = sts_study.evaluate(config, notice)
    picture = _picture(out / sts_plot.FILE, lambda path: sts_plot.draw(results, path))
    results.write(out, sts_report.markdown(results, picture))
    if config.as_json:
        return _print_json(results.summary())
    _say(sts_report.headline(results))
    _show([sheet.console() for sheet in sts_report.sheets(results)], sts_report.legend(results), results.notes, 100)
    return _say(f"Report and scores are in {out}")


@contextmanager
def _folder(out: Path | None, name: str) -> Iterator[Path]:
    """The folder for the results, made now: better refused now than after the work. A refused command leaves none."""
    folder = out or RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    with disk_errors("creating", folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # where it is empty
        raise


def _picture(path: Path, draw: Callable[[Path], None]) -> str | None:
    """Draws the picture if it can be drawn: its name in the report, or None."""
    try:
        with disk_errors("writing", path):
            draw(path)
    except MissingExtraError as missing:
        notice(f"no picture: {missing}")
        path.unlink(missing_ok=True)
    return path.name if path.exists() else None


def _show(tables: Sequence[RenderableType], legend: str, notes: Sequence[str], width: int) -> None:
    """Tables and their legend on standard output, `width` columns wide where that is no terminal."""
    console = Console() if sys.stdout.isatty() else Console(width=width)
    for table in tables:
        console.print(table)
    console.print(legend, highlight=False, style="dim")
    for note in notes:
        if note.startswith("WARNING"):
            notice(note, "bold yellow")


def _print_json(summary: dict[str, Any]) -> None:
    json.dump(summary, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, highlight=False, markup=False)


def compare(config: CompareConfig) -> None:
    legend = "points of 100; paired bootstrap over questions; * the interval leaves out 0"
    _show([comparison.table(comparison.compare_runs(config))], legend, [], 140)


def squad(config: SquadConfig) -> None:
    results = squad_study.evaluate(config)
    _print_json(results) if config.as_json else _say(squad_study.sentence(results))


COMMANDS = {
    "hotpotqa": Command(EvalConfig, hotpotqa, "retrieval and answer quality, time and memory by size"),
    "sts": Command(StsConfig, sts, "sentence similarity by layer and width on the seven STS sets"),
    "squad": Command(SquadConfig, squad, "the trained reader on SQuAD 1.1 by its official metrics"),
    "compare": Command(CompareConfig, compare, "paired differences between two runs of hotpotqa on the same questions"),
}


if __name__ == "__main__":
    run("rag_ese.eval", COMMANDS)
