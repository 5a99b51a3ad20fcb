"""The noisy gradient oracle with scale parameter (NGOS), the triple (L, Sigma, Z_sigma) of Wang et al. 2024, Def. 2.1, and SVAG."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.losses.base import Loss
from sdetools.noise.base import Draws, Noise, check_draws, is_zero

ROUNDING = 1e-12
"""Size up to which 1 - sigma c counts as 0."""


class NoisyOracle:
    """A stochastic gradient g(x) = grad L(x) + sigma v with v ~ Z(x), E v = 0, Cov v = Sigma(x); Sigma does not depend on sigma.

    A call `oracle(x, z)` returns g(x) for given random numbers z; `sdetools.noise.sample_draws` makes them. An oracle is immutable: `with_sigma`
    returns another.

    Args:
        loss: The loss L, of `sdetools.losses`.
        noise: The noise Z, of `sdetools.noise`.
        sigma: Scale of the noise, 0 or above.

    Raises:
        ValueError: If the dimensions or the orders of the coordinates differ, `sigma` is negative or not finite, the formula of the loss
            jumps, or the noise was made from the data of another loss.

    Attributes:
        loss: The loss L.
        noise: The noise Z.
        sigma: Scale of the noise.
        dim: Number of coordinates.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
        >>> oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2), sigma=10.0)
        >>> oracle(np.array([2.0, 1.0]), np.array([0.1, 0.0]))
        array([2., 2.])
        >>> oracle.covariance(np.array([2.0, 1.0]))
        array([[100.,   0.],
               [  0., 100.]])
    """

    def __init__(self, loss: Loss, noise: Noise, sigma: float = 1.0) -> None:
        if not isinstance(loss, Loss):
            raise ValueError(
                f"`loss` must be a loss of `sdetools.losses`; got {_check.shown(loss)}. Try losses.from_expression('x**2 / 2')."
            )
        if loss.jump:
            raise ValueError(
                f"`loss` must be continuous, for its gradient leaves jumps out; got {loss.jump} in the loss {_check.shown(loss.label)}. "
                "Write max, abs or a continuous Piecewise, or pass it as observe=."
            )
        if not isinstance(noise, Noise):
            raise ValueError(
                f"`noise` must be a noise of `sdetools.noise`; got {_check.shown(noise)}. Try `noise.gaussian(dim={loss.dim})`."
            )
        if loss.dim != noise.dim:
            raise ValueError(
                f"`noise` must have the dimension of the loss, {loss.dim}; got a noise of dimension {noise.dim}. "
                f"Make it with dim={loss.dim}."
            )
        if noise.names is not None and set(noise.names) == set(loss.names) and noise.names != tuple(loss.names):
            raise ValueError(
                f"`noise` must name the coordinates in the order of the loss, {' '.join(loss.names)}; "
                f"got {' '.join(noise.names)}. "
                f"Write variables={' '.join(loss.names)!r} in both."
            )
        if noise.loss is not None and noise.loss.identity != loss.identity:
            raise ValueError(
                f"`noise` must be made from the loss of the oracle; got {noise.label} made from another loss. "
                "Give the same loss object to both."
            )
        self.loss, self.noise = loss, noise
        self.sigma = _check.number("sigma", sigma, "be a finite number, 0 or above")
        if self.sigma < 0:
            raise ValueError(
                f"`sigma` must be a finite number, 0 or above; got sigma={sigma!r}. For the noise -v flip the sign of its root."
            )
        self.dim = noise.dim

    @property
    def draws(self) -> tuple[Draws, ...]:
        """The random numbers that one gradient consumes, those of the noise: a tuple of `Normal(n)`, `Sign(n)` and `Uniform(n)`."""
        return self.noise.draws

    @property
    def parameters(self) -> np.ndarray:
        """The numbers of the oracle, an array `(n,)`: [sigma, *loss.parameters, *noise.parameters]."""
        return np.concatenate([[self.sigma], self.loss.parameters, self.noise.parameters])

    def __call__(self, x: Any, z: Any, p: Any = None, sigma: Any = None) -> np.ndarray:
        """Return the stochastic gradient g(x) in the shape of `x`.

        Args:
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value `(dim,)`.
            z: Draws with the paths of `x`, `(n_draws,)` or `(n_draws, paths)`, in the order of `draws`.
            p: Numbers that replace `parameters`, in the same order (traced values while a kernel is generated); None for `parameters`.
            sigma: A scale that replaces that of the oracle and of `p`; None for no replacement.

        Raises:
            ValueError: If `z` does not have one row for each draw.
        """
        check_draws(z, self.noise)
        own, loss, noise = (self.sigma, None, None) if p is None else self.split(p)
        own, known = (own, self.sigma) if sigma is None else (sigma, sigma)
        return self.noisy(lambda: self.loss.gradient(x, loss), own, x, z, noise, known)

    def noisy(self, gradient: Callable[[], Any], sigma: Any, x: Any, z: Any, p: Any, known: Any) -> Any:
        """Return grad L + sigma v, `(dim,)` or `(dim, paths)`, computed in the cheapest of several equivalent forms; a traced v that is 0 is omitted.

        For noise that samples data, v = raw - c grad L with the batch gradient raw and c = `noise.centred`, this is (1 - sigma c) grad L + sigma
        raw. If the first factor is 0 up to rounding at the `known` sigma (sigma = 1 without SVAG, sqrt(l) with it), the full gradient is not
        computed. If v has `sample_weights`, both terms are one weighted sum over the samples.

        Args:
            gradient: A function without arguments that returns grad L(x); it is called only if the result is needed.
            sigma: The scale, a number or a traced value.
            x: Points, `(dim,)` or `(dim, paths)`, or a traced value.
            z: Draws, `(n_draws,)` or `(n_draws, paths)`, or a traced value.
            p: The numbers of the noise; None for `noise.parameters`.
            known: The scale `sigma` as a float, also where `sigma` is traced; it decides on the form.
        """
        c = self.noise.centred
        if c is None:
            deviation = self.noise.value(x, z, p)
            return gradient() if is_zero(deviation) else gradient() + sigma * deviation
        if abs(1.0 - known * c) <= ROUNDING:
            return sigma * self.noise.raw(x, z, p)
        weights = self.noise.sample_weights(z, p)
        if weights is None:
            return (1.0 - sigma * c) * gradient() + sigma * self.noise.raw(x, z, p)
        own, *labels = (sigma * w for w in weights)
        return self.loss.weighted_gradient(x, own + (1.0 - sigma * c) / self.loss.samples, *labels)  # type: ignore[attr-defined]

    def split(self, p: Any) -> tuple[Any, Any, Any]:
        """Return (sigma, numbers of the loss, numbers of the noise) from one vector `p`, an array or traced value in the order of `parameters`.

        The last two are slices of `p`.
        """
        own = 1 + len(self.loss.parameters)
        return p[0], p[1:own], p[own:]

    def covariance(self, x: Any) -> np.ndarray:
        """Return sigma^2 Sigma(x), the covariance of the stochastic gradient: `(dim, dim)`, or `(dim, dim, paths)` for `x` `(dim, paths)`."""
        return self.sigma**2 * self.noise.covariance(x)

    def with_sigma(self, sigma: float) -> NoisyOracle:
        """Return a new oracle with the same loss and noise and the noise scale `sigma`; ValueError if it is negative or not finite."""
        return NoisyOracle(self.loss, self.noise, sigma)

    def __repr__(self) -> str:
        return f"NoisyOracle({self.loss.label}, {self.noise.label}, sigma={self.sigma:g})"


def svag_weights(l: int) -> tuple[float, float]:
    """Return the weights (r_1, r_2) of SVAG, r_i = (1 + (-1)^i sqrt(2 l - 1)) / 2: their sum is 1, the sum of their squares is l.

    `l` is a positive integer, the factor by which SVAG multiplies the covariance (see `svag`); ValueError for another value.

    Example:
        >>> svag_weights(1), svag_weights(5)
        ((0.0, 1.0), (-1.0, 2.0))
    """
    spread = math.sqrt(2 * _check.count("l", l, hint="Take l = 1 for the oracle itself.") - 1)
    return (1 - spread) / 2, (1 + spread) / 2


class SVAGNoise(Noise):
    """The noise v = (r_1 v_1 + r_2 v_2) / sqrt(l) of SVAG, where v_1 and v_2 are independent copies of a noise, the inner noise.

    The weights are r_i = (1 + (-1)^i sqrt(2 l - 1)) / 2; see `svag`. The rows of the draws are those of v_1, then those of v_2. The covariance
    is that of the inner noise. The third cumulant is multiplied by (r_1^3 + r_2^3) / l^(3/2) = (3 l - 1) / (2 l^(3/2)).

    Args:
        inner: The noise of v_1 and v_2.
        l: The amplification, a positive integer.

    Attributes:
        inner: The noise of v_1 and v_2.
        weights: The pair r_1 / sqrt(l) and r_2 / sqrt(l).
        parameters: [*weights, *inner.parameters], so a sweep over l compiles once.

    Raises:
        ValueError: If `l` is not a positive integer.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.noise.SVAGNoise(st.noise.gaussian(dim=1), l=5)
        >>> noise.value(np.zeros(1), np.array([0.0, np.sqrt(5.0)]))  # r_2 = 2
        array([2.])
    """

    def __init__(self, inner: Noise, l: int) -> None:
        self.inner = inner
        self.weights = tuple(r / math.sqrt(l) for r in svag_weights(l))
        self.dim, self.draws = inner.dim, inner.draws + inner.draws
        self.identity = f"svag[{inner.identity}]"
        self.parameters = np.concatenate([self.weights, inner.parameters])
        self.state_dependent, self.gaussian, self.finite_variance = inner.state_dependent, inner.gaussian, inner.finite_variance
        self.names, self.loss = inner.names, inner.loss
        self.label = f"SVAG (l={l}) of {inner.label}"

    @property
    def latex(self) -> str:  # type: ignore[override]
        """The noise as a formula in LaTeX, without dollar signs."""
        return rf"{self.weights[0]:.4g}\,v_1 + {self.weights[1]:.4g}\,v_2, \quad v_i = {self.inner.latex}"

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return v = (r_1 v_1 + r_2 v_2) / sqrt(l) in the shape of the points `x`, `(dim,)` or `(dim, paths)`.

        The rows of `z` are the draws of v_1, then those of v_2. `p` is [*weights, *numbers of the inner noise], or None for `parameters`.
        """
        return self._mixed(self.inner.value, x, z, p)

    def raw(self, x: Any, z: Any, p: Any = None) -> Any:
        """Return (r_1 raw_1 + r_2 raw_2) / sqrt(l) for the batch gradients raw_i of both copies, in the shape of the points `x`.

        The rows of `z` are the draws of the first copy, then those of the second. `p` is [*weights, *numbers of the inner noise], or None for
        `parameters`. NotImplementedError if the inner noise samples no data.
        """
        return self._mixed(self.inner.raw, x, z, p)

    def sample_weights(self, z: Any, p: Any = None) -> tuple[Any, ...] | None:
        """Return (r_1 w_1 + r_2 w_2) / sqrt(l) for the sample weights w_i of both copies, a tuple of arrays `(n,)` or `(n, paths)`.

        Sample weights are the factors of the n samples' gradients in `raw` (see `Noise.sample_weights`); the result is None if the inner noise
        has none. `z` are the draws of both copies, and `p` is [*weights, *numbers of the inner noise], or None for `parameters`.
        """
        p, half = self.parameters if p is None else p, self.inner.n_draws
        both = [self.inner.sample_weights(part, p[2:]) for part in (z[:half], z[half:])]
        return None if None in both else tuple(p[0] * a + p[1] * b for a, b in zip(*both))

    def _mixed(self, function: Callable[..., Any], x: Any, z: Any, p: Any) -> Any:
        """Return p[0] f(x, z_1) + p[1] f(x, z_2) for `function` f and the two halves z_1 and z_2 of the draws."""
        p = self.parameters if p is None else p
        half = self.inner.n_draws
        first, second = (function(x, part, p[2:]) for part in (z[:half], z[half:]))
        return first if is_zero(first) else p[0] * first + p[1] * second

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return the covariance Sigma(x) of the inner noise at points `x`, `(dim, dim)` or `(dim, dim, paths)`.

        `p` are numbers in the order of `parameters`, or None for these; the weights among them are not used.
        """
        return self.inner.covariance(x, None if p is None else p[2:])

    def as_gaussian(self) -> Noise:
        """Return the Gaussian noise with the same covariance, that of the inner noise; ValueError if no root of it is known."""
        return self.inner.as_gaussian()

    @property
    def centred(self) -> float | None:  # type: ignore[override]
        """The number c in v = raw - c grad L, (r_1 + r_2) / sqrt(l) times that of the inner noise; None if that samples no data."""
        return None if self.inner.centred is None else sum(self.weights) * self.inner.centred


def svag(oracle: NoisyOracle, l: int) -> NoisyOracle:
    """Return the stochastic variance amplified gradient (SVAG) of an oracle: ghat = r_1 g_1 + r_2 g_2 with two independent gradients g_i.

    The weights are r_i = (1 + (-1)^i sqrt(2 l - 1)) / 2, so r_1 + r_2 = 1 and r_1^2 + r_2^2 = l: the mean is unchanged, and the covariance
    is multiplied by l exactly. In the result sigma is multiplied by sqrt(l), and Sigma is unchanged. Run it with the learning rate eta / l
    for l times as many steps: in the limit l -> inf it follows the SDE of the oracle. At l = 1 it is `oracle` with the second draw. Source:
    Wang et al. 2024, Def. 5.1; Z. Li, S. Malladi, S. Arora, NeurIPS 2021.

    Args:
        oracle: The oracle of g_1 and g_2.
        l: The amplification of the covariance, a positive integer.

    Returns:
        A new oracle with the loss of `oracle`, `SVAGNoise(oracle.noise, l)` and the scale sigma sqrt(l).

    Raises:
        ValueError: If `l` is not a positive integer, or `oracle` is no oracle.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2 / 2", variables="x"), st.noise.gaussian(dim=1))
        >>> st.svag(oracle, 4).covariance(np.array([1.0])), st.svag(oracle, 4).sigma
        (array([[4.]]), 2.0)
    """
    if not isinstance(oracle, NoisyOracle):
        raise ValueError(f"`oracle` must be a noisy oracle; got {_check.shown(oracle)}. Make it by st.NoisyOracle(loss, noise).")
    l = _check.count("l", l, hint="Take l = 1 for the oracle itself.")
    return NoisyOracle(oracle.loss, SVAGNoise(oracle.noise, l), oracle.sigma * math.sqrt(l))
