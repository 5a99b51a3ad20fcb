"""Formulas run through the graph: a function of arrays is traced once, and the generated code is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from emitted import loops

from sdetools.graph import arrays
from sdetools.graph.value import Trace, Value, value

EMITTERS = ("numpy", "torch", "loops")


def graph_of(function: Callable[..., Any], *given: np.ndarray) -> tuple[Value, list[Value]]:
    """Return the graph of `function`, and its inputs: `(n, paths)` differs from path to path, `(n,)` is uniform."""
    trace = Trace()
    inputs = [trace.input(f"x{i}", (len(a),)) if a.ndim == 2 else trace.uniform(f"u{i}", (len(a),)) for i, a in enumerate(given)]
    return value(function(*inputs)), inputs


def traced(emitter: str, function: Callable[..., Any], *given: np.ndarray) -> np.ndarray:
    """Return `function(*given)` by an emitter's code, paths last; at least one of `given` has paths."""
    out, inputs = graph_of(function, *given)
    paths = next(a.shape[1] for a in given if a.ndim == 2)
    if emitter == "loops":
        return _in_loops(out, inputs, given, paths)
    if emitter == "torch":
        import torch

        found = arrays.compiled([out], inputs, torch)(*map(torch.tensor, given))[0].numpy()
    else:
        found = arrays.compiled([out], inputs)(*(a.copy() for a in given))[0]
    return np.broadcast_to(found.reshape(*found.shape, 1), (*out.shape, paths)) if found.ndim == out.ndim else found


def _in_loops(out: Value, inputs: list[Value], given: tuple[np.ndarray, ...], lanes: int) -> np.ndarray:
    """Run one block with as many lanes as paths."""
    first, places, block, uniform = out.size, [], {}, []
    for v, a in zip(inputs, given):
        if a.ndim == 1:
            uniform.append((v, a))
            continue
        places.append((first, v))
        block[first], first = a, first + len(a)
    found = loops([(0, out)], places, lanes, [v for v, _ in uniform])(block, *(a for _, a in uniform))
    return found[: out.size].reshape(*out.shape, lanes)
