"""Compiling ahead: where no kernel is on disk yet, a second process runs the claims backwards with a handful of paths.

A first run spends most of its time compiling, on one core. The other process meets it in the middle: the kernels of the later claims
are then found on disk. It writes nothing else, its errors are nobody's, and results do not depend on it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from sdetools.claims.definition import Claim, beside, collect

PATHS = 64


@contextlib.contextmanager
def compiling_ahead(claims: Sequence[Claim]) -> Iterator[None]:
    """Has the process at work while the body runs; nothing is started for a single claim, on one core, or where there are kernels."""
    process = None
    if len(claims) > 1 and (os.cpu_count() or 1) > 1 and _cold():
        command = [sys.executable, "-m", __name__, *(f"{claim.path}::{claim.id}" for claim in reversed(claims))]
        with contextlib.suppress(OSError):
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
    try:
        yield
    finally:
        if process is not None:
            process.terminate()
            process.wait()


def _cold() -> bool:
    from sdetools.simulation.kernel import folder

    place = folder()
    return place is not None and not any(place.glob("k*.py"))


def main(names: Sequence[str]) -> None:
    """Runs the claims `path::id` one after the other, until the process that wanted them is gone."""
    from sdetools.claims.context import ClaimContext

    parent = os.getppid()
    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)
    for name in names:
        if os.getppid() != parent:
            return
        path, _, identity = name.rpartition("::")
        with contextlib.suppress(Exception, SystemExit):
            claim = next(c for c in collect([path]) if c.id == identity)
            run = ClaimContext(identity, threads=1)
            run.paths = PATHS
            with beside(claim.path):
                claim(run)


if __name__ == "__main__":
    main(sys.argv[1:])
