"""Results of multilevel Monte Carlo: estimates with their remaining bias, levels, rates, and the cost relative to plain Monte Carlo.

Level l = 0 ... L has the step dt_l = dt_0 r^-l; X_l is the solution with that step. Arrays `(levels, observables)` start with level 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools._moved import RenamedAttribute
from sdetools.estimates import Estimate
from sdetools.results.protocol import BY_HAND, Origin, Result
from sdetools.studies.multilevel.levels import decay_order
from sdetools.studies.observables import column

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class MultilevelEstimate(Estimate):
    """An Estimate of E h(X_T) with an estimate of the remaining bias, by which its interval is extended on both sides.

    The standard error is that of all levels together, sqrt(sum V_l / N_l); `n` is the number of paths of all levels.

    Attributes:
        bias: The estimated absolute value of the remaining bias.

    The other attributes are those of `Estimate`.
    """

    bias: float = 0.0

    @property
    def rmse(self) -> float:
        """The root-mean-square error of the estimate, sqrt(stderr^2 + bias^2); NaN if any path diverged."""
        return math.hypot(self.stderr, self.bias)

    def _ends(self, level: float) -> tuple[float, float]:
        """Return the lower and the upper end of the interval at a confidence `level`, each moved outwards by the remaining bias."""
        low, high = super()._ends(level)
        return low - self.bias, high + self.bias


@dataclass(frozen=True, eq=False)
class Multilevel(Result):
    """The estimate of E h(X_T) from levels l = 0 ... L with successively shorter steps dt_l = dt_0 r^-l; the return value of `st.multilevel`.

    X_l is the solution at time T with step dt_l, and d_l = h(X_l) - h(X_{l-1}), d_0 = h(X_0), with both solutions on one Brownian path.

    Attributes:
        names: The names of the observables.
        horizon: The final time T.
        eps: The root-mean-square error that was requested.
        refinement: The ratio r of successive steps.
        weak_order: The weak order by which the bias is estimated.
        dts: The steps dt_l, `(levels,)`, in descending order.
        paths: The numbers of paths N_l, integers `(levels,)`.
        steps: The numbers C_l of steps of a path, of both solutions together, integers `(levels,)`.
        means: The means of d_l, `(levels, observables)`.
        variances: The variances of d_l, `(levels, observables)`.
        kurtoses: The kurtoses E (d_l - E d_l)^4 / (Var d_l)^2, `(levels, observables)`.
        fine_means: The means of h(X_l), `(levels, observables)`.
        fine_variances: The variances of h(X_l), `(levels, observables)`.
        consistency: The check of successive levels (Giles 2015), `(levels, observables)`; above 1 it fails. It is |a - b + c| / (3 (s_a + s_b + s_c))
            with the means a of h(X_{l-1}) from level l - 1, b of h(X_l) and c of d_l from level l, and their standard errors; 0 on level 0.
        biases: The estimated absolute value of the bias that remains after level L, `(observables,)`; NaN if a path diverged.
        alphas: The weak orders alpha in |E d_l| ~ r^(-alpha l), fitted to `means`, `(observables,)`; NaN where too few levels are resolved.
        betas: The orders beta in Var d_l ~ r^(-beta l), fitted to `variances`, `(observables,)`; NaN where fewer than two levels vary.
        cost: The number of steps of all paths, pilot paths included.
        pilot_cost: The number of steps of the pilot paths.
        constants: The names of observables that do not depend on the point, and are known without sampling.
        warnings: Sentences about possible problems, one text each; empty if there are none.
        diverged: The number of diverged paths: those whose state was not finite at some step.
        first_divergence: The least step number at which a path of any level diverged, in steps of its level; -1 if none did.
        confidence: The confidence level of intervals.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    names: tuple[str, ...]
    horizon: float
    eps: float
    refinement: int
    weak_order: float
    dts: np.ndarray
    paths: np.ndarray
    steps: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    kurtoses: np.ndarray
    fine_means: np.ndarray
    fine_variances: np.ndarray
    consistency: np.ndarray
    biases: np.ndarray
    alphas: np.ndarray
    betas: np.ndarray
    cost: int
    pilot_cost: int
    constants: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    diverged: int = 0
    first_divergence: int = -1
    confidence: float = 0.95
    origin: Origin = field(default=BY_HAND, compare=False)
    weak = RenamedAttribute("weak_order")

    @property
    def estimate(self) -> MultilevelEstimate:
        """The estimate of E h(X_T) for the first observable, with its error and remaining bias; NaN if any path diverged."""
        return self.at(0)

    def at(self, observable: str | int = 0) -> MultilevelEstimate:
        """Return the estimate of E h(X_T) for an observable; NaN if any path diverged.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        o = column(self.names, observable)
        name, n = f"E[{self.names[o]}] at t={self.horizon:g}", int(self.paths.sum())
        if self.diverged:
            unknown = (math.nan, math.nan, n, self.confidence, name, self.diverged, self.first_divergence)
            return MultilevelEstimate(*unknown, bias=math.nan)
        value, stderr = float(self.means[:, o].sum()), float(np.sqrt((self.variances[:, o] / self.paths).sum()))
        return MultilevelEstimate(
            value, stderr, n, self.confidence, name, bias=float(self.biases[o]), random=self.names[o] not in self.constants
        )

    def main_estimates(self) -> dict[str, MultilevelEstimate]:
        """Return a dict of the estimate of E h(X_T) by the name of the observable."""
        return {name: self.at(name) for name in self.names}

    @property
    def bias(self) -> float:
        """The estimate of |E h(X_L) - E h(X_T)| on the finest level L, for the first observable; NaN if any path diverged."""
        return self.estimate.bias

    @property
    def rmse(self) -> float:
        """The root-mean-square error sqrt(stderr^2 + bias^2) of the first observable's estimate; NaN if any path diverged."""
        return self.estimate.rmse

    def rates(self, observable: str | int = 0) -> tuple[float, float, float]:
        """Return the rates (alpha, beta, gamma): |E d_l| decays as r^(-alpha l), Var d_l as r^(-beta l), and the steps of a path grow as r^(gamma l).

        d_l = h(X_l) - h(X_{l-1}) with the solution X_l of step dt_0 r^-l. A rate is NaN where too few levels determine it.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        o = column(self.names, observable)
        return float(self.alphas[o]), float(self.betas[o]), -decay_order(self.steps[1:], self.refinement)

    @property
    def alpha(self) -> float:
        """The order alpha of the first observable, |E[h(X_l) - h(X_{l-1})]| ~ r^(-alpha l), an estimate of the weak order.

        X_l is the solution with step dt_0 r^-l. The levels whose mean is at least four standard errors are fitted; NaN if there are fewer than two.
        """
        return self.rates()[0]

    @property
    def beta(self) -> float:
        """The order beta of the first observable, Var[h(X_l) - h(X_{l-1})] ~ r^(-beta l), an estimate of twice the strong order.

        X_l is the solution with step dt_0 r^-l. The levels l = 1 ... L are fitted; NaN if fewer than two have a positive variance.
        """
        return self.rates()[1]

    @property
    def gamma(self) -> float:
        """The order gamma in which the number of steps of a path grows with the level, C_l ~ r^(gamma l): 1, or NaN below two levels l >= 1."""
        return self.rates()[2]

    @property
    def plain_cost(self) -> float:
        """The number of steps that plain Monte Carlo takes for the same standard error with the shortest step, dt_L.

        It is V[h(X_L)] / stderr^2 paths (at least 1) of T / dt_L steps, for the observable h with the largest cost. The variance V is that of
        the finest level with at least 1,000 paths, or of level L if no level has so many.
        """
        enough = np.flatnonzero(self.paths >= 1000)
        spread = self.fine_variances[enough[-1] if len(enough) else -1]
        with np.errstate(all="ignore"):
            wanted = spread / (self.variances / self.paths[:, None]).sum(axis=0)
        return float(np.nanmax([1.0, *wanted])) * round(self.horizon / float(self.dts[-1]))

    @property
    def saving(self) -> float:
        """The ratio `plain_cost` / `cost` of plain Monte Carlo to the multilevel estimate, in steps; above 1 the latter is cheaper."""
        return self.plain_cost / self.cost

    @cached_property
    def levels(self) -> xarray.Dataset:
        """A dataset with moments and consistency checks over (level, observable), and `dt`, `paths`, `steps`, `cost` over level.

        The variables over both are `mean`, `stderr`, `variance` and `kurtosis` of h(X_l) - h(X_{l-1}), `fine_mean` and `fine_variance` of h(X_l), and
        `consistency`. The attributes are `eps`, `refinement`, `cost`, `plain_cost`, `diverged`, and the fields of `origin`.
        """
        import xarray

        fields = {
            "mean": self.means, "stderr": np.sqrt(self.variances / self.paths[:, None]), "variance": self.variances,
            "kurtosis": self.kurtoses, "fine_mean": self.fine_means, "fine_variance": self.fine_variances,
            "consistency": self.consistency,
        }  # fmt: skip
        own = {"dt": self.dts, "paths": self.paths, "steps": self.steps, "cost": self.paths * self.steps}
        return xarray.Dataset(
            {name: (("level", "observable"), values) for name, values in fields.items()}
            | {name: ("level", values) for name, values in own.items()},
            coords={"level": np.arange(len(self.dts)), "observable": list(self.names)},
            attrs={
                "eps": self.eps,
                "refinement": self.refinement,
                "cost": self.cost,
                "plain_cost": self.plain_cost,
                "diverged": self.diverged,
            }
            | self.origin.attributes,
        )

    @property
    def data(self) -> xarray.Dataset:
        """The same dataset as the property `levels`, under the name that all results have."""
        return self.levels

    def table(self, observable: str | int = 0) -> str:
        """Return a text table of the levels of one observable, the rates alpha, beta, gamma, the cost relative to plain Monte Carlo, and the warnings.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        o = column(self.names, observable)
        e, (alpha, beta, gamma) = self.at(o), self.rates(o)
        lines = [
            f"multilevel Monte Carlo for {e.name}, eps = {self.eps:g}; P_l = {self.names[o]} with step dt_l",
            f"{'level':>5} {'dt':>10} {'mean P_l-P_l-1':>15} {'mean P_l':>12} {'var P_l-P_l-1':>14} {'var P_l':>11} {'kurtosis':>9} "
            f"{'check':>7} {'N_l':>13} {'steps C_l':>10} {'N_l C_l':>11}",
        ]
        for l, (dt, n, c) in enumerate(zip(self.dts, self.paths.tolist(), self.steps.tolist())):
            lines.append(
                f"{l:>5} {dt:>10.4g} {self.means[l, o]:>15.5g} {self.fine_means[l, o]:>12.6g} {self.variances[l, o]:>14.4g} "
                f"{self.fine_variances[l, o]:>11.4g} {self.kurtoses[l, o]:>9.3g} {self.consistency[l, o]:>7.2g} {n:>13,} {c:>10,} {n * c:>11.3g}"
            )
        lines += [
            f"alpha = {alpha:.3f} (weak order; {self.weak_order:g} declared), beta = {beta:.3f} (variance), gamma = {gamma:.3f} (cost)",
            f"{'eps':>9} {'value':>14} {'stderr':>10} {'bias':>10} {'cost':>10} {'plain cost':>11} {'saving':>8}",
            f"{self.eps:>9.3g} {e.value:>14.8g} {e.stderr:>10.3g} {e.bias:>10.3g} {self.cost:>10.4g} {self.plain_cost:>11.4g} {self.saving:>8.3g}",
        ]
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])

    def plot(self, observable: str | int = 0, *, ax: Any = None) -> Figure:
        """Plot variances, means, numbers of paths and costs against the level, in four panels; return the figure.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            ax: Four axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, level_panels

        o = column(self.names, observable)
        panels = level_panels(
            self.names[o],
            (self.fine_variances[:, o], self.variances[1:, o]),
            (self.fine_means[:, o], self.means[1:, o]),
            self.paths.astype(float),
            (self.paths * self.steps).astype(float),
            (self.cost, self.plain_cost),
            eps=self.eps,
            refinement=self.refinement,
            ax=ax,
        )
        return figure_of(panels)

    def __repr__(self) -> str:
        lines = [
            f"multilevel: {len(self.dts)} levels, dt={self.dts[0]:g} to {self.dts[-1]:g}, {self.cost:.4g} steps in all; "
            f"plain Monte Carlo {self.plain_cost:.4g}, {self.saving:.3g} times that"
        ]
        for o in range(len(self.names)):
            e = self.at(o)
            lines.append(f"{e!r}: rms error {e.rmse:.2g} of {self.eps:g}, of which bias {e.bias:.2g}")
        return "\n  ".join([*lines, *(f"warning: {w}" for w in self.warnings)])
