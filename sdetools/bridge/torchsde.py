"""Conversion of SDEs to and from torchsde's protocol: `f(t, y)`, `g(t, y)`, `noise_type`, `sde_type`, y of shape `(batch, n)`.

An SDE dy = f(t, y) dt + g(t, y) dW has the drift f and the diffusion g. torchsde is archived: its authors no longer maintain it. This adapter is therefore
an extra of its own, `pip install 'sdetools[torchsde]'`, and torchsde itself is needed only to solve. Its noise types are "additive", "diagonal", "scalar"
and "general". In torchsde, a row of y is a path. sdetools has the components first: arrays `(n, paths)`. Here n is the number of components of the state:
`dim` coordinates for each of the parts of the state (position and, for kinetic equations, momentum), and m is the number of Brownian motions, `noise_dim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools._arrays import ArraysOnly, TracingError, components
from sdetools.dynamics.sdes.classes import classify
from sdetools.dynamics.sdes.sde import SDE
from sdetools.graph.arrays import compiled
from sdetools.graph.tracing import NotTraceable
from sdetools.graph.value import Trace

NOISE_TYPES = ("additive", "diagonal", "scalar", "general")


class TorchsdeModel:
    """An sdetools SDE in torchsde's protocol, for `torchsde.sdeint(model, y0, ts)` with y0 of shape `(batch, n)`; see `to_torchsde`.

    n = `len(sde.parts) * sde.dim` is the number of components of the state, part by part: for parts (x, v), the `dim` coordinates of x, then those of v.
    The functions are torch code traced from drift and diffusion; they run on the device and in the type of `y`. Time-dependent coefficients (lambda_t) are
    evaluated at t.

    Args:
        sde: The SDE; its drift and diffusion must be traceable formulas.

    Attributes:
        sde: The SDE.
        sde_type: "ito" or "stratonovich".
        noise_type: "diagonal", "scalar", "additive" or "general".
    """

    def __init__(self, sde: SDE) -> None:
        self.sde, self.sde_type = sde, sde.calculus
        kind = {"none": "diagonal", "commutative": "general"}.get(sde.noise_class, sde.noise_class)
        if kind == "additive" and sde.noise_dim == sde.dim * len(sde.parts) and self._diagonal():
            kind = "diagonal"
        self.noise_type = kind
        self._f = _torch_function(sde, lambda y, p, s: sde.drift(y, p, s))
        self._noise_columns = [
            _torch_function(sde, lambda y, p, s, j=j: sde.diffusion(y, _unit(sde, j), p, s)) for j in range(sde.noise_dim)
        ]

    def f(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """Return the drift at time `t`, a number or a tensor `()`, and states `y` `(batch, n)`: a tensor `(batch, n)`."""
        return self._f(t, y)

    def g(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """Return the diffusion at time `t` and states `y` `(batch, n)`, with m Brownian motions.

        It has the shape `(batch, n)` for diagonal noise (the diagonal, 0 for an SDE without noise), else `(batch, n, m)`.
        """
        if not self._noise_columns:
            return torch.zeros_like(y)
        columns = [column(t, y) for column in self._noise_columns]
        if self.noise_type == "diagonal":
            return torch.stack([column[:, j] for j, column in enumerate(columns)], dim=1)
        return torch.stack(columns, dim=2)

    def g_prod(self, t: Any, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the product g(t, y) v, `(batch, n)`, for states `y` `(batch, n)` and increments `v` `(batch, m)` of the m Brownian motions."""
        g = self.g(t, y)
        return g * v if self.noise_type == "diagonal" else torch.einsum("bij,bj->bi", g, v)

    def _diagonal(self) -> bool:
        """Return whether a constant diffusion with n = m is a diagonal matrix, from its values at one point."""
        n = self.sde.noise_dim
        signals = self.sde.signal_values(np.zeros(1), 0.0, 0.0)[0] if self.sde.signals else ()
        b = np.stack([self.sde.diffusion(np.full(n, 0.7), _unit(self.sde, j), None, signals) for j in range(n)], axis=1)
        return bool(np.count_nonzero(b - np.diag(np.diag(b))) == 0)


def _unit(sde: SDE, j: int) -> list[float]:
    """Return the unit vector of length `sde.noise_dim` with a 1.0 at position `j`, a list of 0.0 elsewhere."""
    return [float(i == j) for i in range(sde.noise_dim)]


def to_torchsde(sde: SDE) -> TorchsdeModel:
    """Convert an sdetools SDE to a model for `torchsde.sdeint`.

    Args:
        sde: The SDE; its drift and diffusion must be traceable formulas.

    Returns:
        The model, with the methods `f`, `g` and `g_prod` and the attributes `noise_type` and `sde_type` of torchsde's protocol.

    Raises:
        ValueError: If `sde` is not an SDE, or if drift or diffusion cannot be traced.

    Example:
        >>> import sdetools as st, torch
        >>> from sdetools.bridge import to_torchsde
        >>> model = to_torchsde(st.SDE(drift=["-x"], diffusion=["0.5"], variables="x"))
        >>> model.f(0.0, torch.tensor([[2.0]])), model.noise_type
        (tensor([[-2.]]), 'diagonal')
    """
    if not isinstance(sde, SDE):
        raise ValueError(f"`sde` must be an sdetools SDE; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...).")
    try:
        return TorchsdeModel(sde)
    except (NotTraceable, TracingError, TypeError) as error:
        raise ValueError(f"`sde` must be made of traceable formulas to run in torch; got {sde!r} ({error}).") from error


def _torch_function(sde: SDE, function: Any) -> Any:
    """Trace a formula of an SDE and return it as a torch function of (t, y), with argument and result `(batch, n)`.

    Args:
        sde: The SDE, whose parameters and time-dependent numbers are inserted.
        function: The formula (y, p, s) -> n components, with y `(n,)` or `(n, batch)`, p the parameters `(parameters,)` of the SDE and s its time-dependent
            numbers (`signals`) at t.
    """
    n, trace = sde.dim * len(sde.parts), Trace()
    y, p = trace.input("y", (n,)), trace.uniform("p", (len(sde.parameters),))
    s = [trace.uniform(f"s{i}") for i in range(sde.signals)]
    formula = components(function(y, p, s), y)

    @cache
    def on(device: torch.device, dtype: torch.dtype) -> Any:
        return compiled([formula], [y, p, *s], torch, device, dtype)

    def call(t: Any, at: torch.Tensor) -> torch.Tensor:
        signals: Sequence[float] = sde.signal_values(np.array([float(t)]), 0.0, 0.0)[0] if sde.signals else ()
        numbers = [torch.as_tensor(v, dtype=at.dtype, device=at.device) for v in (sde.parameters, *map(float, signals))]
        (rows,) = on(at.device, at.dtype)(at.T, *numbers)
        return (rows if rows.ndim == 2 else rows[:, None].expand(n, len(at))).T

    return call


class FromTorchsde(SDE):
    """A torchsde model as an sdetools SDE, evaluated on all paths at once with conversion between NumPy and torch; see `from_torchsde`.

    Args:
        model: An object with the methods `f(t, y)` and `g(t, y)` or `g_prod(t, y, v)`, and the texts `noise_type` and `sde_type`.
        dim: The number of columns of y, the dimension of the SDE.
        noise_dim: The number of Brownian motions; None infers it from `g`.
        names: Names of the coordinates; None for `x0, x1, ...`.

    Attributes:
        model: The model.
        calculus: "ito" or "stratonovich".
        noise_class: The class of the noise, such as "diagonal" (`SDE`).

    Raises:
        ValueError: If the model does not follow torchsde's protocol.
    """

    signals = 1

    def __init__(self, model: Any, dim: int, noise_dim: int | None = None, names: Sequence[str] | None = None) -> None:
        from sdetools.losses.base import coordinate_names

        for wanted in ("f", "noise_type", "sde_type"):
            if not hasattr(model, wanted):
                raise ValueError(
                    f"`model` must follow torchsde's protocol (f, g, noise_type, sde_type); got {model!r} without `{wanted}`."
                )
        if not (hasattr(model, "g") or hasattr(model, "g_prod")):
            raise ValueError(f"`model` must have `g` or `g_prod`; got {model!r}, which has neither.")
        if model.noise_type not in NOISE_TYPES:
            raise ValueError(f"`noise_type` must be one of {', '.join(NOISE_TYPES)}; got {model.noise_type!r}.")
        if model.sde_type not in ("ito", "stratonovich"):
            raise ValueError(f"`sde_type` must be 'ito' or 'stratonovich'; got {model.sde_type!r}.")
        self.model, self.dim = model, _check.count("dim", dim)
        self.calculus = str(model.sde_type)
        self.names = coordinate_names(names, self.dim)
        self.parameters = np.zeros(0)
        self.identity = f"torchsde {type(model).__module__}.{type(model).__qualname__} {_weights(model)}"
        self._check_function("f", model.f, lambda n: (n, self.dim))
        kind = model.noise_type
        if noise_dim is None:
            if not hasattr(model, "g"):
                raise ValueError("`noise_dim` must be given for a model with `g_prod` but no `g`; got None.")
            noise_dim = {"diagonal": self.dim, "scalar": 1}.get(kind) or self._noise_columns()
        self.noise_dim = _check.count("noise_dim", noise_dim)
        fixed = {"diagonal": self.dim, "scalar": 1}.get(kind, self.noise_dim)
        if self.noise_dim != fixed:
            raise ValueError(f"`noise_dim` must be {fixed} for {kind} noise of a y with {self.dim} columns; got {noise_dim!r}.")
        if hasattr(model, "g"):
            self._check_function("g", model.g, self._g_shape)
        else:
            draws = torch.linspace(-1, 1, 3 * self.noise_dim, dtype=_dtype(model)).reshape(3, -1)
            self._check_function("g_prod", lambda t, at: model.g_prod(t, at, draws[: len(at)]), lambda n: (n, self.dim))
        self.noise_class = classify(self, kind if kind in ("diagonal", "scalar", "additive") else None)

    def _g_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape that `g` must have for `batch` rows of y: `(batch, dim)` for diagonal noise, else `(batch, dim, noise_dim)`."""
        return (batch, self.dim) if self.model.noise_type == "diagonal" else (batch, self.dim, self.noise_dim)

    def _noise_columns(self) -> int:
        """Return the number of Brownian motions, the last length of g's shape `(batch, dim, noise_dim)`; ValueError for another shape."""
        at = torch.full((2, self.dim), 0.7, dtype=_dtype(self.model))
        g = _evaluate_once("g", self.model.g, at)
        if not isinstance(g, torch.Tensor) or g.ndim != 3 or g.shape[:2] != at.shape:
            raise _shape_error("g", f"(batch, {self.dim}, noise_dim) for {self.model.noise_type} noise", 2, g)
        return int(g.shape[2])

    def _check_function(self, name: str, function: Any, shape: Any) -> None:
        """Raise a ValueError unless a function evaluates the rows of y independently and deterministically, and returns the right shape.

        Args:
            name: The name of the function, for the message.
            function: A function of (t, y) with y `(batch, dim)`.
            shape: A function from the number of rows of y to the right shape, a tuple.
        """
        rows = torch.linspace(0.5, 0.9, 3 * self.dim, dtype=_dtype(self.model)).reshape(3, self.dim)
        results = [self._check_shape(name, _evaluate_once(name, function, rows[:n]), shape, n) for n in (2, 3)]
        tolerance = torch.finfo(rows.dtype).eps ** 0.5
        if not torch.allclose(results[0].double(), results[1][:2].double(), rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ValueError(
                f"`{name}` must evaluate the rows of y independently and deterministically; got different results for the same rows after "
                "one was added to the batch. Call eval() on a model with batch normalisation or dropout."
            )

    def _check_shape(self, name: str, result: Any, shape: Any, batch: int) -> torch.Tensor:
        """Return `result` unchanged if it is a real tensor of the shape `shape(batch)`; else raise a ValueError about the function `name`."""
        if not isinstance(result, torch.Tensor) or tuple(result.shape) != shape(batch) or result.is_complex():
            wanted = ", ".join(["batch", *map(str, shape(batch)[1:])])
            of = f" for {self.model.noise_type} noise" if name == "g" else ""
            raise _shape_error(name, f"({wanted}){of}", batch, result)
        return result

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """Return the drift f at the points `y` and the time s[0], as a NumPy array in the shape of `y`.

        Args:
            y: Points, `(dim,)` or `(dim, paths)`.
            p: Unused, because a torchsde model has no parameters of sdetools.
            s: The time, as a sequence of one number.

        Raises:
            ArraysOnly: If `y` is traced, because a torchsde model needs numbers.
        """
        return self._evaluate(lambda t, at: self._check_shape("f", self.model.f(t, at), lambda n: (n, self.dim), len(at)), y, s)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        """Return the diffusion matrix times `u` at the points `y` and the time s[0], as a NumPy array in the shape of `y`.

        Args:
            y: Points, `(dim,)` or `(dim, paths)`.
            u: For each of the `noise_dim` Brownian motions a number or an array `(paths,)`.
            p: Unused, because a torchsde model has no parameters of sdetools.
            s: The time, as a sequence of one number.

        Raises:
            ArraysOnly: If `y` is traced, because a torchsde model needs numbers.
        """
        y = np.asarray(y)
        if y.dtype == object:
            raise ArraysOnly("a torchsde model cannot be traced")
        paths = y.shape[1:] or (1,)
        v = torch.as_tensor(np.stack([np.broadcast_to(np.asarray(w, dtype=float), paths) for w in u], axis=-1)).to(
            _dtype(self.model)
        )

        def product(t: Any, at: torch.Tensor) -> torch.Tensor:
            if hasattr(self.model, "g"):
                g = self._check_shape("g", self.model.g(t, at), self._g_shape, len(at))
                return g * v if self.model.noise_type == "diagonal" else torch.einsum("bij,bj->bi", g, v)
            return self._check_shape("g_prod", self.model.g_prod(t, at, v), lambda n: (n, self.dim), len(at))

        return self._evaluate(product, y, s)

    def _evaluate(self, function: Any, y: Any, s: Sequence[Any]) -> np.ndarray:
        """Evaluate a torch function at NumPy points, without gradients, and return a float64 array in the shape of `y`.

        Args:
            function: A function of a time and of states `(paths, dim)`, with values `(paths, dim)`.
            y: Points, `(dim,)` or `(dim, paths)`; ArraysOnly is raised if they are traced.
            s: The time, as a sequence of one number.
        """
        y = np.asarray(y)
        if y.dtype == object:
            raise ArraysOnly("a torchsde model cannot be traced")
        at = torch.as_tensor(np.ascontiguousarray(y.reshape(self.dim, -1).T)).to(_dtype(self.model))
        with torch.no_grad():
            out = function(torch.as_tensor(float(s[0]), dtype=at.dtype), at)
        return out.double().numpy().T.reshape(y.shape)


def _evaluate_once(name: str, function: Any, at: torch.Tensor) -> Any:
    """Return `function(0, at)` for the states `at` `(batch, dim)`; a ValueError about the function `name` reports the cause if it fails."""
    try:
        with torch.no_grad():
            return function(torch.zeros((), dtype=at.dtype), at)
    except Exception as error:
        more = ", v)" if name == "g_prod" else ")"
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"`{name}` must take (t, y{more} with y of shape (batch, {at.shape[1]}); calling it raised {what}."
        ) from error


def _shape_error(name: str, wanted: str, batch: int, result: Any) -> ValueError:
    """Return the ValueError for a function `name` whose `result`, for `batch` rows, is not a real tensor of the shape `wanted` (a text)."""
    got = f"a {type(result).__name__}"
    if isinstance(result, torch.Tensor):
        got = f"{tuple(result.shape)}{' of complex numbers' if result.is_complex() else ''}"
    return ValueError(f"`{name}` must return a real tensor of shape {wanted}; for a batch of {batch} it gave {got}.")


def _dtype(model: Any) -> torch.dtype:
    """Return the floating-point type of a model's first parameter; float64 if it has no parameters."""
    parameters = list(model.parameters()) if callable(getattr(model, "parameters", None)) else []
    return parameters[0].dtype if parameters else torch.float64


def _weights(model: Any) -> str:
    """Return text that identifies a model in stored results: a digest of its weights, its plain attributes and its code."""
    from sdetools._identity import function_identity
    from sdetools.losses.base import digest

    state = model.state_dict() if callable(getattr(model, "state_dict", None)) else {}
    plain = {k: repr(v) for k, v in sorted(vars(model).items()) if isinstance(v, (int, float, str, bool, tuple))}
    code = [function_identity(getattr(type(model), name)) for name in ("f", "g", "g_prod") if hasattr(type(model), name)]
    return f"{digest(*(v.detach().cpu().numpy() for v in state.values()))} {plain} {code}"


def from_torchsde(model: Any, dim: int, noise_dim: int | None = None, names: Sequence[str] | None = None) -> FromTorchsde:
    """Convert a torchsde model to an sdetools SDE, for all integrators, gaps and studies on the NumPy backend.

    Args:
        model: An object with the drift `f(t, y)` and the diffusion `g(t, y)`, or its product `g_prod(t, y, v)` with increments v `(batch, noise_dim)`, and
            the texts `noise_type` ("additive", "diagonal", "scalar" or "general") and `sde_type` ("ito" or "stratonovich"). y is `(batch, dim)`.
        dim: The number of columns of y.
        noise_dim: The number of Brownian motions; None infers it from `g`.
        names: Names of the coordinates; None for `x0, x1, ...`.

    Returns:
        The SDE, whose points are `(dim,)` or `(dim, paths)`.

    Raises:
        ValueError: If the model does not follow the protocol: its functions fail, return another shape or mix the rows of y. Also if `noise_dim`
            contradicts the noise type, or is None without a `g`.

    Example:
        >>> import torch
        >>> from sdetools.bridge import from_torchsde
        >>> class Model:
        ...     noise_type, sde_type = "diagonal", "ito"
        ...     def f(self, t, y):
        ...         return -y
        ...     def g(self, t, y):
        ...         return 0.3 * torch.ones_like(y)
        >>> from_torchsde(Model(), dim=2)
        FromTorchsde(dim=2, 2 Brownian motions, diagonal noise, ito)
    """
    return FromTorchsde(model, dim, noise_dim, names)
