"""Results that a background thread computes in advance, in order: the next batches, while the device works on the present one."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


@contextlib.contextmanager
def prefetched(make: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], ahead: int = 2) -> Iterator[Iterator[Result]]:
    """Context manager that yields an iterator over `make(*each)` for `each` of the arguments, in their order.

    One background thread makes all of them, so `make` is never called twice at a time. An error in `make` is raised where its result is asked for.

    Args:
        make: The function, which is called in the thread.
        arguments: Its positional arguments, one tuple for each result; they are read as far as they are needed, and may be endless.
        ahead: The number of results that are made in advance, at least 0; 0 makes each one when it is asked for, without a thread.

    Example:
        >>> from sdetools.recipes.prefetch import prefetched
        >>> with prefetched(pow, [(2, 1), (2, 2), (2, 3)]) as powers:
        ...     print(*powers)
        2 4 8
    """
    if ahead == 0:
        yield (make(*each) for each in arguments)
        return
    pool = ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[Result]] = deque()

    def results() -> Iterator[Result]:
        for each in arguments:
            waiting.append(pool.submit(make, *each))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield results()
    finally:
        pool.shutdown(cancel_futures=True)
