"""The backends that run a program without a compiled CPU kernel: the name of each, and the class that runs its chunks.

A new backend is a file with a subclass of `ChunkBatches`, and a line in `RUNNERS`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from sdetools._check import shown, suggestion
from sdetools._install import install_command


class Runner(Protocol):
    """The type of the classes that run simulations on one backend, those named in `RUNNERS`.

    Each is a subclass of `chunk_batches.ChunkBatches`. It is called with a task (`chunks.ChunkTask`: the program, the keys of its draws and its
    division into chunks), and the object that it returns runs the chunks, sets of consecutive paths, of this task.

    Attributes:
        on_device: Whether one object runs all chunks of a task, in the calling thread; otherwise each thread, or each worker of an executor, makes
            an object for the chunk that it runs.
        longest_rows: The number of leaves (256 paths each) beyond which longer arrays are not more efficient. By default a chunk has at least this
            many, unless the run is so short that it would then have fewer than about 64 chunks.
    """

    on_device: bool
    longest_rows: int

    def __call__(self, task: Any) -> Any:
        """Return an object that runs the chunks (sets of consecutive paths) of a task on one backend.

        Args:
            task: A `chunks.ChunkTask` whose attribute `program` is not None.

        Returns:
            An instance of the class itself, a subclass of `chunk_batches.ChunkBatches`.
        """


RUNNERS = {
    "numpy": "reference.NumpyRunner",
    "torch": "torch_run.TorchRunner",
    "cuda": "torch_cuda.CudaRunner",
}
"""For the first word of `backend=`: file and class, `"file.Class"`. The text after a colon is an option of the backend."""


def known(backend: str) -> bool:
    """Return whether a backend without a compiled CPU kernel (numpy, torch or cuda) has this name; False for "auto" and "numba".

    Args:
        backend: A name, with options after colons, such as "torch:cuda:compile". Only torch takes options: "numpy:x" and "numpy:" are unknown.
            The options themselves are not checked here.
    """
    name, *options = backend.split(":")
    return name in RUNNERS and (not options or name == "torch")


def check_backend(backend: Any) -> None:
    """Raise a ValueError unless `backend` is "auto", "numba", "numpy", "cuda" or "torch", the last one with any options, such as "torch:cuda".

    Whether its device exists, and whether torch knows the options, is not checked here.
    """
    if not isinstance(backend, str) or not (backend in ("auto", "numba") or known(backend)):
        meant = suggestion(str(backend).partition(":")[0], ("auto", "numba", *RUNNERS))
        raise ValueError(
            f"`backend` must be {', '.join(repr(b) for b in ('auto', 'numba', *RUNNERS) if b != 'torch')}, or 'torch' with or without a device "
            f"and ':compile'; got {shown(backend)}.{f' {meant}' if meant else ''}"
        )


def runner_of(backend: str) -> Runner:
    """Return the class that runs chunks on a backend; its file is imported here.

    Args:
        backend: A name that is `known`, such as "numpy" or "torch:cuda".

    Returns:
        The class, a subclass of `ChunkBatches` that is called with a task.

    Raises:
        ValueError: A package that the backend requires is not installed.
        KeyError: The name is not known.
    """
    name = backend.split(":")[0]
    file, cls = RUNNERS[name].split(".")
    try:
        found: Runner = getattr(import_module(f"sdetools.simulation.{file}"), cls)
    except ImportError as error:
        raise ValueError(
            f"the {name} backend requires {error.name}; got {error}. Install it: "
            f"{install_command('torch') if error.name == 'torch' else f'pip install {error.name}'}."
        ) from error
    return found
