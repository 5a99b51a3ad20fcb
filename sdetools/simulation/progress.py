"""Progress of a run: a bar on a terminal or in a notebook, lines of text elsewhere if they are asked for, or a function of the user."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int], None]
"""A function of (done, total) that shows which part of a run is finished."""

NOTEBOOK_INTERVAL = 0.2
"""The least number of seconds between two updates of a bar in a notebook."""
WIDTH = 30
"""The length of a bar of text in characters."""


@contextmanager
def progress_report(progress: Any, label: str, unit: str = "paths") -> Iterator[Report | None]:
    """Yield a function that shows the progress of a run until the end of a `with` block, or None if nothing is to be shown.

    Args:
        progress: A function of (done, total), which is yielded as it is; None for a bar on a terminal or in a notebook and nothing elsewhere; True
            for the bar there and, elsewhere, a line of text at each tenth; False for nothing. Bars on a terminal and lines are written to the error
            output, and a bar in a notebook to the output of its cell.
        label: What is done, such as "paths"; the text in front of the bar.
        unit: What is counted, a plural, for lines of text and notebooks.

    Yields:
        The function of (done, total): the numbers of finished units and of all units, two integers.

    Example:
        >>> with progress_report(False, "paths") as report:
        ...     print(report)
        None
    """
    if callable(progress):
        yield progress
    elif progress is False:
        yield None
    elif sys.stderr.isatty():
        with terminal_bar(label) as (_, report):
            yield report
    elif (display := notebook_display()) is not None:
        yield _in_notebook(display, label, unit)
    else:
        yield _lines(label, unit) if progress else None


@contextmanager
def terminal_bar(label: str) -> Iterator[tuple[Callable[[str], None], Report]]:
    """Show a progress bar on the error output during a `with` block; it disappears at the end.

    Args:
        label: The text in front of the bar.

    Yields:
        A pair: a function of a text that sets the label and restarts the bar at zero, and a function of (done, total) that shows the progress.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    # What is printed meanwhile appears above the bar.
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(escape(label), total=None)
        yield (
            lambda name: bar.update(task, description=escape(name), completed=0, total=None),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def notebook_display() -> Callable[[str], None] | None:
    """Return a function that shows a text in the output of the present cell of a notebook, in place of its last one; None outside notebooks."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    handle = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


def bar_text(label: str, done: int, total: int, seconds: float, unit: str) -> str:
    """Return a bar as a line of text.

    Args:
        label: The text in front of the bar.
        done: The number of units that are finished.
        total: The number of all units; 0 counts as finished.
        seconds: The seconds since the beginning, from which those that remain are estimated in proportion.
        unit: What is counted, a plural.

    Example:
        >>> bar_text("gap", 500, 2000, 2.0, "paths")
        'gap |#######                       |  25 % of 2,000 paths, 6 s left'
    """
    share = min(1.0, done / total) if total else 1.0
    bar = "#" * int(WIDTH * share)
    left = f", {seconds * (1 - share) / share:.3g} s left" if 0 < share < 1 else f", {seconds:.3g} s" if share == 1 else ""
    return f"{label} |{bar:<{WIDTH}}| {100 * share:3.0f} % of {total:,} {unit}{left}"


def _in_notebook(display: Callable[[str], None], label: str, unit: str) -> Report:
    """Return a report that shows a bar of text by `display`, at most five times a second."""
    begin, last = time.monotonic(), [-1.0]

    def report(done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last[0] >= NOTEBOOK_INTERVAL:
            last[0] = now
            display(bar_text(label, done, total, now - begin, unit))

    return report


def _lines(label: str, unit: str) -> Report:
    """Return a report that writes a line to the error output at each tenth of the total."""
    begin, last = time.monotonic(), [0]

    def report(done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if tenth > last[0]:
            last[0] = tenth
            print(bar_text(label, done, total, time.monotonic() - begin, unit), file=sys.stderr, flush=True)

    return report
