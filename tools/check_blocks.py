"""Run the python and bash blocks of the README and the docs, each file's Python as one program."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from mktestdocs import check_md_file

import steepest  # noqa: F401  (once, for all pages)

ROOT = Path(__file__).resolve().parent.parent


def check(page: Path) -> None:
    """Run one page's blocks in a folder of its own; what fails ends in a traceback."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        check_md_file(fpath=page, memory=True)
        check_md_file(fpath=page, lang="bash")
        os.chdir(ROOT)


def main() -> int:
    """Run every page in a process of its own, for some libraries keep their settings for a process."""
    failed = 0
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        program = multiprocessing.get_context("fork").Process(target=check, args=(page,))
        program.start()
        program.join()
        failed += program.exitcode != 0
        print(f"{'FAILED' if program.exitcode else 'ok'} {page.relative_to(ROOT)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
