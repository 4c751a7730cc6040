"""The command `steepest`. The command line needs the `race` extra; the library does not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("matplotlib", "rich", "sklearn", "typer")


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failure, 2 for a wrong call, 130 for Ctrl-C.

    Args:
        arguments: the words after ``steepest``; those of the process by default.
    """
    if any(find_spec(name) is None for name in NEEDED):
        print('The command needs more packages: pip install "steepest[race]"', file=sys.stderr)
        return 1
    from steepest.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
