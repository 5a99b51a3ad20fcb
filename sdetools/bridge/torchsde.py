"""SDEs to and from torchsde's object protocol: `f(t, y)`, `g(t, y)`, `noise_type`, `sde_type`, y of shape `(batch, dim)`.

torchsde itself is not needed to translate, only to solve. What torchsde calls noise types: "additive", "diagonal", "scalar", "general".
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
    """An SDE of ours as torchsde wants it: pass it to `torchsde.sdeint(model, y0, ts)`, y0 of shape `(batch, parts * dim)`.

    `noise_type` is "diagonal", "scalar", "additive" or "general", `sde_type` "ito" or "stratonovich". Time-dependent numbers (lambda_t)
    are read at t. The functions are torch code traced from drift and diffusion: they run on the device and in the type of `y`.
    """

    def __init__(self, sde: SDE) -> None:
        self.sde, self.sde_type = sde, sde.calculus
        kind = {"none": "diagonal", "commutative": "general"}.get(sde.noise_class, sde.noise_class)
        if kind == "additive" and sde.noise_dim == sde.dim * len(sde.parts) and self._diagonal():
            kind = "diagonal"
        self.noise_type = kind
        self._f = _traced(sde, lambda y, p, s: sde.drift(y, p, s))
        self._columns = [_traced(sde, lambda y, p, s, j=j: sde.diffusion(y, _unit(sde, j), p, s)) for j in range(sde.noise_dim)]

    def f(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """The drift, `(batch, n)`."""
        return self._f(t, y)

    def g(self, t: Any, y: torch.Tensor) -> torch.Tensor:
        """The diffusion: `(batch, n)` for diagonal noise, else `(batch, n, m)`."""
        if not self._columns:
            return torch.zeros_like(y)
        columns = [column(t, y) for column in self._columns]
        if self.noise_type == "diagonal":
            return torch.stack([column[:, j] for j, column in enumerate(columns)], dim=1)
        return torch.stack(columns, dim=2)

    def g_prod(self, t: Any, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """g(t, y) v, `(batch, n)`."""
        g = self.g(t, y)
        return g * v if self.noise_type == "diagonal" else torch.einsum("bij,bj->bi", g, v)

    def _diagonal(self) -> bool:
        n = self.sde.noise_dim
        signals = self.sde.signal_values(np.zeros(1), 0.0, 0.0)[0] if self.sde.signals else ()
        b = np.stack([self.sde.diffusion(np.full(n, 0.7), _unit(self.sde, j), None, signals) for j in range(n)], axis=1)
        return bool(np.count_nonzero(b - np.diag(np.diag(b))) == 0)


def _unit(sde: SDE, j: int) -> list[float]:
    return [float(i == j) for i in range(sde.noise_dim)]


def to_torchsde(sde: SDE) -> TorchsdeModel:
    """A model for `torchsde.sdeint` from an SDE of ours. ValueError where drift or diffusion cannot be traced.

    >>> import sdetools as st, torch
    >>> model = to_torchsde(st.SDE(drift=["-x"], diffusion=["0.5"], variables="x"))
    >>> model.f(0.0, torch.tensor([[2.0]])), model.noise_type
    (tensor([[-2.]]), 'diagonal')
    """
    if not isinstance(sde, SDE):
        raise ValueError(f"`sde` must be an SDE of ours; got {sde!r}. Make one with st.SDE(drift=..., diffusion=...).")
    try:
        return TorchsdeModel(sde)
    except (NotTraceable, TracingError, TypeError) as error:
        raise ValueError(f"`sde` must be made of traceable formulas to run in torch; got {sde!r} ({error}).") from error


def _traced(sde: SDE, function: Any) -> Any:
    """A torch function of (t, y) from a formula on component-first arrays."""
    n, trace = sde.dim * len(sde.parts), Trace()
    y, p = trace.input("y", (n,)), trace.uniform("p", (len(sde.parameters),))
    s = [trace.uniform(f"s{i}") for i in range(sde.signals)]
    made = components(function(y, p, s), y)

    @cache
    def on(device: torch.device, dtype: torch.dtype) -> Any:
        return compiled([made], [y, p, *s], torch, device, dtype)

    def call(t: Any, at: torch.Tensor) -> torch.Tensor:
        signals: Sequence[float] = sde.signal_values(np.array([float(t)]), 0.0, 0.0)[0] if sde.signals else ()
        numbers = [torch.as_tensor(v, dtype=at.dtype, device=at.device) for v in (sde.parameters, *map(float, signals))]
        (rows,) = on(at.device, at.dtype)(at.T, *numbers)
        return (rows if rows.ndim == 2 else rows[:, None].expand(n, len(at))).T

    return call


class FromTorchsde(SDE):
    """A torchsde model as an SDE of ours: `f` and `g` are called on all paths at once, through torch and back."""

    signals = 1

    def __init__(self, model: Any, dim: int, noise_dim: int | None = None, names: Sequence[str] | None = None) -> None:
        from sdetools.losses.base import coordinate_names

        for wanted in ("f", "noise_type", "sde_type"):
            if not hasattr(model, wanted):
                raise ValueError(
                    f"`model` must follow torchsde's protocol (f, g, noise_type, sde_type); {model!r} has no `{wanted}`."
                )
        if not (hasattr(model, "g") or hasattr(model, "g_prod")):
            raise ValueError(f"`model` must have `g` or `g_prod`; {model!r} has neither.")
        if model.noise_type not in NOISE_TYPES:
            raise ValueError(f"`noise_type` must be one of {', '.join(NOISE_TYPES)}; got {model.noise_type!r}.")
        self.model, self.dim = model, _check.count("dim", dim)
        self.calculus = str(model.sde_type)
        self.names = coordinate_names(names, self.dim)
        self.parameters = np.zeros(0)
        self.identity = f"torchsde {type(model).__module__}.{type(model).__qualname__} {_weights(model)}"
        self._ask("f", model.f, lambda n: (n, self.dim))
        kind = model.noise_type
        if noise_dim is None:
            if not hasattr(model, "g"):
                raise ValueError("`noise_dim` must be given for a model with `g_prod` alone.")
            noise_dim = {"diagonal": self.dim, "scalar": 1}.get(kind) or self._columns()
        self.noise_dim = _check.count("noise_dim", noise_dim)
        fixed = {"diagonal": self.dim, "scalar": 1}.get(kind, self.noise_dim)
        if self.noise_dim != fixed:
            raise ValueError(f"`noise_dim` must be {fixed} for {kind} noise of a y with {self.dim} columns; got {noise_dim!r}.")
        if hasattr(model, "g"):
            self._ask("g", model.g, self._g_shape)
        else:
            draws = torch.linspace(-1, 1, 3 * self.noise_dim, dtype=_type(model)).reshape(3, -1)
            self._ask("g_prod", lambda t, at: model.g_prod(t, at, draws[: len(at)]), lambda n: (n, self.dim))
        self.noise_class = classify(self, kind if kind in ("diagonal", "scalar", "additive") else None)

    def _g_shape(self, batch: int) -> tuple[int, ...]:
        return (batch, self.dim) if self.model.noise_type == "diagonal" else (batch, self.dim, self.noise_dim)

    def _columns(self) -> int:
        """Brownian motions, from the shape of g."""
        at = torch.full((2, self.dim), 0.7, dtype=_type(self.model))
        g = _called("g", self.model.g, at)
        if not isinstance(g, torch.Tensor) or g.ndim != 3 or g.shape[:2] != at.shape:
            raise _misshaped("g", f"(batch, {self.dim}, noise_dim) for {self.model.noise_type} noise", 2, g)
        return int(g.shape[2])

    def _ask(self, name: str, function: Any, shape: Any) -> None:
        """Refuse a function of (t, y) that does not answer each row of y by itself, in the right shape."""
        rows = torch.linspace(0.5, 0.9, 3 * self.dim, dtype=_type(self.model)).reshape(3, self.dim)
        answers = [self._shaped(name, _called(name, function, rows[:n]), shape, n) for n in (2, 3)]
        near = torch.finfo(rows.dtype).eps ** 0.5
        if not torch.allclose(answers[0].double(), answers[1][:2].double(), rtol=near, atol=near, equal_nan=True):
            raise ValueError(
                f"`{name}` must answer each row of y by itself, always in the same way; with one row more in the batch it gave other "
                "answers for the rest. Call eval() on a model with batch normalisation or dropout."
            )

    def _shaped(self, name: str, answer: Any, shape: Any, batch: int) -> torch.Tensor:
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != shape(batch) or answer.is_complex():
            wanted = ", ".join(["batch", *map(str, shape(batch)[1:])])
            of = f" for {self.model.noise_type} noise" if name == "g" else ""
            raise _misshaped(name, f"({wanted}){of}", batch, answer)
        return answer

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        return self._through(lambda t, at: self._shaped("f", self.model.f(t, at), lambda n: (n, self.dim), len(at)), y, s)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        y = np.asarray(y)
        if y.dtype == object:
            raise ArraysOnly("a torchsde model cannot be traced")
        paths = y.shape[1:] or (1,)
        v = torch.as_tensor(np.stack([np.broadcast_to(np.asarray(w, dtype=float), paths) for w in u], axis=-1)).to(
            _type(self.model)
        )

        def product(t: Any, at: torch.Tensor) -> torch.Tensor:
            if hasattr(self.model, "g"):
                g = self._shaped("g", self.model.g(t, at), self._g_shape, len(at))
                return g * v if self.model.noise_type == "diagonal" else torch.einsum("bij,bj->bi", g, v)
            return self._shaped("g_prod", self.model.g_prod(t, at, v), lambda n: (n, self.dim), len(at))

        return self._through(product, y, s)

    def _through(self, function: Any, y: Any, s: Sequence[Any]) -> np.ndarray:
        y = np.asarray(y)
        if y.dtype == object:
            raise ArraysOnly("a torchsde model cannot be traced")
        at = torch.as_tensor(np.ascontiguousarray(y.reshape(self.dim, -1).T)).to(_type(self.model))
        with torch.no_grad():
            out = function(torch.as_tensor(float(s[0]), dtype=at.dtype), at)
        return out.double().numpy().T.reshape(y.shape)


def _called(name: str, function: Any, at: torch.Tensor) -> Any:
    try:
        with torch.no_grad():
            return function(torch.zeros((), dtype=at.dtype), at)
    except Exception as error:
        more = ", v)" if name == "g_prod" else ")"
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"`{name}` must take (t, y{more} with y of shape (batch, {at.shape[1]}); calling it raised {what}."
        ) from error


def _misshaped(name: str, wanted: str, batch: int, answer: Any) -> ValueError:
    got = f"a {type(answer).__name__}"
    if isinstance(answer, torch.Tensor):
        got = f"{tuple(answer.shape)}{' of complex numbers' if answer.is_complex() else ''}"
    return ValueError(f"`{name}` must return a real tensor of shape {wanted}; for a batch of {batch} it gave {got}.")


def _type(model: Any) -> torch.dtype:
    """The floating type of a model's weights; double where it has none."""
    parameters = list(model.parameters()) if callable(getattr(model, "parameters", None)) else []
    return parameters[0].dtype if parameters else torch.float64


def _weights(model: Any) -> str:
    """A digest of a model's weights and plain attributes: another model is another experiment."""
    from sdetools._identity import function_identity
    from sdetools.losses.base import digest

    state = model.state_dict() if callable(getattr(model, "state_dict", None)) else {}
    plain = {k: repr(v) for k, v in sorted(vars(model).items()) if isinstance(v, (int, float, str, bool, tuple))}
    code = [function_identity(getattr(type(model), name)) for name in ("f", "g", "g_prod") if hasattr(type(model), name)]
    return f"{digest(*(v.detach().cpu().numpy() for v in state.values()))} {plain} {code}"


def from_torchsde(model: Any, dim: int, noise_dim: int | None = None, names: Sequence[str] | None = None) -> FromTorchsde:
    """An SDE of ours from a torchsde model, unchanged: any integrator, gap and study takes it (NumPy backend, torch inside).

    `dim`: columns of y; `noise_dim`: Brownian motions, found from `g` by default. ValueError for what does not follow the protocol: functions
    that fail, that answer in another shape, or that mix the rows of y.

    >>> import torch
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
