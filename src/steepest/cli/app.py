"""The subcommands of `steepest`, and how their errors become one line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from steepest._resolve import TargetError
from steepest._version import __version__
from steepest.cli import benching, catalogue, checking, racing, rating, reporting
from steepest.cli.racing import INTERRUPTED
from steepest.cli.terminal import UsageError
from steepest.race.records import RaceError
from steepest.race.task import one_line

USAGE = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Race optimizers fairly on real tasks, look methods up, and check optimizer classes.",
)

app.command("race")(racing.race)
app.command("report")(reporting.report)
app.command("compare")(reporting.compare)
app.command("list")(catalogue.list_)
app.command("show")(catalogue.show)
app.command("check")(checking.check)
app.command("invariance")(checking.invariance)
app.command("bench")(benching.bench)
app.command("suggest-lr")(rating.suggest)
app.command("lr-range-test")(rating.range_test)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; whatever is wrong is one line on standard error."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="steepest", standalone_mode=False, obj=arguments)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _complain(str(error), USAGE)
    except (RaceError, TargetError) as error:
        return _complain(str(error), 1)
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing left to say
        return 1
    except Exception as error:
        describe = getattr(error, "format_message", None)  # typer's own complaints about the call
        if describe is not None:
            return _complain(describe(), USAGE)
        if os.environ.get("STEEPEST_TRACEBACK"):
            raise
        return _complain(f"{type(error).__name__}: {error} (STEEPEST_TRACEBACK=1 shows where)", 1)


def _complain(message: str, code: int) -> int:
    if message:
        print(f"steepest: {one_line(message)}", file=sys.stderr)
    return code


def _version(wanted: bool) -> None:
    if wanted:
        print(f"steepest {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
