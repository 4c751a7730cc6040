"""Write the report and the tables of docs/results from the records there.

With --check nothing is written; the exit code says whether the tables would change (not the pictures).
"""

import argparse
import sys
from pathlib import Path

from steepest.cli.reporting import read_races
from steepest.race.report import write_report
from steepest.race.report.claims import compared
from steepest.race.report.writing import table_files
from steepest.race.statistics import (
    Summary,
    format_against,
    format_estimate,
    format_interval,
    format_lr,
    format_target,
    summarize,
)

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
PAGE = FOLDER / "index.md"
REPORT = FOLDER / "report"


def claims(summary: Summary) -> list[str]:
    """Return a table of what the papers say and what was measured."""
    rows = ["| task | the paper says | tested as | advantage of the first named | seeds | verdict |"]
    rows.append("|---|---|---|---|---|---|")
    for task in summary.tasks:
        for result in task.claims:
            cells = (task.name, result.claim.text, compared(result.claim), format_interval(result.advantage))
            rows.append(f"| {' | '.join(cells)} | {len(result.seeds)} | **{result.verdict}** |")
    return rows


def protocols(summary: Summary) -> list[str]:
    """Return a table of how far from ANDI the others end where they are searched, and where they are not."""
    others = ("AdamW", "Muon")
    columns = [f"{name}'s lr | {name} − ANDI" for name in others]
    rows = [f"| task | protocol | {' | '.join(columns)} |", "|---" * (2 + 2 * len(others)) + "|"]
    both = {task.event.task for task in summary.tasks if task.event.protocol == "paper"}
    for task in (task for task in summary.tasks if task.event.task in both):
        rates = {o.name: format_lr(o.best_lr) for o in task.optimizers}
        cells = [f"{rates[name]} | {format_interval(task.pair(name, 'ANDI').difference)}" for name in others]
        rows.append(f"| {task.event.task} | {task.event.protocol} | {' | '.join(cells)} |")
    return rows


def rankings(summary: Summary) -> list[str]:
    """Return a table of all optimizers on all tasks."""
    against = summary.reference
    head = ["task", "optimizer", "validation loss", "other metric", "best lr", f"steps to {against}'s loss"]
    rows = [f"| {' | '.join(head)} | against {against} |", "|---" * (len(head) + 1) + "|"]
    for task in summary.tasks:
        for o in task.optimizers:
            metric = o.metrics.get(task.headline) or next(iter(o.metrics.values()), None)
            named = task.headline if task.headline in o.metrics else next(iter(o.metrics), "")
            other = f"{named.removeprefix('val_')} {format_estimate(metric)}" if metric else "–"
            loss = format_estimate(o.loss) if o.loss else o.note
            cells = [task.name, o.name, loss, other, format_lr(o.best_lr), format_target(task, o, against)]
            rows.append(f"| {' | '.join(cells)} | {format_against(task, o, against)} |")
    return rows


def filled(text: str, parts: dict[str, list[str]]) -> str:
    """Return the page with the lines between its markers replaced."""
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE.name} has no {begin.strip()} ... {end}")
        text = before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after
    return text


def main() -> int:
    """Write everything, or check the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the tables are up to date")
    check = parser.parse_args().check
    records, origins = read_races(sorted(path for path in FOLDER.glob("records/*") if path.is_dir()))
    summary = summarize(records)
    page = PAGE.read_text(encoding="utf-8")
    parts = {"protocols": protocols, "claims": claims, "rankings": rankings}
    wanted = filled(page, {name: table(summary) for name, table in parts.items()})
    if not check:
        write_report(summary, REPORT, records=records, origins=origins, pictures=True)
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    tables = table_files(summary, records)
    stale = [name for name, text in tables.items() if (REPORT / name).read_text(encoding="utf-8") != text]
    stale += [PAGE.name] if page != wanted else []
    for name in stale:
        print(f"docs/results: {name} is not what the records say; run python tools/results.py")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
