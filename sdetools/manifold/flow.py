r"""Phi: the limit of the gradient flow x' = -grad L(x), for many points at once, and its derivative dPhi.

The flow is stiff (curvatures across the manifold of minimisers differ, and there is none along it), so it is followed by an implicit
method: the linearly implicit Euler step, which solves (I + h H) d = -h grad L with the Hessian H of the step's start, repeated with
1, 2, ..., k steps of length h/1, h/2, ..., h/k and extrapolated to step 0 (Aitken-Neville), of order k. It is L-stable: a
long step is Newton's. H is decomposed once a step, so that each of the k(k+1)/2 solves is two products. Steps are chosen for each point
by the difference of the last two extrapolants.

Once Newton's displacement H^+ grad L is small, its square is all that tells the nearest zero from the flow's own limit: the point is
finished by Newton's steps across the manifold. Small is not enough, though: a flow that creeps for ever (exp(-x) has no minimiser) has
small slopes too, but they lie along the directions without curvature, and it still moves.

Source: P. Deuflhard, SIAM Review 27 (1985); E. Hairer, G. Wanner, *Solving Ordinary Differential Equations II*, section IV.9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss

NEAR = 3e-8
"""Newton's displacement, as a part of the point's size, from which its square is below rounding."""
NEARER = 1e-11
"""The same where dPhi is asked for, whose error is of first order."""
FLAT = 1e-6
"""Curvatures below this part of the largest one count as none."""
ROUNDING = 1e-15
"""What a slope may err by, as a part of the largest curvature times the point."""
MOST_STEPS = 5000
ORDER = 9
"""Extrapolants k; at 10 and more rounding, which they amplify, shows at the smallest tolerances."""
LEAST_ERROR = 4e-12
"""Below this a step's error is rounding."""
SHARE = 0.03
"""What one step may err by, as a part of the tolerance: the errors of some ten steps add up."""
FIRST, DOWNHILL = 0.1, 0.3
"""The first step beside 1 / curvature, and the longest one where L curves downwards, beside the one at which I + h H is singular."""
SAFETY, SHORTER, LONGER = 0.8, 0.1, 8.0
"""The next step is that for which the error is expected to be in order, times the first; at least and at most so many times the last."""
LEAST_SIZE = 1e-3
"""Points nearer to 0 than this are measured by it."""
ALONG = 1e-3
"""A flow has settled when its slope along the directions without curvature is at most this part of the slope."""
LARGEST_DENSE = 2000
"""Coordinates up to which a Hessian is decomposed."""


class FlowError(ValueError):
    """A gradient flow that does not end on a manifold of minimisers."""


@dataclass
class _State:
    """Points `(n, dim)` under way, with V `(n, dim, columns)` that moves as V' = -Hess L V where it is asked for."""

    x: np.ndarray
    v: Any


def project(loss: Loss, x: Any, tolerance: float = 1e-10, max_steps: int = MOST_STEPS) -> np.ndarray:
    r"""Phi(x) = lim_{t -> inf} x(t), x' = -grad L(x), x(0) = x: the gradient-flow projection onto the manifold of minimisers.

    `x`: `(dim,)` or `(dim, paths)`, and so is the answer. `tolerance`: the error of Phi, as a part of the size of x.
    ValueError for a point whose flow does not converge (it says where it went), that ends at a saddle, or that is not finite.
    Source: the paper, section 4; G. Katzenberger, Annals of Probability 19 (1991).

    >>> import sdetools as st
    >>> project(st.losses.exponential_valley(), [1.0, 2.0]).round(9)
    array([0., 0.])
    >>> project(st.losses.sphere(2), [3.0, 4.0]).round(9)
    array([0.6, 0.8])
    """
    points, shape = points_of(loss, x)
    end = _follow(loss, _State(points, None), _check.positive("tolerance", tolerance), _check.count("max_steps", max_steps))
    return end.x.T.reshape(shape)


def differential(loss: Loss, x: Any, tolerance: float = 1e-10, max_steps: int = MOST_STEPS) -> np.ndarray:
    r"""dPhi(x), on the manifold and off it: `(dim, dim)`, or `(dim, dim, paths)`.

    By the variational equation of the flow, V' = -Hess L(x(t)) V with V(0) = I; at its end dPhi is P V. Errors as in `project`.

    >>> import sdetools as st
    >>> differential(st.losses.exponential_valley(), [1.0, 2.0])[0].round(8)  # Phi = (x - y^2/4, 0)
    array([ 1., -1.])
    """
    points, shape = points_of(loss, x)
    identity = np.broadcast_to(np.eye(loss.dim), (len(points), loss.dim, loss.dim)).copy()
    end = _follow(loss, _State(points, identity), _check.positive("tolerance", tolerance), _check.count("max_steps", max_steps))
    return np.moveaxis(end.v, 0, -1).reshape(loss.dim, loss.dim, *shape[1:])


def points_of(loss: Loss, x: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Points as rows `(n, dim)`, and the shape in which they came; ValueError for what dense Hessians cannot take."""
    if not isinstance(loss, Loss):
        raise ValueError(f"`loss` must be a loss of `sdetools.losses`; got {loss!r}. Try losses.from_expression('(x*y - 1)**2').")
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
    """grad L at points `(n, dim)`: `(n, dim)`."""
    with np.errstate(all="ignore"):
        return np.asarray(loss.gradient(x.T), dtype=float).T


def hessians(loss: Loss, x: np.ndarray) -> np.ndarray:
    """Hess L at points `(n, dim)`: `(n, dim, dim)`."""
    with np.errstate(all="ignore"):
        return np.moveaxis(np.asarray(loss.hessian(x.T), dtype=float), -1, 0)


def _follow(loss: Loss, state: _State, tolerance: float, max_steps: int) -> _State:
    n = len(state.x)
    local = max(SHARE * tolerance, LEAST_ERROR)
    size = LEAST_SIZE + np.abs(state.x).max(axis=1)
    out = _State(state.x.copy(), None if state.v is None else state.v.copy())
    step = np.full(n, np.nan)
    went = np.zeros(n)
    moved = np.zeros(n)
    near = NEAR if state.v is None else NEARER
    left = np.arange(n)
    for _ in range(max_steps):
        x = out.x[left]
        g = gradients(loss, x)
        H = hessians(loss, x)
        _check_finite(loss, out.x, left, went, g, H)
        values, vectors = np.linalg.eigh(H)
        top = np.abs(values).max(axis=1)
        across = _curved(values)
        slopes = np.einsum("nij,ni->nj", vectors, g)
        newton = np.abs(_over(slopes, values, across)).max(axis=1)
        sizes = np.maximum(size[left], np.abs(x).max(axis=1))
        along = np.abs(np.where(across, 0.0, slopes)).max(axis=1)
        settled = along <= np.maximum(ALONG * np.abs(slopes).max(axis=1), ROUNDING * top * sizes)
        done = settled & (np.maximum(newton, moved[left]) <= near * sizes)
        if done.any():
            _finish(loss, out, left[done], values[done], vectors[done], went)
            keep = ~done
            left, x, g, values, vectors, top = left[keep], x[keep], g[keep], values[keep], vectors[keep], top[keep]
            sizes = sizes[keep]
        if not len(left):
            return out
        first = np.isnan(step[left])
        step[left[first]] = FIRST / np.maximum(top[first], 1e-300)
        downhill = np.maximum(-values[:, 0], 0.0)
        with np.errstate(divide="ignore"):
            h = np.minimum(step[left], DOWNHILL / downhill)  # where L curves downwards, I + h H must stay invertible
        v = None if out.v is None else out.v[left]
        high, low = _extrapolated(loss, x, g, values, vectors, h, v)
        error = _apart(high, low, sizes) / local
        good = error <= 1.0
        step[left] = _next(h, error)
        went[left[good]] += h[good]
        moved[left[good]] = np.abs(high.x - x).max(axis=1)[good]
        out.x[left[good]] = high.x[good]
        if v is not None:
            out.v[left[good]] = high.v[good]
        _check_stuck(loss, out.x, left, went, step)
    i = int(left[0])
    slope = float(np.abs(gradients(loss, out.x[left[:1]])).max())
    raise FlowError(
        f"the gradient flow of {loss.label} must converge to be projected; after {max_steps} steps, to t={went[i]:.3g}, "
        f"the flow of point {i} is at {shown(out.x[i])} with |grad L| = {slope:.3g}. "
        "Start in the basin of a manifold of minimisers, or allow more steps by max_steps=."
    )


def _apart(high: _State, low: _State, sizes: np.ndarray) -> np.ndarray:
    """The largest difference of two extrapolants, of x as a part of `sizes`, `(n,)`; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        out = np.abs(high.x - low.x).max(axis=1) / sizes
        if high.v is not None and low.v is not None:
            out = np.maximum(out, np.abs(high.v - low.v).max(axis=(1, 2)))
    return np.where(np.isfinite(out), out, np.inf)


def _next(h: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The next steps after steps h whose errors are `error` of what they may be; an error goes like h^ORDER."""
    return h * np.clip(SAFETY * np.maximum(error, 1e-30) ** (-1 / ORDER), SHORTER, LONGER)


def _extrapolated(
    loss: Loss, x: np.ndarray, g: np.ndarray, values: np.ndarray, vectors: np.ndarray, h: np.ndarray, v: Any
) -> tuple[_State, _State]:
    """The last two extrapolants of one step of length h from x."""
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
                    turned = np.einsum("nijl,nl,njk->nik", third, move, v)  # the Jacobian's own dependence on x
                    w = w + solve(-own[:, None, None] * (pull + turned))
                y = y + move
            rows.append([_State(y, w)])
            for k in range(1, j):
                rows[-1].append(_joined(rows[-1][k - 1], rows[-2][k - 1], 1.0 / (j / (j - k) - 1.0)))
        return rows[-1][-1], rows[-1][-2]


def _joined(fine: _State, coarse: _State, weight: float) -> _State:
    """fine + weight (fine - coarse)."""
    v = None if fine.v is None else fine.v + weight * (fine.v - coarse.v)
    return _State(fine.x + weight * (fine.x - coarse.x), v)


def _curved(values: np.ndarray) -> np.ndarray:
    """Which of the curvatures `(n, dim)` count."""
    return values > FLAT * np.abs(values).max(axis=1, keepdims=True)


def _over(b: np.ndarray, values: np.ndarray, across: np.ndarray) -> np.ndarray:
    """b / values where there is curvature, else 0."""
    return np.divide(b, values, out=np.zeros(b.shape), where=across)


def _finish(loss: Loss, out: _State, chosen: np.ndarray, values: np.ndarray, vectors: np.ndarray, went: np.ndarray) -> None:
    """Newton's steps across the manifold, to rounding; then V is cut down to the tangent space."""
    top = np.abs(values).max(axis=1)
    saddle = values[:, 0] < -FLAT * top
    if saddle.any():
        i = int(np.argmax(saddle))
        raise FlowError(
            f"the gradient flow must end at minimisers; that of point {chosen[i]} ends at a saddle (or a maximum) of {loss.label}, "
            f"{shown(out.x[chosen[i]])}, whose lowest curvature is {values[i, 0]:.3g} beside a highest of {top[i]:.3g}. "
            "Start elsewhere: move the point a little."
        )
    across = _curved(values)
    for _ in range(3):
        g = gradients(loss, out.x[chosen])
        inner = _over(np.einsum("nij,ni->nj", vectors, g), values, across)
        out.x[chosen] -= np.einsum("nij,nj->ni", vectors, inner)
    if out.v is not None:
        out.v[chosen] = _tangent_part(out.v[chosen], vectors, across)


def _tangent_part(v: np.ndarray, vectors: np.ndarray, across: np.ndarray) -> np.ndarray:
    """P V for V `(n, dim, columns)`: what lies in the directions without curvature."""
    inner = np.einsum("nij,nik->njk", vectors, v) * ~across[:, :, None]
    return np.einsum("nij,njk->nik", vectors, inner)


def _check_finite(loss: Loss, x: np.ndarray, left: np.ndarray, went: np.ndarray, g: np.ndarray, H: np.ndarray) -> None:
    bad = ~(np.isfinite(g).all(axis=1) & np.isfinite(H).all(axis=(1, 2)))
    if bad.any():
        i = int(left[np.argmax(bad)])
        raise FlowError(
            f"the loss must be finite with two derivatives along its gradient flow; {loss.label} is not at {shown(x[i])}, "
            f"where the flow of point {i} is at t={went[i]:.3g}. Start inside the domain of the loss."
        )


def _check_stuck(loss: Loss, x: np.ndarray, left: np.ndarray, went: np.ndarray, step: np.ndarray) -> None:
    far = (np.abs(x[left]).max(axis=1) > 1e12) | (went[left] > 1e200)
    short = step[left] < 1e-14 * np.maximum(went[left], 1e-140)
    if (far | short).any():
        i = int(left[np.argmax(far | short)])
        what = "runs away" if np.abs(x[i]).max() > 1e12 or went[i] > 1e200 else "cannot be followed (a kink or a pole)"
        raise FlowError(
            f"the gradient flow of {loss.label} must converge to be projected; that of point {i} {what}: "
            f"at t={went[i]:.3g} it is at {shown(x[i])}. Start in the basin of a manifold of minimisers."
        )


def shown(x: np.ndarray) -> str:
    """A point in print, its first coordinates."""
    return "(" + ", ".join(f"{value:.6g}" for value in x[:4]) + (", ..." if len(x) > 4 else "") + ")"
