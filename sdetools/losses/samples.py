"""Losses given by Python functions (`from_function`), and means over data, L(x) = (1/n) sum_i l(x, row_i).

A function of one sample is traced once; the graph of the mean evaluates it for all samples at once. row_i is row i of each array of data.
If a model f is given, l(x, row_i) = (f(x, a_i) - y_i)^2 / 2 with inputs a_i and targets y_i. In a shape, `*paths` is nothing for one point,
and the number of paths for many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._identity import function_identity
from sdetools.graph.derivatives import gradient, vjp
from sdetools.graph.elements import PRICE
from sdetools.graph.errors import TracingError
from sdetools.graph.replacing import batched
from sdetools.graph.sampling import gather
from sdetools.graph.tracing import NotTraceable, place_of, trace
from sdetools.graph.value import Trace, Value, is_value, order, value as as_value
from sdetools.losses.base import coordinate_names, digest
from sdetools.losses.function import FORMULAS, FunctionLoss, points_as_rows, with_path_axes
from sdetools.losses.graphs import Formula, Graphs

GATHER_COST, MATMUL_COST = 7.0, 0.5
"""Costs of gathering one number of a sample and of one multiplication in a matrix product, relative to one operation on rows."""


class SampleGraphs(Graphs):
    """Traced formulas of a mean loss L(x) = (1/n) sum_i l(x, row_i): its value, and the gradients of single samples and of batches.

    Args:
        dim: Number of coordinates.
        outputs: `outputs(x, *row)` is called with graph values, x `(dim,)` and one row of each array of data. It returns the list [l], or
            [l, f] if l = (f - y)^2 / 2 for a model f.
        data: The arrays of data, n rows each; row_i is row i of each.

    Attributes:
        data: The arrays as constants of the graph.
    """

    def __init__(self, dim: int, outputs: Callable[..., Sequence[Value]], data: Sequence[np.ndarray]) -> None:
        super().__init__(dim, {"value": lambda x: as_value(np.mean(self._each(0, x, self.data)))})
        self.data, one = [as_value(d) for d in data], Trace()
        self._x = one.input("x", (dim,))
        self._row = [one.input(f"row{i}", d.shape[1:]) for i, d in enumerate(self.data)]
        self._outputs = outputs(self._x, *self._row)

    def _each(self, which: int, x: Value, rows: Sequence[Value], out: Value | None = None) -> Value:
        """Return an output (0: l, 1: f), or another formula `out` of one sample, at x for each of n `rows`: a traced value `(n, *shape of it)`."""
        return batched(self._outputs[which] if out is None else out, dict(zip(self._row, rows, strict=True)), {self._x: x})

    @cached_property
    def gradients(self) -> list[Formula]:
        """A list with a `Formula` of the point x for each output (l, and f if there is a model): its gradients at all samples.

        The result of a formula is `(n, dim)` for each path.
        """
        return [Formula(self._each(0, self.x, self.data, gradient(out, self._x)), self.x) for out in self._outputs]

    @cached_property
    def _sampled(self) -> dict[Any, Formula]:
        return {}

    def sampled(self, size: int, with_loss: bool = True, with_labels: bool = False) -> Formula:
        """Return the gradient by x of sum_i [w_i l(x, row_i) - e_i f(x, row_i)] as a formula, `(dim,)` for one path.

        Args:
            size: The batch size. If it is above 0, the sum is the batch mean (1/size) sum_b [l(x, row_{i_b}) - e_b f(x, row_{i_b})] over the
                samples i_b. If it is 0, the sum runs over all n samples with the weights w_i.
            with_loss: Whether the term with l is included.
            with_labels: Whether the term with the model f is included, which label noise e adds.

        Returns:
            The formula. Its inputs are x `(dim,)`, then the indices i_b `(size,)` of samples, from 0, or the weights w `(n,)`, then if
            `with_labels` e, `(size,)` or `(n,)`.
        """
        key = size, with_loss, with_labels
        if key not in self._sampled:
            here = Trace()
            n = size or len(self.data[0])
            x, which, labels = here.input("x", (self.dim,)), here.input("which", (n,)), here.input("labels", (n,))
            rows, total = [gather(d.extra, which) for d in self.data] if size else self.data, as_value(0.0)
            if with_loss:
                found = self._each(0, x, rows)
                total = as_value(np.mean(found) if size else np.sum(which * found))
            if with_labels:
                total = total - np.sum(labels * self._each(1, x, rows)) / (size or 1)
            self._sampled[key] = Formula(vjp(total, x), x, which, *([labels] if with_labels else []))
        return self._sampled[key]

    def gathers(self, size: int, with_loss: bool, with_labels: bool) -> bool:
        """Return whether it is cheaper to gather the rows of a batch than to take a weighted sum over all samples.

        Args:
            size: The batch size.
            with_loss: Whether the gradients of the loss l are needed.
            with_labels: Whether those of the model f are needed, for label noise.
        """
        return cost(self.sampled(size, with_loss, with_labels)) <= cost(self.sampled(0, True, with_labels))


def cost(formula: Formula) -> float:
    """Return the estimated cost of a formula on one path, in units of one addition or multiplication of two numbers."""
    total = 0.0
    for node in order([formula.out]):
        if node.op == "map" and not node.uniform:
            total += node.size * PRICE.get(node.name, 1)
        elif node.op in ("reduce", "contract"):
            total += node.args[0].size if node.op == "reduce" else MATMUL_COST * node.size * node.args[1].shape[0]
        elif node.op == "rows":
            total += GATHER_COST * node.size
    return total


class FunctionSamples(FunctionLoss):
    """The loss L(x) = (1/n) sum_i l(x, row_i) of a Python function l; build it with `from_function` and its argument `data`.

    Args:
        sample: `sample(x, *row)` returns l, one number; None if `model` is given.
        data: An array or a tuple of arrays with n rows each.
        dim: Number of coordinates.
        names: Names of the coordinates, a list or "x y"; None for x0, x1, ...
        model: f with l = (f - y)^2 / 2: `model(x, *inputs)` returns one number, and the last array of `data` contains the targets y.

    Attributes:
        sample: l, or None if a model is given.
        model_function: f, or None.
        data: A tuple of arrays `(n, ...)`; row_i is row i of each.
        samples: Number of samples n.

    Raises:
        ValueError: If not exactly one of `sample` and `model` is given, the function cannot be traced, or the data have a wrong shape.
    """

    def __init__(self, sample: Callable | None, data: Any, dim: int | None, names: Any, model: Callable | None = None) -> None:
        if (sample is None) == (model is None):
            raise ValueError(
                "`value` or `model` must be given with `data`, a function of x and of one row of each array; "
                f"got {'neither' if sample is None else 'both'}. Pass for example value=lambda x, a, y: (a @ x - y)**2 / 2."
            )
        self._name, own = ("value", sample) if model is None else ("model", model)
        if not callable(own):
            raise ValueError(f"`{self._name}` must be a function of x and of one row of each array of `data`; got {own!r}.")
        self.dim, self.data = _check.count("dim", dim), _arrays(data)
        _check.function(self._name, own, ["x", *(f"row_{i}" for i in range(len(self.data) - (model is not None)))])
        self.samples, self.names, self.parameters = len(self.data[0]), coordinate_names(names, self.dim), np.empty(0)
        if model is not None and (len(self.data) < 2 or self.data[-1].ndim != 1):
            raise ValueError(
                f"`data` must end with the targets of the model, shape ({self.samples},); got shapes {_shapes(self.data)}. "
                "Pass data=(inputs, targets)."
            )
        self.sample, self.model_function, self.value_function = sample, model, own
        self.function = self.hessian_function = None
        self.compiled, self.batched = False, True
        self.label = f"{getattr(own, '__name__', type(own).__name__)} of {self.samples} samples"
        self.latex = rf"\frac{{1}}{{{self.samples}}} \sum_{{i=1}}^{{{self.samples}}} " + (
            r"\ell(x, a_i)" if model is None else r"\tfrac12 (f(x, a_i) - y_i)^2"
        )
        try:
            self._graphs.slope  # noqa: B018
        except (TracingError, NotTraceable) as error:
            self._on_numbers()
            raise ValueError(
                f"`{self._name}` must be made of NumPy's functions, without `if` on values: {error}. "
                "Write np.where for a choice, or give a torch function to losses.from_torch(..., data=)."
            ) from error

    def _on_numbers(self) -> None:
        """Call the function on one sample of numbers, so that an error of the user's code is raised as it is."""
        assert self.value_function is not None
        row = [d[0] for d in (self.data if self.model_function is None else self.data[:-1])]
        try:
            with np.errstate(all="ignore"):
                self.value_function(np.full(self.dim, 0.5), *row)
        except Exception as error:
            error.add_note(f"It was raised by the {self._name} of {self.label}, {place_of(error)}.")
            raise

    @property
    def identity(self) -> str:
        """A text, equal for equal losses: the dimension, the identity of the function, and a hash of the data."""
        assert self.value_function is not None
        return f"samples:{self.dim}:{self._name}:{function_identity(self.value_function)}:{digest(*self.data)}"

    def sample_gradients(self, x: Any, of_model: bool = False) -> np.ndarray:
        """Return the gradient by x of l, or of the model f, at each sample; for l its mean over the samples is `gradient(x)`.

        Args:
            x: One point `(dim,)`, many points `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            of_model: Whether to differentiate f instead of l; ValueError if the loss was not given by a `model` f.

        Returns:
            An array `(n, dim)` for one point, `(n, dim, paths)` for many.
        """
        if of_model and self.model_function is None:
            raise ValueError(
                f"`of_model` must be False for {self.label}, which has no model f; make it by from_function(model=..., data=...)."
            )
        x, formula = self._point(x), self._graphs.gradients[of_model]
        return formula.of(x) if isinstance(x, Value) else with_path_axes(formula(points_as_rows(x)), x)

    def sample_covariance(self, x: Any, of_model: bool = False) -> np.ndarray:
        """Return the covariance (1/n) sum_i (g_i - gbar)(g_i - gbar)^T of the gradients g_i of the samples, with mean gbar.

        Args:
            x: One point `(dim,)`, or many points `(dim, paths)`.
            of_model: Whether to return (1/n) sum_i grad f_i grad f_i^T of the model f instead; ValueError if the loss has none.

        Returns:
            An array `(dim, dim)` for one point, `(dim, dim, paths)` for many.
        """
        x = self._point(x)
        if x.ndim > 1:
            return np.stack([self.sample_covariance(column, of_model) for column in x.T], axis=-1)
        g = self.sample_gradients(x, of_model)
        g = g if of_model else g - g.mean(axis=0)
        return g.T @ g / self.samples

    def batch_gradient(self, x: Any, index: Any, labels: Any = None, with_loss: bool = True) -> Any:
        """Return the gradient of a batch, (1/size) sum_b (grad l_{i_b}(x) - labels_b grad f_{i_b}(x)), in the shape of `x`.

        It reads only the rows of the batch. If there are many paths, each may have its own batch.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            index: The indices i_b of the samples, from 0, `(size,)` or `(size, paths)`, as integers or floats.
            labels: The label noise, in the shape of `index`, which needs a loss given by a model f (`model`); None for none.
            with_loss: Whether the first term, with the loss l of a sample, is included.
        """
        return self._sampled((len(index), with_loss, labels is not None), x, index, labels)

    def weighted_gradient(self, x: Any, weights: Any, labels: Any = None) -> Any:
        """Return sum_i (weights_i grad l_i(x) - labels_i grad f_i(x)) over all n samples, in the shape of `x`, for the loss l_i of a sample.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced point (a graph value `(dim,)`).
            weights: The weights, `(n,)` or `(n, paths)`.
            labels: The label noise, in the shape of `weights`, which needs a loss given by a model f (`model`); None for none.
        """
        return self._sampled((0, True, labels is not None), x, weights, labels)

    def gathers(self, size: int, with_loss: bool, with_labels: bool) -> bool:
        """Return whether `batch_gradient` is cheaper than `weighted_gradient` for a batch of `size` samples.

        Args:
            size: The batch size.
            with_loss: Whether the gradients of the loss l are needed.
            with_labels: Whether those of the model f are needed, for label noise.
        """
        return self._graphs.gathers(size, with_loss, with_labels)

    def _sampled(self, which: tuple[int, bool, bool], x: Any, *given: Any) -> Any:
        """Return the formula `SampleGraphs.sampled(*which)` at x and its other inputs, of which None is left out, in the shape of `x`."""
        formula, parts = self._graphs.sampled(*which), [x, *(g for g in given if g is not None)]
        if any(isinstance(part, Value) for part in parts):
            return formula.of(*parts)
        paths = max((np.shape(part)[1:] for part in parts), key=len)
        rows = [np.broadcast_to(np.reshape(p, (len(p), -1)), (len(p), int(np.prod(paths)))) for p in parts]
        return formula(*rows).reshape(self.dim, *paths)

    @cached_property
    def _graphs(self) -> SampleGraphs:
        return SampleGraphs(self.dim, self._outputs, self.data)

    def _outputs(self, x: Value, *row: Value) -> list[Value]:
        """Return [l], or [l, f] if there is a model, for one sample; raise NotTraceable, or the error of the user's function with its line."""
        given = row if self.model_function is None else row[:-1]
        assert self.value_function is not None
        made = self._one_number(trace(self.value_function, f"the {self._name} of {self.label}", x, *given))
        return [made] if self.model_function is None else [(made - row[-1]) ** 2 / 2, made]

    def _one_number(self, made: Any) -> Value:
        """Return the traced output of one sample as a scalar; ValueError for another shape."""
        if made is None or (not is_value(made) and isinstance(made, str)) or as_value(made).size != 1:
            got = "nothing" if made is None else f"shape {np.shape(made)}"
            raise ValueError(
                f"`{self._name}` must return one number for one sample; got {got}. With `data` it is called with x of shape "
                f"({self.dim},) and one row of each array, of shapes {_shapes([d[0] for d in self.data])}. "
                "Sum several numbers of a sample by np.sum."
            )
        return as_value(made).reshape(()) * 1.0

    def _evaluate(self, order: int, x: Any) -> Any:
        """Return the value, gradient or Hessian from the graph of the mean: the function itself is that of one sample."""
        if isinstance(x, Value):
            return getattr(self._graphs, FORMULAS[order]).of(x)
        return with_path_axes(self._formula(FORMULAS[order], x)(points_as_rows(x)), x)  # type: ignore[misc]

    def _trace(self, order: int, x: Value) -> Value:
        return self._graphs.value.of(x)


def from_function(
    gradient: Callable | None = None,
    dim: int | None = None,
    value: Callable | None = None,
    hessian: Callable | None = None,
    names: Sequence[str] | None = None,
    data: Any = None,
    model: Callable | None = None,
) -> FunctionLoss:
    """Return the loss that Python functions of one point `x` of shape `(dim,)` define: its value L(x), its gradient, or both.

    The functions use NumPy and are traced, so they have no `if` on values; write `np.where`. Derivatives come from the graph and are exact.
    At a kink the gradient is the mean of the one-sided derivatives, and outside the domain all derivatives are NaN. A function is that of
    one point (`A @ x - y`, `np.sum(x**2)`); its graph runs on many paths at once.

    A gradient given together with the value is compared with central differences of the value, and a Hessian with those of the gradient, at
    random points. A gradient that cannot be traced is differentiated by central differences; an `@njit` one runs in the compiled
    simulation.

    Args:
        gradient: `gradient(x)` returns `dim` components. Optional if `value` can be traced; not allowed with `data`.
        dim: Number of coordinates.
        value: `value(x)` returns one number; with `data`, `value(x, *row)` returns the loss of one sample, and L is the mean.
        hessian: `hessian(x)` returns `dim` rows of `dim` components; by default it comes from the gradient. Not allowed with `data`.
        names: Names of the coordinates, a list or "x y"; by default x0, x1, ...
        data: An array or a tuple of arrays with n rows each. `st.noise.minibatch(loss, size)` is then the noise of batches.
        model: f in L(x) = (1/2n) sum_i (f(x, a_i) - y_i)^2, instead of `value`: `model(x, *inputs)` returns one number, and the last array
            of `data` contains the targets `(n,)`. `st.noise.label_noise(loss, std)` is the noise of its labels.

    Returns:
        A `FunctionLoss`, with `data` a `FunctionSamples`. Its methods take one point `(dim,)` or many points `(dim, paths)`.

    Raises:
        ValueError: If neither a value nor a gradient is given, a value without a gradient cannot be traced, a result has a wrong shape, a
            derivative is wrong (the message names the worst coordinate), or the arrays have different numbers of rows. An error in a
            function is raised as it is, with a note of its line.

    Example:
        >>> import numpy as np
        >>> from sdetools.losses import from_function
        >>> loss = from_function(value=lambda x: (x[0] * x[1] - 1) ** 2 / 2, dim=2)
        >>> loss.gradient([[2.0, 1.0], [1.0, 3.0]])
        array([[1., 6.],
               [2., 2.]])
        >>> loss.hessian([2.0, 1.0])
        array([[1., 3.],
               [3., 4.]])
        >>> A = np.array([[1.0, 2.0], [0.0, 1.0]])
        >>> from_function(value=lambda x: np.sum((A @ x - 1) ** 2) / 2, dim=2).quadratic()
        (array([[1., 2.],
               [2., 5.]]), array([-1., -3.]), 1.0)

        With data:

        >>> rows = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([1.0, 2.0])
        >>> loss = from_function(value=lambda x, a, y: np.logaddexp(0.0, -y * (a @ x)), data=rows, dim=2)
        >>> loss.gradient([0.0, 0.0]), loss.sample_gradients([0.0, 0.0])[1]
        (array([-0.25, -1.  ]), array([-0., -2.]))
        >>> from_function(model=lambda x, a: a @ np.tanh(x), data=rows, dim=2).gradient([0.0, 0.0])
        array([-0.5, -2. ])

        With a hand-written gradient:

        >>> loss = from_function(lambda x: [x[0] ** 3 - x[0]], dim=1, value=lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2)
        >>> loss.gradient([[0.0, 1.0, 2.0]])
        array([[0., 0., 6.]])
        >>> from_function(lambda x: [2 * x[0]], dim=1, value=lambda x: x[0] ** 2 / 2)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: `gradient` must be the derivative of `value`; at x = [0.126] its coordinate x0 is 0.25146, but central ...
    """
    if data is None and model is None:
        return FunctionLoss(gradient, dim, value, hessian, names)
    if data is None:
        raise ValueError(
            "`data` must be given with `model`, the inputs and the targets; got data=None. Pass data=(inputs, targets)."
        )
    for name, given in (("gradient", gradient), ("hessian", hessian)):
        if given is not None:
            raise ValueError(
                f"`{name}` must not be given with `data`; got {given!r}. "
                "Derivatives come from the graph of the value: leave it out."
            )
    return FunctionSamples(value, data, dim, names, model)


def _arrays(data: Any) -> tuple[np.ndarray, ...]:
    """Return data as a tuple of float64 arrays with equal numbers of rows, at least one; ValueError if they have not."""
    parts = data if isinstance(data, (tuple, list)) and not np.isscalar(data[0] if len(data) else 0.0) else (data,)
    arrays = tuple(np.asarray(_check.finite("data", part), order="C") for part in parts)
    if not arrays or any(not a.ndim or not a.size for a in arrays) or len({len(a) for a in arrays}) > 1:
        raise ValueError(
            "`data` must have one row for each sample, the same number of rows in each of its arrays; "
            f"got shapes {_shapes(arrays)}. Pass data=(features, targets)."
        )
    return arrays


def _shapes(arrays: Sequence[Any]) -> str:
    """Return the shapes of arrays as text."""
    return ", ".join(str(np.shape(a)) for a in arrays)
