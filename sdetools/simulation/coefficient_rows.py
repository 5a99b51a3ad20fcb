"""The coefficients of a rule (eta, beta, ...) for each step, checked: `coefficient_values` may be a method of the user."""

from __future__ import annotations

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving


def coefficient_rows(dynamics: Moving, steps: int) -> np.ndarray:
    """Return the coefficients of a rule (eta, beta, ...), a float64 array `(steps, len(coefficients))`, after a check of what the rule returns.

    Row k belongs to step k = 0 ... steps - 1, and the columns are in the order of the rule's `coefficients`.

    Args:
        dynamics: The dynamics whose method `coefficient_values(steps)` gives the numbers; the method may be one of the user.
        steps: The number of steps.

    Raises:
        ValueError: The method returns anything else than such an array of real numbers.
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
