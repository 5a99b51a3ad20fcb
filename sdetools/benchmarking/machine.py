"""Descriptions of the machine, and tables of benchmark results."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np


def hardware() -> dict[str, Any]:
    """Return a dict that describes the machine and the versions of libraries, to be recorded with results.

    Its keys are processor, cores, topology, load, system, python, numpy, numba, blas and sdetools. The values are texts, but for cores, the number
    of processors that the system has.
    """
    import numba
    from threadpoolctl import threadpool_info

    import sdetools

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0] if lines else name
    blas = {f"{b['internal_api']} {b['version']}" for b in threadpool_info() if b["user_api"] == "blas"}
    versions = {"python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__}
    versions |= {"blas": " and ".join(sorted(blas)) or "unknown", "sdetools": sdetools.__version__}
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "topology": topology(),
        "load": load(),
        "system": platform.system(),
        **versions,
    }


def load() -> str:
    """Return the load average of the last minute as text with one decimal, or "unknown" where the system has none."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def topology(folder: Path = Path("/sys/devices/system/cpu")) -> str:
    """Return a text that says whether the usable processors are cores or hardware threads of fewer cores, such as "2 cores".

    A system that does not report this is described as such. A virtual machine may hide that two of its processors share a core.

    Args:
        folder: The folder in which Linux describes the processors.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    try:
        cores = {(folder / f"cpu{i}" / "topology" / "thread_siblings_list").read_text().strip() for i in usable}
    except OSError:
        return f"{len(usable)} processors; the system does not report whether they are cores"
    if len(cores) == len(usable):
        return f"{len(usable)} core{'s' * (len(usable) > 1)}"
    return f"{len(usable)} hardware threads of {len(cores)} core{'s' * (len(cores) > 1)}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a table with borders of Markdown for the package `rich` to print.

    Args:
        title: The title.
        columns: The headings.
        rows: The cells of each row, one text per heading. A column whose first cell starts with a digit, and every column of a table without
            rows, is aligned to the right.

    Returns:
        A `rich.table.Table`.
    """
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if rows and not rows[0][i][:1].isdigit() else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def text(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown text: the title in the first line, the headings, and one line for each row of cells, given as texts."""
    from rich.console import Console

    out = StringIO()
    Console(width=200, file=out, markup=False, highlight=False).print(table(title, columns, rows))
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output, as wide as the terminal, or up to 200 characters elsewhere.

    Args:
        title: The title.
        columns: The headings.
        rows: The cells of each row, one text per heading.
    """
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table(title, columns, rows))
