"""What every command line of the project shares: configuration in, exit code out, one sentence for what went wrong.

Exit codes: 0 done, 2 bad input or a refusing disk, 130 interrupted. Any other failure is a bug and shows its traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from rag_ese.config import StrictModel, add_arguments, from_arguments
from rag_ese.errors import RagEseError

Config = TypeVar("Config", bound=StrictModel)


def run(
    program: str,
    model: type[Config],
    command: Callable[[Config], None],
    description: str | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """Parses `arguments` (default: the process's) into `model`, calls `command`, and exits."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    add_arguments(parser, model)
    given = parser.parse_args(arguments)
    sys.exit(guarded(lambda: command(from_arguments(model, given))))


def guarded(action: Callable[[], None]) -> int:
    """Runs `action` and turns the errors that a user can cause into a sentence on standard error and an exit code."""
    try:
        action()
    except RagEseError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)  # noqa: T201
        return 130
    return 0
