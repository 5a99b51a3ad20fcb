"""Validators at the border: each returns the value it checked, or says what, the rule, what came and the way out."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np


def number(name: str, value: Any, rule: str = "be a finite number", hint: str = "") -> float:
    """A finite float."""
    try:
        out = float(value)
    except (TypeError, ValueError):
        out = math.nan
    if not math.isfinite(out):
        raise ValueError(f"`{name}` must {rule}; got {name}={value!r}.{_tail(hint)}")
    return out


def positive(name: str, value: Any, hint: str = "") -> float:
    """A finite float above zero."""
    out = number(name, value, "be a positive number", hint)
    if out <= 0:
        raise ValueError(f"`{name}` must be a positive number; got {name}={value!r}.{_tail(hint)}")
    return out


def momentum(name: str, value: Any) -> float:
    """A momentum coefficient in [0, 1)."""
    out = number(name, value, "lie in [0, 1)")
    if not 0 <= out < 1:
        raise ValueError(
            f"`{name}` must lie in [0, 1); got {name}={value!r}. "
            "Take it below 1: momentum forgets at the rate 1 - beta, and at 1 the noise never enters."
        )
    return out


def count(name: str, value: Any, least: int = 1, hint: str = "") -> int:
    """A whole number, at least `least`."""
    try:
        out = operator.index(value)
    except TypeError:
        if not (isinstance(value, float) and value.is_integer()):
            raise ValueError(f"`{name}` must be a whole number; got {name}={value!r}.{_tail(hint)}") from None
        out = int(value)
    if out < least:
        raise ValueError(f"`{name}` must be at least {least}; got {name}={value!r}.{_tail(hint)}")
    return out


def finite(name: str, value: Any, hint: str = "") -> np.ndarray:
    """An array of finite floats."""
    try:
        out = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be an array of numbers; got {value!r}.{_tail(hint)}") from None
    if not np.all(np.isfinite(out)):
        raise ValueError(f"`{name}` must hold finite numbers only; got a NaN or an infinity in it.{_tail(hint)}")
    return out


def point(name: str, value: Any, dim: int) -> np.ndarray:
    """A point of shape `(dim,)`."""
    out = finite(name, value)
    if out.shape != (dim,):
        raise ValueError(
            f"`{name}` must have shape ({dim},), one number a coordinate; got shape {out.shape}. "
            f"The loss has {dim} coordinate{'s' if dim != 1 else ''}."
        )
    return out


def covariance(name: str, value: Any, dim: int | None = None) -> np.ndarray:
    """A symmetric positive semidefinite matrix; a vector is taken as its diagonal."""
    out = finite(name, value)
    if out.ndim == 1:
        out = np.diag(out)
    if out.ndim != 2 or out.shape[0] != out.shape[1] or (dim is not None and len(out) != dim):
        want = f"({dim}, {dim})" if dim is not None else "(dim, dim)"
        raise ValueError(f"`{name}` must be a covariance matrix of shape {want}; got shape {np.shape(value)}.")
    scale = max(float(np.abs(out).max(initial=0.0)), np.finfo(float).tiny)
    if np.abs(out - out.T).max(initial=0.0) > 1e-12 * scale:
        raise ValueError(f"`{name}` must be symmetric; its largest asymmetry is {np.abs(out - out.T).max():.3g}.")
    low = float(np.linalg.eigvalsh(out)[0]) if len(out) else 0.0
    if low < -1e-12 * scale * len(out):
        raise ValueError(
            f"`{name}` must be positive semidefinite; its smallest eigenvalue is {low:.3g}. Check the sign of its off-diagonal entries."
        )
    return out


def _tail(hint: str) -> str:
    return f" {hint}" if hint else ""
