"""Figure of the logs of training runs, finished or in progress: the training loss and the evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdetools.plots import COLOURS, canvas

SMOOTHING = 20
"""The training loss is plotted as a running mean over a fraction 1 / SMOOTHING of the steps so far."""

MAX_POINTS = 500
"""The approximate maximal number of points of a curve."""


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the logs of all runs of an experiment; those of hyperparameter searches only if there are no others.

    Args:
        folder: The folder of the experiment, with the logs in `runs/NAME/log.jsonl`.

    Returns:
        For each run, by its name, the rows of its log: a list of dicts, one per step, with "step", "lr", "loss" and evaluated numbers. A last line
        that is still being written is left out.

    Raises:
        ValueError: If no run has a complete row.
    """
    found = {}
    for path in sorted(folder.glob("runs/*/log.jsonl")):
        complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        if complete:
            found[path.parent.name] = [json.loads(line) for line in complete.splitlines()]
    if not found:
        raise ValueError(f"`out` must contain runs in progress; {folder / 'runs'} has no log. Name the folder with --out.")
    return {name: rows for name, rows in found.items() if not name.startswith("search-")} or found


def draw(folder: Path) -> Any:
    """Plot the logs of an experiment: a panel for the training loss and one for each evaluated number, coloured by method.

    Args:
        folder: The folder of the experiment, with the logs in `runs/NAME/log.jsonl`.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: If no run has a complete row.
    """
    runs = read(folder)
    names = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    panels = ["loss", *(name for name in names if name not in ("step", "lr", "loss", "diverged"))]
    figure, first = canvas(4.2 * len(panels), 3.6)
    first.remove()
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, panel in zip(axes, panels):
        for name, rows in runs.items():
            points = [(row["step"], row[panel]) for row in rows if row.get(panel) is not None]
            if not points:
                continue
            steps, values = np.array(points, dtype=float).T
            if panel == "loss":
                width = max(1, len(values) // SMOOTHING)
                values, steps = np.convolve(values, np.ones(width) / width, "valid"), steps[width - 1 :]
            subset = slice(None, None, 1 + len(values) // MAX_POINTS)
            momentum = "sgdm" in name
            label = ("SGDM" if momentum else "SGD") if ax is axes[0] else None
            known = ax.get_legend_handles_labels()[1]
            style = {"color": COLOURS[int(momentum)], "alpha": max(0.25, 1 / len(runs) ** 0.5), "linewidth": 1.2}
            ax.plot(
                steps[subset],
                values[subset],
                marker="." if len(values) < 30 else "",
                label=None if label in known else label,
                **style,
            )
        ax.set(xlabel="step", title=f"{panel}, training" if panel == "loss" else panel.replace("_", " "))
        if panel.endswith("loss"):
            ax.set_yscale("log")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=9)
    return figure
