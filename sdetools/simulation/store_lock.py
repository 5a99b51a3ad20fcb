"""The lock of a store: no two processes, and no two objects of one process, write into one file."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import ClassVar


class StoreError(ValueError):
    """The error raised if a store cannot be created, read, written or resumed from; its message gives the reason and the remedy."""


class StoreLock:
    """The lock of a store, acquired when the object is made: the file `<store>.lock`, containing the process id of its owner.

    It is a record lock of the operating system (`lockf`), which ends with its process and belongs to the process alone: forked copies do not
    inherit it, as they would with `flock`. Within the process the table `_owned` takes its place.

    Args:
        store: The path of the store; a missing folder is created.

    Raises:
        StoreError: Another process, or another object of this process, has the lock, or the folder cannot be written.
    """

    _owned: ClassVar[dict[str, int]] = {}
    _guard = threading.Lock()

    def __init__(self, store: Path) -> None:
        self.path = Path(f"{store}.lock")
        self.key = os.path.realpath(self.path)
        self.made = [folder for folder in self.path.absolute().parents if not folder.exists()]
        with self._guard:
            if self._owned.get(self.key) == os.getpid():
                raise StoreError(
                    f"{store} is in use by this process already, under another name or object. Close it there first."
                )
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self._acquire(store)
            except OSError as error:
                self._remove_folders()
                raise StoreError(f"the folder of {store} must be writable; {error.strerror}. Name another folder.") from error
            self._owned[self.key] = os.getpid()

    def _acquire(self, store: Path) -> int:
        """Open and lock the lock file, and return its file descriptor; raise StoreError if another process has locked it."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _locked(file):
                    owner = ""
                    with contextlib.suppress(OSError):
                        owner = os.read(file, 20).decode(errors="replace").strip()
                    raise StoreError(
                        f"{store} is in use by another process{f' ({owner})' if owner else ''}: two runs must not write into one "
                        "folder. Wait until the other run has ended, or name another folder."
                    )
                if os.path.exists(self.path) and os.path.samestat(os.fstat(file), os.stat(self.path)):
                    with contextlib.suppress(OSError):  # the number is only informative
                        os.ftruncate(file, 0)
                        os.write(file, str(os.getpid()).encode())
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # its previous owner has just removed it

    def release(self) -> None:
        """Remove the lock file, and the folders created for it if they are empty; do nothing in a forked copy of the process or after a release."""
        with self._guard:
            if self._owned.get(self.key) != os.getpid():
                return  # a forked copy does not own the lock
            del self._owned[self.key]
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self.file)
            self._remove_folders()

    def _remove_folders(self) -> None:
        with contextlib.suppress(OSError):
            for folder in self.made:
                folder.rmdir()


def _locked(file: int) -> bool:
    """Try to lock an open file, given by its descriptor, without waiting; return whether it succeeded. A file system without locks counts as success."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True
