"""Losses given by torch functions of one point, with or without data: derivatives by `torch.func`, many paths by `vmap`."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.func import grad, jacrev, jvp, vmap

from sdetools import _check
from sdetools._arrays import ArraysOnly
from sdetools._identity import function_identity
from sdetools.graph.value import Value
from sdetools.losses.base import Loss, Stage, coordinate_names


class _OnPaths:
    """A torch function of one point `(dim,)`, called with many points, a tensor `(dim, paths)`, by `vmap`; results also have the paths last."""

    torch_stage = True

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.batched = vmap(function, in_dims=-1, out_dims=-1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            return self.batched(x).detach()


class TorchLoss(Loss):
    """A loss given by a torch function of a tensor `(dim,)`; build it with `from_torch`. NumPy arrays are converted to tensors and back.

    It has no parameters: its methods ignore `p`. At a traced point `value`, `gradient`, `hessian` and `third` raise `ArraysOnly`, a
    TypeError.

    Args:
        function: The torch function of one point, which returns a tensor of shape `()`; also an attribute.
        dim: Number of coordinates.
        names: Names of the coordinates, a list or "x y"; None for x0, x1, ...
        at: A point `(dim,)` of the domain for the validation of the function; None for 0.7 in each coordinate.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], dim: int, names: Any = None, at: Any = None) -> None:
        if not callable(function):
            raise ValueError(f"`function` must be a torch function of one point; got {function!r}.")
        self.function, self.dim = function, _check.count("dim", dim)
        self.names = coordinate_names(names, self.dim)
        self.parameters, self.latex = np.zeros(0), r"L(x)"
        self.label = getattr(function, "__name__", "torch function")
        self._gradient, self._value = _OnPaths(grad(function)), _OnPaths(function)
        self._check(np.full(self.dim, 0.7) if at is None else _check.point("at", at, self.dim))

    def _check(self, at: np.ndarray) -> None:
        """Check at the point `at` that the function returns one number, and that it and its gradient are finite; ValueError otherwise."""
        try:
            value = self.function(torch.as_tensor(at))
            single = isinstance(value, torch.Tensor) and value.ndim == 0
            gradient = self.gradient(at) if single else at
        except (RuntimeError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"`function` must be a torch function of one point of shape ({self.dim},), "
                "made of torch operations that vmap supports; "
                f"calling it raised {type(error).__name__}: {reason}."
            ) from error
        if not single:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"`function` must return one number, a tensor of shape (); got {shape}. Sum it.")
        if not np.isfinite([float(value), *gradient]).all():
            raise ValueError(
                f"`function` and its gradient must be finite at x={at.tolist()}; got one that is not. "
                "Give at= a point of its domain."
            )

    @property
    def identity(self) -> str:
        """A text, equal for equal losses: the dimension and the identity of the function (a hash of its code)."""
        return f"torch({self.dim}; {function_identity(self.function)})"

    @property
    def torch_stage(self) -> Stage:
        """A `Stage` for the torch backend, whose function maps points, a tensor `(dim, paths)`, to their gradients, a tensor of the same shape."""
        return Stage(self._gradient)

    @property
    def torch_value_stage(self) -> Stage:
        """A `Stage` for the torch backend, whose function maps points, a tensor `(dim, paths)`, to the values L(x), a tensor `(paths,)`."""
        return Stage(self._value)

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], x: Any) -> np.ndarray:
        """Return the results of a torch function of one point at NumPy points `x`, `(dim,)` or `(dim, paths)`, as an array with the paths last."""
        x = self._point(x)
        if isinstance(x, Value):
            raise ArraysOnly(f"{self.label} is a torch function")
        points = torch.as_tensor(np.moveaxis(x.reshape(self.dim, -1), 0, 1).copy())
        out = np.moveaxis(vmap(function)(points).detach().numpy(), 0, -1)
        return out.reshape(*out.shape[:-1], *x.shape[1:]) if x.ndim > 1 else out[..., 0]

    def value(self, x: Any, p: Any = None) -> Any:
        """Return L(x), a number for `x` `(dim,)` and `(paths,)` for `(dim, paths)`; `p` is not used."""
        return self._apply(self.function, x)

    def gradient(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the gradient in the shape of `x`, `(dim,)` or `(dim, paths)`, by a reverse pass; `p` is not used."""
        return self._apply(grad(self.function), x)

    def hessian(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the Hessian, `(dim, dim)` for one point `x` `(dim,)` and `(dim, dim, paths)` for many `(dim, paths)`; `p` is not used."""
        return self._apply(jacrev(grad(self.function)), x)

    def third(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the third derivative, `(dim, dim, dim)` for one point `x` `(dim,)` and `(dim, dim, dim, paths)` for many; `p` is not used."""
        return self._apply(jacrev(jacrev(grad(self.function))), x)

    def hessian_product(self, x: Any, v: Any, p: Any = None) -> np.ndarray:
        """Return sum_j d_ij L(x) v_j for a point and a vector, each `(dim,)` or `(dim, paths)`, in the larger of both shapes; `p` is not used.

        For one point and one vector the Hessian is not formed: a forward pass runs over a reverse pass.
        """
        if np.ndim(x) > 1 or np.ndim(v) > 1:
            return super().hessian_product(x, v, p)
        x, v = self._point(x), _check.point("v", v, self.dim)
        return _jvp(grad(self.function), (_tensor(x),), (_tensor(v),))[1].detach().numpy()

    def third_product(self, x: Any, a: Any, b: Any) -> np.ndarray:
        """Return sum_ij d_ijl L(x) a_i b_j, `(dim,)`, for one point `x` and vectors `a`, `b`, each `(dim,)`, without forming a tensor."""
        return grad(_twice(self.function, _tensor(a), _tensor(b)))(_tensor(x)).detach().numpy()

    def third_contracted(self, x: Any, matrix: Any, p: Any = None) -> np.ndarray:
        """Return sum_ij d_ijl L(x) M_ij indexed by l, `(dim,)`, or `(dim, paths)` for many points, without forming the third derivative.

        `matrix` M is `(dim, dim)`, or `(dim, dim, paths)` with one for each point, or with all at the one point `x` `(dim,)`; `p` is not used.
        """
        x, matrix = self._point(x), np.asarray(matrix, dtype=float)
        x = np.repeat(x[:, None], matrix.shape[2], axis=1) if x.ndim < matrix.ndim - 1 else x
        points = x.reshape(self.dim, -1)
        matrices = np.broadcast_to(matrix.reshape(self.dim, self.dim, -1), (self.dim, self.dim, points.shape[1]))
        unit = torch.eye(self.dim, dtype=torch.float64)
        rows = []
        # one point after another: each takes dim forward passes at once
        for point, own in zip(points.T, np.moveaxis(matrices, -1, 0)):
            columns = _tensor(own)
            each = vmap(lambda e, m, y: _twice(self.function, e, m)(y), in_dims=(0, 0, None))
            rows.append(grad(lambda y, each=each, columns=columns: each(unit, columns, y).sum())(_tensor(point)))
        return torch.stack(rows, dim=-1).detach().numpy().reshape(x.shape)


@cache
def _forward_mode() -> None:
    """Load torch's forward-mode differentiation, which emits a deprecation warning of its own at the first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.ones(1),))


def _jvp(function: Callable[..., Any], points: tuple[Any, ...], directions: tuple[Any, ...]) -> Any:
    _forward_mode()
    return jvp(function, points, directions)


def _tensor(x: Any) -> torch.Tensor:
    return torch.as_tensor(np.array(x, dtype=float))


def _twice(function: Callable[..., Any], a: torch.Tensor, b: torch.Tensor, *row: torch.Tensor) -> Callable[..., torch.Tensor]:
    """Return the function x -> a^T Hess f(x) b, by two forward passes."""

    def once(x: torch.Tensor) -> torch.Tensor:
        return _jvp(lambda y: function(y, *row), (x,), (a,))[1]

    return lambda x: _jvp(once, (x,), (b,))[1]


class TorchSamples(TorchLoss):
    """The loss L(x) = (1/n) sum_i l(x, row_i) of a torch function l; build it with `from_torch` and `data`, or `from_torch_model`.

    Args:
        sample: l: `sample(x, *row)` returns a tensor of shape `()`.
        data: A tensor or a tuple of tensors with n rows each; row_i is row i of each.
        dim: Number of coordinates.
        names: Names of the coordinates, a list or "x y"; None for x0, x1, ...
        at: A point `(dim,)` of the domain for the validation of the function; None for 0.7 in each coordinate.
        model: f with l = (f(x, a_i) - y_i)^2 / 2 for data (a, y), as `from_torch_model` passes it; None if there is none.

    Attributes:
        sample: l.
        data: A tuple of tensors on the CPU, floating-point ones in double precision.
        samples: Number of samples n.
        model: f, or None.
    """

    def __init__(
        self,
        sample: Callable[..., Any],
        data: Any,
        dim: int,
        names: Any = None,
        at: Any = None,
        model: Callable[..., Any] | None = None,
    ) -> None:
        if not callable(sample):
            raise ValueError(f"`function` must be a torch function of a point and a row of the data; got {sample!r}.")
        self.model: Any = model  # or None
        self.sample, self.data = sample, _tensors(data)
        self.samples = len(self.data[0])
        self._moved: dict[tuple[Any, Any], tuple[torch.Tensor, ...]] = {}
        super().__init__(self._mean, dim, names, at)
        self.label = f"{getattr(sample, '__name__', 'torch function')} of {self.samples} samples"

    @property
    def identity(self) -> str:
        """A text, equal for equal losses: the dimension, the identities of the functions (hashes of their code) and a hash of the data."""
        digest = hashlib.sha256()
        for tensor in self.data:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        model = f" {function_identity(self.model)}" if self.model is not None else ""
        return f"torch({self.dim}; {function_identity(self.sample)}{model}; {digest.hexdigest()[:16]})"

    def rows(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the data as a tuple of tensors on the device of the tensor `x`; floating-point data have the dtype of `x`, others their own."""
        key = x.device, x.dtype
        if key not in self._moved:
            self._moved[key] = tuple(t.to(device=x.device, dtype=x.dtype if t.is_floating_point() else None) for t in self.data)
        return self._moved[key]

    def model_values(self, x: Any) -> np.ndarray:
        """Return the values f(x, a_i) of the model at all samples, `(n,)`, for parameters `x` `(dim,)`; ValueError if the loss has no model."""
        x = _tensor(x)
        return self.each(self._model, x, self._inputs(x)).detach().numpy()

    def residuals(self, x: Any) -> np.ndarray:
        """Return the residuals r_i = f(x, a_i) - y_i of the model, `(n,)`, for parameters `x` `(dim,)`; ValueError if the loss has no model."""
        return self.model_values(x) - self.data[1].numpy()

    def jacobian(self, x: Any) -> np.ndarray:
        """Return the Jacobian `(n, dim)` of the model, whose row i is grad f(x, a_i), for `x` `(dim,)`; ValueError if the loss has no model."""
        x = _tensor(x)
        rows = self._inputs(x)
        parts = [self.each(grad(self._model), x, [r[at] for r in rows]) for at in _chunks(self.samples)]
        return torch.cat(parts).detach().numpy()

    def curved(self, x: Any, directions: Callable[[slice], np.ndarray]) -> np.ndarray:
        """Return sum_i Hess f(x, a_i) v_i, `(dim,)`, for parameters `x` `(dim,)` and a vector v_i for each sample, by passes over the model f.

        `directions(part)` returns the v_i of the samples in the slice `part`, `(samples of part, dim)`, so that not all are in memory at
        once. ValueError if the loss has no model.
        """
        x = _tensor(x)
        out = torch.zeros_like(x)
        for at in _chunks(self.samples):
            rows, v = [r[at] for r in self._inputs(x)], _tensor(directions(at))

            def along(y: torch.Tensor, rows: list[torch.Tensor] = rows, v: torch.Tensor = v) -> torch.Tensor:
                each = vmap(lambda w, *row: _jvp(lambda u: self._model(u, *row), (y,), (w,))[1])
                return each(v, *rows).sum()

            out = out + grad(along)(x)
        return out.detach().numpy()

    def bent(self, x: Any, a: Any) -> np.ndarray:
        """Return the numbers a^T Hess f(x, a_i) a of all samples, `(n,)`, for parameters `x` and a vector `a`, each `(dim,)`.

        f is the model, Hess its Hessian by x, and a_i its input at sample i, which is not the vector `a`. ValueError if the loss has no model.
        """
        x, a = _tensor(x), _tensor(a)
        rows = self._inputs(x)
        parts = [vmap(lambda *row: _twice(self._model, a, a, *row)(x))(*[r[at] for r in rows]) for at in _chunks(self.samples)]
        return torch.cat(parts).detach().numpy()

    def _inputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.rows(x)[0]]

    @property
    def _model(self) -> Callable[..., Any]:
        if self.model is None:
            raise ValueError(
                f"{self.label} must be given by its model; got a function of samples. Make it with st.losses.from_torch_model."
            )
        return self.model

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        """Return L(x), the mean over samples."""
        losses = self.each(self.sample, x, self.rows(x))
        if losses.ndim != 1:
            raise TypeError(f"it must return one number for a sample, and returned shape {tuple(losses.shape[1:])}")
        return losses.mean()

    @staticmethod
    def each(function: Callable[..., Any], x: torch.Tensor, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return function(x, *row) for each of n rows as one tensor `(n, ...)`, for a point `x` `(dim,)` and tensors `rows` with n rows each."""
        return vmap(lambda *row: function(x, *row))(*rows)

    def sample_gradients(self, x: Any, function: Callable[..., Any] | None = None) -> np.ndarray:
        """Return the gradients by x of l, or of another `function(x, *row)`, at all samples: `(n, dim)` for one point, `(n, dim, paths)` for many."""
        own = function or self.sample
        x = self._point(x)
        points = torch.as_tensor(np.moveaxis(x.reshape(self.dim, -1), 0, 1).copy())
        out = vmap(lambda point: self.each(grad(own), point, self.rows(point)))(points).detach().numpy()
        return np.moveaxis(out, 0, -1).reshape(self.samples, self.dim, *x.shape[1:])


def _chunks(samples: int, size: int = 64) -> list[slice]:
    """Return slices of the samples that are small enough to keep their gradients in memory."""
    return [slice(at, at + size) for at in range(0, samples, size)]


def _tensors(data: Any) -> tuple[torch.Tensor, ...]:
    """Return data as a tuple of tensors on the CPU with equal numbers of rows, floating-point ones in double precision; ValueError otherwise."""
    parts = data if isinstance(data, (tuple, list)) and not np.isscalar(data[0] if len(data) else 0.0) else (data,)
    try:
        tensors = [torch.as_tensor(part).detach().cpu().contiguous() for part in parts]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`data` must be a tensor or a tuple of tensors with one row for each sample; got {data!r}.") from error
    shapes = [tuple(t.shape) for t in tensors]
    if not tensors or any(not s or s[0] == 0 for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(
            f"`data` must have one row for each sample, the same number of rows in each of its tensors; got shapes {shapes}."
        )
    return tuple(t.double() if t.is_floating_point() else t for t in tensors)


def from_torch(function: Callable[..., Any], dim: int, names: Any = None, at: Any = None, data: Any = None) -> TorchLoss:
    """Return the loss that a torch function of one point `(dim,)` defines, batched by `vmap` and differentiated by `torch.func`.

    It runs with backend="torch" on any device ("torch:cuda"), which "auto" selects; "numpy" converts arrays to tensors and back.

    Args:
        function: `function(x)` returns one number, a tensor of shape `()`; with `data`, `function(x, *row)` returns the loss of one sample,
            and L is the mean.
        dim: Number of coordinates.
        names: Names of the coordinates for expressions, a list or "x y"; by default x0, x1, ...
        at: A point `(dim,)` of the domain for the validation of the function; by default 0.7 in each coordinate.
        data: A tensor or a tuple of tensors with n rows each. `st.noise.minibatch(loss, size)` is then the noise of batches.

    Returns:
        A `TorchLoss`, with `data` a `TorchSamples`. Its methods take and return NumPy arrays, `(dim,)` or `(dim, paths)`.

    Raises:
        ValueError: If the function or its gradient is not finite at the point `at`, if it does not return one number, or if `vmap` cannot
            batch it.

    Example:
        >>> import torch, sdetools as st
        >>> loss = st.losses.from_torch(lambda x: ((x[0] * x[1] - 1) ** 2) / 2, dim=2)
        >>> loss.gradient([2.0, 1.0])
        array([1., 2.])
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1.0, 2.0])
        >>> st.losses.from_torch(lambda x, a, y: (a @ x - y) ** 2 / 2, dim=2, data=rows).gradient([0.0, 0.0])
        array([-0.5, -2. ])
    """
    return TorchLoss(function, dim, names, at) if data is None else TorchSamples(function, data, dim, names, at)


def from_torch_model(
    model: Callable[..., Any], inputs: Any, targets: Any, dim: int, names: Any = None, at: Any = None
) -> TorchSamples:
    """Return the least-squares loss L(x) = (1/2n) sum_i (f(x, a_i) - y_i)^2 of a torch model f.

    A network gets its parameters from parts of x by `torch.func.functional_call`. The noise of its training is
    `st.noise.minibatch(loss, size)` or `st.noise.label_noise(loss, std)`.

    Args:
        model: `model(x, a)` returns f, a tensor of shape `()`, for the parameters x, a tensor `(dim,)`, and one input a.
        inputs: The a_i, a tensor with n rows.
        targets: The y_i, `(n,)`.
        dim: Number of parameters of the model, the coordinates of x.
        names: Names of the coordinates for expressions, a list or "x y"; by default x0, x1, ...
        at: A point `(dim,)` of the domain for the validation of the model; by default 0.7 in each coordinate.

    Returns:
        The loss. Beyond those of `from_torch`, it has `model_values`, `residuals` and `jacobian` of the model.

    Raises:
        ValueError: If `targets` has another shape, or `model` does not return one finite number or cannot be batched by `vmap`.

    Example:
        >>> import torch, sdetools as st
        >>> def unit(x, a):
        ...     return x[0] * torch.tanh(x[1] * a)
        >>> loss = st.losses.from_torch_model(unit, torch.tensor([0.5, -1.0]), torch.tensor([0.0, 0.0]), dim=2)
        >>> loss.gradient([0.0, 1.0])
        array([0., 0.])
    """
    if not callable(model):
        raise ValueError(f"`model` must be a torch function of the parameters and one input; got {model!r}.")
    data = _tensors((inputs, targets))
    if data[1].ndim != 1:
        raise ValueError(f"`targets` must have shape (n,), one number for each sample; got {tuple(data[1].shape)}.")

    def squared(x: torch.Tensor, a: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (model(x, a) - y) ** 2 / 2

    return TorchSamples(squared, (data[0], data[1].double()), dim, names, at, model)
