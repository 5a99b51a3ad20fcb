"""The same formula of other values: what it gives when its inputs are the results of something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdetools.graph.functions import matmul, reduce
from sdetools.graph.sampling import tally
from sdetools.graph.value import Value, apply, order
from sdetools.graph.views import join, same_view


def replaced(outputs: Sequence[Value], given: Mapping[Value, Value]) -> list[Value]:
    """`outputs` with values in the places of inputs, in the trace of these values; every input must have one.

    >>> import numpy as np
    >>> from sdetools.graph.value import Trace
    >>> x, y = Trace().input("x", (2,)), Trace().input("y", (2,))
    >>> replaced([np.sum(x)], {x: 2.0 * y})[0].args[0].args[1] is y
    True
    """
    for source, target in given.items():
        if source.shape != target.shape:
            raise ValueError(f"a value of component shape {source.shape} is needed here; got {target.shape}")
    known = {source.key: target for source, target in given.items()}
    for node in order(outputs):
        if node.key not in known:
            known[node.key] = _again(node, [known[a.key] for a in node.args])
    return [known[o.key] for o in outputs]


def _again(node: Value, args: list[Value]) -> Value:
    """A node with other arguments."""
    if node.op == "const":
        return node
    if node.op == "map":
        return apply(node.name, *args)
    if node.op == "reduce":
        return reduce(node.name, args[0], node.extra)
    if node.op == "contract":
        return matmul(*args)
    if node.op == "view":
        return same_view(node, args[0])
    if node.op == "join":
        return join(args)
    if node.op == "rows":
        return args[0][args[1]]
    if node.op == "tally":
        return tally(args[0], node.size, *args[1:])  # type: ignore[no-any-return]
    if node.op == "call":
        return node.extra(args, node.shape)  # type: ignore[no-any-return]
    raise ValueError(f"the {node.op} {node.name!r} of a formula has no value")
