r"""Means over the direction and length of a normal vector, as functions of SymPy: 1F1 and incomplete gamma functions of rho.

For g ~ N(m, s^2 I) in n coordinates let X_n be |g|^2 / (2 s^2), a Poisson(rho) mixture of Gamma(n/2 + j) laws, rho = |m|^2 / (2 s^2), and R_kn = E
psi(X_n)^k with psi = X^(-1/2) for g/|g|, and psi = min(1, (c/X)^(1/2)), c = C^2/(2 s^2), for g min(1, C/|g|). Then

    R_kn(0, rho) = Gamma((n-k)/2) / Gamma(n/2) 1F1(k/2; n/2; -rho)
    R_kn(c, rho) = sum_j e^-rho rho^j / j! [P(n/2 + j, c) + c^(k/2) Gamma(n/2 + j - k/2, c) / Gamma(n/2 + j)],      d R_kn / d rho = R_k,n+2 - R_kn,

with the regularised lower incomplete gamma function P and the upper one Gamma(., c). R_kn(0, rho) is the mean for g/|g|, and not the limit c -> 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

NAME = "RadialMean"
"""The name of the function in formulas."""


@lru_cache(maxsize=1)
def radial_mean() -> Any:
    """Return the SymPy function RadialMean(k, n, c, rho) = R_kn(c, rho), with its derivative in rho and its numerical values.

    k is the power of psi, n the number of coordinates, rho = |m|^2 / (2 s^2), and c = C^2 / (2 s^2), or 0 for the normalised vector, psi = X^(-1/2).

    Example:
        >>> from math import erf
        >>> R = radial_mean()
        >>> round(float(R(1, 3, 0, 2)), 12), round(erf(2**0.5) / 2**0.5, 12)  # E X^(-1/2) = erf(sqrt(rho)) / sqrt(rho)
        (0.67493323604, 0.67493323604)
    """
    import mpmath
    import sympy

    class RadialMean(sympy.Function):
        nargs = 4

        def fdiff(self, argindex: int = 4) -> Any:
            k, n, c, rho = self.args
            if argindex != 4:
                raise sympy.core.function.ArgumentIndexError(self, argindex)
            return RadialMean(k, n + 2, c, rho) - RadialMean(k, n, c, rho)

        def _eval_evalf(self, prec: int) -> Any:
            values = [a._eval_evalf(prec) if not a.is_Number else a for a in self.args]
            if not all(a is not None and a.is_Number for a in values):
                return None
            with mpmath.workprec(prec + 20):
                k, n, c, rho = (mpmath.mpf(sympy.Float(a, mpmath.mp.dps)._mpf_) for a in values)
                return sympy.Float(_value(k, n, c, rho), precision=prec)

    return RadialMean


def _value(k: Any, n: Any, c: Any, rho: Any) -> Any:
    """Return R_kn(c, rho) for numbers of mpmath, in its current precision; c = 0 stands for the normalised vector."""
    import mpmath

    if c == 0:
        return mpmath.gamma((n - k) / 2) / mpmath.gamma(n / 2) * mpmath.hyp1f1(k / 2, n / 2, -rho)
    total, weight, j = mpmath.mpf(0), mpmath.exp(-rho), 0
    while j <= rho or weight > mpmath.eps:
        own = n / 2 + j
        inside = mpmath.gammainc(own, 0, c, regularized=True)
        outside = c ** (k / 2) * mpmath.gammainc(own - k / 2, c) / mpmath.gamma(own)
        total += weight * (inside + outside)
        j += 1
        weight *= rho / j
    return total


def numeric_radial_mean(k: float, n: float, c: float, rho: Any) -> np.ndarray:
    """Return RadialMean(k, n, c, rho) = R_kn(c, rho) of the module at an array `rho` of any shape, in double precision, for code that `lambdify` makes."""
    return np.vectorize(lambda one: float(radial_mean()(int(k), int(n), c, float(one))), otypes=[float])(rho)


def without_radial(text: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return a formula's text with a name in place of each RadialMean(...), and the texts of the four arguments by name, innermost first.

    Example:
        >>> without_radial("-x*RadialMean(1, 4, 0, (x**2 + y**2)/2)")
        ('-x*radial0', {'radial0': ('1', '4', '0', '(x**2 + y**2)/2')})
    """
    found: dict[str, tuple[str, ...]] = {}
    while (at := text.rfind(f"{NAME}(")) >= 0:
        start = end = at + len(NAME) + 1
        depth = 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        name = f"radial{len(found)}"
        found[name] = tuple(part.strip() for part in text[start : end - 1].split(",", maxsplit=3))
        text = text[:at] + name + text[end:]
    return text, found
