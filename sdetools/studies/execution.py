"""Options of execution: threads, backend, store and others, which every function that simulates takes as keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from sdetools._check import count, suggestion
from sdetools.graph.reals import real_of
from sdetools.simulation.backends import check_backend
from sdetools.simulation.clusters import check_executor
from sdetools.simulation.store import Store
from sdetools.simulation.submission import RETRIES
from sdetools.simulation.threads import check_threads

SILENT = frozenset({"threads", "executor", "store", "resume", "progress", "retries"})
"""Options on which no bit of a result depends: the description of a call leaves them out."""


class ExecutionOptions(TypedDict, total=False):
    """The types of the keyword arguments that `Execution` documents, for type checkers; none of them is required."""

    threads: int | None
    executor: Executor | str | None
    backend: str
    dtype: str
    store: Any
    resume: bool
    progress: Any
    retries: int


@dataclass(frozen=True)
class Execution(Mapping[str, Any]):
    """How paths are run. Every function that simulates takes these fields as keyword arguments.

    Draws depend on `seed` and `stream` alone. Threads, executor, store and interruptions change no bit of a result; backends agree path by
    path to rounding. An `Execution` is a mapping from the names of its fields to their values, so `st.simulate(..., **how)` takes all of them.

    Attributes:
        threads: Threads of a run; None takes one for each core. An executor's workers use one thread each.
        executor: Where chunks (sets of consecutive paths, computed at once) run; None for threads of this process. The name of an engine:
            "threads" ("threads:4"), "processes" or "dask" for processes of this machine ("processes:4", "dask:4" for four),
            "dask:tcp://host:8786" for the Dask cluster of a scheduler, "mpi" for the processes of
            `mpiexec -n 9 python -m mpi4py.futures`, "slurm:partition=NAME,time=30" for Slurm jobs. What an engine starts is stopped at
            the end of the call. Or any `concurrent.futures.Executor`, or a `dask.distributed.Client`, which stay open. An engine that starts
            processes must be called below `if __name__ == "__main__":` in a script.
        backend: "auto" takes "numba" wherever all parts can be compiled, else the backend that they need, and says why in a warning.
            "numba" compiles for a CPU, "cuda" for a device. "numpy" is the reference implementation. "torch", "torch:cuda" run tensors;
            "torch:compile", "torch:cuda:compile" give the steps to `torch.compile`.
        dtype: "float64", or "float32" for draws and paths in single precision in about half the time. Moments are accumulated in double
            precision either way, and intervals allow for the rounding of paths: 5e-7 of the size of a value for each step.
        store: The path of a file for finished chunks, or an open `Store`; None keeps them in memory.
        resume: Whether to continue with the chunks of `store`, to the same bits as an uninterrupted run. If False, the file is replaced.
        progress: False, the default, for nothing; None for a progress bar on a terminal or in a notebook and nothing elsewhere; True for the bar there
            and, elsewhere, a line at each tenth; a function of (done, total), numbers of paths.
        retries: How often a chunk is submitted again after its worker failed (killed, out of memory, its node or job gone). After that the run ends
            with an error that names the paths; the finished chunks are in the store. An exception of your own code is never tried again.

    Raises:
        ValueError: If a value is none of these, or `resume` comes without `store`.

    Example:
        >>> import sdetools as st
        >>> how = st.Execution(backend="numpy", threads=1)
        >>> rule = st.SGD(st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1)), st.schedules.constant(eta=0.5))
        >>> st.simulate(rule, x0=[1.0], horizon=1.0, paths=10, observe=["x"], **how).at("x").value
        0.25
    """

    threads: int | None = None
    executor: Executor | str | None = None
    backend: str = "auto"
    dtype: str = "float64"
    store: Any = None
    resume: bool = False
    progress: Any = False
    retries: int = RETRIES

    def __post_init__(self) -> None:
        check_threads(self.threads)
        check_executor(self.executor)
        check_backend(self.backend)
        real_of(self.dtype)
        if not (self.store is None or isinstance(self.store, (str, Path, Store))):
            raise ValueError(f"`store` must be a file's path or None; got {self.store!r}.")
        if not isinstance(self.resume, bool):
            raise ValueError(f"`resume` must be True or False; got {self.resume!r}.")
        if self.resume and self.store is None:
            raise ValueError("`resume` must go with `store`, the file of the earlier run; got store=None.")
        count("retries", self.retries, least=0)
        if not (callable(self.progress) or isinstance(self.progress, (bool, type(None)))):
            raise ValueError(f"`progress` must be True, False, None or a function of (done, total); got {self.progress!r}.")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Execution:
        """Return the options of execution in a function's keyword arguments, with defaults for those that are not given.

        Args:
            given: Values by the names of options, such as {"threads": 2}.

        Raises:
            TypeError: If a name is not an option; the message suggests the nearest option or parameter of the calling function.
            ValueError: If a value is not one that `Execution` allows.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                own = _parameters_of_caller()
                parameters = f"Parameters are {', '.join(own)}; options of execution are " if own else "Options of execution are "
                meant = suggestion(name, [*own, *known], f"{parameters}{', '.join(known)}; see st.Execution.")
                raise TypeError(f"unexpected keyword argument `{name}`. {meant}")
        return cls(**given)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self))

    def __len__(self) -> int:
        return len(fields(self))

    def __contains__(self, name: object) -> bool:
        return name in [*self]

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from their defaults and that a result may depend on, as a dict from names to values.

        These are `backend`, which affects the last digits, and `dtype`, which determines the precision.
        """
        return {f.name: self[f.name] for f in fields(self) if f.name not in SILENT and self[f.name] != f.default}


def _parameters_of_caller() -> list[str]:
    """Return the names of the parameters of the function that called `Execution.of`, for a message."""
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    if caller is None:
        return []
    code = caller.f_code
    return [*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
