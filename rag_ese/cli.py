"""What every command line of the project shares: configuration in, exit code out, one sentence for what went wrong.

Exit codes: 0 done, 2 bad input or a refusing disk, 130 interrupted. Any other failure is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from rag_ese.config import StrictModel, add_arguments, from_arguments
from rag_ese.errors import RagEseError, disk_errors


@dataclass(frozen=True)
class Command:
    """A configuration, what to do with it, and a line of help."""

    model: type[StrictModel]
    action: Callable[[Any], None]
    help: str


def run(program: str, commands: Mapping[str, Command], arguments: Sequence[str] | None = None) -> None:
    """Runs the command named first in `arguments` (default: the process's) and exits. The name "" is a lone command."""
    lone = commands.get("")
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=lone.help if lone else None)
    if lone:
        add_arguments(parser, lone.model)
    else:
        choices = parser.add_subparsers(dest="command", required=True, metavar="|".join(commands))
        for name, command in commands.items():
            add_arguments(choices.add_parser(name, help=command.help, description=command.help), command.model)
    given = parser.parse_args(arguments)
    chosen = lone or commands[given.command]
    sys.exit(guarded(lambda: chosen.action(from_arguments(chosen.model, given))))


def guarded(action: Callable[[], None]) -> int:
    """Runs `action` and turns the errors that a user can cause into a sentence on standard error and an exit code."""
    _quiet_libraries()
    try:
        with disk_errors("writing to", "the disk"):
            action()
    except RagEseError as error:
        notice(f"error: {error}", "bold red")
        return 2
    except KeyboardInterrupt:
        notice("interrupted: run the same command again to go on where it stopped")
        return 130
    return 0


def notice(text: str, style: str = "yellow") -> None:
    """A line for people, on standard error: standard output carries results alone."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style=style, markup=False)


def _quiet_libraries() -> None:
    """Keeps other libraries' progress bars off the terminal; ours say what is going on."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
