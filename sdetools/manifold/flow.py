r"""The gradient-flow projection Phi, the limit of x' = -grad L(x) for many points at once, and its derivative dPhi.

The flow is stiff: the curvatures across the manifold of minimisers differ, and along it they vanish. It is integrated by extrapolation of
the linearly implicit Euler method, which solves (I + h H) d = -h grad L with the Hessian H at the start of the step. The step is repeated
with 1, 2, ..., k substeps and extrapolated to substep length 0 (Aitken-Neville), which gives order k. The method is L-stable: in the limit
of a long step it is Newton's method. H is decomposed once for each step, so that each of the k(k+1)/2 solves is two matrix-vector
products. The step size is chosen for each point from the difference of the last two extrapolants.

The distance between the limit of the flow and the nearest zero of the gradient is of the order of the squared Newton displacement
H^+ grad L. Once that displacement is small enough, Newton steps across the manifold replace the flow. A small displacement alone is no
criterion: the slopes of a flow without a limit (exp(-x) has no minimiser) vanish too, but along the directions without curvature.

Source: P. Deuflhard, SIAM Review 27 (1985); E. Hairer, G. Wanner, *Solving Ordinary Differential Equations II*, section IV.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss

NEAR = 3e-8
"""Newton displacement, relative to the size of the point, whose square is below rounding."""
NEARER = 1e-11
"""The same for dPhi, whose error is of first order in the displacement."""
FLAT = 1e-6
"""Curvatures below this fraction of the largest one count as 0."""
ROUNDING = 1e-15
"""Rounding error of a slope, relative to the largest curvature times the size of the point."""
MOST_STEPS = 5000
ORDER = 9
"""Number k of extrapolants; from 10 on, the rounding errors that they amplify are visible at the smallest tolerances."""
LEAST_ERROR = 4e-12
"""Below this the error of a step is rounding."""
SHARE = 0.03
"""Error allowed in one step as a fraction of the tolerance: the errors of about ten steps add up."""
FIRST, DOWNHILL = 0.1, 0.3
"""The first step size times the curvature; the largest step size at negative curvature, relative to that at which I + h H is singular."""
SAFETY, SHORTER, LONGER = 0.8, 0.1, 8.0
"""Safety factor of the step size control, and the smallest and largest ratio of successive step sizes."""
LEAST_SIZE = 1e-3
"""Lower bound on the size of a point, for relative errors."""
ALONG = 1e-3
"""A flow has settled if its slope along the directions without curvature is at most this fraction of the slope."""
LARGEST_DENSE = 2000
"""Largest number of coordinates for which Hessians are decomposed."""


class FlowError(ValueError):
    """Raised if a gradient flow does not converge to a manifold of minimisers: it diverges, ends at a saddle, leaves the domain, or takes too long.

    The message has the number of the point (0 for a single one), its last position, and a remedy.

    Example:
        >>> import sdetools as st
        >>> try:
        ...     st.manifold.project(st.losses.double_well(), [0.0])
        ... except st.manifold.FlowError as error:
        ...     print(str(error)[:74])
        the gradient flow must end at minimisers; that of point 0 ends at a saddle
    """


@dataclass
class _State:
    """Points of the flow, the rows of x `(n, dim)`, with matrices v `(n, dim, columns)` that solve V' = -Hess L V; v None if not wanted."""

    x: np.ndarray
    v: Any


def project(loss: Loss, x: Any, tolerance: float = 1e-10, max_steps: int = MOST_STEPS) -> np.ndarray:
    r"""Return the gradient-flow projection Phi(x) onto the manifold of minimisers.

    Phi(x) = lim_{t -> inf} x(t) for x' = -grad L(x), x(0) = x.
    Source: Wang et al. 2024, section 4; G. Katzenberger, Annals of Probability 19 (1991).

    Args:
        loss: The loss L, with at most 2,000 coordinates.
        x: A point `(dim,)`, or points `(dim, paths)`, each projected on its own.
        tolerance: Error of Phi, relative to the size of x, its largest |x_i|; a positive number.
        max_steps: Largest number of steps of the integrator; FlowError if a flow needs more.

    Returns:
        Phi(x), a new array of the shape of `x`.

    Raises:
        FlowError: If a flow does not converge, ends at a saddle or leaves the domain of the loss; the message gives its last point.
        ValueError: If an argument has a wrong form.

    Example:
        >>> import sdetools as st
        >>> st.manifold.project(st.losses.exponential_valley(), [1.0, 2.0]).round(9)
        array([0., 0.])
        >>> st.manifold.project(st.losses.sphere(2), [3.0, 4.0]).round(9)
        array([0.6, 0.8])
    """
    points, shape = points_of(loss, x)
    end = _integrate(loss, _State(points, None), _check.positive("tolerance", tolerance), _check.count("max_steps", max_steps))
    return end.x.T.reshape(shape)


def differential(loss: Loss, x: Any, tolerance: float = 1e-10, max_steps: int = MOST_STEPS) -> np.ndarray:
    r"""Return the differential dPhi(x) of the gradient-flow projection Phi (see `project`), on the manifold or off it.

    It solves the variational equation of the flow, V' = -Hess L(x(t)) V with V(0) = I; dPhi is the limit of P V for t -> inf, with the
    orthogonal projection P onto the tangent space at Phi(x).

    Args:
        loss: The loss L, with at most 2,000 coordinates.
        x: A point `(dim,)`, or points `(dim, paths)`.
        tolerance: Error of the entries of dPhi, and of Phi relative to the size of x; a positive number.
        max_steps: Largest number of steps of the integrator; FlowError if a flow needs more.

    Returns:
        The matrix dPhi(x), `(dim, dim)` for one point, or the matrices `(dim, dim, paths)`; entry (i, j) is the derivative of Phi_i by x_j.

    Raises:
        FlowError: If a flow does not converge, ends at a saddle or leaves the domain of the loss.
        ValueError: If an argument has a wrong form.

    Example:
        >>> import sdetools as st
        >>> st.manifold.differential(st.losses.exponential_valley(), [1.0, 2.0])[0].round(8)  # Phi = (x - y^2/4, 0)
        array([ 1., -1.])
    """
    points, shape = points_of(loss, x)
    identity = np.broadcast_to(np.eye(loss.dim), (len(points), loss.dim, loss.dim)).copy()
    end = _integrate(
        loss, _State(points, identity), _check.positive("tolerance", tolerance), _check.count("max_steps", max_steps)
    )
    return np.moveaxis(end.v, 0, -1).reshape(loss.dim, loss.dim, *shape[1:])


def points_of(loss: Loss, x: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return points as the rows of an array `(n, dim)`, and their shape as given, after validation of the loss and the points.

    Args:
        loss: The loss, with at most 2,000 coordinates.
        x: A point `(dim,)`, for which n = 1, or points `(dim, n)`.

    Raises:
        ValueError: If `loss` is no loss or has too many coordinates, or if `x` has a wrong shape or entries that are not finite.
    """
    if not isinstance(loss, Loss):
        raise ValueError(
            f"`loss` must be a loss of `sdetools.losses`; got {_check.shown(loss)}. Try losses.from_expression('(x*y - 1)**2')."
        )
    if loss.dim > LARGEST_DENSE:
        raise ValueError(
            f"`loss` must have at most {LARGEST_DENSE} coordinates for dense Hessians; got {loss.dim}. "
            "Take st.manifold.matrix_free(loss, x)."
        )
    x = _check.finite("x", x)
    if x.ndim not in (1, 2) or len(x) != loss.dim:
        raise ValueError(f"`x` must have shape ({loss.dim},) or ({loss.dim}, paths), component first; got shape {x.shape}.")
    return np.array(x.reshape(loss.dim, -1).T, order="C"), x.shape


def gradients(loss: Loss, x: np.ndarray) -> np.ndarray:
    """Return the gradients of the loss at the rows of `x`, `(n, dim)`, as rows `(n, dim)`; not finite where the loss is not defined."""
    with np.errstate(all="ignore"):
        return np.asarray(loss.gradient(x.T), dtype=float).T


def hessians(loss: Loss, x: np.ndarray) -> np.ndarray:
    """Return the Hessians of the loss at the rows of `x`, `(n, dim)`, as an array `(n, dim, dim)`; not finite where the loss is not defined."""
    with np.errstate(all="ignore"):
        return np.moveaxis(np.asarray(loss.hessian(x.T), dtype=float), -1, 0)


def _integrate(loss: Loss, state: _State, tolerance: float, max_steps: int) -> _State:
    """Return the limit of the flow of all points of `state`, each integrated with its own step size, as a new state.

    `tolerance` is that of `project` or `differential`. FlowError if a flow does not converge within `max_steps` steps.
    """
    n = len(state.x)
    local = max(SHARE * tolerance, LEAST_ERROR)
    size = LEAST_SIZE + np.abs(state.x).max(axis=1)
    out = _State(state.x.copy(), None if state.v is None else state.v.copy())
    step = np.full(n, np.nan)
    elapsed = np.zeros(n)
    moved = np.zeros(n)
    near = NEAR if state.v is None else NEARER
    active = np.arange(n)
    for _ in range(max_steps):
        x = out.x[active]
        g = gradients(loss, x)
        H = hessians(loss, x)
        _check_finite(loss, out.x, active, elapsed, g, H)
        values, vectors = np.linalg.eigh(H)
        top = np.abs(values).max(axis=1)
        across = _has_curvature(values)
        slopes = np.einsum("nij,ni->nj", vectors, g)
        newton = np.abs(_divided(slopes, values, across)).max(axis=1)
        sizes = np.maximum(size[active], np.abs(x).max(axis=1))
        along = np.abs(np.where(across, 0.0, slopes)).max(axis=1)
        settled = along <= np.maximum(ALONG * np.abs(slopes).max(axis=1), ROUNDING * top * sizes)
        done = settled & (np.maximum(newton, moved[active]) <= near * sizes)
        if done.any():
            _finish(loss, out, active[done], values[done], vectors[done], elapsed)
            keep = ~done
            active, x, g, values, vectors, top = active[keep], x[keep], g[keep], values[keep], vectors[keep], top[keep]
            sizes = sizes[keep]
        if not len(active):
            return out
        first = np.isnan(step[active])
        step[active[first]] = FIRST / np.maximum(top[first], 1e-300)
        downhill = np.maximum(-values[:, 0], 0.0)
        with np.errstate(divide="ignore"):
            h = np.minimum(step[active], DOWNHILL / downhill)  # at negative curvature I + h H must stay invertible
        v = None if out.v is None else out.v[active]
        high, low = _extrapolated(loss, x, g, values, vectors, h, v)
        error = _scaled_difference(high, low, sizes) / local
        good = error <= 1.0
        step[active] = _next_step(h, error)
        elapsed[active[good]] += h[good]
        moved[active[good]] = np.abs(high.x - x).max(axis=1)[good]
        out.x[active[good]] = high.x[good]
        if v is not None:
            out.v[active[good]] = high.v[good]
        _check_progress(loss, out.x, active, elapsed, step)
    i = int(active[0])
    slope = float(np.abs(gradients(loss, out.x[active[:1]])).max())
    raise FlowError(
        f"the gradient flow of {loss.label} must converge to be projected; after {max_steps} steps, to t={elapsed[i]:.3g}, "
        f"the flow of point {i} is at {format_point(out.x[i])} with |grad L| = {slope:.3g}. "
        "Start in the basin of a manifold of minimisers, or allow more steps by max_steps=."
    )


def _scaled_difference(high: _State, low: _State, sizes: np.ndarray) -> np.ndarray:
    """Return the largest difference of two extrapolants for each point, `(n,)`, that of x relative to `sizes` `(n,)`; infinite if not finite."""
    with np.errstate(all="ignore"):
        out = np.abs(high.x - low.x).max(axis=1) / sizes
        if high.v is not None and low.v is not None:
            out = np.maximum(out, np.abs(high.v - low.v).max(axis=(1, 2)))
    return np.where(np.isfinite(out), out, np.inf)


def _next_step(h: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the next step sizes `(n,)` for steps h `(n,)` with errors `(n,)` relative to the allowed ones; an error is of order h^ORDER."""
    return h * np.clip(SAFETY * np.maximum(error, 1e-30) ** (-1 / ORDER), SHORTER, LONGER)


def _extrapolated(
    loss: Loss, x: np.ndarray, g: np.ndarray, values: np.ndarray, vectors: np.ndarray, h: np.ndarray, v: Any
) -> tuple[_State, _State]:
    """Return the last two extrapolants of one step of sizes h `(n,)` from the points x `(n, dim)`, the better one first.

    `g` `(n, dim)` are the gradients at x, `values` `(n, dim)` and `vectors` `(n, dim, dim)` the eigenvalues and eigenvectors of the Hessians,
    and `v` `(n, dim, columns)` are matrices to be advanced by the variational equation, or None.
    """
    with np.errstate(all="ignore"):
        third: Any = np.moveaxis(np.asarray(loss.third(x.T), dtype=float), -1, 0) if v is not None else None
        rows: list[list[_State]] = []
        for j in range(1, ORDER + 1):
            own = h / j
            damp = 1.0 / (1.0 + own[:, None] * values)

            def solve(b: np.ndarray, damp: np.ndarray = damp) -> np.ndarray:
                inner = np.einsum("nij,ni...->nj...", vectors, b)
                return np.einsum("nij,nj...->ni...", vectors, inner * damp.reshape(*damp.shape, *[1] * (b.ndim - 2)))

            y, w = x, v
            for i in range(j):
                slope = g if i == 0 else gradients(loss, y)
                move = solve(-own[:, None] * slope)
                if w is not None:
                    pull = np.einsum("nij,njk->nik", hessians(loss, y), w)
                    variation = np.einsum("nijl,nl,njk->nik", third, move, v)  # the dependence of the Jacobian on x
                    w = w + solve(-own[:, None, None] * (pull + variation))
                y = y + move
            rows.append([_State(y, w)])
            for k in range(1, j):
                rows[-1].append(_combined(rows[-1][k - 1], rows[-2][k - 1], 1.0 / (j / (j - k) - 1.0)))
        return rows[-1][-1], rows[-1][-2]


def _combined(fine: _State, coarse: _State, weight: float) -> _State:
    """Return fine + weight (fine - coarse), the extrapolation of two states."""
    v = None if fine.v is None else fine.v + weight * (fine.v - coarse.v)
    return _State(fine.x + weight * (fine.x - coarse.x), v)


def _has_curvature(values: np.ndarray) -> np.ndarray:
    """Return which of the eigenvalues `(n, dim)` count as curvature, booleans `(n, dim)`: those above 1e-6 of the largest modulus at the point."""
    return values > FLAT * np.abs(values).max(axis=1, keepdims=True)


def _divided(b: np.ndarray, values: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return b / values, `(n, dim)`, in the directions with curvature, which `across` marks, and 0 in the others."""
    return np.divide(b, values, out=np.zeros(b.shape), where=across)


def _finish(loss: Loss, out: _State, chosen: np.ndarray, values: np.ndarray, vectors: np.ndarray, elapsed: np.ndarray) -> None:
    """Take Newton steps across the manifold to rounding, and project V to the tangent space, in place in `out` for the points `chosen`.

    `chosen` are their indices; `values` and `vectors` are the eigenvalues and eigenvectors of their Hessians. FlowError for a saddle.
    """
    top = np.abs(values).max(axis=1)
    saddle = values[:, 0] < -FLAT * top
    if saddle.any():
        i = int(np.argmax(saddle))
        raise FlowError(
            f"the gradient flow must end at minimisers; that of point {chosen[i]} ends at a saddle (or a maximum) of "
            f"{loss.label}, {format_point(out.x[chosen[i]])}, where the smallest eigenvalue of the Hessian is {values[i, 0]:.3g} "
            f"and the largest modulus is {top[i]:.3g}. Perturb the initial point."
        )
    across = _has_curvature(values)
    for _ in range(3):
        g = gradients(loss, out.x[chosen])
        inner = _divided(np.einsum("nij,ni->nj", vectors, g), values, across)
        out.x[chosen] -= np.einsum("nij,nj->ni", vectors, inner)
    if out.v is not None:
        out.v[chosen] = _tangent_part(out.v[chosen], vectors, across)


def _tangent_part(v: np.ndarray, vectors: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return P V for V `(n, dim, columns)`, with the projection P onto the directions without curvature, which `across` does not mark."""
    inner = np.einsum("nij,nik->njk", vectors, v) * ~across[:, :, None]
    return np.einsum("nij,njk->nik", vectors, inner)


def _check_finite(loss: Loss, x: np.ndarray, active: np.ndarray, elapsed: np.ndarray, g: np.ndarray, H: np.ndarray) -> None:
    """Raise FlowError if a gradient `g` or a Hessian `H` is not finite at one of the points `active`, indices of the rows of `x` and of `elapsed`."""
    bad = ~(np.isfinite(g).all(axis=1) & np.isfinite(H).all(axis=(1, 2)))
    if bad.any():
        i = int(active[np.argmax(bad)])
        raise FlowError(
            f"the loss must be finite with two derivatives along its gradient flow; {loss.label} is not at {format_point(x[i])}, "
            f"where the flow of point {i} is at t={elapsed[i]:.3g}. Start inside the domain of the loss."
        )


def _check_progress(loss: Loss, x: np.ndarray, active: np.ndarray, elapsed: np.ndarray, step: np.ndarray) -> None:
    """Raise FlowError if one of the points `active`, indices of the other arrays, diverges or its step size vanishes."""
    far = (np.abs(x[active]).max(axis=1) > 1e12) | (elapsed[active] > 1e200)
    short = step[active] < 1e-14 * np.maximum(elapsed[active], 1e-140)
    if (far | short).any():
        i = int(active[np.argmax(far | short)])
        what = "diverges" if np.abs(x[i]).max() > 1e12 or elapsed[i] > 1e200 else "cannot be integrated (a kink or a pole)"
        raise FlowError(
            f"the gradient flow of {loss.label} must converge to be projected; that of point {i} {what}: "
            f"at t={elapsed[i]:.3g} it is at {format_point(x[i])}. Start in the basin of a manifold of minimisers."
        )


def format_point(x: np.ndarray) -> str:
    """Return a point `(dim,)` as text such as "(1, 0.25)" for a message, with at most four coordinates and "..." for the others."""
    return "(" + ", ".join(f"{value:.6g}" for value in x[:4]) + (", ..." if len(x) > 4 else "") + ")"
