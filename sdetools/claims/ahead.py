"""Compilation ahead of time: on a first run, a second process runs the claims in reverse order with a few paths.

A first run spends most of its time compiling, on one core. The second process compiles the kernels of the later claims meanwhile, so
that the first one finds them in the cache. It writes nothing else, its errors are ignored, and results do not depend on it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from sdetools.claims.definition import Claim, collect, importing_from_folder_of

PATHS = 64
"""Number of paths of a run that only compiles."""


@contextlib.contextmanager
def compiling_ahead(claims: Sequence[Claim]) -> Iterator[None]:
    """Return a context manager that runs the second process while its body is executed, and ends that process afterwards.

    The process runs `main` of this module. None is started for a single claim, on one core, if the cache already contains kernels, or if there
    is no cache folder; the body is executed in any case.

    Args:
        claims: The claims in the order in which the main process runs them.
    """
    process = None
    if len(claims) > 1 and (os.cpu_count() or 1) > 1 and _cache_is_empty():
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


def _cache_is_empty() -> bool:
    """Return whether there is a folder for cached kernels, and no kernel is in it."""
    from sdetools.simulation.kernel import folder

    place = folder()
    return place is not None and not any(place.glob("k*.py"))


def main(names: Sequence[str]) -> None:
    """Run claims one after another with 64 paths on one thread, only to compile their kernels; stop once the parent process has ended.

    Errors of claims are ignored, and results are dropped.

    Args:
        names: The claims as texts `path::id` with the path of the claim file, such as "claims/orders.py::theorem-3.5". A claim that is not found is
            skipped.
    """
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
            with importing_from_folder_of(claim.path):
                claim(run)


if __name__ == "__main__":
    main(sys.argv[1:])
