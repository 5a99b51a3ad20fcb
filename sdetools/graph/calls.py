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
    """A call of `function(*parts, out, *data)` on rows `(n, lanes)`.

    Attributes:
        function: Compiled function, or None. Its results come first in `out`, followed by `scratch` rows of working memory.
        data: Arrays that it takes after `out`.
        scratch: Number of rows of working memory.
        plain: `plain(*parts)`, the results from NumPy arrays; by default computed by `function`.
        tensors: `tensors(*parts)`, the results from torch tensors; by default computed on NumPy arrays.
    """

    function: Callable[..., None] | None
    data: tuple[np.ndarray, ...] = ()
    scratch: int = 0
    plain: Callable[..., np.ndarray] | None = None
    tensors: Callable[..., Any] | None = None

    def __call__(self, parts: Sequence[Any], shape: tuple[int, ...]) -> Value:
        """Return the results, of component shape `(n,)` or `()`, as a node of the parts' trace."""
        args = tuple(map(value, parts))
        trace = trace_of(args)
        assert trace is not None
        return trace.node("call", "", args, shape, self, id(self))

    def on_arrays(self, shape: tuple[int, ...], *parts: Any) -> np.ndarray:
        """Return the results for NumPy arrays with paths last."""
        if self.plain is not None:
            return self.plain(*parts)
        paths = max((p.shape[-1] for p in parts if np.ndim(p)), default=1)
        out = np.empty((shape[0] + self.scratch, paths) if shape else (paths,))
        self.function(*(np.ascontiguousarray(p, dtype=float) if np.ndim(p) else float(p) for p in parts), out, *self.data)  # type: ignore[misc]
        return out[: shape[0]] if shape else out

    def on_tensors(self, shape: tuple[int, ...], *parts: Any) -> Any:
        """Return the results for torch tensors; a function compiled for CPUs gets them by shared memory."""
        if self.tensors is not None:
            return self.tensors(*parts)
        from sdetools.graph.torch_functions import through_arrays

        return through_arrays(partial(self.on_arrays, shape), parts)
