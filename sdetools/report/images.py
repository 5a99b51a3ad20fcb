"""Figures of claims as images of the page: small data URLs, and their text in words."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sdetools.report.typeset import plain

if TYPE_CHECKING:
    from sdetools.claims.record import Drawing

_HEAD = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL)
_COORDINATES = re.compile(r' (d|x|y|points)="([^"]*)"')
_LETTER = re.compile(r"\s*([A-Za-z])\s*")
_STYLE = re.compile(r' style="([^"]*)"')
_BARE_GROUP = re.compile(r"<g>((?:(?!<g>|<g |</g>).)*)</g>", re.DOTALL)
_UNQUOTED = " /:;,=+-_.!~*'()<>@?&$[]{}|^`"
"""Characters that a data URL in double quotes may contain as they are."""


def compact_svg(svg: str) -> str:
    r"""Return an SVG image with the same look in fewer than two thirds of the characters.

    It is without comments, metadata and groups that have no purpose; coordinates have two decimals, ids are short, and a style that occurs
    several times is a class.

    Args:
        svg: The text of an SVG file as matplotlib writes it. Its unit is a point, of which a hundredth is not seen.

    Example:
        >>> from sdetools.report.images import compact_svg
        >>> print(compact_svg('<svg>  <!-- a curve -->  <g id="line">  <path d="M 1.23456 2.0 L 3 4.5 "/>\n </g></svg>'))
        <svg><path d="M1.23 2L3 4.5"/></svg>
    """
    svg = re.sub(r">\s+<", "><", re.sub(r'="\s+', '="', _HEAD.sub("", svg))).strip()
    svg = _COORDINATES.sub(lambda m: f' {m[1]}="{_rounded(m[2], _LETTER)}"', svg)
    svg = re.sub(r"translate\(([^)]*)\)", lambda m: f"translate({_rounded(m[1])})", svg)
    svg = svg.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    used = {name: f"i{i}" for i, name in enumerate(dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', svg)))}
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{used[m[1]]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#([^")]+)', lambda m: f"{m[1]}#{used[m[2]]}", svg)
    styles = [style for style, n in Counter(_STYLE.findall(svg)).items() if n > 1 and "</style>" in svg]
    classes = {style: f"c{i}" for i, style in enumerate(styles)}
    svg = _STYLE.sub(lambda m: f' class="{classes[m[1]]}"' if m[1] in classes else m[0], svg)
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    svg = svg.replace("</style>", f"{rules}</style>", 1)
    while (shorter := _BARE_GROUP.sub(r"\1", svg)) != svg:
        svg = shorter
    return svg


def data_url(svg: str) -> Any:
    """Return a data URL of an SVG image, made smaller by `compact_svg`, for an attribute of an HTML element in double quotes, such as `src`.

    It is a `markupsafe.Markup`, text that templates do not escape again. As images, ids of several figures cannot clash, and no code in them is executed.

    Args:
        svg: The text of an SVG file.

    Example:
        >>> from sdetools.report.images import data_url
        >>> print(data_url('<svg fill="#fff"></svg>'))
        data:image/svg+xml,<svg fill='%23fff'></svg>
    """
    from markupsafe import Markup

    text = compact_svg(svg)
    text = text if "'" in text else text.replace('"', "'")
    return Markup("data:image/svg+xml," + quote(text, safe=_UNQUOTED).replace("&", "&amp;"))


def in_words(figure: Drawing) -> str:
    """Return the text that stands for a figure where it is not seen: its name, what is on its axes, and what is drawn.

    Args:
        figure: The figure of a claim, with the texts `name`, `axes` and `seen`; their LaTeX formulas become plain text.
    """
    return " ".join(filter(None, (f"{plain(figure.name).rstrip('.')}.", plain(figure.axes), plain(figure.seen))))


def _rounded(coordinates: str, closed: re.Pattern[str] | None = None) -> str:
    """Return coordinates with at most two decimals, without the spaces beside the group of the pattern `closed`."""
    text = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), coordinates).strip()
    return closed.sub(r"\1", text) if closed else text
