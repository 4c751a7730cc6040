"""Execute docs/tutorials/ANDI.ipynb and keep its outputs.

With --check nothing is written: the notebook is executed afresh, and the exit code says whether a cell
raised or the words of an output differ from those kept. Numbers in outputs are left to the assertions in
the cells, because their last digits depend on the processor.
"""

import argparse
import copy
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorials" / "ANDI.ipynb"
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")
LIMIT_S = 300


def executed(notebook: NotebookNode) -> NotebookNode:
    """Return a copy with the outputs of a fresh kernel, without anything that differs between runs."""
    made = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as scratch:
        where = {"metadata": {"path": scratch}}
        NotebookClient(made, timeout=LIMIT_S, kernel_name="python3", resources=where).execute()
    for cell in made.cells:
        cell.metadata = {}
    made.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    return made


def words(notebook: NotebookNode) -> list[str]:
    """Return the outputs of each code cell as text, every number replaced by #, pictures by their kind.

    A kernel cuts what a cell prints into outputs as it comes; where says nothing.
    """
    told = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [out.get("text") or " ".join(sorted(out.get("data", {}))) for out in cell.outputs]
            told.append(NUMBER.sub("#", "".join(shown)))
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something would change")
    check = parser.parse_args().check
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    kept = nbformat.read(NOTEBOOK, as_version=4)
    try:
        fresh = executed(kept)
    except CellExecutionError as error:
        print(error)
        return 1
    if not check:
        nbformat.write(fresh, NOTEBOOK)
        return 0
    wrong = [k for k, pair in enumerate(zip(words(kept), words(fresh), strict=True)) if pair[0] != pair[1]]
    for k in wrong:
        print(f"code cell {k}: kept {words(kept)[k]}, now {words(fresh)[k]}")
    print(f"{NOTEBOOK.name}: {'stale' if wrong else 'executed'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
