"""Losses given by Python functions of one point: derivatives from the graph of the value, or a gradient that the user writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, spread
from sdetools._identity import function_identity
from sdetools.graph.errors import TracingError
from sdetools.graph.tracing import NotTraceable, place_of, trace
from sdetools.graph.value import Value, is_value, value as as_value
from sdetools.losses import differences
from sdetools.losses.base import Loss, coordinate_names, scalar
from sdetools.losses.graphs import Formula, Graphs, Traced

ORDERS = "value", "gradient", "hessian"
FORMULAS = "value", "slope", "curvature"


class FunctionLoss(Loss):
    """A loss given by Python functions of one point; build it with `from_function`.

    On many paths a function runs as its graph: the record of its operations, made by one call with traced values. A function that cannot be
    traced is called with all paths if it accepts points `(dim, paths)`, else path by path. The loss has no parameters: its methods ignore
    `p`.

    Args:
        gradient: `gradient(x)` returns `dim` components; None if it is derived from the value.
        dim: Number of coordinates; None is refused, with an error that says so.
        value: `value(x)` returns one number; None if only the gradient is known.
        hessian: `hessian(x)` returns `dim` rows of `dim` components; None if it is derived.
        names: Names of the coordinates, a list or "x y"; None for x0, x1, ...

    Raises:
        ValueError: If neither `value` nor `gradient` is given, a value alone cannot be traced, a result has a wrong shape, or a derivative
            does not agree with differences (see `from_function`).

    Attributes:
        function: The gradient as given, or None. If Numba has compiled it, the simulation calls it directly.
        value_function: The value as given, or None.
        hessian_function: The Hessian as given, or None.
        compiled: Whether `function` is compiled by Numba (has `py_func`).
        batched: Whether `function` accepts points of shape `(dim, paths)`; True if it is None.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.from_function(value=lambda x: np.sum(x**4) / 4, dim=2)
        >>> loss.function, loss.hessian_product([1.0, 2.0], [1.0, 1.0])  # the gradient was not given
        (None, array([ 3., 12.]))
    """

    def __init__(
        self,
        gradient: Callable | None,
        dim: int | None,
        value: Callable | None,
        hessian: Callable | None,
        names: Sequence[str] | None,
    ) -> None:
        if gradient is None and value is None:
            raise ValueError(
                "`gradient` or `value` must be given, a function of x; got neither. Pass for example value=lambda x: x[0]**2 / 2."
            )
        for name, given in (("gradient", gradient), ("value", value), ("hessian", hessian)):
            if given is not None:
                _check.function(name, given, ["x"], "For a formula in quotes use losses.from_expression.")
        self.dim = _check.count("dim", dim, hint="It is the number of coordinates, which cannot be inferred from a function.")
        self.names = coordinate_names(names, self.dim)
        self.parameters = np.empty(0)
        self.function, self.value_function, self.hessian_function = gradient, value, hessian
        self.compiled = hasattr(gradient, "py_func")
        main = gradient if gradient is not None else value
        self.label = getattr(main, "__name__", type(main).__name__)
        self.latex = r"L(x)"
        if gradient is None:
            self._derive()
        self._value_batched, self.batched, self._hessian_batched = (self._takes_rows(order) for order in range(3))
        if value is not None and gradient is not None:
            differences.compare(self.value, self.gradient, self.names, "gradient", "value")
        if hessian is not None:
            differences.compare(self.gradient, self.hessian, self.names, "hessian", "gradient")

    def _derive(self) -> None:
        """Derive the gradient from the graph of the value; raise ValueError if it cannot be traced, or the error of the user's function."""
        try:
            self._graphs.slope  # noqa: B018
        except TracingError as error:
            reason: Exception = NotTraceable(str(error))
        except NotTraceable as error:
            reason = error
        else:
            return
        self._call(0, np.full(self.dim, 0.5))  # an error on numbers too is one of the user's function
        raise ValueError(
            f"`gradient` must be given if `value` cannot be traced: {reason}. "
            "Write the value with NumPy's functions, or pass a hand-written gradient as gradient=."
        ) from reason

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, without the graphs and their compiled functions, which are derived again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_graphs", "_known")}

    @property
    def identity(self) -> str:
        """A text, equal for equal losses: the dimension and the identities of the three functions."""
        given = (self.function, self.value_function, self.hessian_function)
        return f"function:{self.dim}:" + ":".join("-" if f is None else function_identity(f) for f in given)

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`; ValueError if no value was given. `p` is not used."""
        if self.value_function is None:
            raise ValueError(
                f"`value` of the loss {self.label} was not given, so it cannot be evaluated. Pass value= to from_function."
            )
        return self._evaluate(0, self._point(x))

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the gradient in the shape of `x`, `(dim,)` or `(dim, paths)`: as given, or from the graph of the value. `p` is not used."""
        return self._evaluate(1, self._point(x))

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian, `(dim, dim)` for one point `x` `(dim,)` and `(dim, dim, paths)` for many `(dim, paths)`: as given, or from the graph.

        If the gradient cannot be traced, it is found by central differences, with a relative error of order 1e-10. `p` is not used.
        """
        x = self._point(x)
        if self.hessian_function is not None:
            return self._evaluate(2, x)
        if isinstance(x, Value):
            return self._graphs.curvature.of(x)
        if self._formula("product", x) is None:
            return differences.hessian(self.gradient, x)
        return with_path_axes(self._graphs.hessian(points_as_rows(x)), x)

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative, `(dim, dim, dim)` for one point `x` `(dim,)` and `(dim, dim, dim, paths)` for many, from the graph.

        If the functions cannot be traced, it is found by differences of a given Hessian (relative error of order 1e-9) or of the gradient
        (of order 1e-7). `p` is not used.
        """
        x = self._point(x)
        if isinstance(x, Value):
            return self._graphs.dense_third.of(x)
        if self._formula("third", x) is None:
            return differences.third(self.gradient, self.hessian if self.hessian_function is not None else None, x)
        return with_path_axes(self._graphs.tensor(points_as_rows(x)), x)

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian-vector product sum_j d_ij L(x) v_j, by a forward pass over the graph of the gradient.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            v: The vector, `(dim,)` or `(dim, paths)`.
            p: Not used: the loss has no parameters.

        Returns:
            An array `(dim,)`, or `(dim, paths)` if `x` or `v` has paths. The Hessian is formed only if it is given or found by differences.
        """
        x, v = self._point(x), self._point(v)
        if isinstance(x, Value) or isinstance(v, Value):
            return self._graphs.product.of(x, v)
        if self.hessian_function is not None or self._formula("product", x) is None:
            return super().hessian_product(x, v)
        x, v = np.broadcast_arrays(spread(x, v), spread(v, x))
        return with_path_axes(self._graphs.product(points_as_rows(x), points_as_rows(v)), x)

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return the contraction sum_ij d_ijl L(x) M_ij; the dim^3 entries d_ijl L are formed only if the functions cannot be traced.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            matrix: M, `(dim, dim)` or `(dim, dim, paths)`.
            p: Not used: the loss has no parameters.

        Returns:
            An array `(dim,)`, indexed by l, or `(dim, paths)` if `x` or M has paths.
        """
        x = self._point(x)
        if isinstance(x, Value) or isinstance(matrix, Value) or self._formula("third", x) is None:
            return super().third_contracted(x, matrix)
        matrix = np.asarray(matrix, dtype=float)
        paths = np.broadcast_shapes(x.shape[1:], matrix.shape[2:])
        x = np.broadcast_to(spread(x, matrix[0]), (self.dim, *paths))
        return with_path_axes(self._graphs.contracted(points_as_rows(x), matrix.reshape(self.dim, self.dim, -1)), x)

    def third_product(self, x: Any, a: Any, b: Any) -> np.ndarray:
        """Return sum_ij d_ijl L(x) a_i b_j, `(dim,)`, for one point `x` and vectors `a`, `b`, each `(dim,)`, by two forward passes over the graph."""
        x = self._point(x)
        if isinstance(x, Value):
            return self._graphs.third.of(x, a, b)
        if self._formula("third", x) is None:
            return super().third_product(x, a, b)
        return self._graphs.third(*(points_as_rows(self._point(y)) for y in (x, a, b)))[:, 0]

    def quadratic(self) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return `(H, c, L0)` with L(x) = x^T H x / 2 + c^T x + L0 if the graph of the value shows it, with H `(dim, dim)` and c `(dim,)`.

        It is None if the value is not given, cannot be traced, or is not quadratic.
        """
        if self.value_function is None or self._formula("value") is None:
            return None
        return Graphs(self.dim, {"value": partial(self._trace, 0)}).quadratic()

    # ---- functions and formulas

    @property
    def _functions(self) -> tuple[Callable | None, Callable | None, Callable | None]:
        return self.value_function, self.function, self.hessian_function

    @cached_property
    def _graphs(self) -> Graphs:
        given: dict[str, Traced] = {
            name: partial(self._trace, order) for order, name in enumerate(FORMULAS) if self._functions[order] is not None
        }
        return Graphs(self.dim, given)

    def _trace(self, order: int, x: Value) -> Value:
        """Return the graph of the function of an order (0 value, 1 gradient, 2 Hessian) at a traced `x` `(dim,)`, a graph value.

        Its shape is `()`, `(dim,)` or `(dim, dim)`. It raises NotTraceable, or the error of the user's function with its line.
        """
        given: Any = self._functions[order]
        return as_value(_shaped(trace(getattr(given, "py_func", given), self._part(order), x), order, x))

    @cached_property
    def _known(self) -> dict[str, Formula | None]:
        return {}

    def _formula(self, name: str, x: Any = None) -> Formula | None:
        """Return the formula of `Graphs` called `name`, such as "product", or None if the function cannot be traced.

        ValueError if the points `x`, optional here, are an array of objects, on which no formula runs.
        """
        if x is not None and x.dtype == object:
            raise ValueError(
                f"A derivative of the loss {self.label} must be traced with graph values; got an object array. "
                "Pass the derivative as a function, or give the loss as an expression."
            )
        if name not in self._known:
            try:
                self._known[name] = getattr(self._graphs, name)
            except (
                Exception
            ):  # whatever fails while tracing: the function ran on numbers when the loss was made, so it is called with them
                self._known[name] = None
        return self._known[name]

    def _evaluate(self, order: int, x: Any) -> Any:
        """Return the value, gradient or Hessian (order 0, 1 or 2) at `x` from the function that was given, or from the graph.

        The result has the shape of the value at one point with the paths of `x` appended: `(*paths,)`, `(dim, *paths)`, `(dim, dim, *paths)`.
        """
        given: Any = self._functions[order]
        if isinstance(x, Value):
            return getattr(self._graphs, FORMULAS[order]).of(x)
        if given is not None and (x.ndim == 1 or x.dtype == object):
            return self._call(order, x)
        formula = self._formula(FORMULAS[order], x)
        if formula is not None:
            return with_path_axes(formula(points_as_rows(x)), x)
        if (self._value_batched, self.batched, self._hessian_batched)[order]:
            return self._call(order, x)
        return self._one_by_one(order, x)

    def _one_by_one(self, order: int, x: np.ndarray) -> np.ndarray:
        """Call a function that was given once for each path of `x` `(dim, *paths)`, and stack the results along the paths."""
        rows = points_as_rows(x).T
        return np.stack([self._call(order, row) for row in rows], axis=-1).reshape((self.dim,) * order + x.shape[1:])

    def _call(self, order: int, x: np.ndarray) -> Any:
        """Return the result of the given function of an `order` on a copy of `x`; its errors are raised with a note of the line that raised them."""
        given: Any = self._functions[order]
        assert given is not None
        try:
            with np.errstate(all="ignore"):
                return _shaped((getattr(given, "py_func", given) if x.dtype == object else given)(x.copy()), order, x)
        except Exception as error:
            place = place_of(error)
            if place and not getattr(error, "__notes__", None):
                error.add_note(f"It was raised by {self._part(order)}, {place}.")
            raise

    def _part(self, order: int) -> str:
        """Return the name of a function for messages."""
        return f"the {ORDERS[order]} of {self.label}"

    def _takes_rows(self, order: int) -> bool:
        """Return whether the function of an `order` gives the same for points `(dim, paths)` as path by path, tried on three random paths."""
        if self._functions[order] is None:
            return True
        paths = np.random.default_rng(1).standard_normal((self.dim, 3))
        single = self._one_by_one(order, paths)
        try:
            many = self._call(order, paths)
        except Exception:  # whatever fails on rows: the function is called path by path
            return False
        return np.allclose(single, many, rtol=1e-9, atol=1e-12, equal_nan=True)

    def _point(self, x: Any) -> Any:
        """Return `x` as in `Loss._point`; a list of graph values becomes one graph value."""
        return super()._point(as_value(x) if is_value(x) else x)


def points_as_rows(x: np.ndarray) -> np.ndarray:
    """Return the points `x` `(dim, *paths)` as a contiguous array of doubles `(dim, n)`, for n paths; n = 1 for one point `(dim,)`."""
    return np.ascontiguousarray(x.reshape(len(x), -1), dtype=float)


def with_path_axes(found: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the results `(*shape, n)` of the n points `points_as_rows(x)` as a new array `(*shape, *paths)`, with the axes of paths of `x`.

    For one point `x` `(dim,)` the last axis is dropped; the result is then a number if `shape` is `()`.
    """
    return np.array(found.reshape(found.shape[:-1] + x.shape[1:]))[()]


def _shaped(result: Any, order: int, x: Any) -> Any:
    """Return nested components, some of them constant, as one array or graph value with `order` axes before the paths of `x`.

    ValueError for a shape that does not fit the point.
    """
    if order == 0:
        return _number(result, x)
    if np.ndim(result) == 0 or len(result) != len(x):
        raise ValueError(
            f"The {ORDERS[order]} must return {len(x)} component{'s' * (len(x) != 1)}, one for each coordinate; "
            f"got {'one number' if np.ndim(result) == 0 else len(result)}. Return a sequence such as [x[1], x[0]]."
        )
    if order == 2 and not isinstance(result, Value):
        rows = [_shaped(row, 1, x) for row in result]
        if isinstance(x, Value):
            return as_value(rows)
        return components([entry for row in rows for entry in row], x).reshape(len(x), len(x), *x.shape[1:])
    if isinstance(x, Value):
        found = as_value(components(result, x)).shape
    else:
        found = (len(x), *(np.shape(result[0]) if x.ndim == 1 and np.size(result[0]) != 1 else ()))
    if found != (len(x),) * order:
        raise ValueError(f"The {ORDERS[order]} must be an array of shape {(len(x),) * order} for one point; got shape {found}.")
    return components(result, x)


def _number(result: Any, x: Any) -> Any:
    """Return the result of a value as one number for each path; ValueError for another shape."""
    if isinstance(x, Value):
        made = as_value(result)
        if made.size == 1:
            return np.where(made.reshape(()), 1.0, 0.0) if made.boolean else made.reshape(())
    elif x.ndim > 1:
        return scalar(result, x)
    elif result is not None and np.size(result) == 1:
        return scalar(np.reshape(result, ())[()], x)
    raise ValueError(
        f"The value must be one number for one point; got {'nothing' if result is None else f'shape {np.shape(result)}'}. "
        "Sum it, for example by np.sum."
    )
