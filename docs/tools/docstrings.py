"""Griffe extension: docstrings of this project, which are plain text, as the Markdown that the reference renders.

The section `Example:` is what Griffe calls `Examples:`. An asterisk outside code is a product or a power, no emphasis; indices `[i][j]` are no link.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_BRACKETS = re.compile(r"\](\s?)\[")
_PRODUCT = re.compile(r"((?<![\w*])\*[A-Z][A-Za-z ]+\*(?![\w*]))|\*")  # a title between asterisks is one
_ARGUMENT = re.compile(r"\s*\*+\w+:")


def as_markdown(text: str) -> str:
    """Return the text of a docstring with `Examples:` sections and with escaped asterisks outside code.

    Code is what stands between backticks, after `>>>` or in an example, and in a block indented by four spaces after an empty line.
    """
    lines, example, code, empty = [], False, False, True
    for line in _EXAMPLE.sub(r"\1Examples:", text).split("\n"):
        indent = len(line) - len(line.lstrip())
        example = line.strip() == "Examples:" or (example and (not line.strip() or indent > 0))
        code = not example and bool(line.strip()) and indent >= 4 and (code or empty)
        empty = not line.strip()
        if not (example or code or _ARGUMENT.match(line)):
            parts = line.split("`")
            parts[::2] = [_BRACKETS.sub(r"]\1\\[", _PRODUCT.sub(lambda m: m[1] or r"\*", part)) for part in parts[::2]]
            line = "`".join(parts)
        lines.append(line)
    return "\n".join(lines)


class Docstrings(Extension):
    """Rewrite every docstring when it is read."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
