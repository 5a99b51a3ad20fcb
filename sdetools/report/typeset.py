"""Conversion of text with LaTeX formulas to HTML with MathML, which current browsers render without external fonts or scripts."""

from __future__ import annotations

import functools
import re
from typing import Any

_PARTS = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
_TAGS = {"emph": "em", "textit": "em", "textbf": "strong", "texttt": "code"}
_COMMAND = re.compile(r"\\(emph|textit|textbf|texttt)\{([^{}]*)\}")
_NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'
_REFERENCES = {"href", "src", "style", "class", "id"}
# In displayed formulas the limits of these operators are placed below and above them.
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_WITH_LIMITS = {"max", "min", "sup", "inf", "lim", "\u2211", "\u220f"}


@functools.lru_cache(maxsize=1024)
def typeset(text: str) -> Any:
    r"""Return the HTML of a text with LaTeX formulas between single dollar signs (inline) or double ones (displayed).

    Args:
        text: The text, such as r"order $\eta$". Outside the formulas HTML is escaped, LaTeX's dashes, quotes and font commands are converted, and
            "\$" is a dollar sign. A formula that cannot be converted to MathML is shown as its source.

    Returns:
        A `markupsafe.Markup`, a string that templates do not escape again.

    Example:
        >>> from sdetools.report import typeset
        >>> typeset("a < b")
        Markup('a &lt; b')
        >>> typeset(r"order $\eta$").startswith("order <math")
        True
    """
    from markupsafe import Markup

    out, end = [], 0
    for part in _PARTS.finditer(text):
        out.append(_words(text[end : part.start()]))
        out.append(_formula(part.group(1), True) if part.group(1) else _formula(part.group(2), False))
        end = part.end()
    out.append(_words(text[end:]))
    return Markup("").join(out)


def _words(text: str) -> Any:
    """Return the escaped HTML of text without formulas, with LaTeX's dashes, quotes and font commands converted."""
    from markupsafe import Markup, escape

    text = re.sub(r"\\([$%&_#])", r"\1", text).replace("~", "\u00a0").replace("---", "\u2014").replace("--", "\u2013")
    text = text.replace("``", "\u201c").replace("''", "\u201d")
    return Markup(_COMMAND.sub(lambda m: f"<{_TAGS[m[1]]}>{m[2]}</{_TAGS[m[1]]}>", str(escape(text))))


def _formula(latex: str, display: bool) -> Any:
    """Return the MathML of a formula, or its source as code if the conversion fails."""
    from xml.etree import ElementTree

    from latex2mathml.converter import convert
    from markupsafe import Markup

    try:
        tree = ElementTree.fromstring(convert(latex, display="block" if display else "inline").replace(_NAMESPACE, "", 1))
    except Exception:
        return Markup("<code>{}</code>").format(latex)
    for node in tree.iter():
        # A formula must not create links or styles.
        for name in _REFERENCES & set(node.attrib):
            del node.attrib[name]
        if display and node.tag in _LIMITS and node[0].text in _WITH_LIMITS:
            node.tag = _LIMITS[node.tag]
    # The source as a label, for screen readers without MathML support.
    tree.set("aria-label", latex)
    return Markup(ElementTree.tostring(tree, encoding="unicode", short_empty_elements=False))


_SYMBOLS = {"times": "x", "cdot": " ", "approx": "about", "le": "<=", "ge": ">=", "to": "to", "infty": "infinity", "pm": "+-"}


def plain(text: str) -> str:
    r"""Return a text with LaTeX formulas as plain text, for places that have no formulas, such as the texts of images and of tables in Markdown.

    Args:
        text: The text, such as r"order $\eta^{1/2}$". Commands become their names, and braces are removed.

    Example:
        >>> from sdetools.report.typeset import plain
        >>> plain(r"a gap of $\eta^{1/2}$ at $t = k\eta$, \emph{sharp}")
        'a gap of eta^1/2 at t = k eta, sharp'
    """
    return re.sub(r"\s+", " ", _PARTS.sub(lambda m: _spelled(m.group(1) or m.group(2)), _COMMAND.sub(r"\2", text))).replace(
        r"\$", "$"
    )


def _spelled(latex: str) -> str:
    """Return a formula in plain characters: its commands by their names, without braces."""
    latex = re.sub(
        r"\\(?:mathrm|mathbf|mathbb|mathcal|operatorname|text|left|right|bar|hat|widehat|,|;|!|quad|displaystyle)(?![a-z])",
        " ",
        latex,
    )
    latex = re.sub(r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", latex)
    latex = re.sub(r"\\([A-Za-z]+)\s*", lambda m: f" {_SYMBOLS.get(m[1], m[1])} ", latex)
    latex = re.sub(r"[{}\\]", "", latex).strip()
    return re.sub(r"\s+(?=[\^_,.;)/])|(?<=[(^_])\s+", "", latex)
