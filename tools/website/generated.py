"""Pages that are made from files outside docs/: the changelog, and the executed notebook."""

from pathlib import Path

import nbformat
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "tutorials/ANDI.ipynb"


def on_files(files, config, **_):
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text()))
    notebook = nbformat.read(Path(config.docs_dir, NOTEBOOK), as_version=4)
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    files.append(File.generated(config, "tutorials/ANDI.md", content=text))
    for name, data in resources["outputs"].items():
        files.append(File.generated(config, f"tutorials/{name}", content=data))
    return files
