"""Interrupted runs: Ctrl-C ends a run in one line, which says what is kept and how to resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """The exception of a run that Ctrl-C has ended; its message says what is kept and how to resume."""


@contextmanager
def interruptible(kept: Callable[[], str | None]) -> Iterator[None]:
    """Convert Ctrl-C in a `with` block to `Interrupted`.

    Args:
        kept: A function that returns what the message says of the finished work and of the way to go on, such as `submission.kept_in(store)`.
            None stands for no store; the message of a run within the block that has one is then kept.

    Raises:
        Interrupted: After Ctrl-C.

    Example:
        >>> with interruptible(lambda: "the finished chunks are kept in run.db"):
        ...     raise KeyboardInterrupt
        Traceback (most recent call last):
        ...
        sdetools.simulation.interruption.Interrupted: interrupted; the finished chunks are kept in run.db
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) and kept() is None:
            raise
        raise Interrupted(f"interrupted; {kept() or NOTHING_KEPT}") from None


NOTHING_KEPT = "nothing is kept without a store: pass store= to keep the finished chunks"
"""What messages say of a run without a store."""
