"""Validation of a dynamics that a function takes as an argument."""

from __future__ import annotations

from typing import Any

from sdetools import _check
from sdetools.dynamics.base import Moving


def check_dynamics(value: Any, name: str = "dynamics") -> Moving:
    """Return `value` unchanged if it is a dynamics, a `Moving`; raise ValueError otherwise. `name` is the name of the argument in the message."""
    if isinstance(value, Moving):
        return value
    if isinstance(value, type) and issubclass(value, Moving):
        way = f"Make one: st.{value.__name__}(...)."
    elif hasattr(value, "drift") and hasattr(value, "diffusion"):
        way = "An SDE needs an integrator: st.EulerMaruyama(sde, dt=...)."
    else:
        way = "Make one, such as st.SGD(oracle, plan)."
    raise ValueError(f"`{name}` must be a dynamics; got {_check.shown(value)}. {way}")
