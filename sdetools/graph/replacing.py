"""Substitution into formulas: other values for their inputs, or all samples of data at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sdetools.graph.errors import TracingError
from sdetools.graph.products import matmul, reduce
from sdetools.graph.sampling import tally
from sdetools.graph.value import Value, apply, order
from sdetools.graph.views import at_places, broadcast, join, reshape, same_view, transpose, view


def replaced(outputs: Sequence[Value], given: Mapping[Value, Value]) -> list[Value]:
    """Return formulas with other values substituted for all of their inputs.

    Args:
        outputs: The formulas, values (symbolic arrays) of one trace, the record of their operations.
        given: A dictionary from every input that the outputs depend on to its new value, of the same shape. The new values may belong to another
            trace; the results belong to theirs.

    Returns:
        The new values, in the order of `outputs`. The old ones are unchanged.

    Raises:
        ValueError: If a value differs in shape from its input, or an input of `outputs` is not in `given`.

    Example:
        >>> import numpy as np
        >>> from sdetools.graph.arrays import compiled
        >>> from sdetools.graph.replacing import replaced
        >>> from sdetools.graph.value import Trace
        >>> x, y = Trace().input("x", (2,)), Trace().input("y", (2,))
        >>> compiled(replaced([np.sum(x)], {x: 2.0 * y}), [y])(np.array([[1.0], [3.0]]))
        (array([8.]),)
    """
    for source, target in given.items():
        if source.shape != target.shape:
            raise ValueError(f"a value of component shape {source.shape} is needed here; got {target.shape}")
    known = {source.key: target for source, target in given.items()}
    for node in order(outputs):
        if node.key not in known:
            known[node.key] = _rebuilt(node, [known[a.key] for a in node.args])
    return [known[o.key] for o in outputs]


def _rebuilt(node: Value, args: list[Value]) -> Value:
    """Return the operation of a node on other arguments, of the shapes of its own; ValueError for an input."""
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
        return tally(args[0], node.size, *args[1:])
    if node.op == "call":
        return node.extra(args, node.shape)
    raise ValueError(f"the {node.op} {node.name!r} of a formula has no value")


def batched(out: Value, samples: Mapping[Value, Value], given: Mapping[Value, Value]) -> Value:
    """Return a formula of one sample of data, evaluated for n samples at once, as a symbolic array (`Value`) `(n, *out.shape)`.

    Args:
        out: The formula of one sample, a value (symbolic array).
        samples: A dictionary, not empty, from each input that stands for a part of the sample, of shape `shape`, to the parts of all n samples: a
            value `(n, *shape)`.
        given: A dictionary from each other input of the formula to its new value, of the same shape.

    Raises:
        TracingError: If a part of a sample enters an operation that cannot be batched, such as a compiled function.
        ValueError: If an input is in neither dictionary, `samples` is empty, or its values differ in n.

    Example:
        >>> import numpy as np
        >>> from sdetools.graph.arrays import compiled
        >>> from sdetools.graph.replacing import batched
        >>> from sdetools.graph.value import Trace, value
        >>> one, here = Trace(), Trace()
        >>> x, a, y = one.input("x", (2,)), one.input("a", (2,)), here.input("y", (2,))
        >>> out = batched(a @ x, {a: value(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))}, {x: y})
        >>> out.shape, compiled([out], [y])(np.array([[2.0], [3.0]]))[0].tolist()
        ((3,), [[2.0], [3.0], [5.0]])
    """
    (n,) = {len(v) for v in samples.values()}
    known = {source.key: target for source, target in (*samples.items(), *given.items())}
    many = {source.key for source in samples}
    for node in order([out]):
        if node.key in known:
            continue
        args = [known[a.key] for a in node.args]
        if any(a.key in many for a in node.args):
            known[node.key] = _batched_node(node, args, [a.key in many for a in node.args], n)
            many.add(node.key)
        else:
            known[node.key] = _rebuilt(node, args)
    found = known[out.key]
    return found if out.key in many else broadcast(found, (n, *out.shape))


def _batched_node(node: Value, args: list[Value], many: list[bool], n: int) -> Value:
    """Return a node for n samples; arguments that are `many` have the axis of samples first."""
    if node.op == "map":
        return apply(node.name, *(_aligned(v, a, node.ndim) if m else v for a, v, m in zip(node.args, args, many)))
    if node.op == "reduce":
        return reduce(node.name, args[0], tuple(a + 1 for a in node.extra))
    if node.op == "contract":
        x = args[1]
        samples_last = transpose(x, (1, 0, *range(2, x.ndim)))
        made = reshape(matmul(args[0], reshape(samples_last, (x.shape[1], -1))), (node.shape[0], n, *node.shape[1:]))
        return transpose(made, (1, 0, *range(2, made.ndim)))
    if node.op == "view":
        w, size = node.extra, node.args[0].size
        if w.table is None:
            return view(args[0], (n, *node.shape), (size, *w.strides), w.start)
        at = w.places(node.shape)
        return at_places(args[0], np.where(at < 0, -1, at + size * np.arange(n).reshape(-1, *[1] * at.ndim)))
    if node.op == "join":
        return join([v if m else broadcast(v, (n, *v.shape)) for v, m in zip(args, many)], 1)
    raise TracingError(f"a {node.op} cannot be batched over samples of data; write the formula in NumPy")


def _aligned(v: Value, of: Value, ndim: int) -> Value:
    """Return samples `(n, *of.shape)` with new axes, so that they broadcast as `of` does in an operation with `ndim` axes."""
    return reshape(v, (len(v), *[1] * (ndim - of.ndim), *of.shape))
