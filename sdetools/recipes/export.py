"""Weights of a run as a safetensors file, which other programs read without sdetools and without executing code."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sdetools._install import install_command
from sdetools.recipes import checkpoint


def export(run: str | Path, to: str | Path) -> Path:
    """Write the weights in the newest checkpoint of a run to a safetensors file, atomically, and return its path.

    The file has the parameters and buffers of the network, by their names in its `state_dict`, and the run's identity and step as text. A checkpoint has
    the state of the optimiser and the log besides; it stays.

    Args:
        run: The folder of the run, such as `TrainingRun.folder`.
        to: The path of the file.

    Raises:
        ValueError: If the folder has no intact checkpoint, such as after `--no-weights`.
        ImportError: If safetensors is not installed.
    """
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError(
            f"exporting weights needs safetensors; install it: {install_command('text')}", name="safetensors"
        ) from error
    run, to = Path(run), Path(to)
    newest = max(run.glob("step-*.checkpoint"), default=None)
    if newest is None:
        raise ValueError(
            f"`run` must be a folder with a checkpoint; {run} has none. Run it with --weights, or name the folder of a run."
        )
    with open(newest, "rb") as file:
        head = json.loads(file.readline(1 << 16))
    state = checkpoint.read(newest, head["identity"])
    tensors = {name: value.detach().clone().contiguous() for name, value in state["model"].items()}
    draft = to.with_name(f".{to.name}.draft")
    save_file(tensors, draft, {"identity": head["identity"], "step": str(state["step"])})
    os.replace(draft, to)
    return to
