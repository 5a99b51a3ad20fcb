"""The summary of a run of claims in Markdown, for the page of a job of continuous integration: failures first, then a table of the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sdetools.report.page import MARKS, OPEN
from sdetools.report.quoting import quoted_interval, quoted_tolerance, quoted_value, seconds
from sdetools.report.typeset import plain

if TYPE_CHECKING:
    from sdetools.claims import ClaimResult, Results

HEADINGS = {"contradicted": "Contradicted", "error": "Errors", "inconclusive": "Inconclusive"}


def markdown(results: Results) -> str:
    """Return a run of claims as Markdown: the counts, each failure with its worst interval and what would decide, and a table of the rest.

    Failures are claims that are contradicted, raised an error or are inconclusive. The worst interval is that which stands most against the claim, and
    what would decide are the next steps, a command the last of them.

    Args:
        results: The results of `st.verify`.

    Example:
        >>> from sdetools.claims import Results
        >>> from sdetools.report import markdown
        >>> print(markdown(Results("1.0", 0, "quick", ())).splitlines()[0])
        # Claims: none
    """
    counts = ", ".join(f"{results.counts[verdict]} {verdict}" for verdict in MARKS if results.counts[verdict])
    total = sum(item.seconds for item in results.claims)
    lines = [f"# Claims: {counts or 'none'}", ""]
    lines += [f"sdetools {results.version}, budget {results.budget}, seed {results.seed}, {seconds(total)}.", ""]
    for verdict in OPEN:
        found = [item for item in results.claims if item.verdict == verdict]
        if found:
            lines += [f"## {HEADINGS[verdict]}", ""]
        for item in found:
            lines += [*_failure(item, results), ""]
    rest = [item for verdict in ("not run", "supported") for item in results.claims if item.verdict == verdict]
    if rest:
        lines += ["## The rest", "", "| verdict | claim | source | reason |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join((_verdict(item), f'`{item.id}`', _escaped(item.source), _reason(item)))} |" for item in rest]
    return "\n".join(lines).rstrip() + "\n"


def write_summary(results: Results, file: str | os.PathLike[str]) -> Path:
    """Write the summary of a run of claims in Markdown, as `markdown` makes it, into a file, and return its path.

    The file is replaced as a whole, except that of GitHub's job summary, `$GITHUB_STEP_SUMMARY`, to which several steps append.

    Args:
        results: The results of `st.verify`.
        file: The path of the file; its folder is created if necessary.

    Raises:
        OSError: If the file cannot be written.
    """
    from sdetools.claims.folder import write_text

    path, shared = Path(file), os.environ.get("GITHUB_STEP_SUMMARY")
    if shared and path.absolute() == Path(shared).absolute():
        with open(path, "a", encoding="utf-8", newline="\n") as stream:
            stream.write(markdown(results))
    else:
        write_text(path, markdown(results))
    return path


def _failure(item: ClaimResult, results: Results) -> Iterator[str]:
    """Yield the lines on a claim that is not supported."""
    from sdetools.claims.deciding import deciding

    source = f" ({_escaped(item.source)})" if item.source else ""
    yield f"### {MARKS[item.verdict][0]} `{item.id}`{source}"
    yield ""
    yield _escaped(item.statement)
    yield ""
    yield f"**{_reason(item)}**"
    if item.worst is not None:
        yield ""
        yield "| worst interval | measured | interval | claimed |"
        yield "| --- | --- | --- | --- |"
        control = next((one.name for one in item.controls if any(m is item.worst for m in one.measurements)), "")
        name = f"control {control}: {item.worst.name}" if control else item.worst.name
        cells = (name, quoted_value(item.worst), quoted_interval(item.worst), quoted_tolerance(item.worst))
        yield f"| {' | '.join(map(_escaped, cells))} |"
    *steps, command = deciding(item, results)
    yield ""
    yield from (f"- {_escaped(step)}" for step in steps)
    yield f"- `{command}`"


def _verdict(item: ClaimResult) -> str:
    """Return the verdict with its symbol."""
    return f"{MARKS[item.verdict][0]} {item.verdict}"


def _reason(item: ClaimResult) -> str:
    """Return the reason of a verdict; the text of an exception is no LaTeX."""
    return _escaped(item.reason, formulas=item.verdict not in ("error", "not run"))


def _escaped(text: str, formulas: bool = True) -> str:
    r"""Return text on one line, its formulas in plain characters, in which no character is markup.

    >>> print(_escaped("a | b <i> at $x_k^2$, [x](y)"))
    a \| b &lt;i> at x\_k^2, \[x\](y)
    """
    text = " ".join((plain(text) if formulas else text).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")
