"""Finished chunks in one SQLite file, so that a killed run goes on where it stopped and ends with the same bits.

A store belongs to one run: it carries that run's identity, and is refused for another. Rows are keyed by the experiment's fingerprint
and the chunk's index, and checked by a CRC. Rows are committed in batches, about twice a second: a kill loses less than a second. They
are read one by one in the order of chunks, so a store may be larger than memory.

While a store is open, a lock file lies beside it, and nobody else may open it. The lock is the operating system's: it ends with the
process that holds it, however that ends, so a file that a killed process left behind locks nothing.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sqlite3
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from sdetools.simulation.chunks import ChunkResult

_APPLICATION = 0x5DE70015
_COMMIT_EVERY = 0.5
_VERSION = 3
"""Of the order of summation and of what a row holds. 1 (which said 0): a chunk is a group, summed block after block. 2: points of one time."""


class StoreError(ValueError):
    """A store that cannot be used, and why."""


class Store:
    """`Store(path, identity, resume)`: a new store at `path`, or with `resume=True` the one that is there (a new one if none is).

    `identity` is a text that says which run this is. No store is made before the first chunk is saved. StoreError (a ValueError) when the
    file is no store, is damaged, is in use, or belongs to another run; the file is then left as it is. StoreError as well when a chunk
    cannot be written: what was committed before is kept, and can be resumed from.
    """

    def __init__(self, path: str | Path, identity: str, resume: bool = False) -> None:
        self.path, self.identity = Path(path), identity
        self._connection: sqlite3.Connection | None = None
        self._fresh, self._made, self._broken = True, False, False
        self._committed = time.monotonic()
        if self.path.is_dir():
            raise StoreError(f"{self.path} is not a store of sdetools but a folder; it is left as it is. Name a file.")
        lock = _Lock(self.path)
        self._release = weakref.finalize(self, lock.release)
        try:
            self._look(resume)
        except BaseException:
            self._release()
            raise

    def _look(self, resume: bool) -> None:
        """What lies at the path: a store to go on with, one to replace, or nothing."""
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb") as file:
                if not b"SQLite format 3\0".startswith(file.read(16)):
                    raise StoreError(f"{self.path} is not a store of sdetools; it is left as it is. Name another file.")
            self._check(resume)
            self._fresh = not resume
        elif self.path.exists() and resume:
            raise self._damaged("empty or truncated")

    def _damaged(self, how: str = "damaged or truncated", why: str = "") -> StoreError:
        return StoreError(f"{self.path} is {how}{why} and cannot be resumed from. Remove it, or run without resuming.")

    def _open(self) -> sqlite3.Connection:
        """The connection; a new store's file is made when the first chunk is there to keep."""
        if self._connection is None:
            if self._fresh:
                self._made = True
                for suffix in ("", "-journal", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            connection = self._connection = sqlite3.connect(self.path)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS run (identity TEXT)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS chunks (experiment TEXT, chunk INTEGER, crc INTEGER, payload BLOB, "
                "PRIMARY KEY (experiment, chunk))"  # with row ids: a row then lies in one page with its neighbours
            )
            if connection.execute("SELECT count(*) FROM run").fetchone()[0] == 0:
                connection.execute("INSERT INTO run VALUES (?)", (str(self.identity),))
            connection.commit()
            self._fresh = False
        return self._connection

    def _check(self, resume: bool) -> None:
        with self._explained("read"):
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True)
            try:
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                if application != _APPLICATION:
                    raise StoreError(f"{self.path} is not a store of sdetools; it is left as it is. Name another file.")
                if not resume:
                    return
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
                row = connection.execute("SELECT identity FROM run").fetchone()
            finally:
                connection.close()
        if verdict != "ok" or row is None:
            raise self._damaged()
        if version != _VERSION:
            raise StoreError(
                f"{self.path} was written by a version of sdetools that sums in another order or lays out rows otherwise (its layout is {version or 1}, this one's is "
                f"{_VERSION}); it is left as it is. Resume with that version, or name another store, or run without resuming."
            )
        if row[0] != str(self.identity):
            raise StoreError(
                f"{self.path} belongs to another experiment ({row[0]}), not to this one ({self.identity}). "
                "Give the same settings, or another store, or run without resuming."
            )

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns what SQLite complains about into a sentence: another holds the file, it is damaged, or it cannot be read or written."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            self._broken = what == "written" and not busy
            if busy:
                raise StoreError(
                    f"{self.path} is in use by another program ({error}); it is left as it is. Wait until that has ended, or name another."
                ) from error
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                full = code == sqlite3.SQLITE_FULL
                raise StoreError(
                    f"{self.path} cannot be {what}{': the disk is full' if full else ''} ({error}). What was kept until then is whole: "
                    f"{'make room' if full else 'see to the disk'}, then resume."
                ) from error
            raise self._damaged("damaged or truncated", f" ({error})") from error

    def load(self, experiment: str) -> Iterator[tuple[int, ChunkResult]]:
        """The finished chunks of an experiment, in order, one at a time."""
        if self._fresh:
            return
        with self._explained("read"):
            question = "SELECT chunk, crc, payload FROM chunks WHERE experiment = ? ORDER BY chunk"
            rows = self._open().execute(question, (experiment,))
        while True:
            with self._explained("read"):
                row = rows.fetchone()
            if row is None:
                return
            chunk, crc, payload = row
            if zlib.crc32(payload) != crc:
                raise self._damaged("damaged", f" (chunk {chunk})")
            yield chunk, _unpack(payload)

    def save(self, experiment: str, chunk: int, result: ChunkResult) -> None:
        """Keeps a finished chunk."""
        payload = _pack(result)
        row = (experiment, chunk, zlib.crc32(payload), payload)
        with self._explained("written"):
            self._open().execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Makes what was saved so far survive a kill."""
        if self._connection is not None and not self._broken:
            with self._explained("written"):
                self._connection.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commits and closes; the lock ends."""
        self._end(keep=True)

    def finish(self) -> None:
        """Drops the chunks of a run that is complete: they are of no more use. What is left says which run this was."""
        if self._connection is not None:
            # tidying up needs room of its own: where there is none, the chunks stay
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("DELETE FROM chunks")
                self._connection.commit()
                self._connection.execute("VACUUM")

    def discard(self) -> None:
        """Closes, and removes the file if this run made it."""
        self._end(keep=not self._made)

    def _end(self, keep: bool) -> None:
        try:
            if keep:
                self.commit()
        finally:
            if self._connection is not None:
                self._connection.close()  # what could not be committed is rolled back
                self._connection = None
            if not keep:
                self.path.unlink(missing_ok=True)
            self._release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Lock:
    """The lock of a store: the file `<store>.lock`, with the number of the process that holds it, and its folder if that is not there.

    A record lock (`lockf`), for it belongs to the process alone: copies that it forks do not hold it on, as they would `flock`.
    Within the process the table `_held` stands in for it.
    """

    _held: ClassVar[dict[str, int]] = {}
    _guard = threading.Lock()

    def __init__(self, store: Path) -> None:
        self.path = Path(f"{store}.lock")
        self.key = os.path.realpath(self.path)
        self.made = [place for place in self.path.absolute().parents if not place.exists()]
        with self._guard:
            if self._held.get(self.key) == os.getpid():
                raise StoreError(
                    f"{store} is in use by this process already, under another name or object. Close that one first."
                )
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = self._taken(store)
            except OSError as error:
                self._tidy()
                raise StoreError(
                    f"the folder of {store} must be one that can be written; {error.strerror}. Name another."
                ) from error
            self._held[self.key] = os.getpid()

    def _taken(self, store: Path) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _locked(file):
                    holder = ""
                    with contextlib.suppress(OSError):
                        holder = os.read(file, 20).decode(errors="replace").strip()
                    raise StoreError(
                        f"{store} is in use by another process{f' ({holder})' if holder else ''}: two runs must not write into one "
                        "folder. Wait until that one has ended, or name another folder."
                    )
                if os.path.exists(self.path) and os.path.samestat(os.fstat(file), os.stat(self.path)):
                    with contextlib.suppress(OSError):  # the number is for people
                        os.ftruncate(file, 0)
                        os.write(file, str(os.getpid()).encode())
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # the holder before us has just removed it

    def release(self) -> None:
        """Removes the file, and the folders that were made for it, if they are empty."""
        with self._guard:
            if self._held.get(self.key) != os.getpid():
                return  # a forked copy
            del self._held[self.key]
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            os.close(self.file)
            self._tidy()

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):
            for place in self.made:
                place.rmdir()


def _locked(file: int) -> bool:
    """Whether the lock of an open file is ours now; a file system without locks counts as locked."""
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


def _pack(result: ChunkResult) -> bytes:
    head = struct.pack("<8q", *result.sums.shape, len(result.diverged), *result.points.shape)
    arrays = (result.sums, result.counts, result.diverged, result.first_divergence, result.points)
    return head + b"".join(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def _unpack(payload: bytes) -> ChunkResult:
    """A chunk whose arrays are views of the row."""
    nodes, records, columns, statistics, members, *points = struct.unpack_from("<8q", payload)
    at = struct.calcsize("<8q")

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal at
        out = np.frombuffer(payload, dtype, math.prod(shape), at).reshape(shape)
        at += out.nbytes
        return out

    sums, counts = take("<f8", nodes, records, columns, statistics), take("<i8", nodes)
    return ChunkResult(sums, counts, take("<i8", members), take("<i8", members), take("<f8", *points))
