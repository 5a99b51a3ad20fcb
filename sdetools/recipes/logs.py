"""Logs of training runs: their figure (finished or in progress), and loggers that pass the numbers on to TensorBoard or Weights & Biases.

A logger is any object with `log(step, numbers)`: the number of steps done, and a dict of floats by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sdetools.plots import COLOURS, canvas

SMOOTHING = 20
"""The training loss is plotted as a running mean over a fraction 1 / SMOOTHING of the steps so far."""

MAX_POINTS = 500
"""The approximate maximal number of points of a curve."""


class Logger(Protocol):
    """The interface of a logger: any object with the method `log` receives the numbers of training runs, such as a `TensorBoardLogger`."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Receive the numbers of a step.

        Args:
            step: The number of steps done.
            numbers: Finite numbers by names such as "sgdm-l1-seed10/loss", the run and the number.
        """


class TensorBoardLogger:
    """Logger that writes files for TensorBoard; it needs the package tensorboard.

    Args:
        folder: The folder of the files, which `tensorboard --logdir FOLDER` shows; it is created if necessary.
    """

    def __init__(self, folder: str | Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write `numbers` as scalars at `step`, the number of steps done, each under its name."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._writer.close()


class WandbLogger:
    """Logger that passes numbers on to Weights & Biases; it needs the package wandb, and its account or offline mode.

    Steps are logged as the number "step", because several runs of an experiment, each with steps from 1 on, share one run there.

    Args:
        project: The name of the project.
        **options: Further arguments of `wandb.init`, such as `name` or `mode`.
    """

    def __init__(self, project: str, **options: Any) -> None:
        import wandb

        self._run: Any = wandb.init(project=project, **options)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Pass `numbers` on by name, with `step`, the number of steps done, beside them."""
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        """Finish the run, which waits until everything is sent."""
        self._run.finish()


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the logs of all runs of an experiment; those of hyperparameter searches only if there are no others.

    Args:
        folder: The folder of the experiment, with the logs in `runs/NAME/log.jsonl`.

    Returns:
        For each run, by its name, the rows of its log: a list of dicts, one per step, with "step", "lr", "loss" and, at evaluations, evaluated numbers. A
        number that was not finite is None. A last line that is still being written is left out.

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
