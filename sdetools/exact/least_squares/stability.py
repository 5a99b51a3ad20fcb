"""Stationary law, stability edge and exact rate of linear rules on streaming least squares.

A mode i is a coordinate of the eigenbasis of the rows' covariance, with the eigenvalue lam_i; z_i are its packed second moments lam_i E s s^T over
the n parts of the state, p = n (n + 1) / 2 numbers. At constant coefficients z_i <- E(lam_i) z_i + lam_i^2 sum_jl level_jl N_jl (see
`exact.least_squares.moment_maps`). The J^2 levels of the noise level_jl = s^2 + sum_i lam_i E u_j,i u_l,i, with the label noise s and the points u_j
of the J gradients of a step, couple the modes. In terms of

    K(z) = sum_i lam_i^2 points (z I - E(lam_i))^-1 N,        points z_i the part of mode i in the levels,

which maps levels to levels, the run is stable in mean square if and only if all E(lam_i) and K(1) have a spectral radius below 1. The
stationary levels solve level = s^2 + K(1) level. The rate is the largest number z at which K(z) has the spectral radius 1 (the secular
equation), or the largest eigenvalue of an E(lam_i) if that is larger. All maps preserve the order of covariances, so both are positive. For rules whose
gradients form chains see `exact.least_squares.chained_stability`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.arguments import check_dynamics
from sdetools.exact.least_squares.chained_rows import ChainedMoments
from sdetools.exact.least_squares.chained_stability import chained_rate, chained_stationary_risk
from sdetools.exact.least_squares.mode_problem import ModeProblem, mode_problem
from sdetools.exact.least_squares.mode_steps import ModeSteps, mode_steps
from sdetools.exact.least_squares.moment_maps import MomentMap, moment_map
from sdetools.noise.oracle import NoisyOracle

_LEARNING_RATES = ("eta", "gamma")
_GRID = 1.25
_QUADRUPLINGS = 24
"""The rate is first sought up to 4^24 = 3e14 times the smallest gap, 1e-12, above the largest eigenvalue of a mode."""
_LATE = 4_000
"""Steps, beyond twice those of the plan, in whose second half coefficients must not move."""


def level_gain(maps: MomentMap, lam: np.ndarray, z: float = 1.0) -> np.ndarray:
    """Return K(z), the matrix by which the levels of the noise reproduce themselves, shape `(J^2, J^2)` for J gradients a step.

    level_jl = s^2 + sum_i lam_i E u_j,i u_l,i, with the label noise s and the points u_j of the gradients, has the index J j + l. A level adds moments in
    each mode, which E(lam_i) then moves, and these enter the levels of later steps: K(z) is the sum over steps, each over z. K(1) is the total.

    Args:
        maps: The map E of the second moments of a mode in a step, from `moment_map`.
        lam: The eigenvalues, positive, shape `(modes,)`.
        z: A number larger than every eigenvalue of the maps E(lam_i) of the modes; at one of them K is infinite.
    """
    p, J = len(maps.position), len(maps.N)
    try:
        added = np.linalg.solve(z * np.eye(p) - maps.at(lam), maps.N.reshape(-1, p).T) * (lam * lam)[:, None, None]
    except np.linalg.LinAlgError:  # at a pole
        return np.full((J * J, J * J), np.inf)
    return maps.points.reshape(J * J, p) @ added.sum(axis=0)


def largest_eigenvalue(matrices: np.ndarray) -> float:
    """Return the largest modulus of an eigenvalue over all matrices of an array `(..., n, n)`, 0 if n = 0; infinity if an entry is not finite."""
    if not np.isfinite(matrices).all():
        return np.inf
    values = matrices if matrices.shape[-1] == 1 else np.linalg.eigvals(matrices)  # a search of a rate asks often
    return float(np.abs(values).max(initial=0.0))


def is_stable(maps: MomentMap, lam: np.ndarray) -> bool:
    """Return whether a rule on streaming least squares is stable in mean square: its second moments converge to a limit, whatever their start.

    Args:
        maps: The map of the packed second moments of a mode in a step of the rule, from `moment_map`.
        lam: The eigenvalues, positive, shape `(modes,)`.
    """
    with np.errstate(all="ignore"):
        return largest_eigenvalue(maps.at(lam)) < 1 and largest_eigenvalue(level_gain(maps, lam)) < 1


def exact_rate(maps: MomentMap, lam: np.ndarray) -> float:
    """Return the factor by which the second moments' distance from their limit is finally multiplied in a step of a rule on streaming least squares.

    It solves the secular equation of the module; 1 or above means divergence.

    Args:
        maps: The map of the packed second moments of a mode in a step of the rule, from `moment_map`.
        lam: The eigenvalues, positive, shape `(modes,)`.
    """
    from scipy.optimize import brentq

    own = largest_eigenvalue(maps.at(lam))

    def excess(z: float) -> float:  # the logarithm of the radius of K: near a pole it is linear in that of the distance
        with np.errstate(all="ignore"):
            return float(np.clip(np.log(largest_eigenvalue(level_gain(maps, lam, z))), -700.0, 700.0))

    gap, below, above = 1e-12 * max(own, 1e-12), -1, _QUADRUPLINGS
    while excess(own + gap * 4.0**above) > 0:
        below, above = above, 2 * above
    while above - below > 1:  # K decreases in z: the root lies between gap 4^below and gap 4^above
        middle = (below + above) // 2
        below, above = (middle, above) if excess(own + gap * 4.0**middle) > 0 else (below, middle)
    if above == 0:
        return own
    high = gap * 4.0**above
    resolved = max(1e-13, np.finfo(float).eps * own / high)  # own + gap has no more digits of the gap
    found = brentq(lambda u: excess(own + np.exp(u)), np.log(high / 4), np.log(high), xtol=resolved)
    return float(own + np.exp(found))


def stationary_risk(dynamics: Any) -> float:
    """Return the excess risk 1/2 sum_i lam_i E x_i^2 in the stationary law of a linear rule on streaming least squares; infinity without one.

    For SGD and SGDM it is (s^2/2) q/(1-q) with the noise budget q of `exact.momentum_budget` and the label noise s.

    Args:
        dynamics: The rule, such as `st.SGDM(oracle, plan)`, whose coefficients are constant from some step on.

    Raises:
        ValueError: If the coefficients still change late in the run, the oracle is not one of streaming least squares, or the rule is not linear or does
            not treat all coordinates alike.

    Example:
        >>> import sdetools as st
        >>> oracle = st.streaming_least_squares(spectrum=[1.0, 0.5], label_noise=0.2, batch=4)
        >>> round(st.exact.stationary_risk(st.SGD(oracle, st.schedules.constant(0.2))), 6)
        0.000875
    """
    return _final(dynamics).risk


def rate(dynamics: Any) -> float:
    """Return the exact rate of a linear rule on streaming least squares: the factor by which risk minus its limit is finally multiplied in a step.

    A rate of 1 or above means divergence.

    Args:
        dynamics: The rule, such as `st.SGDM(oracle, plan)`, whose coefficients are constant from some step on.

    Raises:
        ValueError: If the coefficients still change late in the run, the oracle is not one of streaming least squares, or the rule is not linear or does
            not treat all coordinates alike.

    Example:
        >>> import sdetools as st
        >>> oracle = st.streaming_least_squares(spectrum=[1.0], batch=1)
        >>> st.exact.rate(st.SGD(oracle, st.schedules.constant(0.25)))  # (1 - 1/4)^2 + 2 (1/4)^2
        0.6875
    """
    return float(f"{_final(dynamics).rate:.14g}")


def stability_edge(dynamics: Any) -> float:
    """Return the largest c such that a linear rule at c times its learning rate is stable in mean square on streaming least squares.

    A stable and an unstable c are sought from c = 1 by factors of 1.25, and bisected to rounding; between 0 and the edge all c are taken for stable.

    Args:
        dynamics: The rule, whose learning rate is the coefficient `eta` or `gamma`, which c multiplies; or a function that returns the rule for a given c.

    Raises:
        ValueError: If the rule has no such coefficient, no c in 1e-12 ... 1e12 is the edge, its coefficients still change late in the run, the oracle is
            not one of streaming least squares, or the rule is not linear or does not treat all coordinates alike.

    Example:
        >>> import sdetools as st
        >>> oracle = st.streaming_least_squares(spectrum=[2.0], batch=4)
        >>> round(st.exact.stability_edge(st.SGD(oracle, st.schedules.constant(1.0))), 12)  # 2 B / (lam (B + 2))
        0.666666666667
    """
    if isinstance(dynamics, NoisyOracle):
        raise ValueError(f"`dynamics` must be a rule, such as st.SGD(oracle, plan); got {_check.shown(dynamics)}.")
    if callable(dynamics):
        stable = lambda c: _final(dynamics(c)).stable  # noqa: E731
    else:
        stable = _scaled(dynamics)
    c = 1.0
    if stable(c):
        while stable(c) and c < 1e12:
            c *= _GRID
        low, high = c / _GRID, c
    else:
        while not stable(c) and c > 1e-12:
            c /= _GRID
        low, high = c, c * _GRID
    if not 1e-12 < c < 1e12:
        raise ValueError(f"the rule must become unstable at some multiple of its learning rate; got none up to {c:.0e}.")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float(low)


def _scaled(dynamics: Any) -> Callable[[float], bool]:
    """Return the function from c to whether a rule at c times its learning rate is stable; ValueError if it has no coefficient eta or gamma."""
    check_dynamics(dynamics)
    names = tuple(dynamics.coefficients)
    found = [name for name in _LEARNING_RATES if name in names]
    if not found:
        raise ValueError(
            f"the rule must have the coefficient eta or gamma; {dynamics.name} has {', '.join(names)}. "
            "Give a function of c that returns the rule."
        )

    def stable(c: float) -> bool:
        return _final(_with_rate(dynamics, names.index(found[0]), c)).stable

    return stable


def _with_rate(dynamics: Any, column: int, by: float) -> Any:
    """Return a copy of a rule whose coefficient in `column` of `coefficient_values` is multiplied by the number `by`."""

    def coefficient_values(steps: int) -> np.ndarray:
        out = np.array(dynamics.coefficient_values(steps), dtype=float)
        out[:, column] *= by
        return out

    out = copy(dynamics)
    object.__setattr__(out, "coefficient_values", coefficient_values)  # of this copy alone, also where it is frozen
    return out


@dataclass(frozen=True)
class LateStep:
    """A late step of a rule on streaming least squares, where its coefficients are constant, and the limit of the second moments if it is repeated.

    Attributes:
        problem: The problem with its positive eigenvalues alone.
        made: The matrices of this step, as a run of one step.
    """

    problem: ModeProblem
    made: ModeSteps

    @cached_property
    def maps(self) -> MomentMap | ChainedMoments:
        """The map of the second moments in the step: a `ChainedMoments` if its gradients form chains, else a `MomentMap`."""
        return ChainedMoments(self.problem, self.made) if self.made.chained else moment_map(self.made, self.problem.factor)

    @property
    def stable(self) -> bool:
        """Whether the second moments of the state, under repetition of the step, converge to a limit that does not depend on their start."""
        if isinstance(self.maps, ChainedMoments):
            with np.errstate(all="ignore"):
                return chained_rate(self.maps) < 1
        return is_stable(self.maps, self.problem.lam)

    @property
    def rate(self) -> float:
        """The factor by which the second moments' distance from their limit is finally multiplied in a step; 1 or above means divergence."""
        return chained_rate(self.maps) if isinstance(self.maps, ChainedMoments) else exact_rate(self.maps, self.problem.lam)

    @property
    def risk(self) -> float:
        """The excess risk 1/2 sum_i lam_i E x_i^2 in the limit of the second moments, infinity without one."""
        maps, lam = self.maps, self.problem.lam
        if isinstance(maps, ChainedMoments):
            return chained_stationary_risk(maps)
        if not is_stable(maps, lam):
            return np.inf
        J = len(maps.N)
        level = np.linalg.solve(np.eye(J * J) - level_gain(maps, lam), np.full(J * J, self.problem.label_variance))
        z = np.linalg.solve(np.eye(len(maps.position)) - maps.at(lam), level @ maps.N.reshape(J * J, -1))
        return float(((lam * lam)[:, None] * z).sum(axis=0) @ maps.position / 2)


def _final(dynamics: Any) -> LateStep:
    """Return the last of twice the plan's steps plus 4,000; ValueError if the coefficients move in the second half of these."""
    problem = mode_problem(getattr(dynamics, "oracle", None))  # type: ignore[arg-type]
    length = 2 * len(dynamics.plan.eta_values) + _LATE
    rows = np.asarray(dynamics.coefficient_values(length), dtype=float)
    if np.any(rows[length // 2 :] != rows[-1]):
        raise ValueError(
            f"the coefficients must be constant in the end for a stationary law; those of {dynamics.name} keep moving. "
            "Follow its risk by st.exact.risk."
        )
    return LateStep(replace(problem, lam=problem.lam[problem.lam > 0]), _last(mode_steps(dynamics, length)))


def _last(made: ModeSteps) -> ModeSteps:
    """Return the last step of a run as a run of one step."""
    kind = int(made.index[-1])
    return replace(made, **{name: getattr(made, name)[kind : kind + 1] for name in "AGUK"}, index=np.zeros(1, dtype=np.int64))


def heavy_ball_map(eta: float, beta: float, factor: float) -> MomentMap:
    """Return the map of the second moments of a mode in a step of `st.SGDM`, without calls of the rule, for searches over eta and beta.

    The state in a mode is (x, m), or x alone for beta = 0; its moments are packed as `MomentMap` says.

    Args:
        eta: The learning rate of the EMA form, h of the closed forms.
        beta: The momentum coefficient in [0, 1); 0 for SGD.
        factor: sigma^2 / B of the noise, B the rows of a batch.
    """
    eta = _check.number("eta", eta)
    if beta == 0:
        A, G, U = np.ones((1, 1, 1)), np.array([[[-eta]]]), np.ones((1, 1, 1))
    else:
        A = np.array([[[1.0, -eta * beta], [0.0, beta]]])
        G, U = np.array([[[-eta * (1 - beta), 1 - beta]]]), np.array([[[1.0, 0.0]]])
    one = np.zeros(1, dtype=np.int64)
    return moment_map(ModeSteps(A, G, U, np.zeros((1, 1, 1)), index=one, copies=one), factor)
