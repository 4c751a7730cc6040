"""Long code in a table may break after a bracket, a comma or an equals sign, so that all columns are seen."""

import re

CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
CODE = re.compile(r"(<code>)([^<]{24,})(</code>)")


def on_page_content(content: str, **_) -> str:
    def broken(code: re.Match[str]) -> str:
        return code.group(1) + re.sub(r"([(,=])(?=\S)", r"\1<wbr>", code.group(2)) + code.group(3)

    return CELL.sub(lambda cell: CODE.sub(broken, cell.group()), content)
