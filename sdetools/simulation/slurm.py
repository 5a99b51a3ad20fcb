"""Slurm jobs as workers: an executor that collects chunks into jobs, submitted by submitit.

A job starts within seconds at best, whereas a chunk takes a third of a second. So a job runs many chunks, one after the other. Jobs and the main
process exchange files in a folder, which all nodes must see.
"""

from __future__ import annotations

import math
import pickle
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from sdetools import _check
from sdetools.simulation.submission import IN_FLIGHT

JOBS, CHUNKS = 16, 256
"""The number of jobs at a time, and the largest number of chunks of a job, by default: at most one to two minutes of work."""
LOOK_EVERY = 0.5
"""Seconds between two looks at the jobs."""
MINUTES = 60
"""The time limit of a job in minutes, by default."""


@dataclass(frozen=True)
class _Call:
    """A submitted call `function(*arguments)` that waits for a job, or for its result, which `future` gets."""

    future: Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class JobFailed(BrokenExecutor):
    """The error of all calls of a job that ended without a result: it was killed or cancelled, its node failed, or its time was over.

    It is a BrokenExecutor, which reports a failed worker, so a run submits the chunks of the job again, as often as `retries` allows.
    """


class Slurm(Executor):
    """An executor whose workers are Slurm jobs, each of which runs many submitted calls one after the other.

    A thread of this process puts submitted calls into jobs, through an executor of submitit, and delivers their results, twice a second.

    Args:
        executor: An executor of submitit.
        folder: Its folder, which all nodes must see, for the files that jobs and this process exchange; it is removed by `shutdown` unless a job
            failed.
        jobs: The number of jobs at a time.
        chunks: The largest number of calls of a job.
    """

    def __init__(self, executor: Any, folder: Path, jobs: int, chunks: int) -> None:
        self._executor, self._folder, self._jobs, self._chunks = executor, folder, jobs, chunks
        self._waiting: list[_Call] = []
        self._running: list[tuple[Any, list[_Call]]] = []
        self._files: dict[int, tuple[Any, Path]] = {}
        self._open: set[Future[Any]] = set()
        self._lock, self._ended, self._closed, self._failed = threading.Lock(), threading.Event(), False, False
        self._thread = threading.Thread(target=self._look, name="sdetools-slurm", daemon=True)
        self._thread.start()

    @property
    def _max_workers(self) -> int:
        """The number of workers that `Submission` takes as known: with three calls for each of them, all jobs are filled once."""
        return math.ceil(self._jobs * self._chunks / IN_FLIGHT)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call, which is put into a job with others within half a second, and return its future.

        A job that ends without a result gives `JobFailed` to all of its calls.

        Args:
            fn: The function, which is pickled.
            *args: Its arguments. An integer is sent with the call; any other object is written to a file once and shared by all jobs.
            **kwargs: Its keyword arguments, which are sent with the function.

        Raises:
            RuntimeError: The engine has been shut down.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot submit to Slurm after the end of the engine")
            self._waiting.append(_Call(future, partial(fn, **kwargs) if kwargs else fn, args))
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _look(self) -> None:
        """Submit what waits and deliver what has ended, twice a second, until the end; the body of a thread."""
        while not self._ended.wait(LOOK_EVERY):
            for job, calls in list(self._running):
                if job.done():
                    self._running.remove((job, calls))
                    self._deliver(job, calls)
            with self._lock:
                waiting, self._waiting = self._waiting, []
            waiting = [call for call in waiting if call.future.set_running_or_notify_cancel()]
            size = min(self._chunks, -(-(len(waiting) + sum(len(calls) for _, calls in self._running)) // self._jobs))
            for at in range(0, len(waiting), max(1, size)):
                self._start(waiting[at : at + size])

    def _start(self, calls: list[_Call]) -> None:
        """Submit a job that runs `calls`; the exception of a submission that is refused becomes that of its calls."""
        try:
            given = [(call.function, tuple(self._shared(a) for a in call.arguments)) for call in calls]
            self._running.append((self._executor.submit(run_calls, list(sys.path), pickle.dumps(given)), calls))
        except Exception as error:
            for call in calls:
                call.future.set_exception(error)

    def _shared(self, argument: Any) -> Any:
        """Return an argument that is an integer as it is, and for any other the path of a file with the pickled object, written once for all jobs."""
        if isinstance(argument, int):
            return argument
        if id(argument) not in self._files:
            path = self._folder / f"argument-{len(self._files)}.pickle"
            path.write_bytes(pickle.dumps(argument))
            self._files[id(argument)] = argument, path  # with the object, whose id is then not used again
        return self._files[id(argument)][1]

    def _deliver(self, job: Any, calls: list[_Call]) -> None:
        """Set the results of the calls of a job that has ended, and remove its files; those of a failed job are left for its user to read."""
        try:
            results = job.result()
        except Exception as error:
            self._failed = True
            failed = JobFailed(f"job {job.job_id} has ended without a result, see {job.paths.stderr}")
            failed.__cause__ = error
            for call in calls:
                call.future.set_exception(failed)
            return
        for call, (result, error) in zip(calls, results):
            if error is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(error)
        for path in (job.paths.submitted_pickle, job.paths.result_pickle):
            path.unlink(missing_ok=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the engine and its thread.

        Args:
            wait: Wait for all submitted calls. Otherwise calls that are in no job yet are cancelled, jobs that have not ended are cancelled, too, and
                their calls fail with `JobFailed`.
            cancel_futures: Do not wait, whatever `wait` says.
        """
        with self._lock:
            self._closed, open_calls = True, list(self._open)
        if wait and not cancel_futures:
            wait_for(open_calls)
        for future in open_calls:
            future.cancel()  # those in a job cannot be
        self._ended.set()
        self._thread.join()
        for call in self._waiting:
            call.future.set_running_or_notify_cancel()
        for job, calls in self._running:
            with suppress(Exception):  # it has ended, or Slurm does not answer
                job.cancel()
            for call in calls:
                call.future.set_exception(JobFailed(f"job {job.job_id} was cancelled at the end of the engine"))
        if not self._failed:
            _remove(self._folder)


def _remove(folder: Path) -> None:
    """Remove the folder of a run with its files, and the folder that it is in if that is empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def run_calls(path: Sequence[str], packed: bytes) -> list[tuple[Any, Exception | None]]:
    """Run calls one after the other in a Slurm job, and return a list of pairs (result, exception), one for each call in order.

    The exception is None if the call returned, and the result is None if it raised. Numerical libraries use one thread.

    Args:
        path: The folders from which the main process imports (its `sys.path`).
        packed: The pickled list of pairs (function, arguments); an argument that is a `Path` stands for the pickled object in this file.

    Example:
        >>> run_calls([], pickle.dumps([(abs, (-1,)), (int, ("one",))]))[0]
        (1, None)
    """
    from threadpoolctl import threadpool_limits

    sys.path.extend(folder for folder in path if folder not in sys.path)
    read = cache(lambda file: pickle.loads(file.read_bytes()))
    found: list[tuple[Any, Exception | None]] = []
    with threadpool_limits(1):
        for function, arguments in pickle.loads(packed):  # written by the main process
            try:
                found.append((function(*(read(a) if isinstance(a, Path) else a for a in arguments)), None))
            except Exception as error:
                if type(error).__module__.startswith("submitit."):  # the time limit, or the end of the job by Slurm
                    raise
                error.add_note(f"In a job:\n{traceback.format_exc()}")
                found.append((None, error))
    return found


def slurm(argument: str, workers: int | None) -> Slurm:
    """Return the engine "slurm" or "slurm:partition=NAME,time=30,jobs=16,...", and create its folder; no job is submitted yet.

    Options of the engine: `jobs`, the number of jobs at a time (by default the number of workers, or 16); `chunks`, the largest number of chunks of a job (256
    by default); `folder`, which all nodes must see, by default "sdetools-slurm" in the current folder; `cluster`, "slurm", or "local" for processes of
    this machine. `time`, the limit of a job in minutes (60 by default), and all others are those of submitit, `partition`, `account`, `qos`,
    `constraint`, `mem`, ...

    Args:
        argument: The text after the colon: options NAME=VALUE, separated by commas. It may be empty.
        workers: The number of jobs if the text has none; None for 16.

    Raises:
        ModuleNotFoundError: submitit is not installed.
        ValueError: The text is not of this form, a number is no positive integer, submitit does not know an option, or Slurm was not found.
    """
    options = {}
    for part in filter(None, argument.split(",")):
        name, _, value = part.partition("=")
        if not (name and value):
            raise ValueError(f"`executor` slurm takes options such as slurm:partition=NAME,time=30; got {part!r} among them.")
        options[name.strip()] = value.strip()
    given = {name: _number(name, options.pop(name, usual)) for name, usual in
             (("jobs", workers or JOBS), ("chunks", CHUNKS), ("time", MINUTES))}  # fmt: skip
    cluster, place = options.pop("cluster", "slurm"), Path(options.pop("folder", "sdetools-slurm")).absolute()
    from submitit import AutoExecutor

    place.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="run-", dir=place))
    try:
        executor = AutoExecutor(place / "%j", cluster=cluster)
        executor.update_parameters(
            name="sdetools",
            timeout_min=given["time"],
            cpus_per_task=1,
            **{f"slurm_{name}": value for name, value in options.items()},
        )
    except (RuntimeError, NameError, ValueError) as error:
        _remove(place)
        raise ValueError(f"`executor` slurm cannot be used: {' '.join(str(error).split())}") from error
    return Slurm(executor, place, given["jobs"], given["chunks"])


def _number(name: str, value: Any) -> int:
    """Return the value of an option, a text or an integer, as a positive integer; raise ValueError if it is none."""
    return _check.count(name, int(value) if str(value).isdecimal() else value)
