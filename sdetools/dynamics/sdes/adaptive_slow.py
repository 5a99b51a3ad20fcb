r"""The slow flow of a method that divides by the root of a second moment: along the manifold of minimisers, on the clock t = k eta^2.

With v frozen, a step with S = diag(v^{1/2} + eps)^{-1} is SGD in the coordinates S^{-1/2} x, where the loss has the Hessian S^{1/2} H S^{1/2}; so its slow
drift is that of `SlowSDE` there, taken back by S^{1/2}. Averages of gradients (beta1) do not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools.dynamics.sdes.slow import SlowSDE, ascending, packed
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class AdaptiveSlowFlow(SlowSDE):
    """The slow flow of RMSProp and Adam: dX = (lambda_t^2/2) S^{1/2} d2Phi_S[S^{1/2} sigma^2 Sigma S^{1/2}] dt, dv = c (sigma^2 diag Sigma - v) dt.

    X moves on the manifold of minimisers of L, v is the second moment of the gradients. S = diag(v^{1/2} + eps)^{-1}, c = (1 - beta2) / eta^2, lambda_t
    is the learning rate of the plan relative to its eta, and sigma^2 Sigma(X) the covariance of the gradient noise of a step. Phi_S(y) is the limit of the
    gradient flow from y of the loss y -> L(S^{1/2} y), d2Phi_S[M] the sum over i and j of M_ij times its second derivative.

    For label noise of standard deviation b, sigma^2 Sigma = b^2 H on the manifold, with H the Hessian of L. Then
    dX = -(lambda_t^2 b^2/4) Proj_S [S grad sum_i S_i H_ii] dt, with S constant in the gradient and the projection onto the tangent space that is orthogonal
    for the inner product u^T S^{-1} w. With eps = 0 it rests where v = b^2 diag H and sum_i H_ii^{1/2} is stationary along the manifold. One unit of time is
    1/eta^2 steps, so pass `step_time=plan.eta**2` to the optimiser to compare with. Derived; it agrees with the abstract of arXiv:2511.02773.

    The state is `(X, v)`, `2 dim` rows; `simulate` observes X, and takes a start x0 `(dim,)` or `(dim, paths)`, which is projected to Phi(x0).

    Args:
        oracle: The noisy gradient oracle, with noise that vanishes along the manifold, such as label noise.
        plan: The schedule, which gives eta and lambda_t; its momentum does not enter.
        beta2: The decay of the second moment in [0, 1).
        eps: The number that is added to the root, at least 0.
        second_moment: The initial v, a number or a vector `(dim,)`; by default its point of rest sigma^2 diag Sigma(X_0).
        at: A point `(dim,)` whose gradient flow ends on the manifold; the rank of H is determined at that end. By default several random points near 0
            are tried.
        rank: The rank of H on the manifold, `dim` less the dimension of the manifold; by default it is determined from the eigenvalues of H.

    Raises:
        ValueError: If the noise moves along the manifold, an argument lies outside its range, and as `SlowSDE`.

    Example:
        >>> import numpy as np
        >>> import sdetools as st
        >>> loss = st.losses.from_expression("(x**2*y - 1)**2 / 2", variables="x y")
        >>> oracle = st.NoisyOracle(loss, st.noise.gaussian(root=[["2*x*y"], ["x**2"]], variables="x y"), sigma=0.5)
        >>> flow = AdaptiveSlowFlow(oracle, st.schedules.constant(0.01), beta2=1 - 4e-4, at=[1.0, 1.0])
        >>> flow.drift(np.array([1.0, 1.0, 1.0, 0.25])).round(6) + 0.0  # at rest: b = sigma, H = [[4, 2], [2, 1]], v = b^2 diag H
        array([0., 0., 0., 0.])
    """

    parts: ClassVar[tuple[str, ...]] = ("x", "v")
    latex = (
        r"\mathrm d X = \tfrac{\lambda_t^2}{2} S^{1/2}\,\partial^2\Phi_S[S^{1/2}\sigma^2\Sigma S^{1/2}]\,\mathrm d t,\quad "
        r"\mathrm d v = c(\sigma^2\mathrm{diag}\,\Sigma - v)\,\mathrm d t"
    )

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, beta2: float = 0.999, eps: float = 1e-8, second_moment: Any = None,
        at: Any = None, rank: int | None = None,
    ) -> None:  # fmt: skip
        self.beta2, self.eps = _check.momentum("beta2", beta2), _check.non_negative("eps", eps, "It is added to a root.")
        self.second_moment = None
        if second_moment is not None:
            v = np.broadcast_to(_check.finite("second_moment", second_moment), (oracle.dim,))
            if (v < 0).any() or (self.eps == 0 and (v == 0).any()):
                raise ValueError(f"`second_moment` must be positive, or 0 where eps > 0; got {_check.shown(second_moment)}.")
            self.second_moment = np.array(v)
        self.speed = (1 - self.beta2) / plan.eta**2
        super().__init__(oracle, plan, at, rank)
        if self.noise_dim:
            raise ValueError(
                f"`oracle` must have noise that vanishes along the manifold of minimisers, as label noise does; got {oracle.noise.label}. "
                "For SGD use st.SlowSDE, which has a diffusion there."
            )
        self.identity += f" {self.speed!r} {self.eps!r}"

    def start(self, x0: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the tuple (Phi(x0), v), each in the shape of `x0`; see `SlowSDE.start` for the errors."""
        (x,) = super().start(x0)
        v = self._level(x, self.parameters) if self.second_moment is None else self.second_moment
        return x, np.broadcast_to(v.reshape(v.shape + (1,) * (x.ndim - v.ndim)), x.shape).copy()

    def _covariance(self, x: Any, p: Any) -> Any:
        """Return sigma^2 Sigma(x), packed."""
        Sigma = self._covariance_block(x) if self._noise_whole else packed(self.noise.covariance(x, self.numbers(p)[1]), 2)
        return (p[0] * p[0]) * Sigma

    def _level(self, x: Any, p: Any) -> Any:
        """Return sigma^2 diag Sigma(x), in the shape of `x`."""
        Sigma, (i, j) = self._covariance(x, p), ascending(self.dim, 2)
        own = Sigma[np.flatnonzero(i == j)]
        return own if np.ndim(own) == np.ndim(x) else np.broadcast_to(own[:, None], x.shape)

    def drift(self, y: Any, p: Any = None, s: Sequence[Any] = (1.0,)) -> np.ndarray:
        p, (x, v) = self.parameters if p is None else p, (y[: self.dim], y[self.dim :])
        q = (np.sqrt(v) + self.eps) ** -0.5
        (i, j), (a, b, c) = ascending(self.dim, 2), ascending(self.dim, 3)
        pair, triple = q[i] * q[j], q[a] * q[b] * q[c]
        Sigma = self._covariance(x, p)
        Sigma = Sigma if np.ndim(Sigma) == np.ndim(pair) else Sigma[:, None]
        frame = self._frame_block(pair * self._hessian(x, p), pair * Sigma)
        moved = (0.5 * s[0] * s[0]) * q * self._pull(frame, triple * self._third(x, p))
        return np.concatenate([moved, self.speed * (self._level(x, p) - v)])

    def diffusion(self, y: Any, u: Any, p: Any = None, s: Any = (1.0,)) -> np.ndarray:
        return 0.0 * y

    def settle(self, new: Any, p: Any) -> np.ndarray:
        """Return the state with its position retracted to the manifold, as `SlowSDE.settle`."""
        return np.concatenate([super().settle(new[: self.dim], p), new[self.dim :]])
