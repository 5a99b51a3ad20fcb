"""Submission of chunks to an executor: a few for each worker at a time, joined on arrival, and submitted again if their worker failed.

A worker has failed if its process, node or job ended before the result of a chunk arrived. Draws are addressed, so a chunk that is run again gives
the same bits. An exception that the chunk itself raised is never a reason to run it again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

from sdetools.simulation.chunks import ChunkResult
from sdetools.simulation.interruption import NOTHING_KEPT

Accept = Callable[[int, ChunkResult], None]

IN_FLIGHT = 3
"""Chunks submitted at a time for each worker: one that runs, and two that wait for it to end."""
UNKNOWN_WORKERS = 256
"""The assumed number of workers of an executor that does not report it."""
RETRIES = 2
"""How often a chunk is submitted again, by default, after its worker failed."""
PATIENCE = 1.0
"""Seconds without a result after which a run that has given up no longer waits for the chunks that still run."""

FAILURES = {
    "distributed.client.FutureCancelledError",
    "distributed.comm.core.CommClosedError",
    "distributed.scheduler.KilledWorker",
}
"""Exceptions of other packages that report a failed worker, by module and name, so that none of these packages is imported for it."""


class WorkersFailed(OSError):
    """The error raised if the workers of a chunk of paths failed more often than `retries` allows; its message names the paths and the way out.

    A worker fails if its process, node or job ends before the result arrives. Chunks that were finished are in the store, if there is one, and a
    resumed run gives the bits of an uninterrupted one.
    """


class Pieces(Protocol):
    """The interface of a task in pieces, such as a `ChunkTask`, whose pieces are chunks of paths, or a sweep, whose pieces are points.

    An executor of processes pickles it with the index of a piece.
    """

    def missing(self, indices: Sequence[int]) -> tuple[str, str]:
        """Return the subject of a sentence about pieces that are missing, and the word for "their", such as ("paths 0 to 255 are", "their").

        `indices` are those of the pieces, in ascending order.
        """


P = TypeVar("P", bound=Pieces)
R = TypeVar("R")


@dataclass(frozen=True)
class Submission:
    """How chunks, the pieces of a task, are submitted: to which executor, how many at a time, and how often again.

    Attributes:
        executor: The executor. It may report its number of workers as `_max_workers` or `num_workers`, which may change during the run.
        workers: The number of workers of an executor that does not report it; None if it is unknown, and then 256 are assumed.
        retries: How often a chunk whose worker failed (its process, node or job ended) is submitted again.
        kept: The end of the error message, a text without a full stop on where finished chunks are and how to go on, such as that of `kept_in`.
    """

    executor: Executor
    workers: int | None = None
    retries: int = RETRIES
    kept: str = NOTHING_KEPT

    @property
    def window(self) -> int:
        """The number of chunks that may be submitted and unfinished now, three for each worker."""
        known = getattr(self.executor, "_max_workers", None) or getattr(self.executor, "num_workers", None)
        return IN_FLIGHT * (known or self.workers or UNKNOWN_WORKERS)

    def run(self, run: Callable[[P, int], R], task: P, waiting: Sequence[int], accept: Callable[[int, R], None]) -> None:
        """Run chunks, submitted in order and accepted on arrival; the cost per chunk does not depend on the number of workers.

        The method returns when all are accepted. After an exception, Ctrl-C included, submitted chunks that have not begun are cancelled; those that
        run are not waited for here, and their results are discarded. Before WorkersFailed, results that still arrive within a second are accepted.

        Args:
            run: The function that a worker calls with the task and the index of a chunk. What it returns is passed to `accept`.
            task: The task, what all chunks have in common.
            waiting: The indices of the chunks, in the order of submission.
            accept: Called with the index and the result of each chunk, in the calling thread and in the order of arrival.

        Raises:
            WorkersFailed: The workers of a chunk failed in `retries + 1` tries. Chunks that were finished have been accepted.
            Exception: What a chunk or `accept` raised, unchanged.
        """
        unsent, again, tries = iter(waiting), deque[int](), Counter[int]()
        pending: dict[Future[R], int] = {}
        done: SimpleQueue[Future[R]] = SimpleQueue()
        gone: dict[int, Exception] = {}  # chunks without a further try

        def fail(index: int, error: Exception) -> None:
            # Dask's scheduler has tried again by itself before it reports a failure, and says how often.
            tries[index] += 1 + int(getattr(error, "allowed_failures", 0))
            if tries[index] > self.retries:
                gone[index] = error
            else:
                again.append(index)

        def submit(index: int) -> None:
            try:
                future = self.executor.submit(run, task, index)
            except Exception as error:  # a pool that has broken, or a cluster that was closed, accepts nothing more
                if not (worker_failed(error) or tries):
                    raise
                tries[index] += self.retries
                fail(index, error)
                return
            pending[future] = index
            future.add_done_callback(done.put)

        def take(future: Future[R]) -> None:
            index = pending.pop(future)
            try:
                result = future.result()
            except Exception as error:
                if not worker_failed(error):
                    raise
                fail(index, error)
            else:
                accept(index, result)

        try:
            while not gone:
                most = self.window
                while len(pending) < most and not gone and (index := _next(again, unsent)) is not None:
                    submit(index)
                if not pending:
                    break
                take(done.get())
            while gone and pending:  # what has ended is kept, and what failed with it is named
                try:
                    take(done.get(timeout=PATIENCE))
                except Empty:
                    break
        finally:
            for future in pending:
                future.cancel()
        if gone:
            raise WorkersFailed(self._message(task, gone)) from next(iter(gone.values()))

    def _message(self, task: Pieces, gone: dict[int, Exception]) -> str:
        """Return one sentence, the message of `WorkersFailed`: what is missing, why, and how to go on; `gone` has the last error of each chunk."""
        what, their = task.missing(sorted(gone))
        error = next(iter(gone.values()))
        text = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        cause = type(error).__name__ + (f": {text}" if text else "")
        broken = isinstance(self.executor, ProcessPoolExecutor)
        way = "; a broken pool runs nothing more, whereas executor='processes' replaces it" if broken else ""
        allowed = f"more often than retries={self.retries} allows"
        return f"{what} missing, because {their} worker failed {allowed} ({cause}){way}; {self.kept}."


def worker_failed(error: Exception) -> bool:
    """Return whether an exception reports a failed worker, rather than an error that the chunk raised.

    These are a broken executor, such as a pool of processes of which one was killed, a cancelled future, and the exceptions of `FAILURES`.

    Args:
        error: The exception of a future.

    Example:
        >>> from concurrent.futures.process import BrokenProcessPool
        >>> worker_failed(BrokenProcessPool("a process ended")), worker_failed(ValueError("wrong"))
        (True, False)
    """
    return isinstance(error, (BrokenExecutor, CancelledError)) or f"{type(error).__module__}.{type(error).__name__}" in FAILURES


def _next(again: deque[int], unsent: Iterator[int]) -> int | None:
    """Return the index of the next chunk to submit: one whose worker failed, else the next in order; None if there is none."""
    return again.popleft() if again else next(unsent, None)


def kept_in(store: Any, what: str = "chunks") -> str:
    """Return the end of a message, without a full stop: where the store keeps the work finished so far, and how to resume; or that nothing is kept.

    Args:
        store: The open `Store`, or any object with the attribute `path`; None for a run without a store.
        what: The pieces of the work, a plural: chunks of paths, or points of a sweep.
    """
    if store is None:
        return NOTHING_KEPT
    return f"the finished {what} are kept in {store.path}: run again with resume=True, or with --resume at the command line"
