"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, no network.

Arithmatex marks ``$...$`` and ``$$...$$``; this hook converts what it marked when a page is built.
"""

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def formula(latex: str, display: str) -> str:
    """Return MathML.

    Raises:
        PluginError: a command the converter does not know; it would stand in the page as typed.
    """
    made = convert(latex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", re.sub(r"&#x0*5[Cc];", r"\\", made))
    if unknown:
        raise PluginError(f"no MathML for {unknown.group()} in the formula {latex.strip()!r}")
    return made


def on_page_content(content: str, page, **_) -> str:
    def replaced(found: re.Match[str]) -> str:
        tag, latex = found.groups()
        made = formula(html.unescape(latex), "inline" if tag == "span" else "block")
        return made if tag == "span" else f'<div class="formula">{made}</div>'

    return MARKED.sub(replaced, content)
