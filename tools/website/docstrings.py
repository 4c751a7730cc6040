"""Docstrings of this library as the reference shows them: formulas as they stand, roles as links."""

import re
import textwrap

from griffe import Extension

ROLE = re.compile(r":(\w+):`~?([\w.]+)`")
PUBLIC = re.compile(r"steepest\.((checks|distributed|linalg|rates)\.)?\w+")
NAMES = re.compile(r"^( {4}(?:\w+, )*\w+,)\n {8}(?=\w+[,:])", re.MULTILINE)
LITERAL = re.compile(r"```.*?```|``.*?``|`[^`\n]*`|^ *(?:>>>|\.\.\.) .*$", re.DOTALL | re.MULTILINE)
MARKUP = re.compile(r"<(?=[\w|/])|(?<=\|)\*|(?<=\s)\*(?=\s)")
SESSION = re.compile(r"^>>> .*\n(?:.+(?:\n|\Z))*", re.MULTILINE)
FORMULA = re.compile(r"^Formula:\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)


def linked(role: re.Match[str]) -> str:
    kind, target = role.groups()
    shown = target.rpartition(".")[2]
    has_anchor = kind != "mod" and PUBLIC.fullmatch(target)
    return f"[`{shown}`][{target}]" if has_anchor else f"`{shown}`"


def escaped(text: str) -> str:
    """Return text in which <M, S>, |G|* and a * b are what they say; code stays as it is."""
    marks = {"<": "&lt;", "*": "\\*"}
    made, end = [], 0
    for literal in [*LITERAL.finditer(text), None]:
        plain = text[end : literal.start()] if literal else text[end:]
        made.append(MARKUP.sub(lambda mark: marks[mark.group()], plain))
        if literal:
            made.append(literal.group())
            end = literal.end()
    return "".join(made)


def rewritten(text: str) -> str:
    """Return a docstring whose formula is a block of text, whose roles are links, whose examples are code.

    Names of arguments described together are put on one line, where the parser looks for them.
    """

    def fenced(found: re.Match[str]) -> str:
        return f"```text\n{textwrap.dedent(found.group(1)).strip()}\n```\n\n"

    text = SESSION.sub(lambda found: f"```pycon\n{found.group().strip()}\n```\n", text)
    text = re.sub(r"^Example:$", "Examples:", FORMULA.sub(fenced, text), flags=re.MULTILINE)
    return ROLE.sub(linked, escaped(NAMES.sub(r"\1 ", text)))


class SteepestDocstrings(Extension):
    """Rewrites every docstring of the package before it is parsed."""

    def on_instance(self, *, obj, **_) -> None:
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)
