"""Symmetric alpha-stable noise: for alpha < 2 heavy tails P(|v_k| > r) ~ r^-alpha without a variance, so that no SDE of Brownian motion fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.noise.base import Uniform
from sdetools.noise.laws import EntryLaw, RootedNoise, gaussian
from sdetools.noise.roots import make_root


def _alpha_stable(z: Sequence[Any], p: Any) -> Any:
    """Return entries with the characteristic function exp(-|t|^alpha), `(rank,)` or `(rank, paths)`, from uniform draws z[0] and z[1] of that shape.

    p = (alpha, (1 - alpha) / alpha, 1 / alpha); see `alpha_stable` for the formula. The angle is V = pi (z[0] - 1/2);
    1/2 - |z[0] - 1/2| is exact, so cos V is accurate in the tails.
    """
    share = z[0] - 0.5
    angle, cosine = math.pi * share, np.sin(math.pi * (0.5 - abs(share)))
    size = p[1] * (np.log(np.cos((1 - p[0]) * angle)) - np.log(-np.log(z[1]))) - p[2] * np.log(cosine)
    return np.sin(p[0] * angle) * np.exp(size)


ALPHA_STABLE = EntryLaw(
    "alpha_stable", Uniform, _alpha_stable, math.nan, r"S_\alpha, \quad \mathbb E e^{i t u_k} = e^{-|t|^\alpha}", per_entry=2
)


class StableNoise(RootedNoise):
    """The noise v = u with `dim` independent symmetric alpha-stable entries u_k, E exp(i t u_k) = exp(-|t|^alpha); `alpha_stable` makes it.

    One evaluation consumes 2 dim uniform draws. At alpha < 2 there is no variance, so `covariance` and `as_gaussian` raise ValueError.

    Attributes:
        law: The law of the entries, an `EntryLaw` whose `numbers` are (alpha, (1 - alpha) / alpha, 1 / alpha).
        root: The identity, as a `Root`.

    Example:
        >>> import sdetools as st
        >>> noise = st.noise.alpha_stable(1.5, dim=2)
        >>> noise.draws, noise.finite_variance
        ((Uniform(n=4),), False)
    """

    @property
    def finite_variance(self) -> bool:  # type: ignore[override]
        """Whether the entries have a variance: only at alpha = 2, where it is 2."""
        return bool(self.law.numbers[0] == 2)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return 2 I at alpha = 2, `(dim, dim)`, or `(dim, dim, paths)` for points `x` `(dim, paths)`; `p` is None or in the order of `parameters`.

        ValueError at any other alpha, since the variance is infinite.
        """
        self._refuse_infinite_variance("covariance")
        return 2.0 * super().covariance(x, p)

    def as_gaussian(self) -> RootedNoise:
        """Return Gaussian noise with the covariance 2 I at alpha = 2; ValueError at any other alpha, since the variance is infinite."""
        self._refuse_infinite_variance("as_gaussian")
        return gaussian(self.dim, covariance=2.0)

    def _refuse_infinite_variance(self, name: str) -> None:
        if not self.finite_variance:
            raise ValueError(
                f"`{name}` must be that of a noise with a variance; that of alpha-stable noise is infinite for alpha = {self.law.numbers[0]:g}. "
                "Simulate it, observe bounded functions such as cos(x), or take alpha = 2."
            )


def alpha_stable(alpha: float, dim: int) -> StableNoise:
    """Return noise with independent symmetric alpha-stable entries v_k, E exp(i t v_k) = exp(-|t|^alpha); `sigma` of the oracle is its scale.

    alpha = 2 is N(0, 2), alpha = 1 the Cauchy law. Below 2 there is no variance, and no mean at 1 and below, so that means of unbounded
    observables and their intervals may not exist: observe for example cos(x). An entry is sin(alpha V) (cos V)^(-1/alpha) (cos((1 - alpha) V) /
    E)^((1 - alpha)/alpha), V uniform in (-pi/2, pi/2) and E ~ Exp(1), from two uniform draws. Source: Chambers, Mallows & Stuck, A method for
    simulating stable random variables, JASA 71 (1976).

    Args:
        alpha: The index of stability in (0, 2].
        dim: Number of coordinates, a positive integer.

    Returns:
        The noise; its draws are `dim` uniforms for the angles V, then `dim` uniforms a for E = -log a.

    Raises:
        ValueError: If `alpha` lies outside (0, 2], or `dim` is not a positive integer.

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.alpha_stable(1.0, dim=1).value(np.zeros(1), np.array([0.75, 0.5])).round(12)
        array([1.])
    """
    index = _check.number("alpha", alpha, "lie in (0, 2]")
    if not 0 < index <= 2:
        raise ValueError(f"`alpha` must lie in (0, 2]; got alpha={alpha!r}. At 2 the noise is Gaussian with variance 2.")
    law = replace(ALPHA_STABLE, numbers=(index, (1 - index) / index, 1 / index), skewness=0.0 if index == 2 else math.nan)
    return StableNoise(law, make_root(dim, None, None, None, None, None))
