"""Means and covariances of linear rules on quadratic losses, step by step and without Monte Carlo.

With s the state, all parts of the dynamics one after another, the rule gives s' = A_k s + b_k + N_k v (see `exact.linear`), with the noise v of the
gradient, E[v | u] = 0 and Cov[v | u] = Sigma(u) at the point u = U s + d at which the gradient is evaluated. Hence mean mu and covariance C of s
obey, for noise of any distribution,

    mu_{k+1} = A mu_k + b,        C_{k+1} = A C_k A^T + N E[Sigma(u)] N^T,

which is closed if Sigma is constant or a quadratic polynomial (minibatch least squares).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import few_paths, on_rows
from sdetools.dynamics.integrators.base import Integrator
from sdetools.exact.covariance import QuadraticCovariance, quadratic_covariance
from sdetools.exact.equations import integrator_moments
from sdetools.exact.first_state import first_state, known_start
from sdetools.exact.linear import LinearStep, check_linear, close, open_step
from sdetools.exact.recorded import Moments, recorded


def moments(dynamics: Any, x0: Sequence[float], steps: int, record: Sequence[int] | np.ndarray | None = None) -> Moments:
    """Return the exact mean and covariance of every part of the state, such as x and the momentum buffer, at recorded steps.

    They exist for linear rules on quadratic losses whose noise covariance is constant or quadratic in x, and for integrators on linear SDEs.
    Rules with several gradients in one step that share a draw need noise that does not depend on x. The moments of an unstable rule
    overflow to infinity or NaN, without an error.

    Args:
        dynamics: The rule, such as `st.SGDM(oracle, plan)`, or an integrator, such as `st.EulerMaruyama(sde, dt)`.
        x0: A point `(dim,)`, or a law from `st.starts` with a mean and covariance.
        steps: The number of steps, 0 or more.
        record: The steps at which moments are returned, increasing; by default 0, ..., `steps`.

    Returns:
        The moments at the recorded steps; `mean` and `covariance` are those of x, `part("m")` those of another part.

    Raises:
        ValueError: If the loss is not quadratic, the rule not linear, or the covariance not quadratic; if the initial state is not affine in
            x0 and in Normal or Sign draws; or if the rule has random factors of its own.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=2.0)
        >>> m = st.exact.moments(st.SGDM(oracle, st.schedules.constant(0.5, beta=0.5)), x0=[1.0], steps=2)
        >>> m.mean.ravel(), m.covariance.ravel()
        (array([1.    , 0.75  , 0.4375]), array([0.      , 0.25    , 0.640625]))
    """
    if isinstance(dynamics, Integrator):
        return integrator_moments(dynamics, x0, steps, record)
    check_linear(dynamics, "exact moments", one_draw=False)
    oracle = dynamics.oracle
    given = known_start(x0, oracle.loss.dim)
    steps = _check.count("steps", steps, least=0)
    kept = recorded(record, steps)
    quadratic = oracle.loss.quadratic()
    if quadratic is None:
        raise ValueError(
            f"exact moments must have a quadratic loss; got {getattr(oracle.loss, 'label', '') or type(oracle.loss).__name__!r}. "
            "Simulate it, or in one dimension use `exact.transfer`."
        )
    mean, spread, sizes, normal_start = first_state(dynamics, given)
    few = np.random.default_rng(0).standard_normal((oracle.dim, few_paths(oracle.dim)))
    noise = quadratic_covariance(on_rows(oracle.covariance, [few]), given.mean)
    state_mean, state_covariance = np.empty((len(kept), len(mean))), np.empty((len(kept), len(mean), len(mean)))
    at = 0
    with np.errstate(over="ignore", invalid="ignore"):  # the moments of an unstable rule overflow, as its simulation does
        if kept[0] == 0:
            state_mean[0], state_covariance[0], at = mean, spread, 1
        for step, count, ends in _segments(dynamics, quadratic, sizes, noise, kept):
            mean, spread = _advance(step, noise, mean, spread, count)
            if ends:
                state_mean[at], state_covariance[at] = mean, spread
                at += 1
    silent = not np.any(noise.constant) and noise.is_constant
    return Moments(
        steps=kept,
        times=kept * dynamics.step_time,
        state_mean=state_mean,
        state_covariance=state_covariance,
        parts=dict(zip(dynamics.parts, sizes, strict=True)),
        names=tuple(oracle.loss.names),
        gaussian=normal_start and (silent or (noise.is_constant and oracle.noise.gaussian)),
    )


def _segments(
    dynamics: Any, quadratic: tuple, sizes: Sequence[int], noise: QuadraticCovariance, kept: np.ndarray
) -> Iterator[tuple[LinearStep, int, bool]]:
    """Yield (step, count, ends): a step on the quadratic loss, how often it is made, and whether a recorded step follows, for runs of equal coefficients.

    Args:
        dynamics: The rule.
        quadratic: The Hessian `(dim, dim)` and the gradient at 0 `(dim,)` of the loss, the first two entries.
        sizes: The lengths of the parts of the state.
        noise: The covariance of the noise.
        kept: The recorded steps, increasing; the last ends the run.

    Raises:
        ValueError: If the rule is not linear, or has several gradients a step on one draw of noise that depends on the point.
    """
    total = int(kept[-1])
    rows = np.asarray(dynamics.coefficient_values(total), dtype=float).reshape(total, -1)
    hessian, linear = (np.asarray(part, dtype=float) for part in quadratic[:2])
    changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
    marks = set(kept.tolist())
    cuts = np.unique(np.concatenate([[0, total], changes, kept[kept > 0]])).astype(int).tolist()
    known: dict[bytes, LinearStep] = {}
    for first, last in pairwise(cuts):
        key = rows[first].tobytes()
        if key not in known:
            if len(known) >= 256:
                known.clear()
            known[key] = close(open_step(dynamics.rule, sizes, len(linear), rows[first]), hessian, linear)
            if not known[key].separate and (dynamics.oracle.noise.state_dependent or not noise.is_constant):
                raise ValueError(  # one draw gives several deviations, whose joint law does not follow from the covariance
                    f"exact moments of a rule with several gradients per step must have noise that does not depend on the point; "
                    f"got {len(known[key].copies)} oracle calls and {dynamics.oracle.noise!r}. Simulate it instead."
                )
        yield known[key], last - first, last in marks


def _advance(
    step: LinearStep, noise: QuadraticCovariance, mean: np.ndarray, spread: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean `(n,)` and covariance `(n, n)` of the state after `count` equal steps, from those before, `mean` and `spread`.

    For constant noise the affine map is doubled repeatedly, so that the work grows like log `count`.
    """
    A, b, N = step.A, step.b, step.N
    if noise.is_constant:
        Q = (N @ noise.constant.reshape(N.shape[2], -1) @ np.swapaxes(N, 1, 2)).sum(axis=0)
        while count:
            if count & 1:
                mean, spread = A @ mean + b, A @ spread @ A.T + Q
            count >>= 1
            if count:
                A, b, Q = A @ A, A @ b + b, A @ Q @ A.T + Q
        return mean, (spread + spread.T) / 2
    for _ in range(count):
        Q = np.zeros_like(spread)
        for (U, d), i in zip(step.points, step.copies, strict=True):
            Q += N[i] @ noise.mean(U @ mean + d, U @ spread @ U.T) @ N[i].T
        mean, spread = A @ mean + b, A @ spread @ A.T + Q
        spread = (spread + spread.T) / 2
    return mean, spread
