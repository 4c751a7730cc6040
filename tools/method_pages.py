"""Write docs/methods/ and the README's table of methods from the optimizers' docstrings and recipes.

With --check nothing is written; the exit code says whether anything would change.
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

from steepest import recipes
from steepest.catalogue import choices, marked, methods, plain, sections, summary

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "methods"
TITLES = {
    "From AdamW": "Which lr, coming from AdamW",
    "State": "State and cost",
    "Neighbours": "Neighbours",
    "When not to use": "When not to use it",
    "Raises": "Errors",
    "Source": "Source",
}


def page(cls: type) -> str:
    """Return the page of one method."""
    told = sections(cls)
    signature = inspect.signature(cls)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    lines = [f"# {cls.__name__}", "", marked(summary(cls)), "", "```text", plain(told["Formula"]), "```", ""]
    lines += ["| axis | choice |", "|---|---|"]
    lines += [f"| {axis} | `{choice}` |" for axis, choice in choices(cls).items()]
    told_by = "its path through a curved valley; singular values, rows and columns of an update"
    lines += ["", f"![{cls.__name__}: {told_by}](../assets/gallery/{cls.__name__}.webp)"]
    for section in ("Neighbours", "From AdamW", "State", "When not to use"):
        lines += ["", f"## {TITLES[section]}", "", escape(marked(told[section]))]
    example = [line[4:] for line in told["Example"].splitlines() if line.startswith((">>> ", "... "))]
    call = f"steepest.{cls.__name__}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
    lines += ["", "## Use", "", "```python", *example, "```", ""]
    lines += ["## Arguments", "", "```text", call, "```", "", *arguments(told["Args"])]
    for section in ("Raises", "Source"):
        lines += ["", f"## {TITLES[section]}", "", escape(marked(told[section]))]
    return "\n".join(lines) + "\n"


def arguments(text: str) -> list[str]:
    """Return a list entry for every argument or arguments that a docstring describes together."""
    lines = []
    for entry in re.split(r"\n(?=\S)", text):
        names, _, told = entry.partition(": ")
        listed = ", ".join(f"`{name}`" for name in names.split(", "))
        lines.append(f"- {listed}: {linked(escape(marked(' '.join(told.split()))))}")
    return lines


def linked(text: str) -> str:
    """Return text whose "as in `Method`" leads to that method's page."""
    return re.sub(
        r"as in `(\w+)`", lambda m: f"as in [`{m[1]}`]({m[1]}.md)" if m[1] in methods() else m[0], text
    )


def escape(text: str) -> str:
    """Return text whose stars, underscores and brackets outside code stay what they are."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*_>|])", r"\\\1", piece).replace("<", "&lt;") for piece in pieces[::2]]
    return "`".join(pieces)


def table(link: str) -> str:
    """Return the table of all methods."""
    rows = [
        "| method | norm | preconditioner | momentum | step | state per float32 parameter |",
        "|---|---|---|---|---|---|",
    ]
    for name, cls in methods().items():
        chosen = choices(cls)
        cells = " | ".join(f"`{chosen[axis]}`" for axis in ("norm", "preconditioner", "momentum", "step"))
        cost = re.search(r"(\d+ bytes)\s+per\s+float32", sections(cls)["State"])
        rows.append(f"| [{name}]({link}{name}.md) | {cells} | {cost.group(1) if cost else 'see its page'} |")
    return "\n".join(rows)


def index() -> str:
    """Return the page that lists methods and compositions."""
    named = inspect.getsource(recipes)
    lines = [
        "# Methods",
        "",
        "Generated from the docstrings and recipes of the optimizers.",
        "",
        table(""),
        "",
    ]
    lines += [
        "## Compositions",
        "",
        "Rules in `steepest.recipes`, trained with `Steepest(params, lr, recipe=...)`.",
        "",
    ]
    for name in recipes.ALL:
        text = re.search(rf'^{name} = .*?^"""(.*?)"""', named, re.DOTALL | re.MULTILINE)
        lines.append(f"- `{name}`: {' '.join(text.group(1).split()) if text else ''}")
    return "\n".join(lines) + "\n"


def readme() -> str:
    """Return the README with a fresh table between its two marks."""
    text = (ROOT / "README.md").read_text()
    return re.sub(
        r"(<!-- methods -->\n).*?(\n<!-- /methods -->)",
        lambda marks: marks.group(1) + table("docs/methods/") + marks.group(2),
        text,
        flags=re.DOTALL,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something would change")
    check = parser.parse_args().check
    wanted = {FOLDER / f"{name}.md": page(cls) for name, cls in methods().items()}
    wanted |= {FOLDER / "index.md": index(), ROOT / "README.md": readme()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    surplus = [path for path in FOLDER.glob("*.md") if path not in wanted]
    for path in [*stale, *surplus]:
        print(f"{'stale' if check else 'wrote' if path in stale else 'removed'} {path.relative_to(ROOT)}")
    if not check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_text(wanted[path])
        for path in surplus:
            path.unlink()
    return 1 if check and (stale or surplus) else 0


if __name__ == "__main__":
    sys.exit(main())
