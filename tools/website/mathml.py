"""Formulas as MathML, which browsers draw by themselves: no script, no fonts, no network.

Arithmatex marks ``$...$`` and ``$$...$$``; this hook converts what it marked when a page is built.
"""

import html
import re
import unicodedata

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

MARKED = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
BAR = '<mo stretchy="false"'
HAT = re.compile(r'<mover accent="true"><mi>(\w)</mi><mo>&#x0005E;</mo></mover>')


def formula(latex: str, display: str) -> str:
    """Return MathML.

    Raises:
        PluginError: a command the converter does not know; it would stand in the page as typed.
    """
    made = convert(latex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", re.sub(r"&#x0*5[Cc];", r"\\", made))
    if unknown:
        raise PluginError(f"no MathML for {unknown.group()} in the formula {latex.strip()!r}")
    return tidied(made)


def tidied(made: str) -> str:
    """Return MathML that looks right without a font made for mathematics, which phones do not have.

    There an operator gets space on both sides: names, the transpose's sign and bars are none. A hat is drawn
    too high: one with a letter that Unicode has is that letter.
    """
    made = re.sub(r"<mo>(\w{2,}|&#x022A4;)</mo>", r"<mi>\1</mi>", made)
    made = made.replace(f"{BAR}>&#x0007C;", f'{BAR} lspace="0" rspace="0">&#x0007C;')
    return HAT.sub(hatted, made)


def hatted(found: re.Match[str]) -> str:
    letter = unicodedata.normalize("NFC", found.group(1) + "\N{COMBINING CIRCUMFLEX ACCENT}")
    return f'<mi style="font-style: italic">{letter}</mi>' if len(letter) == 1 else found.group()


def on_page_content(content: str, page, **_) -> str:
    def replaced(found: re.Match[str]) -> str:
        tag, latex = found.groups()
        made = formula(html.unescape(latex), "inline" if tag == "span" else "block")
        return made if tag == "span" else f'<div class="formula">{made}</div>'

    return MARKED.sub(replaced, content)
