"""Independent runs in parallel: worker processes of this machine with one device each, or the workers of a given executor."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

_own_device: str | None = None
"""The device of this worker process; None for that of the trainer."""


def device_of(device: str, index: int, available: int) -> str:
    """Return the device of worker `index` = 0, 1, ...: one of `available` GPUs each for "cuda", in turn if there are more workers; else `device`.

    Example:
        >>> from sdetools.recipes.worker_processes import device_of
        >>> [device_of("cuda", i, 2) for i in range(3)], device_of("cpu", 1, 2)
        (['cuda:0', 'cuda:1', 'cuda:0'], 'cpu')
    """
    return f"cuda:{index % available}" if device == "cuda" and available else device


def in_parallel(
    run: Callable[..., list[str]], tasks: Sequence[tuple[Any, ...]], device: str, workers: int, executor: Any = None
) -> Iterator[tuple[int, list[str]]]:
    """Call `run(*task)` for each task in parallel, and yield (index of the task, its result) in the order in which they finish.

    Args:
        run: A module-level function, which returns texts.
        tasks: Its positional arguments, one tuple for each call; they must be picklable.
        device: The device of the runs; worker processes get one GPU each for "cuda", and equal shares of the threads.
        workers: The number of worker processes, at least 1; not used with an `executor`.
        executor: A `concurrent.futures.Executor` to use instead, such as that of a cluster; it is not shut down. None for own processes.

    Raises:
        ValueError: If a task cannot be pickled.
        OSError: If a worker was killed.
    """
    payloads = [_pickled((run, task)) for task in tasks]
    with contextlib.ExitStack() as stack:
        if executor is None:
            context = _context()
            threads = max(1, torch.get_num_threads() // workers)
            given = (threads, context.Value("i", 0), device, torch.cuda.device_count() if device == "cuda" else 0)
            executor = concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), context, _begin_worker, given)
            stack.callback(executor.shutdown, cancel_futures=True)
        running = {executor.submit(_run_pickled, payload): i for i, payload in enumerate(payloads)}
        try:
            for done in concurrent.futures.as_completed(running):
                yield running[done], done.result()
        except BrokenProcessPool:
            raise OSError(
                "a worker was killed, possibly for lack of memory. The same command resumes from the last checkpoints; "
                "fewer workers need less memory."
            ) from None
        finally:
            for waiting in running:
                waiting.cancel()


def own_device(device: str) -> str:
    """Return the device of this worker process, such as "cuda:1"; in any other process `device` itself."""
    return _own_device or device


def _pickled(content: Any) -> bytes:
    """Return `content` pickled; ValueError if a part of it cannot be pickled."""
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a job must be a module-level function, or a partial of one, to be pickled for a worker; got {error}. Or set workers=1."
        ) from error


def _context() -> Any:
    """Return the multiprocessing context of workers: a fork server with torch imported, else spawn; never a fork of this threaded process."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # Optimisers import the second one at their first step.
    context.set_forkserver_preload(["sdetools.recipes.training", "torch._dynamo"])
    return context


def _begin_worker(threads: int, counter: Any, device: str, available: int) -> None:
    """Prepare a worker process: its threads, its device, and its end with its parent, so that it does not keep the runs' folders locked.

    Args:
        threads: The number of threads.
        counter: A shared integer, the number of workers so far.
        device: The device of the runs.
        available: The number of GPUs.
    """
    global _own_device
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    _own_device = device_of(device, index, available)
    if _own_device.startswith("cuda"):
        torch.cuda.set_device(_own_device)  # "cuda", in tasks made by the parent, then means this one
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_pickled(payload: bytes) -> list[str]:
    """Return the result of the call in `payload`, a pickled pair (function, tuple of arguments)."""
    run, arguments = pickle.loads(payload)  # trusted: pickled by the parent process
    return run(*arguments)
