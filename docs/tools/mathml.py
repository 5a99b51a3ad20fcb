r"""Markdown extension: formulas between dollar signs as MathML, which browsers render without scripts or fonts.

`$...$` is an inline formula, `$$...$$` a displayed one, `\$` a dollar sign. The conversion is that of the reports.
"""

from __future__ import annotations

import re
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

from sdetools.report.typeset import typeset

LONG = 30
"""The number of characters from which an inline formula may be wider than a telephone's screen."""
_UNKNOWN = re.compile(r">\\\w+<")  # a command that the converter does not know is text in its output
_FORMULA = r"(?<!\\)(\$\$?)(?!\s*\$)((?:[^$\\]|\\.)+?)(?<!\\)\1"


class FormulaError(ValueError):
    """A formula that latex2mathml does not accept."""


class _Formulas(InlineProcessor):
    def handleMatch(self, m: Any, data: str) -> tuple[str, int, int]:
        html = str(typeset(m.group(0)))
        if "<math" not in html or _UNKNOWN.search(html):
            raise FormulaError(f"not a formula: {m.group(0)}")
        if m.group(1) == "$" and len(m.group(2)) > LONG:  # scrolls within itself on narrow screens
            html = f'<span class="long-formula">{html}</span>'
        return self.md.htmlStash.store(html), m.start(0), m.end(0)


class MathML(Extension):
    """Formulas between dollar signs as MathML."""

    def extendMarkdown(self, md: Markdown) -> None:
        # Above escapes (180), below code between backticks (190).
        md.inlinePatterns.register(_Formulas(_FORMULA, md), "mathml", 189)
