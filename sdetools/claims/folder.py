"""The output folder of a run: validation, the store of chunks, atomic writing, and errors of a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdetools.simulation.store import Store


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(OSError):
    """The error that ends a run because a file could not be written for lack of disk space; its message says what to do next."""


def disk_full_error(error: BaseException | None) -> OSError | None:
    """Return the error that reports an exhausted disk, quota or file size limit: `error` itself or one of its causes; None if there is none."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def end_run_if_disk_full(folder: Path | None) -> Iterator[None]:
    """Return a context manager that converts every error of a full disk in its body to `DiskFull`, whose message says what to do next.

    An error is one of a full disk if it or one of its causes is (`disk_full_error`). Other errors pass unchanged.

    Args:
        folder: Folder of the store, for the message; None if there is none.

    Raises:
        DiskFull: If a file in the body could not be written for lack of disk space.
    """
    try:
        yield
    except Exception as error:
        cause = disk_full_error(error)
        if cause is None or isinstance(cause, DiskFull):
            raise
        what = f" while writing {cause.filename}" if cause.filename else ""
        kept = (
            f"The finished chunks are kept in {folder}: free some space, then resume."
            if folder is not None
            else "Free some space, then run again."
        )
        raise DiskFull(f"the run has ended for lack of disk space ({cause.strerror}{what}). {kept}") from error


def check_folder(out: str | os.PathLike[str]) -> Path:
    """Return `out` as a path if it is a writable folder, or does not exist and can be created as one; nothing is created.

    Raises:
        ValueError: If it is a file, lies below a file, or is read-only.
    """
    folder = Path(out)
    for place in (folder, *folder.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise ValueError(f"`out` must be a folder; got {str(out)!r}, and {place} is a file. Choose another name.")
            if not os.access(place, os.W_OK):
                raise ValueError(f"`out` must be a folder that can be written; got {str(out)!r}, and {place} is read-only.")
            break
    return folder


def open_store(folder: Path, identity: Mapping[str, Any], resume: bool) -> Store:
    """Open the store of finished chunks (parts of simulations) in a folder, which is created if necessary.

    No other run can use the folder until the store is closed.

    Args:
        folder: The folder.
        identity: The settings of the run that determine its results, such as {"version": "0.9", "seed": 0, "budget": "quick"}.
        resume: Whether to continue with an existing store, `store.sqlite` in the folder; if False, it is replaced by a new one.

    Returns:
        The open store.

    Raises:
        StoreError: A `ValueError`, if another run uses the folder, or if the existing store is damaged, of another format, or of a run with
            another identity.
    """
    from sdetools.simulation.store import Store

    return Store(folder / "store.sqlite", json.dumps(identity, sort_keys=True), resume)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, readable for all, and create its folder if necessary.

    A file of this name is replaced. On an error, which is raised (an `OSError` from writing), it is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
