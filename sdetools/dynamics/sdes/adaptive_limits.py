r"""The SDEs of RMSProp and Adam in the scaling of Malladi et al.: sigma = sigma0 / eta, 1 - beta_i = c_i h, eps = eps0 / eta, time h = eta^2 a step.

v is the second moment of the optimiser, an average of squared gradients, and m its momentum buffer M. With u = v / sigma^2, the diagonal D of Sigma,
R R^T = Sigma and P = sigma0 u^{1/2} + eps0, all in each coordinate, and at a constant learning rate:

    RMSProp   dX = -P^{-1} (grad L dt + sigma0 R dW),                         du = c2 (D - u) dt
    Adam      dX = -(gamma2^{1/2} / gamma1) P^{-1} M dt,                      du = c2 (D - u) dt,
              dM = c1 ((grad L - M) dt + sigma0 R dW),                        P = sigma0 u^{1/2} + eps0 gamma2^{1/2}

with the bias corrections gamma_i = 1 - beta_i^{k+1} at t = k eta^2, or 1 without them. They have weak order 1 in h for noise of low skewness, and 1/2
otherwise. Lagged and current denominators have the same equation. Source: S. Malladi, K. Lyu, A. Panigrahi, S. Arora, NeurIPS 2022; recalled, and
confirmed by exact moments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._arrays import numeric
from sdetools.dynamics.base import check_oracle, check_plan
from sdetools.dynamics.sdes.limits import OracleSDE, inside_step
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class RMSPropSDE(OracleSDE):
    """The limit of RMSProp: dX = -lambda P^{-1} (grad L dt + sigma0 R dW), du = c2 (diag Sigma - u) dt, P = sigma0 u^{1/2} + eps0, clock t = k eta^2.

    u = v / sigma^2 is the second moment v of the optimiser, an average of squared gradients, in units of the noise. The state is (x, u): the array
    `y` of drift and diffusion, `(2 dim,)` or `(2 dim, paths)`, has the position in its first dim rows and u in the next dim; it starts at (x_0,
    v_0 / sigma^2). All operations are those of each coordinate. sigma0 = sigma eta, eps0 = eps eta, c2 = (1 - beta2) / eta^2, lambda_t = eta_k / eta
    at t = k eta^2, R R^T = Sigma, and eta is the base rate `plan.eta`. One step of the optimiser takes the time eta^2: compare with
    `st.RMSProp(..., step_time=eta**2)`.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma, positive.
        plan: The schedule of eta_k, without momentum.
        beta2: The factor of v in a step v' = beta2 v + (1 - beta2) g^2 of the optimiser, in [0, 1).
        eps: The number that the optimiser adds to the root of v, 0 or above; not eps0.
        second_moment: v_0, the initial value of v (not of u), a number or a vector `(dim,)`, 0 or above; with eps = 0 it must be positive.

    Attributes:
        second_moment: u_0 = v_0 / sigma^2, `(dim,)`, with which the state starts.

    Raises:
        ValueError: If the plan has momentum, sigma is 0, or an argument lies outside its range.

    Example:
        >>> import numpy as np, sdetools as st
        >>> eta = 0.1
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5 / eta)
        >>> sde = st.RMSPropSDE(oracle, st.schedules.constant(eta), beta2=1 - eta**2, eps=0.2 / eta, second_moment=25.0)
        >>> sde.start(np.array([1.0]))  # (x_0, u_0): sigma = 5, so v_0 = 25 is u_0 = 1
        (array([1.]), array([1.]))
        >>> sde.drift(np.array([1.0, 1.0])).round(6)  # -1 / (0.5 + 0.2) and 1 - 1
        array([-1.428571,  0.      ])
    """

    parts: ClassVar[tuple[str, ...]] = ("x", "u")
    signals = 1
    constant_noise = False
    latex = r"\mathrm d X = -P^{-1}(\nabla L\,\mathrm d t + \sigma_0\Sigma^{1/2}\,\mathrm d W),\quad \mathrm d u = c_2(\mathrm{diag}\,\Sigma - u)\,\mathrm d t"

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, beta2: float = 0.999, eps: float = 1e-8, second_moment: Any = 0.0
    ) -> None:
        self.plan = check_plan(plan)
        if self.plan.has_momentum and "m" not in self.parts:
            raise ValueError(f"`plan` of st.RMSPropSDE must have no momentum; got {plan!r}. With momentum use st.AdamSDE.")
        self._set_moments(oracle, beta2, eps, second_moment)
        h = self.plan.eta**2
        super().__init__(oracle, oracle.sigma * self.plan.eta, [eps * self.plan.eta, (1 - self.beta2) / h])

    def _set_moments(self, oracle: NoisyOracle, beta2: float, eps: float, second_moment: Any) -> None:
        """Set `beta2` and the initial u, the attribute `second_moment`, from arguments of the class, among them v; ValueError outside their ranges."""
        sigma = check_oracle(oracle).sigma
        if not sigma > 0:
            raise ValueError(f"`oracle` must have sigma > 0, the noise that the denominator measures; got sigma={sigma!r}.")
        self.beta2 = _check.momentum("beta2", beta2)
        if not _check.number("eps", eps) >= 0:
            raise ValueError(f"`eps` must be 0 or above; got eps={eps!r}.")
        v = np.broadcast_to(np.asarray(second_moment, dtype=float), (oracle.dim,))
        if not (np.isfinite(v).all() and (v >= 0).all() and (eps > 0 or (v > 0).all())):
            raise ValueError(
                f"`second_moment` must be finite, and positive where eps = 0; got second_moment={second_moment!r}, eps={eps!r}."
            )
        self.second_moment = np.array(v / sigma**2)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        return (self.second_moment,)

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        return numeric(x0), self.second_moment

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return lambda_t = eta_k / eta, k = floor(t / eta^2), at the times t = start + fraction h, `(steps, 1)`.

        The steps have size `h` and begin at the times `start`, `(steps,)`; `fraction` is the place within a step, from 0 to 1.
        """
        k = self._step(start, fraction, h)
        return (self.plan.etas(int(k.max(initial=0)) + 1)[k] / self.plan.eta)[:, None]

    def _step(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return the step k = floor(t / eta^2) of the optimiser at the times t = start + fraction h, integers `(steps,)`."""
        return np.floor(inside_step(start, fraction, h) / self.plan.eta**2 * (1 + 1e-12) + 1e-9).astype(int)

    def _variances(self, x: Any, p: Any) -> Any:
        """Return the diagonal of Sigma(x), `(dim,)` or `(dim, paths)`; `(dim,)` also for many paths if Sigma is constant. `p` is as in `drift`."""
        Sigma = self.noise.covariance(x, self.numbers(p)[1])
        return np.stack([Sigma[i, i] for i in range(self.dim)])

    def _spread(self, x: Any, u: Any, p: Any) -> Any:
        """Return the drift of u at the position `x`, c2 (diag Sigma - u), in the shape of `u`; `p` is as in `drift`."""
        Sigma = self._variances(x, p)
        return p[2] * ((Sigma if np.ndim(Sigma) == np.ndim(u) else Sigma[:, None]) - u)

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        p, (x, u) = self.parameters if p is None else p, (y[: self.dim], y[self.dim :])
        return np.concatenate([-s[0] * self.gradient(x, p) / (p[0] * np.sqrt(u) + p[1]), self._spread(x, u, p)])

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        p, (x, own) = self.parameters if p is None else p, (y[: self.dim], y[self.dim :])
        return np.concatenate([-s[0] * self.force(x, u, p) / (p[0] * np.sqrt(own) + p[1]), 0.0 * own])


class AdamSDE(RMSPropSDE):
    """The limit of Adam: dX = -lambda (gamma2^{1/2}/gamma1) P^{-1} M dt, dM = c1 ((grad L - M) dt + sigma0 R dW), du = c2 (diag Sigma - u) dt.

    M is the momentum buffer of the optimiser and u = v / sigma^2 its second moment v, an average of squared gradients, in units of the noise. The
    state is (x, m, u): the array `y` of drift and diffusion, `(3 dim,)` or `(3 dim, paths)`, has the position in its first dim rows, then M, then u;
    it starts at (x_0, M_0, v_0 / sigma^2). All operations are those of each coordinate. P = sigma0 u^{1/2} + eps0 gamma2^{1/2}, sigma0 = sigma eta,
    eps0 = eps eta, c1 = (1 - beta_k) / eta^2, c2 = (1 - beta2) / eta^2, lambda_t = eta_k / eta at t = k eta^2, R R^T = Sigma, and eta is the base
    rate `plan.eta`. The bias corrections at t = k eta^2 are those of the step that begins there: gamma1 = 1 - prod_{j <= k} beta_j,
    gamma2 = 1 - beta2^(k+1). One step of the optimiser takes the time eta^2: compare with `st.Adam(..., step_time=eta**2)`. `RMSPropSDE` is the limit
    without momentum.

    Args:
        oracle: The noisy gradient oracle, which gives L, Sigma and sigma, positive.
        plan: The schedule of eta_k and beta_k, the authors' beta1.
        beta2: The factor of v in a step v' = beta2 v + (1 - beta2) g^2 of the optimiser, in [0, 1).
        eps: The number that the optimiser adds to the root of v, 0 or above; not eps0.
        bias_correction: Whether the moments are divided by their bias corrections; otherwise gamma1 = gamma2 = 1.
        second_moment: v_0, the initial value of v (not of u), a number or a vector `(dim,)`, 0 or above; with eps = 0 it must be positive.
        momentum: The initial momentum M_0, `(dim,)`; zero by default.

    Attributes:
        second_moment: u_0 = v_0 / sigma^2, `(dim,)`, with which the state starts.

    Raises:
        ValueError: If the plan has no momentum, sigma is 0, or an argument lies outside its range.

    Example:
        >>> import numpy as np, sdetools as st
        >>> eta = 0.1
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.5 / eta)
        >>> sde = st.AdamSDE(oracle, st.schedules.constant(eta, beta=1 - 2 * eta**2), beta2=1 - eta**2, eps=0.2 / eta, second_moment=25.0)
        >>> sde.drift(np.array([1.0, 0.7, 1.0]), s=(1.0, 2.0, 1.0, 1.0)).round(6)  # -0.7 / (0.5 + 0.2), 2 (1 - 0.7) and 1 - 1
        array([-1. ,  0.6,  0. ])
    """

    parts = ("x", "m", "u")
    signals = 4
    latex = r"\mathrm d X = -\tfrac{\sqrt{\gamma_2}}{\gamma_1} P^{-1} M\,\mathrm d t,\quad \mathrm d M = c_1((\nabla L - M)\,\mathrm d t + \sigma_0\Sigma^{1/2}\,\mathrm d W)"

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, beta2: float = 0.999, eps: float = 1e-8, bias_correction: bool = True,
        second_moment: Any = 0.0, momentum: Any = None,
    ) -> None:  # fmt: skip
        self.bias_correction = bool(bias_correction)
        if not check_plan(plan).has_momentum:
            raise ValueError(f"`plan` of st.AdamSDE must have momentum, beta1; got {plan!r}. Without it use st.RMSPropSDE.")
        super().__init__(oracle, plan, beta2, eps, second_moment)
        self.momentum = np.zeros(self.dim) if momentum is None else _check.point("momentum", momentum, self.dim)

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        return (self.momentum, self.second_moment)

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        return numeric(x0), self.momentum, self.second_moment

    def signal_values(self, start: np.ndarray, fraction: float, h: float) -> np.ndarray:
        """Return the rows (lambda_t, c1, gamma1, gamma2) at the times t = start + fraction h, `(steps, 4)`, those of step k = floor(t / eta^2).

        The steps of the integrator have size `h` and begin at the times `start`, `(steps,)`; `fraction` is the place within a step, from 0 to 1.
        """
        k = self._step(start, fraction, h)
        steps = int(k.max(initial=0)) + 1
        betas, one = self.plan.betas(steps), np.ones(steps)
        first = 1 - np.cumprod(betas) if self.bias_correction else one
        second = -np.expm1(np.arange(1, steps + 1) * math.log(self.beta2)) if self.bias_correction and self.beta2 else one
        columns = (self.plan.etas(steps) / self.plan.eta, (1 - betas) / self.plan.eta**2, first, second)
        return np.column_stack([column[k] for column in columns])

    def _split(self, y: Any) -> tuple[Any, Any, Any]:
        """Return the tuple (position, momentum, u) of the three times dim rows of the state `y`, each in the shape of its position."""
        return y[: self.dim], y[self.dim : 2 * self.dim], y[2 * self.dim :]

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0, 1.0)) -> np.ndarray:
        p, (x, m, u), (rate, c1, first, second) = self.parameters if p is None else p, self._split(y), s
        root = np.sqrt(second)
        moved = -rate * (root / first) * m / (p[0] * np.sqrt(u) + p[1] * root)
        return np.concatenate([moved, c1 * (self.gradient(x, p) - m), self._spread(x, u, p)])

    def diffusion(self, y: Any, u: Sequence[Any], p: Any = None, s: Sequence[Any] = (1.0, 1.0, 1.0, 1.0)) -> np.ndarray:
        p, (x, m, own) = self.parameters if p is None else p, self._split(y)
        return np.concatenate([0.0 * m, s[1] * self.force(x, u, p), 0.0 * own])
