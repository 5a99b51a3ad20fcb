"""Engines: executors by name, which run chunks in processes of this machine, on a Dask or MPI cluster, or as Slurm jobs.

An engine is a `concurrent.futures.Executor` that knows how to get workers and, where it can, to replace those that failed. A new engine is a
function of (text after the colon, number of workers) that returns such an executor, and a line in `ENGINES`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import current_process
from typing import Any
from weakref import WeakSet

from sdetools import _check, _install
from sdetools.simulation.chunks import ChunkTask
from sdetools.simulation.slurm import slurm
from sdetools.simulation.threads import MOST_THREADS, available_threads

SENT_WITH_EACH_CHUNK = 1 << 16
"""The size in bytes up to which a task is sent with each chunk; a larger one is sent once to Dask's scheduler, and from worker to worker."""
OWN_CLUSTER = {"distributed.scheduler.allowed-failures": 0, "distributed.deploy.lost-worker-timeout": "1h"}
"""Settings of a Dask cluster of one's own: each failure is reported, so that `retries` counts all of them, and a process that was killed is replaced
however long that takes; by default a cluster gives it up after 15 seconds."""
MAIN_ALONE = 'each imports the script that starts it. Put the call below `if __name__ == "__main__":`.'
"""What a script must do that starts processes, for messages."""
COUNT_AGAIN = 1.0
"""Seconds after which the workers of a Dask cluster are counted again."""


class Threads(ThreadPoolExecutor):
    """A pool of threads of this process, the engine "threads"; the arguments are those of Python's `ThreadPoolExecutor`."""

    on_this_machine = True

    @classmethod
    def of(cls, argument: str, workers: int | None) -> Threads:
        """Return the engine "threads" or "threads:N", a new pool.

        Args:
            argument: The text N, or an empty one.
            workers: The number of threads if the text is empty; None for one per core.

        Raises:
            ValueError: The text is no integer from 1 to 4096.
        """
        return cls(_count("threads", argument, workers), thread_name_prefix="sdetools")


class Processes(Executor):
    """A pool of processes of this machine, which is replaced when one of its processes has been killed.

    Each process uses one thread and ignores Ctrl-C, which is left to the main process. A pool of Python's own runs nothing more after one of its
    processes has failed: the calls that it had not finished raise BrokenProcessPool, here too. They can be submitted again.

    Args:
        workers: The number of processes, which are started by calls of `submit`.

    Example:
        >>> with Processes(1) as pool:
        ...     pool.submit(abs, -1).result()
        1
    """

    on_this_machine = True

    def __init__(self, workers: int) -> None:
        self._max_workers = workers
        self._pool: ProcessPoolExecutor | None = None

    @classmethod
    def of(cls, argument: str, workers: int | None) -> Processes:
        """Return the engine "processes" or "processes:N"; no process is started yet.

        Args:
            argument: The text N, or an empty one.
            workers: The number of processes if the text is empty; None for one per core.

        Raises:
            ValueError: The text is no integer from 1 to 4096.
        """
        return cls(_count("processes", argument, workers))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call to the pool, or to a new pool if a process has been killed since, and return its future.

        The arguments are those of `Executor.submit`: a function and its arguments, which are pickled.
        """
        for last in (False, True):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self._max_workers, initializer=begin_worker)
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self.shutdown(wait=False)
                if last:
                    raise
        raise AssertionError

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; a later call of `submit` starts new ones.

        Args:
            wait: Whether to wait for the calls that were submitted.
            cancel_futures: Whether to cancel the calls that have not begun.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def begin_worker() -> None:
    """Prepare a worker process, in its main thread: numerical libraries use one thread, and Ctrl-C is ignored, left to the process that submits."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)


class Dask(Executor):
    """An executor on the workers of a Dask cluster, those that join during a run included.

    A cluster of one's own consists of processes of this machine with one thread each; Dask replaces a process that was killed. Its scheduler reports
    each failure at once. The scheduler of another cluster tries a chunk again by itself first, as often as its setting `allowed-failures` says (3 by default);
    these tries count as retries. While there is no worker at all, a run waits for one.

    Args:
        client: A `dask.distributed.Client`. It stays open after `shutdown`, unless `own` is given.
        own: What `shutdown` closes together with the client: a cluster of one's own, or the client itself; None if both belong to the caller.
        settings: What `dask.config.set(...)` returned, a context manager in force already, whose `__exit__` `shutdown` calls; None for a cluster of others.
        **options: Keyword arguments of `Client.submit`, such as `workers=`.
    """

    def __init__(self, client: Any, own: Any = None, settings: Any = None, **options: Any) -> None:
        self._client, self._own, self._settings = client, own, settings
        # Each submission is a computation of its own (not `pure`), also the second one of a chunk.
        self._options, self.on_this_machine = {**options, "pure": False}, settings is not None
        self._submitted: WeakSet[Future[Any]] = WeakSet()
        self._sent: tuple[ChunkTask, Any] | None = None
        self._workers, self._counted = 0, -COUNT_AGAIN

    @classmethod
    def of(cls, argument: str, workers: int | None) -> Dask:
        """Return the engine "dask" or "dask:N", a cluster of this machine that is closed at the end, or "dask:ADDRESS", the cluster of a scheduler.

        Args:
            argument: The text after the colon: a number of processes, an address such as tcp://host:8786, or nothing.
            workers: The number of processes if the text is empty; None for one per core.

        Raises:
            ModuleNotFoundError: Dask is not installed.
            ValueError: No scheduler answers at the address, or the text is neither an address nor an integer from 1 to 4096.
            RuntimeError: The processes could not be started, for example by a script without `if __name__ == "__main__":`.
        """
        from dask import config
        from distributed import Client, LocalCluster

        if ":" in argument:
            try:
                client = Client(argument, set_as_default=False)
            except OSError as error:
                raise ValueError(
                    f"`executor` must name the address of a running Dask scheduler; got {argument!r}: {error}. Start one by `dask scheduler`, "
                    "and workers by `dask worker ADDRESS --nthreads 1`."
                ) from error
            return cls(client, client)
        count, settings = _count("dask", argument, workers), config.set(OWN_CLUSTER)  # some of them are read later
        try:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
                preload=[*config.get("distributed.worker.preload"), f"from {__name__} import begin_worker; begin_worker()"],
            )
        except BaseException as error:
            settings.__exit__(None, None, None)
            if isinstance(error, RuntimeError):  # its chain of causes fills pages
                raise RuntimeError(f"`executor` could not start {count} processes of Dask ({error}); {MAIN_ALONE}") from None
            raise
        return cls(Client(cluster, set_as_default=False), cluster, settings)

    @property
    def _max_workers(self) -> int:
        """The number of threads of all workers now, at least 1; it is asked for at most once a second, so workers that join late are counted."""
        if time.monotonic() - self._counted > COUNT_AGAIN:
            with suppress(OSError, RuntimeError):  # a scheduler that does not answer is reported by the chunks
                self._workers = sum(self._client.nthreads().values())
            self._counted = time.monotonic()
        return max(1, self._workers)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call to the cluster, and return a future of Python, which the thread of Dask's client completes.

        The arguments are those of `Executor.submit`. A `ChunkTask` of more than 64 KiB among them is sent to the cluster once, not with each call.
        """
        given = (self._once(a) if isinstance(a, ChunkTask) and a.packed_size > SENT_WITH_EACH_CHUNK else a for a in args)
        there, here = self._client.submit(fn, *given, **self._options, **kwargs), Future[Any]()
        here.add_done_callback(lambda done: there.cancel() if done.cancelled() else None)
        self._submitted.add(here)
        self._client.loop.add_callback(self._fetch, there, here)
        return here

    async def _fetch(self, there: Any, here: Future[Any]) -> None:
        """Pass the outcome of a future of Dask, `there`, on to one of Python, `here`.

        Dask's own executor asks for the result and then for the state, and mistakes a result for an error if its worker failed in between.
        """
        result, error = None, None
        try:
            (result,) = await self._client.gather([there], asynchronous=True)
        except asyncio.CancelledError:
            here.cancel()
        except Exception as raised:
            error = raised
        if here.set_running_or_notify_cancel():
            here.set_result(result) if error is None else here.set_exception(error)

    def _once(self, task: ChunkTask) -> Any:
        """Return a future of Dask that stands for a task: a computation, which Dask repeats where the only worker with its result failed."""
        from dask import config

        if self._sent is None or self._sent[0] is not task or self._sent[1].status not in ("pending", "finished"):
            with config.set({"distributed.admin.large-graph-warning-threshold": f"{2 * task.packed_size + (1 << 24)}B"}):
                self._sent = task, self._client.submit(_same, task, pure=False)
        return self._sent[1]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the engine, and close what it has opened: its cluster or its connection. A client that was given stays open.

        Args:
            wait: Whether to wait for the calls that were submitted, unless they are cancelled.
            cancel_futures: Whether to cancel all unfinished calls.
        """
        self._sent = None
        open_ones = list(self._submitted)
        if cancel_futures:
            for future in open_ones:
                future.cancel()
        elif wait:
            concurrent.futures.wait(open_ones)
        if self._own is not None:
            with suppress(OSError, TimeoutError):
                self._client.close()
                self._own.close()
        if self._settings is not None:
            self._settings.__exit__(None, None, None)
        self._own = self._settings = None


def _same(task: ChunkTask) -> ChunkTask:
    """Return a task as it is; a worker calls this, so that the result that it keeps is the task."""
    return task


def mpi(argument: str, workers: int | None) -> Executor:
    """Return the engine "mpi": the processes of `mpiexec -n N python -m mpi4py.futures SCRIPT`, of which the first one runs the script.

    Without `mpiexec`, "mpi:N" asks MPI for N new processes, which not every installation allows. MPI ends all processes if one fails, so there are
    no retries. The file of a store remains, and the run can be resumed.

    Args:
        argument: The text after the colon: N, or nothing.
        workers: The number of processes to ask for if the text is empty; None for MPI's own choice.

    Raises:
        ModuleNotFoundError: mpi4py is not installed.
        ValueError: Several processes of MPI run the script itself, or the text is no integer from 1 to 4096.
    """
    from mpi4py import MPI
    from mpi4py.futures import MPIPoolExecutor

    words = " ".join(sys.orig_argv)
    if MPI.COMM_WORLD.Get_size() > 1 and "mpi4py.futures" not in words:
        raise ValueError(
            f"`executor` 'mpi' needs one process that runs the script and others that work; got {MPI.COMM_WORLD.Get_size()} processes that all run "
            "it. Start it by `mpiexec -n N python -m mpi4py.futures SCRIPT`."
        )
    processes = _count("mpi", argument, workers) if argument else workers
    return MPIPoolExecutor(processes, initializer=begin_worker)


def _count(name: str, argument: str, workers: int | None) -> int:
    """Return the number N of the text `argument` of "name:N", else `workers`, else the number of cores; ValueError if N is not from 1 to 4096."""
    if not argument:
        return workers or available_threads()
    if not argument.isdecimal():
        raise ValueError(f"`executor` must be {name} or {name}:N with a number of workers; got {name}:{argument}.")
    return _check.count("executor", int(argument), most=MOST_THREADS, hint=f"N in {name}:N is the number of workers.")


ENGINES: dict[str, Callable[[str, int | None], Executor]] = {
    "threads": Threads.of,
    "processes": Processes.of,
    "dask": Dask.of,
    "mpi": mpi,
    "slurm": slurm,
}
"""The engines by name: functions of the text after the colon and of a number of workers (None for all cores)."""


def check_executor(executor: Any) -> None:
    """Check that a value can be an `executor`; nothing is started and no package is imported.

    Args:
        executor: None, a `concurrent.futures.Executor`, a `dask.distributed.Client`, or the name of an engine, such as "dask:tcp://host:8786".

    Raises:
        ValueError: It is none of these.

    Example:
        >>> check_executor("dask:4")
        >>> check_executor("dusk")
        Traceback (most recent call last):
        ...
        ValueError: `executor` must be one of threads, processes, dask, mpi, slurm; got 'dusk'. Did you mean `dask`?
    """
    if isinstance(executor, str):
        name = executor.partition(":")[0]
        if name not in ENGINES:
            meant = _check.suggestion(name, ENGINES, "For threads of this process pass threads=.")
            raise ValueError(f"`executor` must be one of {', '.join(ENGINES)}; got {executor!r}. {meant}")
    elif not (executor is None or isinstance(executor, Executor) or callable(getattr(executor, "get_executor", None))):
        raise ValueError(
            "`executor` must be a concurrent.futures.Executor, a Dask client, or the name of an engine such as 'dask'; "
            f"got {executor!r}. For threads of this process pass threads=."
        )


@contextmanager
def open_executor(executor: Any, workers: int | None = None) -> Iterator[Executor | None]:
    """Open an engine by its name for a `with` block, at whose end its workers are stopped; executors that are open already stay open.

    At the end of the block the engine waits for all submitted calls. After an exception in the block, Ctrl-C included, calls that have not begun are
    cancelled first.

    Args:
        executor: None, a `concurrent.futures.Executor`, a `dask.distributed.Client`, or the name of an engine: "threads", "processes", "dask",
            "mpi" or "slurm", possibly with a text after a colon, such as "processes:4".
        workers: The number of workers of an engine that has none in its name; None for all cores.

    Yields:
        The executor: a new one for a name, a `Dask` for a client or its `get_executor()`, the argument itself for other executors and for None.

    Raises:
        ValueError: `executor` is none of these, or the engine refuses the text after the colon.
        ModuleNotFoundError: The engine's package is not installed.
        SystemExit: A new process imports a script that starts an engine of processes outside `if __name__ == "__main__":`.

    Example:
        >>> with open_executor("processes:1") as pool:
        ...     pool.submit(abs, -2).result()
        2
    """
    check_executor(executor)
    if not isinstance(executor, str):
        if type(executor).__module__ == "distributed.cfexecutor":  # that of a client: `Client.get_executor()`
            yield Dask(executor._client, **executor._kwargs)
        else:
            yield executor if executor is None or isinstance(executor, Executor) else Dask(executor)
        return
    name, _, argument = executor.partition(":")
    starts = name == "processes" or (name == "dask" and ":" not in argument)
    if starts and getattr(current_process(), "_inheriting", False):  # a new process is importing the script
        raise SystemExit(f"sdetools: `executor` {executor!r} starts processes; {MAIN_ALONE}")
    try:
        pool = ENGINES[name](argument, workers)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _install.EXTRAS:
            raise
        line = _install.install_line(error)
        message = f"`executor` {executor!r} must have its package; {error.name!r} is not installed. Install it: {line}."
        raise ModuleNotFoundError(message, name=error.name) from error
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
