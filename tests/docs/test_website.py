"""The hooks of the site: formulas, docstrings, and what makes a build fail."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import steepest

pytest.importorskip("mkdocs")
pytest.importorskip("griffe")
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[2]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "website" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(extra: dict[str, str]) -> SimpleNamespace:
    """Return the files of the documentation as a build hands them over, some replaced."""
    texts = {
        path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in (ROOT / "docs").rglob("*.md")
    }
    texts |= extra
    listed = [
        SimpleNamespace(src_uri=uri, name=Path(uri).stem, content_string=text) for uri, text in texts.items()
    ]
    return SimpleNamespace(documentation_pages=lambda: listed)


def test_formulas_become_mathml_and_nothing_else_changes():
    on_page_content = hook("mathml").on_page_content
    source = (
        r'<p>a <span class="arithmatex">\(r_i &lt; 1\)</span> b</p><div class="arithmatex">\[\sqrt{V}\]</div>'
        "<code>$x$</code>"
    )
    made = on_page_content(source, page=None)
    assert "arithmatex" not in made
    assert re.search(r'a <math [^>]*display="inline">.*<msub><mi>r</mi><mi>i</mi></msub>.*</math> b', made)
    assert re.search(r'<div class="formula"><math [^>]*display="block">.*<msqrt>', made)
    assert made.endswith("<code>$x$</code>")


def test_formulas_need_no_font_of_their_own():
    formula = hook("mathml").formula
    assert "<mo>" not in formula(r"L^\top \operatorname{sign}(G)", "inline")
    assert ">\N{LATIN CAPITAL LETTER G WITH CIRCUMFLEX}</mi>" in formula(r"\hat G", "inline")
    assert formula(r"2\,|G|", "inline").count('lspace="0" rspace="0">&#x0007C;') == 2


def test_long_code_in_tables_may_break():
    on_page_content = hook("breaks").on_page_content
    call = "<code>Eigenbasis(frequency=100, start=1)</code>"
    assert on_page_content(f"<td>{call}</td>{call}") == (
        f"<td><code>Eigenbasis(<wbr>frequency=<wbr>100, start=<wbr>1)</code></td>{call}"
    )
    assert on_page_content("<td><code>f(a=1)</code></td>") == "<td><code>f(a=1)</code></td>"


def test_every_page_stands_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"^ +- (?:\w+: )?([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert sorted(named) == sorted(there | {"changelog.md", "tutorials/ANDI.md"})


def test_a_command_without_mathml_stops_the_build():
    with pytest.raises(PluginError, match=r"no MathML for \\nosuch"):
        hook("mathml").formula(r"\nosuch{x}", "inline")


def test_docstrings_keep_formulas_and_link_what_is_public():
    rewritten = hook("docstrings").rewritten
    told = rewritten(
        "One line.\n\nFormula:\n    a = b*c\n    d_e = |f|\n\nArgs:\n    one, two,\n        three: as in "
        ":class:`steepest.Adam`; see :func:`steepest.apply.apply_`.\n\nExample:\n    >>> 1 + 1\n    2\n"
    )
    assert "```text\na = b*c\nd_e = |f|\n```" in told
    assert "    one, two, three: as in [`Adam`][steepest.Adam]; see `apply_`." in told
    assert "\nExamples:\n    >>> 1 + 1" in told


def test_docstrings_keep_pairings_duals_and_products():
    rewritten = hook("docstrings").rewritten
    assert (
        rewritten("<M, S> is |G|* u(G), a * b, not 3 < 4.") == r"&lt;M, S> is |G|\* u(G), a \* b, not 3 < 4."
    )
    for kept in ("``<M, S> * a``", "**bold** and *slanted* words", "```text\n|G|* <a>\n```"):
        assert rewritten(kept) == kept


def test_sessions_outside_of_examples_are_code():
    told = hook("docstrings").rewritten("A norm.\n\n>>> a * b <c\n3\n\nMore.")
    assert told == "A norm.\n\n```pycon\n>>> a * b <c\n3\n```\n\nMore."


def test_all_public_names_are_documented():
    hook("public_names").on_files(pages({}))


def test_a_public_name_without_documentation_stops_the_build(monkeypatch):
    on_files = hook("public_names").on_files
    norms = (ROOT / "docs" / "reference" / "norms.md").read_text()
    with pytest.raises(PluginError, match=r"steepest\.ColNorm stands in no page"):
        on_files(pages({"reference/norms.md": norms.replace("::: steepest.ColNorm", "")}))
    monkeypatch.setattr(steepest.ColNorm, "__doc__", None)
    with pytest.raises(PluginError, match=r"steepest\.ColNorm has no docstring"):
        on_files(pages({}))


def test_links_to_the_notebook_lead_to_its_page():
    anchored = hook("anchors").on_page_markdown
    page = SimpleNamespace(file=SimpleNamespace(src_uri="methods/ANDI.md", name="ANDI"))
    assert anchored("# ANDI\n\n[a](../tutorials/ANDI.ipynb)", page) == (
        "# ANDI { #steepest.ANDI }\n\n[a](../tutorials/ANDI.md)"
    )
