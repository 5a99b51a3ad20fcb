"""Checkpoints of training runs: written atomically, verified by checksum and identity, and read without executing code.

A file is one line of JSON (format, identity, step, length and SHA-256 of the rest), followed by the output of `torch.save`. It is read with
`weights_only=True`, which creates only tensors, numbers and containers.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FORMAT = "sdetools checkpoint 3"
KEEP_COUNT = 2
_NAME = re.compile(r"step-(\d{9})\.checkpoint")


class InvalidCheckpoint(ValueError):
    """Error for a file that is not an intact checkpoint of this run: truncated, modified, of other settings, or with more than data."""


def write(folder: Path, identity: str, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, and remove all others of the folder except the newest earlier one.

    Checkpoints of later steps are removed too, because they are invalid or belong to another run.

    Args:
        folder: The folder of the run; it is created if necessary.
        identity: The text that identifies the run; a reader must give the same one.
        step: The number of steps done, below 10^9.
        state: Tensors, numbers and containers of them, by name.

    Returns:
        The path of the file, `step-NNNNNNNNN.checkpoint` in the folder.

    Raises:
        OSError: If the file cannot be written; no incomplete file remains.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    head = {"format": FORMAT, "identity": identity, "step": step, "length": len(content), "sha256": digest}
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / f"step-{step:09d}.checkpoint", folder / ".draft"
    try:
        with open(draft, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some file systems cannot synchronise folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    kept = [p for p in _checkpoints(folder) if p <= path][:KEEP_COUNT]
    for other in _checkpoints(folder):
        if other not in kept:
            other.unlink(missing_ok=True)
    return path


def read(path: Path, identity: str) -> dict[str, Any]:
    """Read the state of a training run from a checkpoint, without executing code.

    Args:
        path: The file.
        identity: The text that identifies the run, as it was passed to `write`.

    Returns:
        The dict `state` that was passed to `write`, with tensors on the CPU.

    Raises:
        OSError: If the file cannot be read.
        InvalidCheckpoint: If the file is truncated, modified, of another run, or contains more than data.
    """
    with open(path, "rb") as file:
        line = file.readline(1 << 16)
        try:
            head = json.loads(line)
            file_format, found_identity, length, digest = (head[key] for key in ("format", "identity", "length", "sha256"))
        except (ValueError, KeyError, TypeError):
            file_format = None
        if file_format != FORMAT:
            raise InvalidCheckpoint(f"{path} is not a checkpoint of this version of sdetools")
        if found_identity != identity:
            raise InvalidCheckpoint(f"{path} is a checkpoint of other settings")
        content = file.read()
    if len(content) != length or hashlib.sha256(content).hexdigest() != digest:
        raise InvalidCheckpoint(f"{path} is truncated or modified ({len(content):,} of {length:,} bytes)")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidCheckpoint(f"{path} contains more than tensors and numbers ({type(error).__name__})") from error


def latest(folder: Path, identity: str, report: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the state of the newest valid checkpoint of a run.

    Args:
        folder: The folder of the run.
        identity: The text that identifies the run, as it was passed to `write`.
        report: Called with a sentence for each invalid checkpoint, which is skipped.

    Returns:
        The dict `state` that was passed to `write`; None if there is no valid checkpoint or no folder.
    """
    for path in _checkpoints(folder):
        try:
            return read(path, identity)
        except InvalidCheckpoint as error:
            report(f"{error}: it is skipped, and the previous one is used.")
    return None


def remove(folder: Path) -> None:
    """Remove all checkpoints in the folder of a run; without any, do nothing."""
    for path in _checkpoints(folder):
        path.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the paths of the checkpoints in a folder, those of later steps first; empty if there are none."""
    return sorted((p for p in folder.glob("step-*.checkpoint") if _NAME.fullmatch(p.name)), reverse=True)
