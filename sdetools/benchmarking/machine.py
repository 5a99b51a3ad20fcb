"""The machine that ran it, and tables of what it ran."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np


def hardware() -> dict[str, Any]:
    """What ran it, for the record."""
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
    """What wants the processors: how many processes, on average over the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def topology(folder: Path = Path("/sys/devices/system/cpu")) -> str:
    """Whether the processors that this process may use are cores or hardware threads of fewer cores, as the system tells it.

    A virtual machine may hide that two of its processors share a core.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    try:
        cores = {(folder / f"cpu{i}" / "topology" / "thread_siblings_list").read_text().strip() for i in usable}
    except OSError:
        return f"{len(usable)} processors; the system does not say whether they are cores"
    if len(cores) == len(usable):
        return f"{len(usable)} core{'s' * (len(usable) > 1)}"
    return f"{len(usable)} hardware threads of {len(cores)} core{'s' * (len(cores) > 1)}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """A table that reads well on a terminal and is Markdown elsewhere."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if rows and not rows[0][i][:1].isdigit() else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def text(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as Markdown."""
    from rich.console import Console

    out = StringIO()
    Console(width=200, file=out, markup=False, highlight=False).print(table(title, columns, rows))
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The table on standard output."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table(title, columns, rows))
