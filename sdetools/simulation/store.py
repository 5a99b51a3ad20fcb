"""A store: finished chunks in one SQLite file, so that an interrupted run can be resumed with bit-identical results.

A store belongs to one run. It records the run's identity and is refused for any other. Rows are keyed by the experiment's fingerprint and
the index of the chunk, and protected by a CRC. Rows are committed in batches, about twice a second, so a kill costs less than a second of
work. They are read one by one in the order of chunks, so a store may be larger than memory.

While a store is open, a lock file lies beside it, and no other process can open the store. The operating system releases the lock
when its process ends, however it ends. So a lock file left behind by a killed process does not block anyone.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import struct
import time
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sdetools.simulation.chunks import ChunkResult
from sdetools.simulation.store_lock import StoreError as StoreError, StoreLock

_APPLICATION = 0x5DE70015
_COMMIT_EVERY = 0.5
_VERSION = 3
"""The version of the order of summation and of the layout of rows.

Version 1 (stored as 0): a chunk is a group, summed block by block. Version 2: points of one time.
"""


class Store:
    """A file of finished chunks, sets of consecutive paths, from which an interrupted run can be resumed with bit-identical results.

    The file, an SQLite database, is created when the first chunk is saved. Chunks are committed about twice a second. After Ctrl-C, an error or a
    kill of the process the committed ones remain, and a run that finds them simulates only the others. Use the object in a `with` statement, which
    closes it at the end. While it is open, a lock file `<path>.lock` keeps other processes and objects from opening the same file.

    Args:
        path: The file; missing folders are created.
        identity: A text that identifies the run, such as its settings; a store with another text is not resumed.
        resume: Whether to continue with an existing store at `path`. By default an existing store is replaced by a new one when the
            first chunk is saved; if there is no store, a new one is created in either case.

    Raises:
        StoreError: A ValueError. The path is a folder or a file that is not a store, the store is in use, or it cannot be resumed from because it is
            damaged, empty, of another version or of another run; the file is not modified. Also raised when a chunk cannot be written; chunks
            committed earlier are kept, and the run can be resumed from them.

    Example:
        >>> import sdetools as st, tempfile
        >>> oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))
        >>> sgd = st.SGD(oracle, st.schedules.constant(0.1))
        >>> with st.Store(f"{tempfile.mkdtemp()}/run.db", identity="example") as store:
        ...     first, again = (st.simulate(sgd, [1.0], 1.0, 100, ["x0"], store=store, backend="numpy") for _ in range(2))
        >>> first.at("x0") == again.at("x0")  # the second run has read the chunks of the first from the file
        True
    """

    def __init__(self, path: str | Path, identity: str, resume: bool = False) -> None:
        self.path, self.identity = Path(path), identity
        self._connection: sqlite3.Connection | None = None
        self._fresh, self._made, self._broken = True, False, False
        self._committed = time.monotonic()
        if self.path.is_dir():
            raise StoreError(f"{self.path} is not a store of sdetools but a folder; it is left as it is. Name a file.")
        lock = StoreLock(self.path)
        self._release = weakref.finalize(self, lock.release)
        try:
            self._look(resume)
        except BaseException:
            self._release()
            raise

    def _look(self, resume: bool) -> None:
        """Examine the path, which may name a store to resume, a store to replace, or nothing, and set `_fresh`: whether a new file is to be made."""
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb") as file:
                if not b"SQLite format 3\0".startswith(file.read(16)):
                    raise StoreError(f"{self.path} is not a store of sdetools; it is left as it is. Name another file.")
            self._check(resume)
            self._fresh = not resume
        elif self.path.exists() and resume:
            raise self._damaged("empty or truncated")

    def _damaged(self, how: str = "damaged or truncated", why: str = "") -> StoreError:
        """Return the error for a store that cannot be resumed from because it is `how`, such as "damaged or truncated"; `why` follows in brackets."""
        return StoreError(f"{self.path} is {how}{why} and cannot be resumed from. Remove it, or run without resuming.")

    def _open(self) -> sqlite3.Connection:
        """Return the connection; the file of a new store is created here, when the first chunk is saved."""
        if self._connection is None:
            if not self._release.alive:
                raise StoreError(f"{self.path} is closed. Open it again: st.Store(path, identity, resume=True).")
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
                "PRIMARY KEY (experiment, chunk))"  # a table with row ids: a row then shares a page with its neighbours
            )
            if connection.execute("SELECT count(*) FROM run").fetchone()[0] == 0:
                connection.execute("INSERT INTO run VALUES (?)", (str(self.identity),))
            connection.commit()
            self._fresh = False
        return self._connection

    def _check(self, resume: bool) -> None:
        """Raise StoreError if the file is not a store, or if it cannot be resumed by this run."""
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
                f"{self.path} was written by a version of sdetools with another order of summation or another layout of rows (its "
                f"layout is {version or 1}, the current one is {_VERSION}); it is left as it is. Resume with that version, name another store, or run without resuming."
            )
        if row[0] != str(self.identity):
            raise StoreError(
                f"{self.path} belongs to another experiment ({row[0]}), not to this one ({self.identity}). "
                "Give the same settings, or another store, or run without resuming."
            )

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Convert SQLite's errors in a `with` block to StoreError: the file is in use, damaged, or cannot be `what`, "read" or "written"."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            self._broken = what == "written" and not busy
            if busy:
                raise StoreError(
                    f"{self.path} is in use by another program ({error}); it is left as it is. Wait until that program "
                    "has ended, or name another file."
                ) from error
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                full = code == sqlite3.SQLITE_FULL
                raise StoreError(
                    f"{self.path} cannot be {what}{': the disk is full' if full else ''} ({error}). What was committed earlier is intact: "
                    f"{'make room' if full else 'check the disk'}, then resume."
                ) from error
            raise self._damaged("damaged or truncated", f" ({error})") from error

    def load(self, experiment: str) -> Iterator[tuple[int, ChunkResult]]:
        """Read the finished chunks (sets of consecutive paths) of an experiment, one at a time. A run may consist of several experiments.

        Args:
            experiment: The hash that identifies the experiment (`Program.fingerprint`), the key under which its chunks were saved.

        Yields:
            Pairs (index of a chunk, its result), in increasing order of the index: the chunks of a resumed file, and those saved since. From a
            store that is not resumed there are none before the first `save`.

        Raises:
            StoreError: The file cannot be read, or a row is damaged.
        """
        for chunk, payload in self.rows(experiment):
            yield chunk, _unpack(payload)

    def rows(self, experiment: str) -> Iterator[tuple[int, bytes]]:
        """Read the finished pieces of an experiment as bytes, one at a time: what `put` saved, in the order of their indices.

        A piece is a part of a computation, such as a chunk of paths or a point of a sweep.

        Args:
            experiment: The key under which they were saved.

        Yields:
            Pairs (index, bytes). From a store that is not resumed there are none before the first one is saved.

        Raises:
            StoreError: The file cannot be read, or a row is damaged.
        """
        if self._fresh:
            return
        with self._explained("read"):
            query = "SELECT chunk, crc, payload FROM chunks WHERE experiment = ? ORDER BY chunk"
            rows = self._open().execute(query, (experiment,))
        while True:
            with self._explained("read"):
                row = rows.fetchone()
            if row is None:
                return
            chunk, crc, payload = row
            if zlib.crc32(payload) != crc:
                raise self._damaged("damaged", f" (chunk {chunk})")
            yield chunk, payload

    def save(self, experiment: str, chunk: int, result: ChunkResult) -> None:
        """Save the result of a finished chunk, replacing an earlier one with the same index; it survives a kill once it is committed.

        Saved chunks are committed by the first call that comes more than half a second after the last commit, and by `commit` and `close`.

        Args:
            experiment: The hash that identifies the experiment (`Program.fingerprint`).
            chunk: The index of the chunk, a set of consecutive paths of the run.
            result: Its result.

        Raises:
            StoreError: The file cannot be written.
        """
        self.put(experiment, chunk, _pack(result))

    def put(self, experiment: str, index: int, payload: bytes) -> None:
        """Save the bytes of a finished piece of an experiment, such as a point of a sweep, replacing earlier ones with the same index.

        They are committed as `save` describes: within about half a second while others follow, and by `commit` and `close`.

        Args:
            experiment: The key of the experiment, a text.
            index: The index of the piece, from 0.
            payload: Its bytes; `rows` returns them.

        Raises:
            StoreError: The file cannot be written.
        """
        row = (experiment, index, zlib.crc32(payload), payload)
        with self._explained("written"):
            self._open().execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Commit all results saved so far, so that they survive a kill; does nothing if none was saved, or after a write that failed.

        Raises:
            StoreError: The file cannot be written.
        """
        if self._connection is not None and not self._broken:
            with self._explained("written"):
                self._connection.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commit the saved results, close the file and release the lock; a second call does nothing. Later use of the store is a StoreError.

        Raises:
            StoreError: The file cannot be written. The file is closed and the lock is released nevertheless.
        """
        self._end(keep=True)

    def finish(self) -> None:
        """Remove the results of all experiments from the file, once the run is complete and they are no longer needed; its identity remains.

        The store stays open. If the disk has no room for the deletion, the results stay and no error is raised. A file from which nothing was
        loaded, and to which nothing was saved, is left as it is.
        """
        if self._connection is not None:
            # deleting needs free space itself: where there is none, the chunks stay
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("DELETE FROM chunks")
                self._connection.commit()
                self._connection.execute("VACUUM")

    def discard(self) -> None:
        """Close the store and release its lock; delete the file if this object created or replaced it, otherwise commit what was saved.

        Later use of the store is a StoreError.

        Raises:
            StoreError: The file was not created here and cannot be written.
        """
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


def _pack(result: ChunkResult) -> bytes:
    """Return the result of a chunk as bytes, independent of the byte order of the machine; `_unpack` reads them."""
    head = struct.pack("<8q", *result.sums.shape, len(result.diverged), *result.points.shape)
    arrays = (result.sums, result.counts, result.diverged, result.first_divergence, result.points)
    return head + b"".join(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def _unpack(payload: bytes) -> ChunkResult:
    """Return the result of a chunk from the bytes that `_pack` made; its arrays are read-only views of them."""
    nodes, records, columns, statistics, members, *points = struct.unpack_from("<8q", payload)
    at = struct.calcsize("<8q")

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal at
        out = np.frombuffer(payload, dtype, math.prod(shape), at).reshape(shape)
        at += out.nbytes
        return out

    sums, counts = take("<f8", nodes, records, columns, statistics), take("<i8", nodes)
    return ChunkResult(sums, counts, take("<i8", members), take("<i8", members), take("<f8", *points))
