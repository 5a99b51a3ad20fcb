"""SDEs to and from torchsde's object protocol: `f(t, y)`, `g(t, y)`, `noise_type`, `sde_type`, y of shape `(batch, dim)`.

torchsde itself is not needed to translate, only to solve. What torchsde calls noise types: "additive", "diagonal", "scalar", "general".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sdetools import _check
from sdetools.dynamics.sde import SDE, classify
from sdetools.simulation.source import NotTraceable
from sdetools.simulation.torch_run import lines_of, space_of
from sdetools.simulation.trace import Tape, TracingError, symbols

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
    n = sde.dim * len(sde.parts)
    tape = Tape()
    y = symbols(tape, [f"y{i}" for i in range(n)])
    p = symbols(tape, [f"p{i}" for i in range(len(sde.parameters))])
    s = [tape.load(f"s{i}") for i in range(sde.signals)]
    values = function(y, p, s)
    outputs = [(f"o{i}", value) for i, value in enumerate(values)]
    ((body, stores),), _ = tape.segments(outputs, lambda i: f"k{i}")
    text = "def traced(y, p, s):\n"
    text += "".join(f"    y{i} = y[:, {i}]\n" for i in range(n))
    text += "".join(f"    p{i} = p[{i}]\n" for i in range(len(sde.parameters)))
    text += "".join(f"    s{i} = s[{i}]\n" for i in range(sde.signals))
    text += "".join(f"    {line}\n" for line in lines_of([*body, *stores]))
    text += f"    return ({', '.join(f'o{i}' for i in range(n))},)\n"
    code = compile(text, "<sdetools torchsde>", "exec")

    def call(t: Any, at: torch.Tensor) -> torch.Tensor:
        space = space_of(at.dtype, at.device)
        exec(code, space)  # our own text
        parameters = torch.as_tensor(sde.parameters, dtype=at.dtype, device=at.device)
        signals: Sequence[float] = sde.signal_values(np.array([float(t)]), 0.0, 0.0)[0] if sde.signals else ()
        moving = [torch.as_tensor(float(v), dtype=at.dtype, device=at.device) for v in signals]
        rows = space["traced"](at, parameters, moving)
        return torch.stack([torch.as_tensor(r, dtype=at.dtype, device=at.device).expand(len(at)) for r in rows], dim=1)

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
        at = torch.full((2, self.dim), 0.7, dtype=_type(model))
        drift = self._ask("f", model.f, at)
        if tuple(drift.shape) != (2, self.dim):
            raise ValueError(
                f"`f` must return a tensor of shape (batch, {self.dim}); for a batch of 2 it gave {tuple(drift.shape)}."
            )
        if noise_dim is None:
            if not hasattr(model, "g"):
                raise ValueError("`noise_dim` must be given for a model with `g_prod` alone.")
            g = self._ask("g", model.g, at)
            noise_dim = self.dim if model.noise_type == "diagonal" else int(g.shape[-1])
        self.noise_dim = _check.count("noise_dim", noise_dim)
        kind = model.noise_type
        self.noise_class = classify(self, kind if kind in ("diagonal", "scalar", "additive") else None)

    @staticmethod
    def _ask(name: str, function: Any, at: torch.Tensor) -> torch.Tensor:
        try:
            with torch.no_grad():
                return function(torch.zeros((), dtype=at.dtype), at)
        except (RuntimeError, IndexError, TypeError) as error:
            told = str(error).splitlines()[0]
            raise ValueError(
                f"`{name}` must take (t, y) with y of shape (batch, {at.shape[1]}); calling it raised {told}."
            ) from error

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        return self._through(lambda t, at: self.model.f(t, at), y, s)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (0.0,)) -> np.ndarray:
        y = np.asarray(y)
        if y.dtype == object:
            raise TypeError("a torchsde model cannot be traced")
        paths = y.shape[1:] or (1,)
        v = torch.as_tensor(np.stack([np.broadcast_to(np.asarray(w, dtype=float), paths) for w in u], axis=-1)).to(
            _type(self.model)
        )

        def product(t: Any, at: torch.Tensor) -> torch.Tensor:
            if hasattr(self.model, "g"):
                g = self.model.g(t, at)
                return g * v if self.model.noise_type == "diagonal" else torch.einsum("bij,bj->bi", g, v)
            return self.model.g_prod(t, at, v)

        return self._through(product, y, s)

    def _through(self, function: Any, y: Any, s: Sequence[Any]) -> np.ndarray:
        y = np.asarray(y)
        if y.dtype == object:
            raise TypeError("a torchsde model cannot be traced")
        at = torch.as_tensor(np.ascontiguousarray(y.reshape(self.dim, -1).T)).to(_type(self.model))
        with torch.no_grad():
            out = function(torch.as_tensor(float(s[0]), dtype=at.dtype), at)
        return out.double().numpy().T.reshape(y.shape)


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

    `dim`: columns of y; `noise_dim`: Brownian motions, found from `g` by default. ValueError for what does not follow the protocol.

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
