"""The limiting SDEs of optimisers, and the modified equations that approximate them to second order.

    LimitSDE          dX = -lambda_t (grad L dt + sigma sqrt(eta) R dW)                            clock t = k eta
    GradientFlow      dX = -lambda_t grad L dt                                                    sigma fixed, eta -> 0
    KineticSDE        dX = -r_t M dt,  dM = lambda_t ((grad L - M) dt + sigma sqrt(eta) R dW)     alpha = 1, clock t = k eta
    HamiltonianSDE    dX = -V dt,  dV = lambda grad L dt                                          alpha > 1, tau = k eta^((1+alpha)/2)
    ModifiedSDE       dX = -grad(L + eta/4 |grad L|^2) dt - sigma sqrt(eta) R dW                  second order for SGD
    ModifiedMomentumSDE                                                      second order for HeavyBall (Eq. (1)), t = k sqrt(gamma)

R R^T = Sigma is the covariance of the oracle's noise, whatever its distribution. The noise has the sign of the gradient, so that an optimiser with
Gaussian noise and its limit can share draws. Sources: the paper, sections 3 and 6; Q. Li, C. Tai, W. E, JMLR 20 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import numeric
from sdetools.dynamics.base import check_oracle, check_plan
from sdetools.dynamics.sdes.classes import classify
from sdetools.dynamics.sdes.sde import SDE
from sdetools.noise.base import Normal
from sdetools.noise.laws import RootedNoise
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class OracleSDE(SDE):
    """The base class of SDEs with the loss L of an oracle and with Gaussian noise scale R(x) dW, where R R^T = Sigma is that of the oracle.

    A subclass writes `drift` and `diffusion`, usually by `gradient`, `hessian_product` and `force`; the rest of `SDE` it may override.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma.
        scale: The factor of the noise, such as sigma sqrt(eta).
        own: Further numbers of the equation. `parameters` is [scale, *own, *numbers of the loss, *numbers of the noise].
        silent: Whether the equation has no noise; this also holds if `scale` is 0.

    Attributes:
        oracle: The oracle, as given.
        noise: The Gaussian noise with the covariance of the oracle's noise, a `Noise`.
        own: The number of entries of `parameters` before those of the loss, 1 + len(own), an int.
        powers: For each of these entries the power of the optimiser's step time that it is proportional to, for constant sigma.

    Raises:
        ValueError: If `oracle` is not a `NoisyOracle`, or no Gaussian noise of the same covariance is known.
    """

    own = 1
    powers: tuple[float, ...] = (0.5,)

    def __init__(self, oracle: NoisyOracle, scale: float, own: Sequence[float] = (), silent: bool = False) -> None:
        check_oracle(oracle)
        self.oracle, self.loss, self.noise = oracle, oracle.loss, oracle.noise.as_gaussian()
        self.dim, self.names = oracle.dim, tuple(oracle.loss.names)
        if not all(isinstance(d, Normal) for d in self.noise.draws):
            raise ValueError(f"the SDE of {oracle.noise.label} must be driven by normal draws; got {self.noise.draws}.")
        self.noise_dim = 0 if silent or scale == 0 else self.noise.n_draws
        self.own = 1 + len(own)
        self.parameters = np.concatenate([[scale], np.asarray(own, dtype=float), self.loss.parameters, self.noise.parameters])
        self.identity = f"{type(self).__qualname__} {self.loss.identity} {self.noise.identity}"
        self.noise_class = classify(self, None)

    @property
    def constant_noise(self) -> bool:
        """Whether R is given as a matrix of numbers, and not as expressions, as a function or by data."""
        return isinstance(self.noise, RootedNoise) and self.noise.root.constant

    def gradient(self, x: Any, p: Any) -> np.ndarray:
        """Return grad L(x), in the shape of the position `x`: `(dim,)`, `(dim, paths)` or traced; `p` are numbers ordered as `parameters`."""
        return self.loss.gradient(x, self.numbers(p)[0])

    def hessian_product(self, x: Any, v: Any, p: Any) -> np.ndarray:
        """Return Hess L(x) v, in the shape of the position `x` and of the vector `v`; `p` are numbers ordered as `parameters`."""
        return self.loss.hessian_product(x, v, self.numbers(p)[0])

    def force(self, x: Any, u: Any, p: Any) -> np.ndarray:
        """Return scale R(x) u, in the shape of the position `x`, for `u` with `noise_dim` entries, numbers or arrays `(paths,)`; scale is p[0]."""
        return p[0] * self.noise.value(x, u, self.numbers(p)[1])

    def numbers(self, p: Any) -> tuple[Any, Any]:
        """Return a pair of slices of `p`, which has the order of `parameters`: the numbers of the loss, and those of the noise."""
        end = self.own + len(self.loss.parameters)
        return p[self.own : end], p[end:]


def inside_step(start: np.ndarray, fraction: float, h: float) -> np.ndarray:
    """Return the times start + min(fraction, 1 - 1e-6) h, `(steps,)`, so that a jump of a schedule at the end of a step acts in the next step.

    The steps have size `h` and begin at the times `start`, `(steps,)`; `fraction` is the place within a step, from 0 to 1.
    """
    return np.asarray(start) + min(fraction, 1 - 1e-6) * h


class LimitSDE(OracleSDE):
    """The limit of SGD and SGDM: dX = -lambda_t (grad L(X) dt + sigma sqrt(eta) R(X) dW), R R^T = Sigma, with clock t = k eta.

    One step of the optimiser takes the time eta, the base rate `plan.eta`. At sigma = eta^-1/2 the diffusion is -lambda_t R.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma.
        plan: The schedule, which gives the base rate eta and lambda_t = etabar_k / eta at t = k eta (etabar: the averaged schedule).
        silent: Whether to leave out the noise.

    Raises:
        ValueError: If an argument is invalid, or no Gaussian noise of the oracle's covariance is known.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.01**-0.5)
        >>> limit = st.LimitSDE(oracle, st.schedules.constant(eta=0.01, beta=0.9))
        >>> limit.drift(np.array([2.0])), limit.diffusion(np.array([2.0]), [1.0]).round(12)
        (array([-2.]), array([-1.]))
    """

    signals = 1
    latex = r"\mathrm d X = -\lambda_t\,(\nabla L\,\mathrm d t + \sigma\sqrt\eta\,\Sigma^{1/2}\,\mathrm d W)"

    def __init__(self, oracle: NoisyOracle, plan: Plan, silent: bool = False) -> None:
        self.plan = check_plan(plan)
        scale = getattr(oracle, "sigma", 0.0) * math.sqrt(self.plan.eta)
        super().__init__(oracle, scale, silent=silent)

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return lambda_t = etabar_k / eta, k = floor(t / eta), at the times t = start + fraction h, `(steps, 1)`; constant beyond the plan.

        The steps have size `h` and begin at the times `start`, `(steps,)`; `fraction` is the place within a step, from 0 to 1.
        """
        return np.asarray(self.plan.rate(inside_step(start, fraction, h)))[:, None]

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        return -s[0] * self.gradient(y, self.parameters if p is None else p)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        return -s[0] * self.force(y, u, self.parameters if p is None else p)


class GradientFlow(LimitSDE):
    """The limit of SGD and SGDM for fixed sigma as eta tends to 0, dX = -lambda_t grad L(X) dt, which has no noise; clock t = k eta.

    Args:
        oracle: The noisy gradient oracle, which gives L.
        plan: The schedule, which gives the base rate eta and lambda_t = etabar_k / eta at t = k eta (etabar: the averaged schedule).

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.GradientFlow(oracle, st.schedules.constant(eta=0.01)).noise_class
        'none'
    """

    latex = r"\mathrm d X = -\lambda_t \nabla L\,\mathrm d t"

    def __init__(self, oracle: NoisyOracle, plan: Plan) -> None:
        super().__init__(oracle, plan, silent=True)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        return 0.0 * np.asarray(y)


class ModifiedSDE(OracleSDE):
    """The second-order modified equation of SGD, dX = -grad(L + (eta/4) |grad L|^2) dt - sigma sqrt(eta) R dW, with clock t = k eta.

    Here R R^T = Sigma, and sigma is constant as eta decreases. Source: Q. Li, C. Tai, W. E, JMLR 20 (2019), Theorems 9 and 10.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma.
        eta: The learning rate, positive, and the time of one step of SGD.
        order: 2, or 1 for the equation without the term (eta/4) |grad L|^2, which is `LimitSDE` with lambda = 1.

    Raises:
        ValueError: If `eta` is not positive or `order` is neither 1 nor 2.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(2.0), st.noise.gaussian(dim=1))
        >>> st.ModifiedSDE(oracle, eta=0.1).drift(np.array([1.0])).round(12)
        array([-2.2])
    """

    powers = 0.5, 1.0

    def __init__(self, oracle: NoisyOracle, eta: float, order: int = 2) -> None:
        eta, order = _check.positive("eta", eta), _order(order)
        super().__init__(oracle, getattr(oracle, "sigma", 0.0) * math.sqrt(eta), [eta / 2 if order == 2 else 0.0])
        self.order = order
        loss = r"\nabla L" if order == 1 else r"\nabla(L + \tfrac\eta4|\nabla L|^2)"
        self.latex = rf"\mathrm d X = -{loss}\,\mathrm d t - \sigma\sqrt\eta\,\Sigma^{{1/2}}\,\mathrm d W"

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = ()) -> np.ndarray:
        p = self.parameters if p is None else p
        g = self.gradient(y, p)
        return -g - p[1] * self.hessian_product(y, g, p)

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = ()) -> np.ndarray:
        return -self.force(y, u, self.parameters if p is None else p)


def _order(order: int) -> int:
    """Return `order` as an int; ValueError unless it is 1 or 2."""
    if order not in (1, 2):
        raise ValueError(f"`order` must be 1 or 2; got order={order!r}.")
    return int(order)


class PhaseSDE(OracleSDE):
    """The base class of kinetic equations dX = -r M dt, dM = -gamma M dt + kappa (grad L dt + scale R dW) for position X and momentum M.

    R R^T = Sigma, and r, gamma and kappa may depend on time: they are the row s of `signal_values`. The state is (x, m); y, `(2 dim,)` or
    `(2 dim, paths)`, has X in its first dim rows and M in the rest. The arguments are those of `OracleSDE` (oracle, scale, further numbers,
    `silent`). A subclass writes `signal_values` and sets the initial momentum by `_set_momentum`.

    Attributes:
        splits: Whether this form is the whole equation, so that a splitting integrator (OBABO, BAOAB, UBU) applies.
        momentum: The initial momentum M_0, `(dim,)`.
    """

    parts = ("x", "m")
    splits = True
    latex = r"\mathrm d X = -r M\,\mathrm d t,\quad \mathrm d M = -\gamma M\,\mathrm d t + \kappa(\nabla L\,\mathrm d t + \Sigma^{1/2}\mathrm d W)"

    def _set_momentum(self, momentum: Any, dim: int) -> None:
        """Set the attribute `momentum` to the vector given, `(dim,)`, or to zero for None; ValueError for another shape."""
        self.momentum = np.zeros(dim) if momentum is None else _check.point("momentum", momentum, dim)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        return (self.momentum,)

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        return numeric(x0), self.momentum

    def kinetic(self, s: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Return the numbers (r, gamma, kappa) of the equation at one time, for `s`, the row of `signal_values` of that time: its entries."""
        return s[0], s[1], s[2]

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0)) -> np.ndarray:
        p, (x, m), (r, gamma, kappa) = self.parameters if p is None else p, self._split(y), self.kinetic(s)
        return np.concatenate([-r * m, kappa * self.gradient(x, p) - gamma * m])

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0)) -> np.ndarray:
        p, (x, m) = self.parameters if p is None else p, self._split(y)
        return np.concatenate([0.0 * m, self.kinetic(s)[2] * self.force(x, u, p)])

    def _split(self, y: Any) -> tuple[Any, Any]:
        """Return the pair (position, momentum), the first `dim` rows of the state `y` and the rest."""
        return y[: self.dim], y[self.dim :]


class KineticSDE(PhaseSDE):
    """The limit of SGDM at alpha = 1: dX = -r_t M dt, dM = lambda_t ((grad L(X) - M) dt + sigma sqrt(eta) R(X) dW), clock t = k eta.

    alpha is the index of the scaling 1 - beta_k ~ eta^alpha, and R R^T = Sigma. The state is (x, m): y, `(2 dim,)` or `(2 dim, paths)`, has the
    position X in its first dim rows and the momentum M, that of SGDM, in the rest.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma.
        plan: The schedule, which gives the base rate eta, lambda_t = (1 - beta_k) / eta and r_t = eta_k / eta at t = k eta.
        momentum: The initial momentum M_0, shape `(dim,)`; zero by default.

    Raises:
        ValueError: If the plan has no momentum, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.01**-0.5)
        >>> sde = st.KineticSDE(oracle, st.schedules.constant(eta=0.01, beta=0.99))
        >>> sde.drift(np.array([1.0, 0.25]))  # dX = -M dt, dM = (X - M) dt
        array([-0.25,  0.75])
    """

    signals = 3
    latex = r"\mathrm d X = -M\,\mathrm d t,\quad \mathrm d M = \lambda_t((\nabla L - M)\,\mathrm d t + \sigma\sqrt\eta\,\Sigma^{1/2}\mathrm d W)"

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None) -> None:
        self.plan = check_plan(plan)
        if not self.plan.has_momentum:
            raise ValueError("`plan` of a kinetic SDE must have momentum; got beta = 0. Without it the limit is st.LimitSDE.")
        super().__init__(oracle, getattr(oracle, "sigma", 0.0) * math.sqrt(self.plan.eta))
        self._set_momentum(momentum, self.dim)

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return rows (r, gamma, kappa) = (r_t, lambda_t, lambda_t) at the times t = start + fraction h, `(steps, 3)`.

        r_t = eta_k / eta, lambda_t = (1 - beta_k) / eta, k = floor(t / eta). Steps begin at `start`, `(steps,)`, and have size `h`;
        0 <= `fraction` <= 1.
        """
        eta = self.plan.eta
        k = np.floor(inside_step(start, fraction, h) / eta * (1 + 1e-12) + 1e-9).astype(int)
        steps = int(k.max(initial=0)) + 1
        friction = (1 - self.plan.betas(steps)[k]) / eta
        return np.column_stack([self.plan.etas(steps)[k] / eta, friction, friction])


class HamiltonianSDE(PhaseSDE):
    """The limit of SGDM for alpha > 1, without friction and noise: dX = -V dt, dV = lambda grad L(X) dt.

    alpha is the index of the scaling 1 - beta ~ eta^alpha, m the momentum of SGDM, V = eta^((1-alpha)/2) m, and lambda = (1 - beta) / eta^alpha. The
    state is (x, m), whose part "m" is V: y, `(2 dim,)` or `(2 dim, paths)`, has X first. The clock is tau = k eta^((1+alpha)/2), so pass
    `step_time=plan.eta**((1 + plan.alpha) / 2)` to the optimiser.

    Args:
        oracle: The noisy gradient oracle, which gives L.
        plan: A constant schedule with alpha > 1.
        momentum: The initial velocity V_0, shape `(dim,)`; zero by default.

    Raises:
        ValueError: If the plan is not constant, alpha <= 1, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=10.0)
        >>> st.HamiltonianSDE(oracle, st.schedules.scaled(0.01, alpha=1.5)).noise_dim
        0
    """

    signals = 3
    latex = r"\mathrm d X = -V\,\mathrm d t,\quad \mathrm d V = \lambda \nabla L\,\mathrm d t"

    def __init__(self, oracle: NoisyOracle, plan: Plan, momentum: Any = None) -> None:
        self.plan = check_plan(plan)
        if not plan.alpha > 1 or len(plan.eta_values) > 1:
            raise ValueError(
                f"`plan` of the Hamiltonian limit must be a constant schedule with alpha > 1; got {plan!r}. "
                "Make one with st.schedules.scaled(eta, alpha=1.5)."
            )
        self.rate = float((1 - plan.beta_values[0]) / plan.eta**plan.alpha)
        super().__init__(oracle, 0.0, silent=True)
        self._set_momentum(momentum, self.dim)

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return the constant row (r, gamma, kappa) = (1, 0, (1 - beta) / eta^alpha) of `PhaseSDE`, once for each of the times `start`: `(steps, 3)`."""
        return np.broadcast_to([1.0, 0.0, self.rate], (len(start), 3))


class ModifiedMomentumSDE(PhaseSDE):
    """The modified equations of Eq. (1) with rate gamma, h = sqrt(gamma), mu = (1 - beta)/h, in M = -V, clock t = k h.

        order 1:  dM = -mu M dt + grad L dt + sigma sqrt(h) R dW,                                   dX = -M dt
        order 2:  dM = -(mu + (h/2) (mu^2 - Hess)) M dt + (1 + h mu/2) grad L dt + sigma sqrt(h) R dW,
                  dX = -((1 - h mu/2) M + (h/2) grad L) dt

    Eq. (1) is the heavy-ball form m' = beta m + g, x' = x - gamma m', V its velocity in Li et al., R R^T = Sigma and Hess = Hess L(X). The state is
    (x, m), X and M = -V, which is sqrt(gamma) times the m of the optimiser. The optimiser to compare with is
    `st.HeavyBall(oracle, gamma, beta, step_time=gamma**0.5)`. `h`, the time of a step, and the friction `mu` are attributes. Source: Li et al. 2019.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma.
        gamma: The learning rate of the heavy-ball form, positive.
        beta: The momentum coefficient in [0, 1).
        order: The weak order in h with which the equation approximates the optimiser, 1 or 2.
        momentum: The initial momentum M_0, shape `(dim,)`; zero by default.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> round(st.ModifiedMomentumSDE(oracle, gamma=0.01, beta=0.9).mu, 12)
        1.0
    """

    signals, powers = 3, (0.5, 1.0, 0.0)

    def __init__(self, oracle: NoisyOracle, gamma: float, beta: float, order: int = 2, momentum: Any = None) -> None:
        gamma, beta, order = _check.positive("gamma", gamma), _check.momentum("beta", beta), _order(order)
        h = math.sqrt(gamma)
        self.h, self.mu, self.order, self.splits = h, (1 - beta) / h, order, order == 1
        noise = r"\sigma\sqrt h\,\Sigma^{1/2}\,\mathrm d W"
        if order == 1:
            self.latex = rf"\mathrm d X = -M\,\mathrm d t,\quad \mathrm d M = (\nabla L - \mu M)\,\mathrm d t + {noise}"
        else:
            position = r"\mathrm d X = -((1 - \tfrac h2\mu) M + \tfrac h2\nabla L)\,\mathrm d t"
            damping = r"(\mu + \tfrac h2(\mu^2 - \nabla^2 L)) M"
            self.latex = rf"{position},\quad \mathrm d M = ((1 + \tfrac h2\mu)\nabla L - {damping})\,\mathrm d t + {noise}"
        super().__init__(oracle, getattr(oracle, "sigma", 0.0) * math.sqrt(h), [h / 2 if order == 2 else 0.0, self.mu])
        self._set_momentum(momentum, self.dim)

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return the constant row (r, gamma, kappa) = (1, mu, 1) of `PhaseSDE` for each of the times `start`, `(steps,)`: `(steps, 3)`.

        mu = (1 - beta) / h is the friction; the arguments `fraction` and `h` are not used.
        """
        return np.broadcast_to([1.0, self.mu, 1.0], (len(start), 3))

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0)) -> np.ndarray:
        p, (x, m) = self.parameters if p is None else p, self._split(y)
        half, mu, g = p[1], p[2], self.gradient(x, p)
        damped = (mu + half * mu * mu) * m - half * self.hessian_product(x, m, p)
        return np.concatenate([-(1 - half * mu) * m - half * g, (1 + half * mu) * g - damped])

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0)) -> np.ndarray:
        return super().diffusion(y, u, p)  # the default signals: kappa = 1
