"""The folder a run writes into."""

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


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(OSError):
    """A run that ends because a file could not be written for want of room."""


def no_room(error: BaseException | None) -> OSError | None:
    """What says, in the chain of an error, that a disk, a quota or a file's largest size is exhausted."""
    while error is not None:
        if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            return error
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def ending_where_no_room_is(folder: Path | None) -> Iterator[None]:
    """A full disk ends the run in one sentence, whatever was being written; what was finished stays and can be resumed from."""
    try:
        yield
    except Exception as error:
        cause = no_room(error)
        if cause is None or isinstance(cause, DiskFull):
            raise
        what = f" while writing {cause.filename}" if cause.filename else ""
        kept = (
            f"The finished chunks are kept in {folder}: make room, then resume."
            if folder is not None
            else "Make room, then run again."
        )
        raise DiskFull(f"the run has ended for want of room on the disk ({cause.strerror}{what}). {kept}") from error


def check_folder(out: str | os.PathLike[str]) -> Path:
    """A path at which a folder is or can be made; raises `ValueError` for anything else."""
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
    """The store of finished chunks in `folder`, which is made: the one that is there if `resume` says so, else a new one.

    While it is open no other run may use the folder. Raises `StoreError`, a `ValueError`, when another does, and when the store that is
    there is damaged, foreign, or of a run with another identity.
    """
    from sdetools.simulation.store import Store

    return Store(folder / "store.sqlite", json.dumps(identity, sort_keys=True), resume)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and make its folder."""
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
