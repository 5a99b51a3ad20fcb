r"""The SDEs of rules x' = x - eta_k H(g) that apply one function H to each coordinate of the noisy gradient: signs and clipping.

g is the noisy gradient at x, with independent coordinates of the noise. With b_i = E H(g_i), V_i = Var H(g_i), the base rate eta, the clock t = k eta
and lambda_t = eta_k / eta:

    order 1    dX = -lambda b dt + lambda sqrt(eta) V^{1/2} dW
    order 2    dX = -(lambda b + lambda^2 (eta/2) (grad b) b) dt + lambda sqrt(eta) V^{1/2} dW,   (grad b)_ij = b_i' Hess_ij

b_i' is the derivative of b_i in the mean of g_i, and Hess the Hessian of the loss. Since H(g) is of order one, sigma is constant as eta decreases.
Order 2 is the general result for a rule x' = x + tau H(x, z): the drift b - (tau/2) (grad b) b and the diffusion tau Cov H. Derived.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, spread
from sdetools.dynamics.base import check_oracle, check_plan
from sdetools.dynamics.sdes.classes import classify
from sdetools.dynamics.sdes.limits import LimitSDE, OracleSDE
from sdetools.graph.error_function import erf, normal_cdf, normal_density
from sdetools.noise.laws import RootedNoise
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan

ROOT_HALF = math.sqrt(0.5)


class CoordinatewiseSDE(OracleSDE):
    """The base class of SDEs of rules x' = x - eta_k H(g), H applied to each coordinate of g: a subclass gives the moments of H(g) as `response`.

    The equation is dX = -(lambda b + [lambda^2 (eta/2) (grad b) b]) dt + lambda sqrt(eta) V^{1/2} dW, with the term in brackets for `weak_order` 2: b
    and V are mean and variance of H(g), lambda_t = eta_k / eta, and (grad b)_ij = d b_i / d x_j. The clock is t = k eta.

    Args:
        oracle: The noisy gradient oracle, with normal noise of constant covariance without correlations between coordinates.
        plan: The schedule of eta_k, without momentum.
        weak_order: 1, or 2 for the equation with the correction of the drift.
        own: Further numbers of H. `parameters` is [sqrt(eta), eta / 2 (0 for order 1), *standard deviations, *own, *numbers of the loss and noise].

    Raises:
        ValueError: If the noise is another one, the plan has momentum, or `weak_order` is neither 1 nor 2.
    """

    signals = 1

    def __init__(self, oracle: NoisyOracle, plan: Plan, weak_order: int = 1, own: Sequence[float] = ()) -> None:
        self.plan, self.weak_order = check_plan(plan), _check.count("weak_order", weak_order)
        if self.weak_order > 2:
            raise ValueError(f"`weak_order` must be 1 or 2; got weak_order={weak_order!r}.")
        if self.plan.has_momentum:
            raise ValueError(
                f"`plan` must have no momentum (all beta_k = 0) for {type(self).__name__}; got {plan!r}. "
                "Signum and other filters have no equation of their own in this form."
            )
        deviations = independent_deviations(oracle)
        eta = self.plan.eta
        super().__init__(oracle, math.sqrt(eta), [eta / 2 if self.weak_order == 2 else 0.0, *deviations, *own])
        self.powers = 0.5, 1.0, *[0.0] * (self.own - 2)
        self.noise_dim = self.dim
        self.identity += f" order {self.weak_order}"
        self.noise_class = classify(self, None)

    constant_noise = False  # V depends on x

    @abstractmethod
    def response(self, mean: Any, deviation: Any, own: Any) -> tuple[Any, Any, Any]:
        """Return (E H(g), its derivative in the mean, Var H(g)) for g ~ N(mean, deviation^2), each in the shape of `mean`.

        Args:
            mean: The gradient of the loss, the mean of g: `(dim,)`, `(dim, paths)` or traced.
            deviation: The standard deviations of g, `(dim,)`, or `(dim, 1)` where `mean` has an axis of paths.
            own: The further numbers of H, a sequence in the order of the argument `own` of the class.
        """

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return lambda_t = eta_k / eta, k = floor(t / eta), at the times t = start + fraction h, `(steps, 1)`.

        The steps have size `h` and begin at the times `start`, `(steps,)`; `fraction` is the place within a step, from 0 to 1.
        """
        return LimitSDE.signal_values(self, start, fraction, h)  # type: ignore[arg-type]

    def _response(self, y: Any, p: Any) -> tuple[Any, Any, Any]:
        return self.response(self.gradient(y, p), spread(p[2 : 2 + self.dim], y), p[2 + self.dim : self.own])

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        p = self.parameters if p is None else p
        b, slope, _ = self._response(y, p)
        if self.weak_order == 1:
            return -s[0] * b
        return -s[0] * b - (s[0] * s[0] * p[1]) * slope * self.hessian_product(y, b, p)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        p = self.parameters if p is None else p
        return -(s[0] * p[0]) * np.sqrt(np.maximum(self._response(y, p)[2], 0.0)) * components(list(u), y)


def independent_deviations(oracle: Any) -> np.ndarray:
    """Return the standard deviations sigma s_i of the gradients' noise, `(dim,)`, where s_i^2 = Sigma_ii.

    Args:
        oracle: The noisy gradient oracle. Its noise must be normal, with a constant, diagonal and positive covariance.

    Raises:
        ValueError: If the noise is another one, or `oracle` is no `NoisyOracle`.
    """
    noise = check_oracle(oracle).noise
    covariance = None
    if isinstance(noise, RootedNoise) and noise.gaussian and noise.root.constant:
        covariance = oracle.sigma**2 * np.asarray(noise.covariance(np.zeros(noise.dim)), dtype=float)
    if covariance is None or np.any(covariance != np.diag(np.diag(covariance))) or np.any(np.diag(covariance) <= 0):
        raise ValueError(
            f"`oracle` must have normal noise with a constant, diagonal and positive covariance for this equation; got {noise.label}. "
            "Use st.noise.gaussian(dim) and sigma > 0, or st.exact.modified_equation."
        )
    return np.sqrt(np.diag(covariance))


class SignSDE(CoordinatewiseSDE):
    """The SDE of sign descent x' = x - eta_k sign(g): dX = -lambda e dt + lambda sqrt(eta) (1 - e^2)^{1/2} dW, e_i = erf(dL_i / (sqrt 2 sigma s_i)).

    dL_i is the derivative of the loss in coordinate i, sigma s_i the standard deviation of its noise, lambda_t = eta_k / eta with the base rate eta,
    and squares and roots are those of each coordinate. With weak_order=2 the drift has the further term -lambda^2 (eta/2) (grad e) e, (grad e)_ij = d
    e_i / d x_j. The clock is t = k eta. To share draws with the rule makes no sense: the noise of a sign is not that of the gradient. Derived; both
    orders are confirmed by the exact birth-death chain of sign descent.

    Args:
        oracle: The noisy gradient oracle, with normal noise of constant covariance without correlations between coordinates.
        plan: The schedule of eta_k, without momentum.
        weak_order: The order in eta with which the SDE approximates the rule, 1 or 2.
        own: Left empty; it is for subclasses of `CoordinatewiseSDE` with numbers of their own.

    Raises:
        ValueError: If the noise is another one, the plan has momentum, or `weak_order` is neither 1 nor 2.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
        >>> st.SignSDE(oracle, st.schedules.constant(eta=0.1)).drift(np.array([0.5])).round(6)  # -erf(1 / sqrt 2)
        array([-0.682689])
    """

    latex = r"\mathrm d X = -e\,\mathrm d t + \sqrt\eta\,\sqrt{1 - e^2}\,\mathrm d W, \quad e = \mathrm{erf}(\nabla L / \sqrt2 \sigma s)"

    def response(self, mean: Any, deviation: Any, own: Any) -> tuple[Any, Any, Any]:
        z = mean / deviation
        e = erf(z * ROOT_HALF)
        return e, 2.0 * normal_density(z) / deviation, 1.0 - e * e


class ClippedSDE(CoordinatewiseSDE):
    """The SDE of clipped SGD x' = x - eta_k clip(g, -C, C): dX = -lambda m dt + lambda sqrt(eta) V^{1/2} dW, m and V the mean and variance of clip(g).

    lambda_t = eta_k / eta with the base rate eta. In each coordinate g ~ N(mu, s^2), where mu is the derivative of the loss and s the standard
    deviation of its noise. With a = (-C - mu)/s, b = (C - mu)/s, D = Phi(b) - Phi(a), and Phi and phi the distribution and density of N(0, 1):

        m = mu D + s (phi(a) - phi(b)) + C (1 - Phi(b) - Phi(a)),    dm/dmu = D,
        E clip^2 = (mu^2 + s^2) D + 2 mu s (phi(a) - phi(b)) + s^2 (a phi(a) - b phi(b)) + C^2 (1 - D).

    V = E clip^2 - m^2. With weak_order=2 the drift has the further term -lambda^2 (eta/2) (grad m) m, (grad m)_ij = d m_i / d x_j. The clock is t = k
    eta. Derived.

    Args:
        oracle: The noisy gradient oracle, with normal noise of constant covariance without correlations between coordinates.
        plan: The schedule of eta_k, without momentum.
        value: The bound C of each coordinate, positive.
        weak_order: The order in eta with which the SDE approximates the rule, 1 or 2.

    Raises:
        ValueError: If `value` is not positive, the noise is another one, the plan has momentum, or `weak_order` is neither 1 nor 2.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5)
        >>> plan = st.schedules.constant(eta=0.1)
        >>> [st.ClippedSDE(oracle, plan, value=C).drift(np.array([0.5])).round(6) for C in (0.5, 100.0)]
        [array([-0.304774]), array([-0.5])]
    """

    latex = r"\mathrm d X = -m\,\mathrm d t + \sqrt\eta\,V^{1/2}\,\mathrm d W, \quad m = \mathbb E\,\mathrm{clip}(g)"

    def __init__(self, oracle: NoisyOracle, plan: Plan, value: float, weak_order: int = 1) -> None:
        self.value = _check.positive("value", value)
        super().__init__(oracle, plan, weak_order, [self.value])

    def response(self, mean: Any, deviation: Any, own: Any) -> tuple[Any, Any, Any]:
        C, s = own[0], deviation
        a, b = (-C - mean) / s, (C - mean) / s
        below, above, low, high = normal_cdf(a), normal_cdf(-b), normal_density(a), normal_density(b)
        inside = 1.0 - below - above
        m = mean * inside + s * (low - high) + C * (above - below)
        square = (mean * mean + s * s) * inside + 2.0 * mean * s * (low - high) + s * s * (a * low - b * high)
        return m, inside, square + C * C * (below + above) - m * m
