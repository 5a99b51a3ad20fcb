"""Finished chunks in one SQLite file, so that a killed run goes on where it stopped and ends with the same bits.

A store belongs to one run: it carries that run's identity, and is refused for another. Rows are keyed by the experiment's fingerprint
and the chunk's index, and checked by a CRC. Rows are committed in batches, about twice a second: a kill loses less than a second.
"""

from __future__ import annotations

import sqlite3
import struct
import time
import zlib
from pathlib import Path

import numpy as np

from sdetools.simulation.chunks import ChunkResult

_APPLICATION = 0x5DE70015
_COMMIT_EVERY = 0.5


class StoreError(ValueError):
    """A store that cannot be used, and why."""


class Store:
    """`Store(path, identity, resume)`: a new store at `path`, or with `resume=True` the one that is there (a new one if none is).

    `identity` is a text that says which run this is. Nothing is written before the first chunk is saved. StoreError (a ValueError) when the file is no store, is damaged, or belongs to
    another run; the file is then left as it is.
    """

    def __init__(self, path: str | Path, identity: str, resume: bool = False) -> None:
        self.path, self.identity = Path(path), identity
        self._connection: sqlite3.Connection | None = None
        self._fresh, self._made = True, False
        if self.path.is_dir():
            raise StoreError(f"{self.path} is not a store of sdetools but a folder; it is left as it is. Name a file.")
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open("rb") as file:
                if not b"SQLite format 3\0".startswith(file.read(16)):
                    raise StoreError(f"{self.path} is not a store of sdetools; it is left as it is. Name another file.")
            self._check(resume)
            self._fresh = not resume
        elif self.path.exists() and resume:
            raise StoreError(f"{self.path} is empty or truncated and cannot be resumed from. Remove it, or run without resuming.")
        self._committed = time.monotonic()

    def _open(self) -> sqlite3.Connection:
        """The connection; a new store's file is made when the first chunk is there to keep."""
        if self._connection is None:
            if self._fresh:
                self._made = True
                self.path.parent.mkdir(parents=True, exist_ok=True)
                for suffix in ("", "-journal", "-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            connection = self._connection = sqlite3.connect(self.path)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS run (identity TEXT)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS chunks (experiment TEXT, chunk INTEGER, crc INTEGER, payload BLOB, "
                "PRIMARY KEY (experiment, chunk)) WITHOUT ROWID"
            )
            if connection.execute("SELECT count(*) FROM run").fetchone()[0] == 0:
                connection.execute("INSERT INTO run VALUES (?)", (str(self.identity),))
            connection.commit()
            self._fresh = False
        return self._connection

    def _check(self, resume: bool) -> None:
        try:
            connection = sqlite3.connect(f"file:{self.path}?mode=rw", uri=True)
            try:
                (application,) = connection.execute("PRAGMA application_id").fetchone()
                if application != _APPLICATION:
                    raise StoreError(f"{self.path} is not a store of sdetools; it is left as it is. Name another file.")
                if not resume:
                    return
                verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
                row = connection.execute("SELECT identity FROM run").fetchone()
            finally:
                connection.close()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self.path} is damaged or truncated ({error}) and cannot be resumed from. Remove it, or run without resuming."
            ) from error
        if verdict != "ok" or row is None:
            raise StoreError(
                f"{self.path} is damaged or truncated and cannot be resumed from. Remove it, or run without resuming."
            )
        if row[0] != str(self.identity):
            raise StoreError(
                f"{self.path} belongs to another experiment ({row[0]}), not to this one ({self.identity}). "
                "Give the same settings, or another store, or run without resuming."
            )

    def load(self, experiment: str) -> dict[int, ChunkResult]:
        """All finished chunks of an experiment."""
        out: dict[int, ChunkResult] = {}
        if self._fresh:
            return out
        rows = self._open().execute("SELECT chunk, crc, payload FROM chunks WHERE experiment = ?", (experiment,))
        for chunk, crc, payload in rows:
            if zlib.crc32(payload) != crc:
                raise StoreError(
                    f"{self.path} is damaged (chunk {chunk}) and cannot be resumed from. Remove it, or run without resuming."
                )
            out[chunk] = _unpack(payload)
        return out

    def save(self, experiment: str, chunk: int, result: ChunkResult) -> None:
        """Keeps a finished chunk."""
        payload = _pack(result)
        row = (experiment, chunk, zlib.crc32(payload), payload)
        self._open().execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > _COMMIT_EVERY:
            self.commit()

    def commit(self) -> None:
        """Makes what was saved so far survive a kill."""
        if self._connection is not None:
            self._connection.commit()
        self._committed = time.monotonic()

    def close(self) -> None:
        """Commits and closes."""
        if self._connection is not None:
            self.commit()
            self._connection.close()
            self._connection = None

    def finish(self) -> None:
        """Drops the chunks of a run that is complete: they are of no more use. What is left says which run this was."""
        if self._connection is not None:
            self._connection.execute("DELETE FROM chunks")
            self._connection.commit()
            self._connection.execute("VACUUM")

    def discard(self) -> None:
        """Closes, and removes the file if this run made it."""
        self.close()
        if self._made:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pack(result: ChunkResult) -> bytes:
    head = struct.pack("<7q", *result.sums.shape, result.paths, len(result.lost), *result.points.shape)
    arrays = (result.sums, result.lost, result.first, result.points)
    return head + b"".join(np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def _unpack(payload: bytes) -> ChunkResult:
    records, columns, stats, paths, members, rows, kept = struct.unpack_from("<7q", payload)
    at = struct.calcsize("<7q")

    def take(dtype: str, *shape: int) -> np.ndarray:
        nonlocal at
        size = int(np.prod(shape))
        out = np.frombuffer(payload, dtype, size, at).reshape(shape).copy()
        at += out.nbytes
        return out

    sums = take("<f8", records, columns, stats)
    lost, first = take("<i8", members), take("<i8", members)
    return ChunkResult(sums, paths, lost, first, take("<f8", rows, kept))
