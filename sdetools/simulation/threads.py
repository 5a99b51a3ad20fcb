"""The number of threads that work may use: that of the machine, or a share of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sdetools import _check

MOST_THREADS = 4096
"""More than the number of cores of any machine."""
LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The environment variables from which numerical libraries take their number of threads when they are loaded."""

_share: ContextVar[int | None] = ContextVar("share", default=None)


@contextmanager
def thread_share(threads: int) -> Iterator[None]:
    """Let `available_threads` return `threads` in a `with` block, for work that shares the processors with other work at the same time.

    It applies to the thread that runs the block, and not to threads that are started in it; blocks may be nested.
    """
    token = _share.set(threads)
    try:
        yield
    finally:
        _share.reset(token)


@contextmanager
def single_threaded_libraries() -> Iterator[None]:
    """Let linear algebra (BLAS) and torch on the CPU use one thread in a `with` block.

    The last digits of their sums depend on the number of threads, and their idle threads take processor time from work beside them. A library
    that is loaded in the block is included: torch has `available_threads()` threads afterwards.
    """
    from threadpoolctl import threadpool_limits

    kept = {name: os.environ.get(name) for name in LIBRARY_THREADS}
    before = available_threads()
    if (torch := sys.modules.get("torch")) is not None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
    os.environ.update(dict.fromkeys(LIBRARY_THREADS, "1"))
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(before)


def available_threads() -> int:
    """Return the number of processors that this process may use (its CPU affinity, or all that the system has), at least 1.

    Within a block of `thread_share(n)` it is n.
    """
    share = _share.get()
    if share is not None:
        return share
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def check_threads(threads: int | None) -> int | None:
    """Return `threads` as an integer, or None (all cores) if it is None; ValueError if it is no integer from 1 to 4096."""
    return None if threads is None else _check.count("threads", threads, most=MOST_THREADS)
