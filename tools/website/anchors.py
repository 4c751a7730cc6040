"""Links that lead elsewhere in the site: to methods from the reference, to the notebook's page."""

import re


def on_page_markdown(markdown: str, page, **_) -> str:
    # The notebook is a file to those who read the repository, a page to those who read the site.
    markdown = markdown.replace("ANDI.ipynb)", "ANDI.md)")
    if not re.fullmatch(r"methods/\w+\.md", page.file.src_uri) or page.file.name == "index":
        return markdown
    return re.sub(r"\A# (\w+)$", r"# \1 { #steepest.\1 }", markdown, count=1, flags=re.MULTILINE)
