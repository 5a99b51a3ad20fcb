"""The backends that run a program without a kernel of the CPU: a name each, and the class that runs its chunks.

A new backend is a file with a subclass of `ChunkBatches`, and a line in `RUNNERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol


class Runner(Protocol):
    """A subclass of `ChunkBatches` that is made of a task alone."""

    on_device: bool
    longest_rows: int

    def __call__(self, task: Any) -> Any:
        """Returns the batches of a task."""


RUNNERS = {
    "numpy": "reference.NumpyRunner",
    "torch": "torch_run.TorchRunner",
    "cuda": "torch_cuda.CudaRunner",
}
"""Files and classes by the first word of `backend=`; what follows a colon is the backend's own."""


def known(backend: str) -> bool:
    """Whether a backend of this name exists, beside "auto" and "numba"; only those that take options have words after a colon."""
    name, *options = backend.split(":")
    return name in RUNNERS and (not options or name not in ("numpy", "cuda"))


def check_backend(backend: Any) -> None:
    """Raise a ValueError unless `backend` is "auto", "numba", or a name in `RUNNERS` with options that it may have."""
    if not isinstance(backend, str) or not (backend in ("auto", "numba") or known(backend)):
        raise ValueError(
            f"`backend` must be {', '.join(map(repr, ('auto', 'numba', *RUNNERS)))}, 'torch' with or without a device and ':compile'; "
            f"got {backend!r}."
        )


def runner_of(backend: str) -> Runner:
    """Returns the class that runs chunks on a backend.

    Args:
        backend: A name that is known.

    Raises:
        ValueError: A package that the backend requires is not installed.
    """
    name = backend.split(":")[0]
    file, cls = RUNNERS[name].split(".")
    try:
        found: Runner = getattr(import_module(f"sdetools.simulation.{file}"), cls)
    except ImportError as error:
        raise ValueError(
            f"the {name} backend requires {error.name}; got {error}. Install it: pip install -c constraints.txt 'sdetools[torch]'."
        ) from error
    return found
