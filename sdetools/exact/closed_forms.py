"""Closed forms of section 3.1 of the paper, the stationary variance on a quadratic loss, and local orders of convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdetools import _check


@dataclass(frozen=True)
class Warmup:
    """The four variances of one coordinate that `warmup` returns: of a single step and of the endpoint after k steps, under SGD and SGDM.

    Attributes:
        one_step_sgd: The variance of one step of SGD.
        one_step_sgdm: The variance of one step of SGDM.
        endpoint_sgd: The variance of the endpoint of SGD.
        endpoint_sgdm: The variance of the endpoint of SGDM.
    """

    one_step_sgd: float
    one_step_sgdm: float
    endpoint_sgd: float
    endpoint_sgdm: float


def warmup(eta: float, beta: float, steps: int) -> Warmup:
    """Return the variances of the example in section 3.1 of the paper, in which single steps and endpoints behave differently.

    The gradients are g_k ~ N(c, I), independent of x; z are the iterates of SGD and x those of SGDM, with m_0 ~ N(c, (1 - beta)/(1 + beta) I)
    and z_0 = x_0. The variances are those of one coordinate, with k = `steps`:

        one step:  Var(z' - z) = eta^2,    Var(x' - x) = eta^2 (1 - beta)/(1 + beta)
        endpoint:  Var z_k = k eta^2,      Var x_k = k eta^2 - 2 beta eta^2 (1 - beta^k)/(1 - beta^2)

    For beta > 0 a step of SGDM has a smaller variance. The variances of the endpoints differ by at most 2 beta eta^2 / (1 - beta^2), however
    large k is, because the steps of SGDM are correlated.

    Args:
        eta: The learning rate, positive.
        beta: The momentum coefficient in [0, 1).
        steps: The number of steps k >= 0.

    Raises:
        ValueError: If an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.warmup(eta=1.0, beta=0.6, steps=100)
        Warmup(one_step_sgd=1.0, one_step_sgdm=0.25, endpoint_sgd=100.0, endpoint_sgdm=98.125)
    """
    eta, beta, k = _check.positive("eta", eta), _check.momentum("beta", beta), _check.count("steps", steps, least=0)
    square = eta * eta
    return Warmup(
        one_step_sgd=square,
        one_step_sgdm=square * (1 - beta) / (1 + beta),
        endpoint_sgd=k * square,
        endpoint_sgdm=k * square - 2 * beta * square * (1 - beta**k) / (1 - beta * beta),
    )


def stationary_variance(eta: float, beta: float = 0.0, curvature: float = 1.0, noise_variance: float = 1.0) -> float:
    """Return the stationary variance of x under SGDM on L = curvature x^2 / 2, with gradient noise of variance s^2 = `noise_variance`.

        Var = eta s^2 / (lam (2 - eta lam (1 - beta)/(1 + beta))).

    Momentum removes only the part of the variance that is caused by the curvature.

    Args:
        eta: The learning rate, positive.
        beta: The momentum coefficient in [0, 1); 0 for SGD.
        curvature: The curvature lam of the loss, positive.
        noise_variance: The variance s^2 >= 0 of the gradient noise.

    Raises:
        ValueError: If eta lam (1 - beta)/(1 + beta) >= 2, where no stationary law exists, or if an argument lies outside its range.

    Example:
        >>> import sdetools as st
        >>> st.exact.stationary_variance(eta=0.5), st.exact.stationary_variance(eta=0.4, beta=0.6)
        (0.3333333333333333, 0.2105263157894737)
    """
    eta, beta, lam = _check.positive("eta", eta), _check.momentum("beta", beta), _check.positive("curvature", curvature)
    variance = _check.number("noise_variance", noise_variance, "be a number >= 0")
    if variance < 0:
        raise ValueError(f"`noise_variance` must be a number >= 0; got {variance!r}. It is sigma^2 times the variance of a draw.")
    excess = eta * lam * (1 - beta) / (1 + beta)
    if excess >= 2:
        raise ValueError(f"`eta` * curvature * (1 - beta)/(1 + beta) must stay below 2; got {excess!r}. Take a smaller eta.")
    return eta * variance / (lam * (2 - excess))


def local_orders(etas: Sequence[float], errors: Sequence[float]) -> np.ndarray:
    """Return the orders of convergence between neighbouring etas, log(e_i / e_{i+1}) / log(eta_i / eta_{i+1}).

    Unlike a fitted slope, local orders show whether the limiting order has been reached.

    Args:
        etas: At least two positive learning rates or step sizes, each different from its neighbours, shape `(n,)`.
        errors: The positive errors e_i at these etas, shape `(n,)`.

    Returns:
        The orders, shape `(n - 1,)`, in the order of the etas.

    Raises:
        ValueError: If an argument lies outside its range or the lengths differ.

    Example:
        >>> import sdetools as st
        >>> st.exact.local_orders([0.4, 0.2, 0.1], [3.2, 0.8, 0.2])
        array([2., 2.])
    """
    etas, errors = _check.finite("etas", etas), _check.finite("errors", errors)
    if etas.ndim != 1 or etas.shape != errors.shape or len(etas) < 2:
        raise ValueError(
            f"`etas` and `errors` must be two equally long lists of at least 2; got shapes {etas.shape} and {errors.shape}. "
            "An order needs two errors."
        )
    if min(etas.min(), errors.min()) <= 0 or np.any(np.diff(etas) == 0):
        raise ValueError(
            "`etas` and `errors` must be positive and neighbouring etas different; got a zero, a negative or an equal number. "
            "Use absolute values, and remove errors that are 0."
        )
    return np.diff(np.log(errors)) / np.diff(np.log(etas))
