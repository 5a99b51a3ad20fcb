"""Interrupted runs: Ctrl-C ends a run in one line, which says what is kept and how to resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(kept: Callable[[], str | None]) -> Iterator[None]:
    """Give the KeyboardInterrupt of Ctrl-C in a `with` block a message, which Python prints in its last line.

    The message is "interrupted; " and a text on the finished work. Other exceptions, and a block that ends by itself, are not affected.

    Args:
        kept: A function without arguments, called after Ctrl-C, that returns what the message says of the finished work and of the way to go on,
            such as `submission.kept_in(store)`. It returns None if there is no store: then an interrupt that already has a message, from a block
            within this one, is raised unchanged, and any other says that nothing is kept.

    Raises:
        KeyboardInterrupt: After Ctrl-C, with the message. It is no subclass, because Python would not end a script as an interrupted process for one.

    Example:
        >>> try:
        ...     with interruptible(lambda: "the finished chunks are kept in run.db"):
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt as error:
        ...     print(error)
        interrupted; the finished chunks are kept in run.db
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if error.args and kept() is None:
            raise
        raise KeyboardInterrupt(f"interrupted; {kept() or NOTHING_KEPT}") from None


NOTHING_KEPT = "nothing is kept without a store: pass store= to keep the finished chunks"
"""What messages say of a run without a store."""
