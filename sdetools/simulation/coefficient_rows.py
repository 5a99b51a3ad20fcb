"""The numbers of a rule's steps, checked: `coefficient_values` may be a method of the user."""

from __future__ import annotations

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving


def coefficient_rows(dynamics: Moving, steps: int) -> np.ndarray:
    """Return the coefficients of a rule as doubles `(steps, len(coefficients))`, after a check of what its `coefficient_values` returns.

    Args:
        dynamics: The rule; its method may be one of the user.
        steps: The number of steps.

    Raises:
        ValueError: If the method returns anything else than such an array of real numbers.
    """
    given, names = dynamics.coefficient_values(steps), dynamics.coefficients
    rows = np.asarray(given)
    if rows.shape != (steps, len(names)) or rows.dtype.kind not in "iuf":
        received = f"shape {rows.shape}" if rows.ndim else _check.shown(given)
        raise ValueError(
            f"`coefficient_values` of {dynamics.name} must return an array ({steps}, {len(names)}), one row a step and the columns "
            f"{', '.join(names) or 'none'}; got {received}. Numbers that are constant need no such method: set float attributes of these names."
        )
    return rows.astype(float, copy=False)
