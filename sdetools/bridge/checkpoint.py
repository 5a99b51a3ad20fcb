"""Checkpoints that are written whole or not at all, that tell a broken or foreign one, and that run no code when they are read.

A file is one line of JSON (format, identity, step, length and SHA-256 of what follows), then what `torch.save` writes; it is read with
`weights_only=True`, which builds tensors, numbers and containers and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FORMAT = "sdetools checkpoint 1"
KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.checkpoint")


class Broken(ValueError):
    """A file that is no whole checkpoint of this run."""


def write(folder: Path, identity: str, step: int, state: dict[str, Any]) -> Path:
    """Write the state at a step, atomically; the last two stay."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    head = {"format": FORMAT, "identity": identity, "step": step, "length": len(content), "sha256": digest}
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / f"step-{step:09d}.checkpoint", folder / f".draft-{os.getpid()}"
    with open(draft, "wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    for old in _found(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read(path: Path, identity: str) -> dict[str, Any]:
    """The state in a file; `Broken` where it is cut, changed, of another run, or holds more than data."""
    with open(path, "rb") as file:
        line = file.readline(1 << 16)
        try:
            head = json.loads(line)
            known = head["format"] == FORMAT
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            known = False
        if not known:
            raise Broken(f"{path} is no checkpoint of sdetools")
        if head["identity"] != identity:
            raise Broken(f"{path} is a checkpoint of other settings")
        content = file.read()
    if len(content) != head["length"] or hashlib.sha256(content).hexdigest() != head["sha256"]:
        raise Broken(f"{path} is cut or changed ({len(content):,} of {head['length']:,} bytes)")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
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


def _found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted((p for p in folder.glob("step-*.checkpoint") if _NAME.fullmatch(p.name)), reverse=True)
