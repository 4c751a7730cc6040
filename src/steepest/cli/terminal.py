"""What the subcommands share: the console, and the error of a wrong call."""

from __future__ import annotations

from rich.console import Console

from steepest.race.live import PLAIN_WIDTH


class UsageError(Exception):
    """A wrong call; the message is one line."""


def console() -> Console:
    """Return standard output: as wide as its terminal, of a fixed width where there is none."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=PLAIN_WIDTH)
