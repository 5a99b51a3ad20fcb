"""The logs of runs as a picture, also while they are written: the loss that is trained on, and what was judged along the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sdetools.plots import COLOURS, canvas

MEAN_OVER = 20
"""The training loss is shown as a mean over this part, 1 / MEAN_OVER, of the steps so far."""

SHOWN = 500
"""Points of a curve at most, nearly."""


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each run below `folder`, by its name; without those of searches, unless there are no others.

    A line that is not whole yet is left out. ValueError where there is no row at all.
    """
    found = {}
    for path in sorted(folder.glob("runs/*/log.jsonl")):
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        if whole:
            found[path.parent.name] = [json.loads(line) for line in whole.splitlines()]
    if not found:
        raise ValueError(f"`out` must hold runs that have begun; {folder / 'runs'} has no log. Name the folder with --out.")
    return {name: rows for name, rows in found.items() if not name.startswith("search-")} or found


def draw(folder: Path) -> Any:
    """The figure: a panel for the training loss, and one for each number that was judged; SGD and SGDM in colours of their own."""
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
                width = max(1, len(values) // MEAN_OVER)
                values, steps = np.convolve(values, np.ones(width) / width, "valid"), steps[width - 1 :]
            thin = slice(None, None, 1 + len(values) // SHOWN)
            momentum = "sgdm" in name
            label = ("SGDM" if momentum else "SGD") if ax is axes[0] else None
            known = ax.get_legend_handles_labels()[1]
            style = {"color": COLOURS[int(momentum)], "alpha": max(0.25, 1 / len(runs) ** 0.5), "linewidth": 1.2}
            ax.plot(
                steps[thin],
                values[thin],
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
