"""Checkpoints that are written whole or not at all, that tell a broken or foreign one, and that run no code when they are read.

A file is one line of JSON (format, identity, step, length and SHA-256 of what follows), then what `torch.save` writes; it is read with
`weights_only=True`, which builds tensors, numbers and containers and nothing else.
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

FORMAT = "sdetools checkpoint 2"
KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.checkpoint")


class Broken(ValueError):
    """A file that is no whole checkpoint of this run."""


def write(folder: Path, identity: str, step: int, state: dict[str, Any]) -> Path:
    """Write the state at a step, atomically; it and the one before it stay, and none beyond, which are of another run, or broken."""
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
    with contextlib.suppress(OSError):  # where folders cannot be synchronised
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    stay = [p for p in _found(folder) if p <= path][:KEPT]
    for other in _found(folder):
        if other not in stay:
            other.unlink(missing_ok=True)
    return path


def read(path: Path, identity: str) -> dict[str, Any]:
    """The state in a file; `Broken` where it is cut, changed, of another run, or holds more than data."""
    with open(path, "rb") as file:
        line = file.readline(1 << 16)
        try:
            head = json.loads(line)
            kind, owner, length, digest = (head[key] for key in ("format", "identity", "length", "sha256"))
        except (ValueError, KeyError, TypeError):
            kind = None
        if kind != FORMAT:
            raise Broken(f"{path} is no checkpoint of this version of sdetools")
        if owner != identity:
            raise Broken(f"{path} is a checkpoint of other settings")
        content = file.read()
    if len(content) != length or hashlib.sha256(content).hexdigest() != digest:
        raise Broken(f"{path} is cut or changed ({len(content):,} of {length:,} bytes)")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        raise Broken(f"{path} holds more than tensors and numbers ({type(error).__name__})") from error


def latest(folder: Path, identity: str, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest whole state of this run, or None; what is refused is told in a sentence, and the one before it is taken."""
    for path in _found(folder):
        try:
            return read(path, identity)
        except Broken as error:
            tell(f"{error}: left aside, the one before it is used.")
    return None


def remove(folder: Path) -> None:
    """Remove a run's checkpoints."""
    for path in _found(folder):
        path.unlink(missing_ok=True)


def _found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted((p for p in folder.glob("step-*.checkpoint") if _NAME.fullmatch(p.name)), reverse=True)
