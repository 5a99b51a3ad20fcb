"""Exact expectations E h(x_k) and exact weak gaps E h(x_k) - E h(z_k), from moment recursions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.arguments import check_dynamics
from sdetools.exact.closed_observables import closed
from sdetools.exact.moments import moments
from sdetools.exact.recorded import Moments, recorded


def expectation(moments: Moments, observable: Any) -> np.ndarray:
    """Return E h(x_k) of an observable h at the recorded steps of `moments`, with x the first part of the state, the position.

    Polynomials of degree <= 2 are possible for any law. For a Gaussian law, sums of terms c f(w . x + b) with numbers c, b, a vector w and
    f = |.|^p, (.)^n, exp, sin, cos, sign, comparisons and Heaviside, and the indicator `Below`, are possible as well.

    Args:
        moments: The mean and covariance of a dynamics, as returned by `exact.moments` or `exact.solution`.
        observable: The observable h: an expression such as "x**2" in the names of the coordinates, `moments.names` (x0, x1, ... for a loss without names);
            an `Absolute` or a `Below`; or an object with a method `value` from points `(dim, paths)` to `(paths,)`, a polynomial of degree <= 2.

    Returns:
        The expectations, shape `(times,)`, in the order of `moments.steps`.

    Raises:
        ValueError: If the observable has no exact expectation under the law, or an expression is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=2.0)
        >>> m = st.exact.moments(st.SGD(oracle, st.schedules.constant(0.5)), x0=[0.0], steps=1)
        >>> st.exact.expectation(m, "x0**2"), st.exact.expectation(m, "abs(x0)").round(6)
        (array([0., 1.]), array([0.      , 0.797885]))
    """
    if not isinstance(moments, Moments):
        raise ValueError(f"`moments` must be a result of st.exact.moments or solution; got {_check.shown(moments)}.")
    form = closed(observable, moments.names, moments.mean[0])
    if form is None:
        raise ValueError(
            "`observable` must be a polynomial of degree <= 2 or a sum of |w.x + b|^p, exp, sin, cos and comparisons of linear forms; "
            f"got {_check.shown(observable)}. Simulate it, or in one dimension use `exact.transfer`."
        )
    if form.terms and not moments.gaussian:
        raise ValueError(
            f"`observable` must be a polynomial of degree <= 2, for the law is not Gaussian; got {_check.shown(observable)}. "
            "Use Gaussian noise, or simulate it."
        )
    return form.expectation(moments.mean, moments.covariance)


def gap(first: Any, second: Any, x0: Sequence[float], steps: int, h: Any, record: Sequence[int] | None = None) -> np.ndarray:
    """Return the exact weak gap E h(x_k) - E h(z_k) of two dynamics at recorded steps k of the first, both at the same time.

    `second` takes k * first.step_time / second.step_time steps, which must be an integer for every recorded k.

    Args:
        first: The dynamics x: a linear rule on a quadratic loss or an integrator on a linear SDE, as in `exact.moments`.
        second: The dynamics z, of one of these kinds.
        x0: The common start: a point `(dim,)`; or a law of `st.starts`, such as `st.starts.gaussian(mean, covariance)`, with a mean and covariance.
        steps: The number of steps of `first`, 0 or more.
        h: The observable: an expression such as "x**2" in the names of the coordinates, which are those of the loss or of the SDE's variables (x0, x1, ...
            for a loss without names) and must be known to both dynamics; an `Absolute` or a `Below`; or an object with a method `value` from points
            `(dim, paths)` to `(paths,)`, a polynomial of degree <= 2. `expectation` says which h are possible for which laws.
        record: The recorded steps of `first`, increasing; by default 0, ..., `steps`.

    Returns:
        The gaps, shape `(times,)`, one per recorded step.

    Raises:
        ValueError: If a recorded time falls between two steps of `second`; if a rule is not linear, its loss not quadratic or its noise covariance neither
            constant nor quadratic in x; if h has no exact expectation under one of the laws; or if an argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=2.0)
        >>> plan = st.schedules.constant(0.5, beta=0.5)
        >>> st.exact.gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), x0=[1.0], steps=2, h="x0")
        array([0.    , 0.25  , 0.1875])
    """
    check_dynamics(first, "first")
    check_dynamics(second, "second")
    kept = recorded(record, _check.count("steps", steps, least=0))
    exact = kept * (first.step_time / second.step_time)
    other = np.rint(exact).astype(int)
    if np.any(np.abs(exact - other) > 1e-9 * np.maximum(exact, 1)):
        k = int(kept[np.abs(exact - other) > 1e-9 * np.maximum(exact, 1)][0])
        raise ValueError(
            f"the two dynamics must meet at the recorded times; step {k} of the first, t={k * first.step_time:.6g}, falls "
            f"between steps of the second (step_time={second.step_time:.6g}). Pass the steps of common times as `record`."
        )
    left = moments(first, x0, int(kept[-1]), record=kept)
    right = moments(second, x0, int(other[-1]), record=other)
    return expectation(left, h) - expectation(right, h)
