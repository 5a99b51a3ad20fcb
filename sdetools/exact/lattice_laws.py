r"""The exact law of sign descent in one dimension, which lives on the lattice x_0 + eta Z: a birth-death chain.

Sign descent is x' = x - eta sign(g) with the noisy gradient g = L'(x) + sigma v. A step goes up by eta with probability P_x(g < 0), down with probability
P_x(g > 0), and stays with P_x(g = 0), so that the probability p_k(x) of the point x after k steps obeys

    p_{k+1}(x) = P_{x - eta}(g < 0) p_k(x - eta) + P_{x + eta}(g > 0) p_k(x + eta) + P_x(g = 0) p_k(x).

The stationary law is in detailed balance: p(x) P_x(g < 0) = p(x + eta) P_{x + eta}(g > 0). Both are exact at every eta and for every law of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.rules.sign_rules import SignSGD
from sdetools.exact.closed_observables import value_of
from sdetools.exact.recorded import recorded
from sdetools.noise.laws import NoNoise, RootedNoise
from sdetools.starts import point

MOST_POINTS = 2**21
"""Largest number of points of a stationary law."""
NEGLIGIBLE = 60.0
"""Points are left out below e^-60 times the largest probability, 1e-26."""


@dataclass(frozen=True, eq=False, repr=False)
class LatticeLaw:
    """The law of sign descent at learning rate eta from x_0, on the lattice x_0 + eta Z; `exact.sign_chain` and `exact.stationary_sign_law` make it.

    Attributes:
        steps: The recorded steps, shape `(times,)`; the single entry -1 for a stationary law.
        times: Their times, steps * step_time, shape `(times,)`; the single entry infinity for a stationary law.
        points: The points x_0 + j eta of the lattice, increasing, shape `(points,)`.
        probability: The probability of each point at each recorded step, shape `(times, points)`; rows sum to 1.
        names: The name of the coordinate in expressions, as a tuple of one.
    """

    steps: np.ndarray
    times: np.ndarray
    points: np.ndarray
    probability: np.ndarray
    names: tuple[str, ...]

    def expectation(self, h: Any) -> np.ndarray:
        """Return E h(x) at the recorded steps, `(times,)`.

        Args:
            h: The observable: an expression such as "x0**2" in the name of the coordinate, an object with `value`, or a function of points
                `(1, points)` that returns `(points,)`.

        Raises:
            ValueError: If `h` is none of these, or the expression is invalid.
        """
        values = np.broadcast_to(np.asarray(value_of(h, self.names)(self.points[None]), dtype=float), self.points.shape)
        return self.probability @ values

    def __repr__(self) -> str:
        return f"LatticeLaw({len(self.points)} points in [{self.points[0]:.6g}, {self.points[-1]:.6g}], {len(self.times)} times)"


def sign_chain(
    rule: SignSGD, x0: Sequence[float], steps: int, record: Sequence[int] | np.ndarray | None = None, law: Any = None
) -> LatticeLaw:
    """Return the exact law of sign descent in one dimension at recorded steps, from the birth-death chain of its iterates.

    Args:
        rule: `st.SignSGD` in one coordinate, with a constant plan.
        x0: The initial point, shape `(1,)`.
        steps: The number of steps, 0 or more.
        record: The recorded steps, increasing; by default 0, ..., `steps`.
        law: The law of the noise v in g = L' + sigma v, an object with `cdf` and `sf` of a continuous law, such as `scipy.stats.cauchy()`, whose moments
            need not exist. None for the law of the oracle's noise.

    Returns:
        The law on the 2 steps + 1 points that can be reached.

    Raises:
        ValueError: If the rule is another one or its plan not constant, or the law of its noise is not known.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
        >>> law = st.exact.sign_chain(st.SignSGD(oracle, st.schedules.constant(0.25)), x0=[1.0], steps=2, record=[1, 2])
        >>> law.expectation("x0").round(6)  # the first step goes up with probability Phi(-2) = 0.02275
        array([0.761375, 0.544089])
    """
    eta, start = _checked(rule, x0)
    kept = recorded(record, _check.count("steps", steps, least=0))
    total = int(kept[-1])
    points = start + eta * np.arange(-total, total + 1)
    up, down = _signs(rule, points, law)
    p, out, marks = np.zeros(2 * total + 1), [], set(kept.tolist())
    p[total] = 1.0
    for k in range(total + 1):
        if k:
            new = np.maximum(1.0 - up - down, 0.0) * p
            new[1:] += (up * p)[:-1]
            new[:-1] += (down * p)[1:]
            p = new
        if k in marks:
            out.append(p)
    return LatticeLaw(kept, kept * rule.step_time, points, np.array(out), tuple(rule.loss.names))


def stationary_sign_law(rule: SignSGD, x0: Sequence[float] = (0.0,), law: Any = None) -> LatticeLaw:
    """Return the exact stationary law of sign descent on the lattice x_0 + eta Z, by detailed balance.

    On L = lam x^2/2 with noise v of distribution function F, E x (1 - 2 F(-lam x / sigma)) = eta/2 at every eta. Points with a probability below e^-60 of
    the largest are left out.

    Args:
        rule: `st.SignSGD` in one coordinate, with a constant plan.
        x0: A point of the lattice, shape `(1,)`.
        law: The law of the noise v in g = L' + sigma v, an object with `cdf` and `sf` of a continuous law; None for that of the oracle's noise.

    Returns:
        The law, with one recorded step, -1.

    Raises:
        ValueError: If the rule is another one or its plan not constant, the law of its noise is not known, or the drift does not confine x to 2^21 points.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> law = st.exact.stationary_sign_law(st.SignSGD(oracle, st.schedules.constant(0.01)))
        >>> round(float(law.expectation("x0**2")[0]) / 0.01, 3), round((3.14159265 / 8) ** 0.5, 3)  # eta sqrt(pi/2) / 2 for small eta
        (0.629, 0.627)
    """
    eta, start = _checked(rule, x0)
    half = 512
    while 2 * half + 1 <= MOST_POINTS:
        points = start + eta * np.arange(-half, half + 1)
        up, down = _signs(rule, points, law)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.log(up[:-1]) - np.log(down[1:])
        top = int(np.argmax(np.cumsum(np.nan_to_num(steps, nan=0.0, posinf=700.0, neginf=-700.0))))
        log = np.zeros(2 * half + 1)
        with np.errstate(invalid="ignore"):
            log[top + 2 :] = np.cumsum(steps[top + 1 :])
            log[: top + 1] = -np.cumsum(steps[: top + 1][::-1])[::-1]
        log = np.where(np.isnan(log), -np.inf, log)
        if max(log[0], log[-1]) < log.max() - NEGLIGIBLE:
            use = log > log.max() - NEGLIGIBLE
            p = np.exp(log[use] - log.max())
            return LatticeLaw(np.array([-1]), np.array([np.inf]), points[use], (p / p.sum())[None], tuple(rule.loss.names))
        half *= 2
    raise ValueError(
        f"`rule` must have a stationary law on at most {MOST_POINTS:,} points of the lattice; got {rule!r}, whose drift does not confine it there."
    )


def _checked(rule: Any, x0: Any) -> tuple[float, float]:
    """Return the rate and the initial point of sign descent in one dimension; ValueError for another rule."""
    if not isinstance(rule, SignSGD) or rule.dim != 1:
        raise ValueError(
            f"`rule` must be st.SignSGD in one coordinate; got {rule!r} in {getattr(rule, 'dim', 0)}. Simulate it instead."
        )
    etas = rule.plan.etas(64)
    if np.any(etas != etas[0]):
        raise ValueError(
            "`rule` must have a constant plan, whose iterates are on a lattice; got one that changes. Simulate it instead."
        )
    return float(etas[0]), float(point(x0, 1, "sign_chain")[0])


def _signs(rule: SignSGD, points: np.ndarray, law: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return P(g < 0) and P(g > 0) for the noisy gradient g at points, all `(points,)`, with `law` as in `sign_chain`."""
    oracle = rule.oracle
    gradient = np.broadcast_to(np.asarray(oracle.loss.gradient(points[None]), dtype=float), (1, len(points)))[0]
    if law is not None:
        at = -gradient / oracle.sigma
        return np.asarray(law.cdf(at)), np.asarray(law.sf(at))
    if isinstance(oracle.noise, NoNoise) or oracle.sigma == 0:
        return (gradient < 0).astype(float), (gradient > 0).astype(float)
    if not isinstance(oracle.noise, RootedNoise):
        raise ValueError(f"`rule` must have noise of a known law; got {oracle.noise.label}. Give its law by law=.")
    spread = (
        oracle.sigma
        * np.sqrt(np.broadcast_to(np.asarray(oracle.covariance(points[None])), (1, 1, len(points)))[0, 0])
        / abs(oracle.sigma)
    )
    below, above = entry_tails(oracle.noise.law.name, oracle.noise.law.numbers)
    if oracle.noise.root.rank > 1 and not oracle.noise.gaussian:
        raise ValueError(
            f"`rule` must have normal noise, or one entry of it; got {oracle.noise.label} of {oracle.noise.root.rank} entries."
        )
    sign = np.ones(len(points))
    if oracle.noise.root.rank == 1:
        p = oracle.noise.parameters[len(oracle.noise.law.numbers) :]
        sign = np.sign(
            np.broadcast_to(np.asarray(oracle.noise.root.times([1.0], points[None], p), dtype=float).ravel(), len(points))
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        at = -gradient / spread
    # R u < -L' for negative R is u > L' / |R|
    return np.where(sign >= 0, below(at), above(-at)), np.where(sign >= 0, above(at), below(-at))


def entry_tails(name: str, numbers: Sequence[float]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return the functions y -> P(u < y) and y -> P(u > y) of the law of one entry u of a noise, of variance 1; y is a number or an array.

    Args:
        name: The name of the law, that of its `EntryLaw`, such as "gaussian" or "two_point".
        numbers: The numbers of the law, those of its `EntryLaw`; empty for most.

    Raises:
        ValueError: If the law is not known.

    Example:
        >>> below, above = entry_tails("centred_exponential", ())
        >>> round(float(above(0.0)), 6), round(float(below(0.0)), 6)
        (0.367879, 0.632121)
    """
    from scipy import stats

    root = math.sqrt(3.0)
    atoms = {"rademacher": [(-1.0, 0.5), (1.0, 0.5)], "three_point": [(-root, 1 / 6), (0.0, 2 / 3), (root, 1 / 6)]}
    if name == "two_point":
        p, a, b = numbers
        atoms[name] = [(a, p), (b, 1 - p)]
    if name in atoms:
        own = atoms[name]
        return (lambda y: sum(w * (v < y) for v, w in own)), (lambda y: sum(w * (v > y) for v, w in own))
    laws = {"gaussian": stats.norm(), "uniform": stats.uniform(-root, 2 * root), "centred_exponential": stats.expon(-1.0)}
    if name == "student_t":
        nu = numbers[0] + 2
        laws[name] = stats.t(nu, scale=math.sqrt((nu - 2) / nu))
    if name not in laws:
        raise ValueError(f"`rule` must have noise of a known law; got {name!r}. Give its law by law=.")
    return laws[name].cdf, laws[name].sf
