"""Losses from functions: a hand-written gradient, checked at the door against the value by finite differences."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from itertools import permutations
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from .. import _check
from .._arrays import components
from .base import Loss, coordinate_names, digest, scalar

EPS = float(np.finfo(float).eps)
POINTS = 4
COORDINATES = 32


class FunctionLoss(Loss):
    """A loss given by functions of `x`, indexed by component; see `from_function`.

    `function` is the gradient as given (a Numba dispatcher can be staged by a kernel), `compiled` says whether it is a
    dispatcher, `batched` whether it takes `(dim, paths)` as it stands. A function that does not is called path by path.
    """

    def __init__(
        self, gradient: Callable, dim: int, value: Callable | None, hessian: Callable | None, names: Sequence[str] | None
    ) -> None:
        self.dim = _check.count("dim", dim)
        self.names = coordinate_names(names, self.dim)
        self.parameters = np.empty(0)
        for name, given in (("gradient", gradient), ("value", value), ("hessian", hessian)):
            if not callable(given) and (given is not None or name == "gradient"):
                raise ValueError(f"`{name}` must be a function of x; got {given!r}.")
        self.function, self.value_function, self.hessian_function = gradient, value, hessian
        self.compiled = hasattr(gradient, "py_func")
        self.label = getattr(gradient, "__name__", type(gradient).__name__)
        self.latex = r"L(x)"
        self.batched, self._value_batched, self._hessian_batched = (
            _batched(f, shape, self.dim) for f, shape in ((gradient, 1), (value, 0), (hessian, 2))
        )
        if value is not None:
            _compare(self.value, self.gradient, self.names, "gradient", "value")
        if hessian is not None:
            _compare(self.gradient, self.hessian, self.names, "hessian", "gradient")

    @property
    def identity(self) -> str:
        given = (self.function, self.value_function, self.hessian_function)
        return f"function:{self.dim}:" + ":".join(_fingerprint(f) for f in given)

    def value(self, x: Any, p: Any = None) -> Any:
        if self.value_function is None:
            raise ValueError(
                f"`value` of the loss {self.label} was not given, so it cannot be evaluated. Pass value= to from_function."
            )
        return _call(self.value_function, 0, self._value_batched, self._point(x))

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        return _call(self.function, 1, self.batched, self._point(x))

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """As given, or central differences of the gradient (error about 1e-10 of its scale)."""
        x = self._point(x)
        if self.hessian_function is not None:
            return _call(self.hessian_function, 2, self._hessian_batched, x)
        return self._differences(x, EPS ** (1 / 3))

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Central differences of the Hessian; of its differences when it is not given (error then about 1e-7)."""
        x = self._point(x)
        if self.hessian_function is not None:
            rough = _differences(self.hessian, x, EPS ** (1 / 3))
        else:
            rough = _differences(lambda y: self._differences(y, EPS ** (1 / 4)), x, EPS ** (1 / 4))
        rest = tuple(range(3, rough.ndim))
        return np.mean([rough.transpose(*order, *rest) for order in permutations(range(3))], axis=0)

    def _differences(self, x: np.ndarray, step: float) -> np.ndarray:
        rough = _differences(self.gradient, x, step)
        return (rough + rough.swapaxes(0, 1)) / 2


def from_function(
    gradient: Callable,
    dim: int,
    value: Callable | None = None,
    hessian: Callable | None = None,
    names: Sequence[str] | None = None,
) -> FunctionLoss:
    """A loss from its gradient, a function of `x` (indexed by component) that returns `dim` components.

    The same function is called with numbers, with rows of paths, and traced with symbols; an `@njit` function runs in the staged
    kernel. `value(x)` and `hessian(x)` (`dim` rows of `dim` components) are optional; a missing Hessian and the third derivative
    come from central differences. Given both, the gradient is compared with central differences of the value, and the Hessian
    with those of the gradient, at random points: a ValueError names the worst coordinate.

    >>> loss = from_function(lambda x: [x[0] ** 3 - x[0]], dim=1, value=lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2)
    >>> loss.gradient([[0.0, 1.0, 2.0]])
    array([[0., 0., 6.]])
    >>> from_function(lambda x: [2 * x[0]], dim=1, value=lambda x: x[0] ** 2 / 2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: `gradient` must be the derivative of `value`; at x = [0.126] its coordinate x0 is 0.25146 where central ...
    """
    return FunctionLoss(gradient, dim, value, hessian, names)


def _call(function: Callable, order: int, batched: bool, x: np.ndarray) -> Any:
    """The function on one point or on many, as an array `(dim,) * order + paths`."""
    if x.dtype == object:
        return _shaped(getattr(function, "py_func", function)(x.copy()), order, x)
    with np.errstate(all="ignore"):
        if x.ndim == 1 or batched:
            return _shaped(function(x.copy()), order, x)
        flat = np.ascontiguousarray(x.reshape(len(x), -1).T)
        out = np.empty((len(x),) * order + (len(flat),))
        for j, row in enumerate(flat):
            out[..., j] = _shaped(function(row.copy()), order, row)
        return out.reshape((len(x),) * order + x.shape[1:])


def _shaped(result: Any, order: int, x: np.ndarray) -> Any:
    """Nested components, some of them constant, as one array."""
    if order == 0:
        return scalar(result, x)
    if np.ndim(result) == 0 or len(result) != len(x):
        raise ValueError(
            f"The {'gradient' if order == 1 else 'hessian'} must return {len(x)} components, one a coordinate; "
            f"got {'one number' if np.ndim(result) == 0 else len(result)}. Return a sequence such as [x[1], x[0]]."
        )
    if order == 1:
        return components(result, x)
    return components([entry for row in result for entry in _shaped(row, 1, x)], x).reshape(len(x), len(x), *x.shape[1:])


def _batched(function: Callable | None, order: int, dim: int) -> bool:
    """Whether the function on `(dim, paths)` is the function path by path."""
    if function is None:
        return True
    paths = np.random.default_rng(1).standard_normal((dim, 3))
    single = _call(function, order, False, paths)
    try:
        many = _call(function, order, True, paths)
    except Exception:  # whatever it does on rows, it is called path by path then
        return False
    return np.allclose(single, many, rtol=1e-9, atol=1e-12, equal_nan=True)


def _differences(function: Callable, x: np.ndarray, step: float) -> np.ndarray:
    """d_i function: central differences along every coordinate, on a new first axis."""
    if x.dtype == object:
        raise ValueError("A derivative by finite differences cannot be traced; give the function `hessian`, or an expression.")
    out = []
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += step * np.maximum(1, np.abs(x[i]))
        down[i] -= step * np.maximum(1, np.abs(x[i]))
        with np.errstate(all="ignore"):
            out.append((function(up) - function(down)) / (up[i] - down[i]))
    return np.stack(out)


def _compare(function: Callable, derivative: Callable, names: tuple[str, ...], name: str, of: str) -> None:
    """Raise unless `derivative` is the derivative of `function` at a few random points.

    With the step h = eps^(1/3) a central difference D(h) errs by h^2 f'''/6 + eps f/h, both of order eps^(2/3) times the scale
    of f; D(2h) - D(h) measures the first term. Ten times that, and 1000 eps^(2/3) times the scale, leaves room for a rough f.
    """
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((POINTS, len(names)))
    checked = np.sort(rng.permutation(len(names))[:COORDINATES])
    for x in np.vstack([normal, np.abs(normal[:2]) + 0.5]):
        given = np.asarray(derivative(x))[checked]
        found, spread, scale = (np.stack(a) for a in zip(*(_central(function, x, i) for i in checked), strict=True))
        with np.errstate(all="ignore"):
            error = np.abs(given - found)
            allowed = 10 * spread + 1000 * EPS ** (2 / 3) * (scale + np.abs(given) + np.abs(found))
        wrong = np.isfinite(found + spread) & ~(error <= allowed)
        if np.any(wrong):
            worst = np.unravel_index(np.argmax(np.where(wrong, np.nan_to_num(error, nan=np.inf), -1)), error.shape)
            entry = ", ".join(names[i] for i in (checked[worst[0]], *worst[1:]))
            at = np.array2string(x[:6], precision=3)
            raise ValueError(
                f"`{name}` must be the derivative of `{of}`; at x = {at} its coordinate {entry} is "
                f"{given[worst]:.5g} where central differences give {found[worst]:.5g}. Check its sign and its factors."
            )


def _central(function: Callable, x: np.ndarray, i: int) -> tuple[Any, Any, Any]:
    """D(h), |D(2h) - D(h)| and the size of f along coordinate i."""
    shift = np.zeros_like(x)
    shift[i] = EPS ** (1 / 3) * max(1.0, abs(x[i]))
    with np.errstate(all="ignore"):
        up, down, far_up, far_down = (function(x + s * shift) for s in (1, -1, 2, -2))
        near, far = (up - down) / (2 * shift[i]), (far_up - far_down) / (4 * shift[i])
        return near, np.abs(far - near), np.abs(up)


def _fingerprint(function: Any, seen: tuple[int, ...] = ()) -> str:
    """A hash of what a function does: its code, its constants, and the numbers and functions that it reads from outside."""
    function = getattr(function, "py_func", function)
    code = getattr(function, "__code__", None)
    if function is None or id(function) in seen:
        return "-"
    if code is None:
        return getattr(function, "__name__", None) or digest(np.frombuffer(pickle.dumps(function), dtype=np.uint8))
    outside = [function.__globals__[n] for n in code.co_names if n in function.__globals__]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [*_code(code), *(_outside(v, (*seen, id(function))) for v in (*cells, *outside, *(function.__defaults__ or ())))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _code(code: CodeType) -> list[str]:
    nested = [c for c in code.co_consts if isinstance(c, CodeType)]
    plain = [repr(c) for c in code.co_consts if not isinstance(c, CodeType)]
    return [code.co_code.hex(), repr(code.co_names), *plain, *(line for c in nested for line in _code(c))]


def _outside(value: Any, seen: tuple[int, ...]) -> str:
    """An array by its content, a function by its fingerprint, a module or class by name, anything else as printed or pickled."""
    if isinstance(value, np.ndarray):
        return digest(value)
    if callable(value) or isinstance(value, ModuleType) or type(value).__repr__ is object.__repr__:
        return _fingerprint(value, seen)
    return repr(value)
