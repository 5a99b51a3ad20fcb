"""Code generator for NumPy and torch: a graph becomes straight-line array code, with the axis of paths last.

Both libraries get the same code, plain enough for `torch.compile`. The code is one function f; its variables are a0, a1, ... (arguments),
v0, v1, ... (nodes) and c0, c1, ... (arrays of data), and P is the number of paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sdetools.graph import sampling
from sdetools.graph.value import CONDITIONS, Value, order
from sdetools.graph.views import dense

SIGNS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=",
    "equal": "==", "not_equal": "!=", "logical_and": "&", "logical_or": "|",
}  # fmt: skip
"""Operations that are written with an operator, in every language."""
REDUCED = {"add": "sum", "maximum": "amax", "minimum": "amin", "multiply": "prod"}


def compiled(
    outputs: Sequence[Value], inputs: Sequence[Value], torch: Any = None, device: Any = "cpu", dtype: Any = None
) -> Callable[..., tuple[Any, ...]]:
    """Compile symbolic arrays of one graph to a function `f(*arrays) -> arrays` in NumPy or torch.

    `shape` below is a value's component shape, that of one path; a uniform value is the same for all paths.

    Args:
        outputs: Values to compute.
        inputs: All inputs on which `outputs` depend, in the order of f's arguments. f takes an array `(*shape, paths)` for each, for a uniform
            input an array `shape`.
        torch: The module `torch`, for tensors; None for NumPy.
        device: Device of the tensors, as torch takes it; NumPy ignores it.
        dtype: Type of the floats, such as `torch.float32` for torch; None for float64.

    Returns:
        The function. It returns a tuple of arrays or tensors in the order of `outputs`, `(*shape, paths)` each, for uniform outputs `shape`.
        Compiled functions in the graph (`graph.calls.Call`) are called once with the arrays of all paths. Overflow and invalid operations give
        infinity and NaN without a warning.

    Example:
        >>> import numpy as np
        >>> from sdetools.graph.arrays import compiled
        >>> from sdetools.graph.value import Trace
        >>> x = Trace().input("x", (2,))
        >>> compiled([np.sum(x * x)], [x])(np.array([[1.0, 2.0], [3.0, 4.0]]))[0]
        array([10., 20.])
    """
    text, space = source(outputs, inputs, torch, device, dtype)
    exec(compile(text, "<graph>", "exec"), space)  # generated above
    return space["f"]


def source(
    outputs: Sequence[Value], inputs: Sequence[Value], torch: Any = None, device: Any = "cpu", dtype: Any = None
) -> tuple[str, dict[str, Any]]:
    """Return the pair (source code of the function f that `compiled` makes, dictionary of the objects that it uses, by name).

    f computes symbolic arrays from numeric ones. The code defines f when it is executed with the dictionary as its global names.

    Args:
        outputs: Values to compute.
        inputs: All inputs on which `outputs` depend, in the order of f's arguments.
        torch: The module `torch`, for code on tensors; None for NumPy.
        device: Device of the tensors, as torch takes it; NumPy ignores it.
        dtype: Type of the floats, such as `torch.float32` for torch; None for float64.
    """
    return _Writer(torch, device, dtype).text(outputs, inputs)


class _Writer:
    """Writes the code of one function; the arguments are those of `compiled`."""

    def __init__(self, torch: Any, device: Any, dtype: Any) -> None:
        self.torch, self.device, self.real = torch, device, dtype or (torch.float64 if torch else float)
        self.space: dict[str, Any] = {"np": np, "sampling": sampling, "torch": torch, "real": self.real, "device": device}
        if torch:
            from sdetools.graph import torch_functions

            self.space["F"] = torch_functions

    def text(self, outputs: Sequence[Value], inputs: Sequence[Value]) -> tuple[str, dict[str, Any]]:
        """Return the pair (source code of a function f of `inputs` that returns the tuple of `outputs`, dictionary of what it uses by name)."""
        names: dict[Any, str] = {x.key: f"a{i}" for i, x in enumerate(inputs)}
        varying = next((names[x.key] for x in inputs if not x.uniform), None)
        lines = [f"P = {varying}.shape[-1]"] if varying else []
        nodes = order(outputs)
        last = {a.key: i for i, node in enumerate(nodes) for a in node.args}
        kept = {o.key for o in outputs} | set(names)
        for i, node in enumerate(nodes):
            if node.key in names:
                continue
            if node.op == "const" and node.ndim == 0:
                names[node.key] = repr(bool(node.extra)) if node.boolean else _number(float(node.extra))
                continue
            if node.op == "const":
                names[node.key] = self.data(node.extra)
                continue
            names[node.key] = name = f"v{i}"
            lines.append(f"{name} = {self.line(node, [names[a.key] for a in node.args])}")
            gone = [
                names[a.key]
                for a in dict.fromkeys(node.args)
                if last[a.key] == i and a.key not in kept and a.op not in ("const", "uniform")
            ]
            lines += [f"del {', '.join(dict.fromkeys(gone))}"] if gone else []
        made = [self.whole(names[o.key]) if o.ndim == 0 and o.op == "const" else names[o.key] for o in outputs]
        lines.append("return " + "".join(f"{m}, " for m in made) + ("()" if not made else ""))
        head = f"def f({', '.join(names[x.key] for x in inputs)}):\n"
        guard = "" if self.torch else "    with np.errstate(all='ignore'):\n"
        pad = "    " if self.torch else "        "
        return head + guard + "\n".join(pad + line for line in lines) + "\n", self.space

    def data(self, array: np.ndarray) -> str:
        """Return the name, "c0" and so on, by which the code refers to `array`; for torch a tensor with its numbers is stored under this name."""
        name = f"c{sum(n.startswith('c') for n in self.space)}"
        if self.torch:
            kind = {"f": self.real, "b": self.torch.bool}.get(array.dtype.kind)
            array = self.torch.as_tensor(np.ascontiguousarray(array), dtype=kind, device=self.device)
        self.space[name] = array
        return name

    def called(self, name: str, *given: Any) -> str:
        """Return the text of a call of the function that NumPy calls `name`, in the library of the code: "np.exp(v3)" for `given` = ("v3",)."""
        lib = "np" if not self.torch else "F" if hasattr(self.space["F"], name) else "torch"
        return f"{lib}.{name}({', '.join(map(str, given))})"

    def whole(self, number: str) -> str:
        """Return the text of an array with one number, "np.asarray(1.0)", from the text of the number."""
        return self.called("asarray", number, *(["dtype=real", "device=device"] if self.torch else []))

    def line(self, v: Value, own: list[str]) -> str:
        """Return the text to the right of `=` that computes the node `v`: "v3 * a0" for a product; `own` has the variables of `v.args`, in order."""
        if v.op == "map":
            return self.map(v, [f"{n}[..., None]" if a.uniform and a.ndim and not v.uniform else n for a, n in zip(v.args, own)])
        if v.op == "reduce":
            return self.called(REDUCED[v.name], own[0], v.extra)
        if v.op == "contract":
            x = v.args[1]
            flat = own[1] if x.ndim == 1 else f"{own[1]}.reshape({x.shape[0]}, -1)"
            return f"({own[0]} @ {flat})" + ("" if x.ndim == 1 else f".reshape({self.shape(v)})")
        if v.op == "join":
            return self.called("concatenate", f"({', '.join(self.spread(a, n, v) for a, n in zip(v.args, own))},)")
        if v.op == "rows":
            taken = f"{own[0]}[{own[1]}{'.long()' if self.torch else '.astype(np.int64)'}]"
            return taken if v.args[0].ndim == 1 or v.uniform else self.called("moveaxis", taken, v.args[1].ndim, -1)
        if v.op == "tally":
            return f"{'F' if self.torch else 'sampling'}.tally({own[0]}, {', '.join([str(v.size), *own[1:]])})"
        if v.op == "call":
            call = v.extra.on_tensors if self.torch else v.extra.on_arrays
            self.space[name := f"stage{len(self.space)}"] = partial(call, v.shape)
            return f"{name}({', '.join(self.spread(a, n, v) if a.ndim else n for a, n in zip(v.args, own))})"
        return self.view(v, own[0])

    def map(self, v: Value, a: list[str]) -> str:
        """Return the text to the right of `=` for an elementwise operation `v`, such as "v3 + 1.0"; `a` has the texts of its operands, in order."""
        if v.name not in (*CONDITIONS, "where"):  # the type of a condition and a number would depend on the library
            a = [self.real_of(x, n) if x.boolean else n for x, n in zip(v.args, a)]
        if v.name in SIGNS:
            return f"{a[0]} {SIGNS[v.name]} {a[1]}"
        if v.name in ("negative", "logical_not"):
            return f"{'-' if v.name == 'negative' else '~'}{a[0]}"
        if self.torch and v.name in ("where", "maximum", "minimum", "power"):  # torch takes tensors only
            a = [self.whole(n) if x.op == "const" and not x.ndim and not x.boolean else n for x, n in zip(v.args, a)]
        return self.called(v.name, *a)

    def real_of(self, a: Value, condition: str) -> str:
        """Return the text of the condition `a` as numbers 0 and 1: "v3.astype(real)", in torch "v3.to(real)"; `condition` is its own text, "v3"."""
        if a.op == "const" and not a.ndim:
            return _number(float(a.extra))
        return f"{condition}.to(real)" if self.torch else f"{condition}.astype(real)"

    def spread(self, a: Value, name: str, other: Value) -> str:
        """Return `name`, the text of operand `a` of the node `other`; if `a` is uniform and `other` is not, that of `a` repeated for all paths."""
        if not a.uniform or other.uniform:
            return name
        name = self.whole(name) if a.op == "const" and a.ndim == 0 else name
        return self.called("broadcast_to", f"{name}[..., None]", f"({''.join(f'{n}, ' for n in a.shape)}P)")

    def shape(self, v: Value, shape: Sequence[int] | None = None) -> str:
        """Return the text of `shape` (None: that of `v`) with the axis of P paths appended, "(3, P,)"; without it if `v` is uniform, "(3, )"."""
        return "(" + "".join(f"{n}, " for n in (v.shape if shape is None else shape)) + ("" if v.uniform else "P,") + ")"

    def view(self, v: Value, x: str) -> str:
        """Return the text to the right of `=` for a view `v` of the variable `x`: a slice, a permutation of axes, or an index array."""
        s, w = v.args[0], v.extra
        if v.size == 1 and w.table is None and s.ndim == 1:
            return f"{x}[{w.start}]" if v.ndim == 0 else f"{x}[{w.start}:{w.start + 1}].reshape({self.shape(v)})"
        if w.table is None and v.ndim == s.ndim == 1 and w.strides[0] > 0:
            return f"{x}[{w.start}:{w.start + w.strides[0] * (v.shape[0] - 1) + 1}:{w.strides[0]}]"
        axes = pull(v)
        if axes is not None:  # axes are permuted, and some are repeated
            used = [a for a in axes if a is not None]
            x = f"{x}.reshape({self.shape(v, [v.shape[a] for a in used])})" if None in axes else x
            axes = tuple(int(t) for t in np.argsort(used)) + (() if v.uniform else (len(used),))
            x = self.called("transpose", x, axes) if axes != tuple(range(len(axes))) else x
            if len(used) < v.ndim:
                x = f"{x}.reshape({self.shape(v, [n if a in used else 1 for a, n in enumerate(v.shape)])})"
                x = self.called("broadcast_to", x, self.shape(v))
            return x
        flat = f"{x}.reshape({self.shape(v, [s.size])})"
        at = w.places(v.shape)
        if at.flat[0] >= 0 and np.array_equal(at.ravel(), np.arange(at.flat[0], at.flat[0] + at.size)):
            return f"{flat}[{at.flat[0]}:{at.flat[0] + at.size}].reshape({self.shape(v)})"
        taken = f"{flat}[{self.data(np.maximum(at, 0))}]"
        if (at >= 0).all():
            return taken
        there = self.data(at >= 0) + ("" if v.uniform else "[..., None]")
        return f"({there} & {taken})" if v.boolean else self.called("where", there, taken, self.whole("0.0"))


def _number(x: float) -> str:
    return (
        "np.nan" if x != x else f"{'-' if x < 0 else ''}np.inf" if x in (np.inf, -np.inf) else repr(x) if x >= 0 else f"({x!r})"
    )


def pull(v: Value) -> list[int | None] | None:
    """Return, for each axis of the source of the view `v`, the number of the axis of `v` that runs along it: [1, 0] for a transpose.

    A view is a symbolic array that consists of the elements of another one, its source. An axis of the source with one element is None in the
    list. The view may repeat the source along new axes: a broadcast of `(3,)` to `(5, 3)` gives [1]. The result is None, instead of a list, for
    all other views, such as slices and reshapes.
    """
    source, w = v.args[0], v.extra
    if w.start or w.table is not None:
        return None
    free = {s: a for a, (s, n) in enumerate(zip(w.strides, v.shape)) if n > 1 and s}
    out: list[int | None] = []
    for s, n in zip(dense(source.shape), source.shape):
        if n == 1:
            out.append(None)
        elif s in free and v.shape[free[s]] == n:
            out.append(free.pop(s))
        else:
            return None
    return None if free else out
