"""Compiled functions as nodes of a graph: what is not expressed in operations, but runs on whole rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sdetools.graph.value import Value, trace_of, value


@dataclass(frozen=True, eq=False)
class Call:
    """A compiled function as an operation of a graph: it is called as `function(*parts, out, *data)`.

    The parts are the inputs of the operation. A part is an array `(n, lanes)`, n its number of components, `(lanes,)` for a scalar, or one number
    if it is the same for all lanes. A lane is the place of one path. `out` is an array `(results + scratch, lanes)`, or `(lanes,)` for one scalar
    result.

    Attributes:
        function: Function compiled by Numba that writes its results into the first rows of `out`; None if there is only `address`, `plain` or `tensors`.
        data: Constant arrays that `function` takes after `out`.
        scratch: Number of rows of working memory in `out`, after the results.
        plain: `plain(*parts)` returns the results, `(results, paths)` or `(paths,)`, for NumPy arrays; None: `function` computes them.
        address: The name of a function of the library, such as "manifold.kernels:frame", whose machine code compiled kernels call instead, by addresses:
            those of the parts, which must be arrays, of `out` and of `data`, then the number of lanes; six integers, zeros at the end. Empty: none.
        tensors: `tensors(*parts)` returns the results for torch tensors; None: they are computed on NumPy arrays.
    """

    function: Callable[..., None] | None
    data: tuple[np.ndarray, ...] = ()
    scratch: int = 0
    plain: Callable[..., np.ndarray] | None = None
    tensors: Callable[..., Any] | None = None
    address: str = ""

    def __call__(self, parts: Sequence[Any], shape: tuple[int, ...]) -> Value:
        """Return the results as a node, of component shape `shape`, `(n,)` or `()`, of the trace of `parts` (values, of which one is traced)."""
        args = tuple(map(value, parts))
        trace = trace_of(args)
        assert trace is not None
        return trace.node("call", "", args, shape, self, id(self))

    def on_arrays(self, shape: tuple[int, ...], *parts: Any) -> np.ndarray:
        """Return the results as an array `(*shape, paths)`, computed by `plain` if it is given, else by `function`.

        Args:
            shape: Shape of the results for one path, `(n,)` or `()`.
            *parts: The arguments: arrays `(n, paths)` or `(paths,)`, or numbers that are the same for all paths. Without an array there is one path.
        """
        if self.plain is not None:
            return self.plain(*parts)
        paths = max((p.shape[-1] for p in parts if np.ndim(p)), default=1)
        out = np.empty((shape[0] + self.scratch, paths) if shape else (paths,))
        self.function(*(np.ascontiguousarray(p, dtype=float) if np.ndim(p) else float(p) for p in parts), out, *self.data)  # type: ignore[misc]
        return out[: shape[0]] if shape else out

    def on_tensors(self, shape: tuple[int, ...], *parts: Any) -> Any:
        """Return the results as a torch tensor `(*shape, paths)`.

        They are computed by the attribute `tensors` if it is given. Else the parts must be on the CPU, at least one of them with two axes, and
        `on_arrays` computes the results.

        Args:
            shape: Shape of the results for one path, `(n,)` or `()`.
            *parts: Tensors `(n, paths)` or `(paths,)`, or numbers that are the same for all paths.
        """
        if self.tensors is not None:
            return self.tensors(*parts)
        from sdetools.graph.torch_functions import through_arrays

        return through_arrays(partial(self.on_arrays, shape), parts)
