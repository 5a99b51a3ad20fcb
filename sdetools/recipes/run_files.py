"""Files of a run: the locked log, `final.json` of a finished run, and errors of a full disk or GPU with their remedies."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from sdetools.claims.folder import write_text


@contextlib.contextmanager
def explained_errors(folder: Path) -> Iterator[None]:
    """Context manager that adds a remedy to errors of a full GPU memory or disk and raises them as OSError; other errors pass.

    `folder` is that of the run, for the message.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OSError(
            "the GPU's memory is too small for a piece of a batch. Use more pieces (--set pieces=..., or a smaller --set micro=...) or "
            f"--set precision=bfloat16. {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"the disk of {folder} is full. Free some space; the same command then resumes from the last checkpoint."
        ) from error


@contextlib.contextmanager
def open_log(folder: Path) -> Iterator[IO[bytes]]:
    """Context manager that opens and locks the log of the run in `folder`, `log.jsonl`, and yields it, a binary file for reading and writing.

    Folder and log are created if absent. ValueError if another process has locked it. Where the system has no locks, it is only opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "log.jsonl"
    path.touch()
    with open(path, "r+b") as log:
        try:
            import fcntl

            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"`out` must be a folder that no other process uses; another one writes to {path}.") from None
        except (ImportError, OSError):
            pass  # the operating system or the file system has no such locks
        yield log


def write_final(folder: Path, identity: str, row: dict[str, Any]) -> None:
    """Mark the run in `folder` as finished: write `final.json` with its `identity`, a text, and the last row `row` of its log."""
    write_text(folder / "final.json", json.dumps({"identity": identity, "final": row}, indent=1) + "\n")


def read_finished(folder: Path, identity: str) -> tuple[dict[str, float], list[dict[str, Any]]] | None:
    """Return the last row and all rows of the log of a finished run, dicts of numbers by name; None if it is not finished.

    Args:
        folder: The folder of the run.
        identity: The text that identifies the run.

    Raises:
        ValueError: If the run in the folder is finished and has another identity.
    """
    try:
        content = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        foreign = content["identity"] != identity
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if foreign:
        raise ValueError(
            f"`out` must be a folder of these settings; {folder} contains a finished run of other settings, or of another version of "
            "sdetools. Use another --out, or remove it."
        )
    return content["final"], log
