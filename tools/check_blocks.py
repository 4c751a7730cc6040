"""Run the python and bash blocks of the README and the docs, each file's Python as one program."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

from mktestdocs import check_md_file

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    failed = []
    for page in pages:
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            try:
                check_md_file(fpath=page, memory=True)
                check_md_file(fpath=page, lang="bash")
            except Exception:
                traceback.print_exc()
                failed.append(page)
            os.chdir(ROOT)
        print(f"{'FAILED' if page in failed else 'ok'} {page.relative_to(ROOT)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
