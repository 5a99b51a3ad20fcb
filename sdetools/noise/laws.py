"""Noises v = R(x) u with independent entries u of one law (mean 0, variance 1) and a root R of the covariance, Cov v = R R^T.

The constructors share the arguments of `gaussian`, return a `RootedNoise`, and raise ValueError if both `covariance` and `root` are given,
if the covariance is not positive semidefinite, or if an argument has a wrong form. R is `(dim, rank)` and u has `rank` entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import components, select
from sdetools.graph.value import Value, value
from sdetools.noise.base import Draws, Noise, Normal, Sign, Uniform, over_paths
from sdetools.noise.roots import ConstantRoot, Root, make_root


@dataclass(frozen=True)
class EntryLaw:
    """The law of one entry of u in a noise v = R(x) u, with mean 0 and variance 1, and the function that makes entries from draws.

    Attributes:
        name: Name of the law, such as "uniform".
        draw: The class of the draws of which entries are made, `Normal`, `Sign` or `Uniform`.
        entry: `entry(z, p)` returns `rank` entries, `(rank,)` or `(rank, paths)`, from a sequence `z` of `per_entry` arrays of draws of that
            shape; `p` are the `numbers`.
        skewness: Third moment of an entry, NaN if it does not exist.
        latex: The law as a formula in LaTeX.
        per_entry: Number of draws for one entry.
        numbers: Parameters of the law, a tuple of floats.
    """

    name: str
    draw: type
    entry: Callable[[Sequence[Any], Any], Any]
    skewness: float
    latex: str
    per_entry: int = 1
    numbers: tuple[float, ...] = ()

    def entries(self, z: Any, rank: int, p: Any) -> Any:
        """Return `rank` independent entries, `(rank,)` or `(rank, paths)`; entry i is made of the rows i, rank + i, ... of `z`.

        The draws `z` are `(per_entry * rank,)` or `(per_entry * rank, paths)`, and `p` are values for the `numbers` of the law, in their order.
        """
        return self.entry([z[rank * k : rank * (k + 1)] for k in range(self.per_entry)], p)


def _own(z: Sequence[Any], p: Any) -> Any:
    """Return the draws z[0], `(rank,)` or `(rank, paths)`, themselves as entries."""
    return z[0]


def _uniform(z: Sequence[Any], p: Any) -> Any:
    """Return sqrt 12 (z[0] - 1/2), `(rank,)` or `(rank, paths)`: uniform draws mapped to (-sqrt 3, sqrt 3)."""
    return math.sqrt(12.0) * (z[0] - 0.5)


def _three_point(z: Sequence[Any], p: Any) -> Any:
    """Return -sqrt 3, 0 or sqrt 3, with probability 1/6, 2/3 and 1/6, for uniform draws z[0], `(rank,)` or `(rank, paths)`."""
    return select(z[0] < 1 / 6, -math.sqrt(3.0), select(z[0] < 5 / 6, 0.0, math.sqrt(3.0)))


def _centred_exponential(z: Sequence[Any], p: Any) -> Any:
    """Return -log z[0] - 1, `(rank,)` or `(rank, paths)`: uniform draws mapped to Exp(1) - 1."""
    return -np.log(z[0]) - 1.0


def _two_point(z: Sequence[Any], p: Any) -> Any:
    """Return p[1], with probability p[0], or p[2], for uniform draws z[0], `(rank,)` or `(rank, paths)`."""
    return select(z[0] < p[0], p[1], p[2])


def _student_t(z: Sequence[Any], p: Any) -> Any:
    """Return entries of the t-law scaled to variance 1 from uniform draws z[0] and z[1], each `(rank,)` or `(rank, paths)`; p = (nu - 2, -2 / nu)."""
    return np.sqrt(p[0] * np.expm1(p[1] * np.log(z[0]))) * np.cos(2 * math.pi * z[1])


NORMAL = EntryLaw("gaussian", Normal, _own, 0.0, r"\mathcal N(0, 1)")
SIGN = EntryLaw("rademacher", Sign, _own, 0.0, r"\pm 1")
UNIFORM = EntryLaw("uniform", Uniform, _uniform, 0.0, r"\mathcal U(-\sqrt 3, \sqrt 3)")
THREE_POINT = EntryLaw("three_point", Uniform, _three_point, 0.0, r"\pm\sqrt 3 \text{ w.p. } 1/6, 0 \text{ w.p. } 2/3")
CENTRED_EXPONENTIAL = EntryLaw("centred_exponential", Uniform, _centred_exponential, 2.0, r"\mathrm{Exp}(1) - 1")
TWO_POINT = EntryLaw("two_point", Uniform, _two_point, math.nan, r"\text{two-point}")
STUDENT_T = EntryLaw("student_t", Uniform, _student_t, math.nan, r"\text{scaled } t", per_entry=2)


class RootedNoise(Noise):
    """A noise v = R(x) u with independent entries u_k of one law; Cov v = R(x) R(x)^T. `gaussian`, `rademacher`, ... make it.

    Attributes:
        law: The law of u_k, an `EntryLaw`; its `entries` makes u of the draws.
        root: R(x), `(dim, rank)`, as a `Root`; the diffusion coefficient of an SDE is read from it.
        parameters: The numbers of the law, then those of the root.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.noise.rademacher(root=[[1.0], [2.0]])
        >>> noise.value(np.zeros(2), np.array([-1.0]))
        array([-1., -2.])
        >>> noise.covariance(np.zeros(2))
        array([[1., 2.],
               [2., 4.]])
    """

    def __init__(self, law: EntryLaw, root: Root) -> None:
        self.law, self.root = law, root
        self.dim = root.dim
        self.draws: tuple[Draws, ...] = (law.draw(law.per_entry * root.rank),)
        self.parameters = np.concatenate([np.array(law.numbers, dtype=float), root.parameters])
        self.parameters.setflags(write=False)
        self.identity = f"{law.name}[{root.identity}]"
        self.state_dependent = not root.constant
        self.gaussian = law is NORMAL or law == NORMAL
        self.names = root.names
        self.label = f"{law.name} noise in {self.dim} coordinate{'s' if self.dim != 1 else ''}"

    @property
    def latex(self) -> str:  # type: ignore[override]
        """The noise as a formula in LaTeX, without dollar signs."""
        return rf"{self.root.latex}u, \quad u_k \sim {self.law.latex}"

    @property
    def skewness(self) -> float:
        """The third moment of one entry of u, NaN if it does not exist; the low-skewness condition of SDE approximations bounds it."""
        return self.law.skewness

    def value(self, x: Any, z: Any, p: Any = None) -> np.ndarray:
        """Return v = R(x) u in the shape of the points `x`, `(dim,)` or `(dim, paths)`, for the entries u made of the draws `z`.

        The draws are `(n_draws,)`, or `(n_draws, paths)` for many points. `p` are numbers in place of `parameters`, in that order, or None.
        """
        p = self.parameters if p is None else p
        own = len(self.law.numbers)
        return components(self.root.times(self.law.entries(z, self.root.rank, p[:own]), x, p[own:]), x)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) = R(x) R(x)^T: `(dim, dim)`, or `(dim, dim, paths)` for points `x` `(dim, paths)`.

        `p` are numbers in place of `parameters`, in that order, or None. The result is a read-only view if R is constant and `p` None.
        """
        if isinstance(self.root, ConstantRoot) and p is None:
            matrix = self.root.matrix()
            return over_paths(matrix @ matrix.T, x)
        return self.root.covariance(x, (self.parameters if p is None else p)[len(self.law.numbers) :])

    def as_gaussian(self) -> RootedNoise:
        """Return the Gaussian noise with the same root R; this noise itself if it is Gaussian."""
        return self if self.gaussian else RootedNoise(NORMAL, self.root)


class NoNoise(Noise):
    """The noise v = 0 of full-batch gradients in `dim` coordinates, without draws; `none` makes it. ValueError if `dim` is no positive integer."""

    state_dependent = False
    gaussian = True
    latex = "0"
    label = "no noise"

    def __init__(self, dim: int) -> None:
        self.dim = _check.count("dim", dim)
        self.draws: tuple[Draws, ...] = ()
        self.identity = f"none({self.dim})"

    def value(self, x: Any, z: Any = (), p: Any = None) -> Any:
        """Return v = 0 in the shape of `x`; `z` and `p` are not used."""
        return value(np.zeros(self.dim)) if isinstance(x, Value) else np.zeros_like(x, dtype=float)

    def covariance(self, x: Any, p: Any = None) -> np.ndarray:
        """Return Sigma(x) = 0, a read-only `(dim, dim)` for `x` `(dim,)` or `(dim, dim, paths)` for `(dim, paths)`; `p` is not used."""
        return over_paths(np.zeros((self.dim, self.dim)), x)

    def as_gaussian(self) -> NoNoise:
        """Return this noise, whose covariance is 0."""
        return self


def gaussian(
    dim: int | None = None,
    covariance: Any = None,
    root: Any = None,
    *,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return Gaussian noise v = R(x) xi, xi ~ N(0, I), the noise of SDEs driven by Brownian motion; Cov v = R R^T.

    Args:
        dim: Number of coordinates; optional if `covariance` or `root` determines it, and 1 for a number.
        covariance: Cov v, a number, a diagonal `(dim,)` or a matrix, possibly singular; R is its symmetric root. By default the identity.
        root: R instead of `covariance`: numbers (a number, a diagonal or a `(dim, r)` matrix), `dim` rows of r expressions, or a function
            `root(x)` that returns `dim` rows of r numbers and needs `dim` or `at`. One evaluation consumes r normal draws, xi.
        variables: Names of the coordinates in the expressions of `root`, "x y" or a list; by default x0, x1, ... or alphabetical.
        parameters: Constants of these expressions by name.
        at: A point `(dim,)` where a state-dependent root is defined, for its validation; by default one of three fixed points.

    Raises:
        ValueError: If both `covariance` and `root` are given or neither of them nor `dim`, the covariance is not positive semidefinite, or
            an argument has a wrong form.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x")
        >>> noise.covariance(np.array([0.0])), noise.draws
        (array([[1.]]), (Normal(n=1),))
        >>> st.noise.gaussian(covariance=[[4.0, 0.0], [0.0, 0.0]]).value(np.zeros(2), np.array([1.0, 1.0]))
        array([2., 0.])
    """
    return RootedNoise(NORMAL, make_root(dim, covariance, root, variables, parameters, at))


def rademacher(
    dim: int | None = None,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return Rademacher noise v = R(x) s with independent random signs s_k, -1 or 1 with probability 1/2; Cov v = R R^T.

    R `(dim, r)` is `root` (a number, diagonal, matrix, rows of expressions, or function of x), the symmetric root of `covariance`, or the identity
    in `dim` coordinates. `variables` ("x y") and `parameters` (a mapping) are the coordinates and constants of expressions, and `root` is
    validated at the point `at`; see `gaussian` for details and ValueErrors. The draws are r signs, the entries s.
    The law is symmetric and bounded, and 64 draws need one random 64-bit word.

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.rademacher(2).value(np.zeros(2), np.array([1.0, -1.0]))
        array([ 1., -1.])
    """
    return RootedNoise(SIGN, make_root(dim, covariance, root, variables, parameters, at))


def uniform(
    dim: int | None = None,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return the noise v = R(x) u with independent entries of u, uniform on (-sqrt 3, sqrt 3); Cov v = R R^T.

    R `(dim, r)` is `root` (a number, diagonal, matrix, rows of expressions, or function of x), the symmetric root of `covariance`, or the identity
    in `dim` coordinates. `variables` ("x y") and `parameters` (a mapping) are the coordinates and constants of expressions, and `root` is
    validated at the point `at`; see `gaussian` for details and ValueErrors. The draws are r uniforms a in (0, 1), and u = sqrt 12 (a - 1/2).

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.uniform(1).value(np.zeros((1, 3)), np.array([[0.0, 0.5, 1.0]])).round(3)
        array([[-1.732,  0.   ,  1.732]])
    """
    return RootedNoise(UNIFORM, make_root(dim, covariance, root, variables, parameters, at))


def three_point(
    dim: int | None = None,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return the noise v = R(x) u with independent entries of u: sqrt 3 and -sqrt 3 with probability 1/6 each, else 0; Cov v = R R^T.

    R `(dim, r)` is `root` (a number, diagonal, matrix, rows of expressions, or function of x), the symmetric root of `covariance`, or the identity
    in `dim` coordinates. `variables` ("x y") and `parameters` (a mapping) are the coordinates and constants of expressions, and `root` is
    validated at the point `at`; see `gaussian` for details and ValueErrors. The draws are r uniforms in (0, 1).
    The moments of an entry up to the fifth are those of N(0, 1).

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.three_point(1).value(np.zeros((1, 3)), np.array([[0.1, 0.5, 0.9]])).round(3).tolist()
        [[-1.732, 0.0, 1.732]]
    """
    return RootedNoise(THREE_POINT, make_root(dim, covariance, root, variables, parameters, at))


def centred_exponential(
    dim: int | None = None,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return the noise v = R(x) u with independent entries of u, distributed as Exp(1) - 1; Cov v = R R^T.

    R `(dim, r)` is `root` (a number, diagonal, matrix, rows of expressions, or function of x), the symmetric root of `covariance`, or the identity
    in `dim` coordinates. `variables` ("x y") and `parameters` (a mapping) are the coordinates and constants of expressions, and `root` is
    validated at the point `at`; see `gaussian` for details and ValueErrors. The draws are r uniforms a in (0, 1), and u = -log a - 1.
    The third moment of an entry is 2, which violates the low-skewness condition of Malladi et al. (2022).

    Example:
        >>> import sdetools as st
        >>> st.noise.centred_exponential(1).skewness
        2.0
    """
    return RootedNoise(CENTRED_EXPONENTIAL, make_root(dim, covariance, root, variables, parameters, at))


def two_point(
    dim: int | None = None,
    probability: float = 0.1,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return the noise v = R(x) u with independent entries of u: sqrt(q/p) with probability p and -sqrt(p/q) with probability q = 1 - p.

    Cov v = R R^T. The third moment of an entry is (1 - 2p)/sqrt(p q).

    Args:
        dim: Number of coordinates; optional if `covariance` or `root` determines it.
        probability: p, in (0, 1).
        root: R `(dim, r)`: numbers, rows of expressions, or a function of x; see `gaussian`. By default the identity. The draws are r uniforms.
        covariance: Cov v instead of `root`: a number, a diagonal or a matrix.
        variables: Names of the coordinates in the expressions of `root`.
        parameters: Constants of these expressions by name.
        at: A point where a state-dependent root is defined, for its validation.

    Raises:
        ValueError: If `probability` is not in (0, 1), and as in `gaussian`.

    Example:
        >>> import numpy as np, sdetools as st
        >>> noise = st.noise.two_point(1, probability=0.2)
        >>> noise.value(np.zeros((1, 2)), np.array([[0.1, 0.9]])), round(noise.skewness, 12)
        (array([[ 2. , -0.5]]), 1.5)
    """
    p = _check.number("probability", probability, "lie in (0, 1)")
    if not 0 < p < 1:
        raise ValueError(f"`probability` must lie in (0, 1); got probability={probability!r}. At 0.5 the law is `rademacher`.")
    spread = math.sqrt(p * (1 - p))
    law = replace(TWO_POINT, numbers=(p, (1 - p) / spread, -p / spread), skewness=(1 - 2 * p) / spread)
    return RootedNoise(law, make_root(dim, covariance, root, variables, parameters, at))


def student_t(
    dim: int | None = None,
    degrees: float = 5.0,
    root: Any = None,
    *,
    covariance: Any = None,
    variables: str | Sequence[str] | None = None,
    parameters: Mapping[str, float] | None = None,
    at: Any = None,
) -> RootedNoise:
    """Return the noise v = R(x) u with independent entries of u from Student's t-law with nu degrees of freedom, scaled to variance 1.

    Cov v = R R^T. An entry is sqrt((nu - 2) (a^(-2/nu) - 1)) cos(2 pi b) for uniform draws a, b. Moments of order nu and above do not exist.
    Source: R. Bailey, Mathematics of Computation 62 (1994).

    Args:
        dim: Number of coordinates; optional if `covariance` or `root` determines it.
        degrees: nu, above 2.
        root: R `(dim, r)`: numbers, rows of expressions, or a function of x; see `gaussian`. By default the identity. The draws are all r a, then b.
        covariance: Cov v instead of `root`: a number, a diagonal or a matrix.
        variables: Names of the coordinates in the expressions of `root`.
        parameters: Constants of these expressions by name.
        at: A point where a state-dependent root is defined, for its validation.

    Raises:
        ValueError: If `degrees` is not above 2, and as in `gaussian`.

    Example:
        >>> import numpy as np, sdetools as st
        >>> st.noise.student_t(1, degrees=4).value(np.zeros(1), np.array([0.25, 1.0])).round(12)
        array([1.41421356])
    """
    nu = _check.number("degrees", degrees, "be a number above 2")
    if nu <= 2:
        raise ValueError(f"`degrees` must be a number above 2; got degrees={degrees!r}. At 2 and below the variance is infinite.")
    law = replace(STUDENT_T, numbers=(nu - 2, -2 / nu), skewness=0.0 if nu > 3 else math.nan)
    return RootedNoise(law, make_root(dim, covariance, root, variables, parameters, at))


def none(dim: int) -> NoNoise:
    """Return the noise v = 0 in `dim` coordinates, for an oracle of full-batch gradients; ValueError if `dim` is not a positive integer.

    Example:
        >>> import sdetools as st
        >>> st.NoisyOracle(st.losses.hyperbola(), st.noise.none(2))([2.0, 1.0], [])
        array([1., 2.])
    """
    return NoNoise(dim)
