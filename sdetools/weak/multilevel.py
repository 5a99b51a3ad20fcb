r"""Multilevel Monte Carlo: E h(X_T) of an SDE to a root-mean-square error eps, at the cost of coarse steps.

    E h(X_L) = E h(X_0) + sum_{l=1}^L E[h(X_l) - h(X_{l-1})],        X_l with steps dt r^-l,

the two members of a level on the same Brownian path (its coarse increments are exact sums of the fine ones), the levels on draws of their
own. With m_l, V_l and C_l the mean, the variance and the cost of a path of level l, alpha the weak order and beta twice the strong one,

    |m_l| ~ r^(-alpha l),    V_l ~ r^(-beta l),    N_l = 2 eps^-2 sqrt(V_l / C_l) sum_k sqrt(V_k C_k),

so that sum V_l / N_l = eps^2 / 2. The cost is O(eps^-2) for beta > 1, O(eps^-2 log^2 eps) for beta = 1; plain Monte Carlo takes
O(eps^(-2 - 1/alpha)).

The budget. The bias that remains after level L is kept below eps/2, the standard error below eps/sqrt(2); the last quarter of eps^2 is in
reserve for what these two do not know of themselves.

The remaining bias. Levels follow m_{L-j} = c r^(alpha j); the last three give c with the weights of their errors, c_hat +- s, and each alone,
c_j +- s_j. It is taken to be max(|c_hat| + s, max_j |c_j| - s_j) / (r^alpha - 1): its noise enters, and a mean that happens to be near zero
on one level (of changing sign, or by chance) does not end the search, for the levels below it speak too.

No selection. Pilot paths choose the coarsest step, L and N_l, and enter no estimate. Main paths are other draws; more of them (again other
draws, joined by the numbers of paths) come only where their own variances or means show that the pilot fell short, which leaves an
effect of order 1 / N_l.

Sources: M. B. Giles, Operations Research 56 (2008) 607-617; M. B. Giles, Acta Numerica 24 (2015) 259-328, section 3 for the two checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Dynamics
from sdetools.noise.base import Normal
from sdetools.simulation.engine import Sums
from sdetools.simulation.program import Program
from sdetools.weak.clock import steps_to
from sdetools.weak.estimate import Estimate
from sdetools.weak.run import _column, make_program
from sdetools.weak.statistics import PairStatistics, SingleStatistics
from sdetools.weak.work import Options, opened

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BIAS, VARIANCE = 0.5, 0.5
"""The remaining bias is at most half of eps, the variance at most half of eps^2."""
SLACK = 1.1
"""Main paths are added when the variance exceeds its share by so much."""
LEAST_LEVEL = 2
LEAST_PILOT, LEAST_PATHS = 32, 16
FEW = 1000
"""Below so many paths a variance is not believed to be less than the level before it promises; beyond, not less than half of that."""
KEPT = 1 << 15
"""Up to so many paths the end points are kept for the kurtosis; beyond, the variances of the groups give it."""
STEPS = 64, 4096
"""The coarsest step that is chosen by itself has at most so many steps, unless paths run away: then at most the second number."""
RUNAWAY = 10.0
"""A plan that grows by so much while it is carried out rests on variances that the pilot could not see."""
ATTEMPTS = 4
"""So many coarsest steps are tried when the pilot's choice does not hold."""
MOST_PATHS = 1 << 42
"""Paths of a stream."""
MOST_KURTOSIS = 100.0
LOWEST_ORDER = 0.5


@dataclass(frozen=True, repr=False)
class MultilevelEstimate(Estimate):
    """An Estimate of E h(X_T) with the `bias` that is estimated to remain; its interval is wider by that on both sides.

    `stderr` is that of the levels together, sqrt(sum V_l / N_l); `n` counts the paths of all levels.
    """

    bias: float = 0.0

    @property
    def rmse(self) -> float:
        """sqrt(stderr^2 + bias^2)."""
        return math.hypot(self.stderr, self.bias)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence, the remaining bias included."""
        low, high = super().interval(confidence)
        return low - self.bias, high + self.bias


@dataclass(frozen=True)
class Multilevel:
    """E h(X_T) from levels of ever shorter steps. `estimate`: of the first observable; `at(h)`: of any; `levels`: an xarray.Dataset.

    Over (level,): `dts` the steps, `paths` N_l, `steps` the steps of a path (of both members together, C_l). Over (level, observable):
    `means`, `variances` and `kurtoses` of h(X_l) - h(X_{l-1}) (of h(X_0) on level 0), `fine_means` and `fine_variances` of h(X_l),
    `consistency` of the levels. `biases`, `alphas`, `betas` `(observables,)`; `cost` in steps, pilot paths included, `pilot_cost` these alone.
    `warnings`: sentences about what may be wrong, empty if nothing is.
    """

    names: tuple[str, ...]
    horizon: float
    eps: float
    refinement: int
    weak: float
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
    warnings: tuple[str, ...] = ()
    diverged: int = 0
    first_divergence: int = -1
    confidence: float = 0.95

    @property
    def estimate(self) -> MultilevelEstimate:
        """E h(X_T) of the first observable."""
        return self.at(0)

    def at(self, observable: str | int = 0) -> MultilevelEstimate:
        """E h(X_T) of one observable."""
        o = _column(self.names, observable)
        name, n = f"E[{self.names[o]}] at t={self.horizon:g}", int(self.paths.sum())
        if self.diverged:
            told = (math.nan, math.nan, n, self.confidence, name, self.diverged, self.first_divergence)
            return MultilevelEstimate(*told, bias=math.nan)
        value, stderr = float(self.means[:, o].sum()), float(np.sqrt((self.variances[:, o] / self.paths).sum()))
        return MultilevelEstimate(value, stderr, n, self.confidence, name, bias=float(self.biases[o]))

    @property
    def bias(self) -> float:
        """The remaining bias of the first observable, as estimated from its last levels."""
        return self.estimate.bias

    @property
    def rmse(self) -> float:
        """The root-mean-square error of the first observable's estimate: its standard error and its bias."""
        return self.estimate.rmse

    def rates(self, observable: str | int = 0) -> tuple[float, float, float]:
        """alpha, beta and gamma of one observable: the decay of |m_l| and V_l and the growth of C_l, as powers of the refinement."""
        o = _column(self.names, observable)
        return float(self.alphas[o]), float(self.betas[o]), -_decay(self.steps[1:], self.refinement)

    @property
    def alpha(self) -> float:
        """The weak order, fitted to the means of the levels by the weights of their errors; NaN where too few stand out of their noise."""
        return self.rates()[0]

    @property
    def beta(self) -> float:
        """The order in which the variance of a level decays."""
        return self.rates()[1]

    @property
    def gamma(self) -> float:
        """The order in which the steps of a path grow: 1 for steps of fixed cost."""
        return self.rates()[2]

    @property
    def plain_cost(self) -> float:
        """Steps of plain Monte Carlo with the shortest step for the same standard error: paths V[h(X_L)] / stderr^2, each of T / dt_L steps.

        The worst observable counts. The variance is that of the finest level with at least 1,000 paths.
        """
        enough = np.flatnonzero(self.paths >= 1000)
        spread = self.fine_variances[enough[-1] if len(enough) else -1]
        with np.errstate(all="ignore"):
            wanted = spread / (self.variances / self.paths[:, None]).sum(axis=0)
        return float(np.nanmax([1.0, *wanted])) * round(self.horizon / float(self.dts[-1]))

    @property
    def saving(self) -> float:
        """The cost of plain Monte Carlo over this one's."""
        return self.plain_cost / self.cost

    @cached_property
    def levels(self) -> xarray.Dataset:
        """`mean`, `stderr`, `variance`, `kurtosis`, `fine_mean`, `fine_variance`, `consistency` over (level, observable); `dt`, `paths`, `cost` over level."""
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
            attrs={"eps": self.eps, "refinement": self.refinement, "cost": self.cost, "plain_cost": self.plain_cost},
        )

    @property
    def data(self) -> xarray.Dataset:
        """The same as `levels`."""
        return self.levels

    def table(self, observable: str | int = 0) -> str:
        """The levels as text, the rates, and what the error costs beside plain Monte Carlo; then the warnings."""
        o = _column(self.names, observable)
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
            f"alpha = {alpha:.3f} (weak order; {self.weak:g} declared), beta = {beta:.3f} (variance), gamma = {gamma:.3f} (cost)",
            f"{'eps':>9} {'value':>14} {'stderr':>10} {'bias':>10} {'cost':>10} {'plain cost':>11} {'saving':>8}",
            f"{self.eps:>9.3g} {e.value:>14.8g} {e.stderr:>10.3g} {e.bias:>10.3g} {self.cost:>10.4g} {self.plain_cost:>11.4g} {self.saving:>8.3g}",
        ]
        return "\n".join([*lines, *(f"warning: {w}" for w in self.warnings)])

    def plot(self, observable: str | int = 0) -> Figure:
        """Variance and mean of the levels, paths, and cost against the level: the customary four panels."""
        from sdetools.plots import COLOURS, FAINT, INK, canvas

        o, r = _column(self.names, observable), self.refinement
        figure, axes = canvas(9.6, 7.2)
        axes.remove()
        level, later = np.arange(len(self.dts)), np.arange(1, len(self.dts))
        cost = (self.paths * self.steps).astype(float)
        difference = f"{self.names[o]}: level $l$ less level $l-1$"
        panels = [
            ("variance", self.fine_variances[:, o], self.variances[1:, o]),
            ("|mean|", np.abs(self.fine_means[:, o]), np.abs(self.means[1:, o])),
            ("paths $N_l$", self.paths.astype(float), None),
            ("cost in steps", cost, None),
        ]
        for i, (label, whole, part) in enumerate(panels):
            axes = figure.add_subplot(2, 2, i + 1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(FAINT)
            axes.tick_params(which="both", colors=INK, labelsize=9, color=FAINT)
            axes.grid(visible=True, which="major", color="#e6e6ea", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set_yscale("log", base=r if part is not None else 10, nonpositive="mask")
            name = f"{self.names[o]} on level $l$" if part is not None else f"eps = {self.eps:g}" if i == 2 else "level by level"
            axes.plot(level, whole, "o-", color=COLOURS[0], linewidth=1.6, markersize=5, label=name)
            if part is not None:
                axes.plot(later, part, "s-", color=COLOURS[1], linewidth=1.6, markersize=5, label=difference)
            if i == 3:
                axes.axhline(self.cost, color=COLOURS[2], linewidth=1.4, label="all levels and the pilot")
                axes.axhline(
                    self.plain_cost, color=COLOURS[3], linewidth=1.4, linestyle="--", label="plain Monte Carlo, same error"
                )
            axes.set_xticks(level[:: 1 + len(level) // 12])
            axes.set_xlabel("level $l$", color=INK, fontsize=10)
            axes.set_ylabel(label, color=INK, fontsize=10)
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        return figure

    def __repr__(self) -> str:
        lines = [
            f"multilevel: {len(self.dts)} levels, dt={self.dts[0]:g} to {self.dts[-1]:g}, {self.cost:.4g} steps in all; "
            f"plain Monte Carlo {self.plain_cost:.4g}, {self.saving:.3g} times that"
        ]
        for o in range(len(self.names)):
            e = self.at(o)
            lines.append(f"{e!r}: rms error {e.rmse:.2g} of {self.eps:g}, of which bias {e.bias:.2g}")
        return "\n  ".join([*lines, *(f"warning: {w}" for w in self.warnings)])


def multilevel(
    make: Callable[[float], Dynamics],
    x0: Any,
    horizon: float,
    eps: float,
    observe: Any,
    *,
    dt: float | None = None,
    refinement: int = 2,
    weak: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    pilot: int = 512,
    most_levels: int = 20,
    threads: int | None = None,
    executor: Executor | None = None,
    store: Any = None,
    resume: bool = False,
    progress: Any = False,
    backend: str = "auto",
) -> Multilevel:
    r"""E h(X_T), T = `horizon`, to a root-mean-square error of `eps`, by multilevel Monte Carlo on steps dt r^-l, l = 0 ... L.

    `make(dt)` returns a dynamics of step dt with Brownian increments, usually `lambda dt: st.Milstein(sde, dt)`. With several observables
    `eps` holds for each of them. `dt`: the coarsest step; by default the longest T r^-k at which no pilot path leaves the finite range and
    the level pays, sqrt(V_0 C_0) + sqrt(V_1 C_1) < sqrt(V[h(X_1)] T / dt_1). `refinement`: r. `weak`: the weak order that the bias is judged by, by default
    the integrator's own; where the levels decay more slowly than that, their fitted order is taken and a warning says so. `pilot`: paths
    on the first level, fewer on later ones. `most_levels`: L at most. `confidence`: of the estimate's interval, which includes the bias.
    Other arguments as in `simulate`: the draws depend on `seed` alone. Units of time are those of the dynamics; cost is counted in steps.
    With a `dt` of your own the estimate is NaN where paths left the finite range.
    ValueError for draws that steps of different length cannot share, and for anything that does not fit.

    Source: M. B. Giles, Acta Numerica 24 (2015) 259-328.

    >>> import numpy as np, sdetools as st
    >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    >>> found = multilevel(lambda dt: st.Milstein(ou, dt), x0=[1.0], horizon=1.0, eps=0.02, observe=["x**2"], backend="numpy")
    >>> bool(abs(found.estimate.value - (1 + np.exp(-2)) / 2) < 0.04), found.rmse < 0.02, found.saving > 1, found.warnings
    (True, True, True, ())
    """
    if not callable(make):
        raise ValueError(
            f"`make` must be a function of dt that returns a dynamics; got {make!r}. Write lambda dt: st.Milstein(sde, dt)."
        )
    if not 0 < _check.number("confidence", confidence) < 1:
        raise ValueError(f"`confidence` must lie strictly between 0 and 1; got confidence={confidence!r}. For 95 % write 0.95.")
    horizon = _check.positive("horizon", horizon)
    eps = _check.positive("eps", eps, hint="It is the root-mean-square error asked for, in the units of the observables.")
    refinement = _check.count("refinement", refinement, least=2)
    pilot = _check.count("pilot", pilot, least=LEAST_PILOT)
    most = _check.count("most_levels", most_levels, least=LEAST_LEVEL)
    coarsest = horizon if dt is None else _check.positive("dt", dt)
    if dt is not None:
        _whole(horizon, coarsest)
    work = _Work(make, x0, horizon, observe, refinement)
    first = work.dynamics(coarsest)
    weak = _check.positive("weak", getattr(first, "weak", 1.0) if weak is None else weak)
    asked = (seed, horizon, eps, dt, refinement, weak, pilot, most)
    with opened(store, resume, f"multilevel {work.single(coarsest).program.fingerprint(*asked)}") as kept:
        work.options = Options(seed, threads, executor, kept, progress, backend)
        for attempt in range(ATTEMPTS if dt is None else 1):
            # After the first: the coarsest step that seemed to do did not. A shorter one, and a closer look.
            search = _Search(work, eps, weak, pilot * 4**attempt, most)
            if search.run(coarsest, dt is None):
                break
            coarsest = search.levels[0].dt / refinement
        return search.result(confidence)


@dataclass
class _Moments:
    """Means and variances over `n` paths of d = h(fine) - h(coarse) and of both; d is h(fine) on level 0."""

    n: int
    means: np.ndarray
    """`(3, observables)`: of d, h(fine), h(coarse)."""
    squares: np.ndarray
    """Sums of squares about these."""
    kurtosis: np.ndarray
    known: int
    """Paths behind the kurtosis."""
    lost: int
    first: int

    @property
    def variances(self) -> np.ndarray:
        return self.squares / (self.n - 1)

    def joined(self, other: _Moments | None) -> _Moments:
        """Both together, each by its number of paths; the kurtosis is that of the larger."""
        if other is None:
            return self
        n = self.n + other.n
        better = max(self, other, key=lambda m: m.known)
        with np.errstate(all="ignore"):  # moments of lost paths are not finite, and stay so
            apart = other.means - self.means
            means = self.means + apart * (other.n / n)
            squares = self.squares + other.squares + apart**2 * (self.n * other.n / n)
        first = min((f for f in (self.first, other.first) if f >= 0), default=-1)
        return _Moments(n, means, squares, better.kurtosis, better.known, self.lost + other.lost, first)


@dataclass
class _Level:
    """One level: its program, the steps of a path, and what pilot and main paths came to."""

    dt: float
    program: Program
    steps: int
    pilot: _Moments | None = None
    main: _Moments | None = None

    @property
    def all(self) -> _Moments:
        """Pilot and main paths together: for decisions, never for the estimate."""
        both = [m for m in (self.main, self.pilot) if m is not None]
        return both[0].joined(both[1] if len(both) > 1 else None)


@dataclass
class _Work:
    """Makes the levels and runs their paths, each batch on a stream of its own."""

    make: Callable[[float], Dynamics]
    x0: Any
    horizon: float
    observe: Any
    refinement: int
    options: Options = field(default_factory=Options)
    streams: Iterator[int] = field(default_factory=lambda: count(0, 4))
    cost: int = 0
    pilot_cost: int = 0

    def dynamics(self, dt: float) -> Dynamics:
        """make(dt), checked."""
        made = self.make(dt)
        if not isinstance(made, Dynamics):
            raise ValueError(
                f"`make` must return a dynamics; for dt={dt:g} it returned {made!r}. Write lambda dt: st.Milstein(sde, dt)."
            )
        if made.step_time is None or not math.isclose(made.step_time, dt, rel_tol=1e-9):
            raise ValueError(
                f"`make` must return a dynamics of the step it is given; for dt={dt:g} its step_time is {made.step_time:g}."
            )
        if not made.draws:
            raise ValueError(
                f"`make` must return a dynamics with noise; got {made!r} without any. One path of st.simulate is exact."
            )
        if not made.brownian:
            other = [d for d in made.draws if not isinstance(d, Normal)] or made.draws
            told = " + ".join(f"{type(d).__name__}({d.n})" for d in other)
            raise ValueError(
                f"`make` must return a dynamics whose draws are Brownian increments, which steps of different length can share; got "
                f"{made.name}, whose {told} cannot be shared. Take st.Milstein or st.EulerMaruyama with normal draws."
            )
        return made

    def single(self, dt: float) -> _Level:
        member = self.dynamics(dt)
        return self._level(dt, (member,), steps_to(self.horizon, dt))

    def pair(self, dt: float) -> _Level:
        """The level of step `dt` and the step before it."""
        members = self.dynamics(dt), self.dynamics(dt * self.refinement)
        fine = steps_to(self.horizon, dt)
        return self._level(dt, members, fine + fine // self.refinement)

    def _level(self, dt: float, members: tuple[Dynamics, ...], steps: int) -> _Level:
        program, *_ = make_program(members, self.x0, self.horizon, self.observe, [self.horizon], (), False, True)
        return _Level(dt, program, steps)

    def sample(self, level: _Level, paths: int, label: str) -> _Moments:
        """Moments of new paths of a level."""
        self.cost += paths * level.steps
        sums = self.options.run(level.program, paths, next(self.streams), keep=paths <= KEPT, label=label)
        program = level.program
        total = PairStatistics(sums).total if program.pair else SingleStatistics(sums).total
        if program.pair:
            means, squares = [total[k][-1] for k in "dxz"], [total[k][-1] for k in ("d2", "x2", "z2")]
        else:
            means, squares = [total["h"][-1]] * 2 + [0 * total["h"][-1]], [total["h2"][-1]] * 2 + [0 * total["h2"][-1]]
        steps = [s for s in sums.first.tolist() if s >= 0]
        kurtosis = _kurtosis(program, sums)
        return _Moments(paths, np.array(means), np.array(squares), kurtosis, paths, int(sums.lost.sum()), min(steps, default=-1))

    def explore(self, level: _Level, paths: int) -> None:
        """Pilot paths of a level."""
        fresh = self.sample(level, paths, f"pilot, dt={level.dt:g}")
        self.pilot_cost += paths * level.steps
        level.pilot = fresh.joined(level.pilot)


@dataclass
class _Search:
    """The levels that eps takes: found by pilot paths, then run."""

    work: _Work
    eps: float
    weak: float
    pilot: int
    most: int
    levels: list[_Level] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, dt: float, choose: bool) -> bool:
        """Whether the levels hold: no path lost, and no variance that only the main paths saw."""
        self._begin(dt, choose)
        if not self._lost:
            self._allocation()  # refuses an eps out of reach before the search for it
        while not self._lost:
            self._sharpen()
            if len(self.levels) > LEAST_LEVEL and (self._last or (self._biases("pilot") <= BIAS * self.eps).all()):
                break
            self._deepen()
        if self._lost:
            return False
        planned = None
        while True:
            wanted = self._allocation()
            plan = float(wanted @ self._steps)
            planned = plan if planned is None else planned
            if plan > RUNAWAY * planned:
                self.warnings.append(
                    f"the variance grew {plan / planned:.3g} times beyond what the pilot saw, so eps is not reached: large values are rare. "
                    "Take a shorter coarsest step by dt=, or more paths by pilot=."
                )
                return False
            for l, (level, n) in enumerate(zip(self.levels, wanted.tolist())):
                have = level.main.n if level.main is not None else 0
                if n > have:
                    level.main = self.work.sample(level, n - have, f"level {l}").joined(level.main)
            if self._lost:
                return False
            variance = sum(level.all.variances[0] / level.main.n for level in self.levels if level.main is not None)
            if (variance > SLACK * VARIANCE * self.eps**2).any():
                continue
            if (variance + self._biases("all") ** 2 <= self.eps**2).all():
                return True
            if self._last:
                self.warnings.append(
                    f"the bias is still {self._biases('all').max():.2g} after {self.most} levels. Allow more by most_levels=, or take a larger eps."
                )
                return True
            self._deepen()

    def _begin(self, dt: float, choose: bool) -> None:
        """Levels 0 and 1: with the step given, or with the longest at which a coarser level pays."""
        work, r = self.work, self.work.refinement
        while True:
            pair = work.pair(dt / r)
            work.explore(pair, self.pilot)
            seen = pair.pilot
            assert seen is not None
            d, fine, coarse = seen.variances
            steps = work.horizon / dt
            good = not seen.lost and np.isfinite(seen.variances).all()
            pays = good and bool((np.sqrt(coarse) + np.sqrt(d * (1 + r)) <= np.sqrt(fine * r)).all())
            if pays or not choose or (good and steps * r > STEPS[0]) or steps * r > STEPS[1]:
                break
            dt /= r
        base = work.single(dt)
        # The coarse member of level 1 has the law of level 0: its paths tell the variance, and its draws are never used again.
        base.pilot = _Moments(seen.n, seen.means[[2, 2, 2]], seen.squares[[2, 2, 2]], seen.kurtosis, 0, 0, -1)
        self.levels = [base, pair]

    def _deepen(self) -> None:
        """One more level, with a pilot of its own."""
        r = self.work.refinement
        level = self.work.pair(self.levels[-1].dt / r)
        self.work.explore(level, max(LEAST_PILOT, self.pilot // r ** (len(self.levels) - 1)))
        self.levels.append(level)

    def _sharpen(self) -> None:
        """Pilot paths until the remaining bias is known to a quarter of eps, by each level alone to half of it, or is clearly too large."""
        limit = BIAS * self.eps
        while not self._lost:
            order = self._order("pilot")
            terms, errors, factors = self._terms("pilot", order)
            fitted, error = _combined(terms, errors)
            scale = limit * (self.work.refinement**order - 1)
            surely = np.maximum(np.abs(fitted) - 3 * error, (np.abs(terms) - 3 * errors).max(axis=0))
            if (surely > scale).any():
                return
            last = self.levels[: -len(terms) - 1 : -1]
            if (error > scale / 2).any():
                o = int(np.argmax(error / scale))
                gain = [f**2 / (v.all.variances[0, o] * v.steps + 1e-200) for f, v in zip(factors[:, o], last)]
                level = last[int(np.argmax(gain))]
            elif (errors > scale).any():
                level = last[int(np.argmax((errors / scale).max(axis=1)))]
            else:
                return
            assert level.pilot is not None
            self.work.explore(level, level.pilot.n)

    @property
    def _last(self) -> bool:
        return len(self.levels) > self.most

    @property
    def _lost(self) -> bool:
        return any(level.all.lost or not np.isfinite(level.all.squares).all() for level in self.levels)

    @property
    def _steps(self) -> np.ndarray:
        return np.array([level.steps for level in self.levels], dtype=float)

    def _means(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        """Means of d on levels 1 ... L and their standard errors, `(levels, observables)`."""
        moments = [getattr(level, which) for level in self.levels[1:]]
        return np.array([m.means[0] for m in moments]), np.array([np.sqrt(m.variances[0] / m.n) for m in moments])

    def _terms(self, which: str, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c_j and its error from each of the last three levels, the last first, and the factors r^(alpha j)."""
        means, errors = self._means(which)
        factors = float(self.work.refinement) ** (order * np.arange(min(3, len(means)))[:, None])
        return means[:-4:-1] / factors, errors[:-4:-1] / factors, factors

    def _order(self, which: str) -> np.ndarray:
        """The weak order of each observable that the bias is judged by: as declared, or as fitted where that is clearly lower."""
        means, errors = self._means(which)
        out = []
        for m, s in zip(means[-4:].T, errors[-4:].T):
            fitted, error = _fitted_order(m, s, self.work.refinement, least=3)
            contradicted = fitted + 3 * error < self.weak - 0.25
            out.append(min(self.weak, max(LOWEST_ORDER, fitted)) if contradicted else self.weak)
        return np.array(out)

    def _biases(self, which: str) -> np.ndarray:
        """What remains beyond the last level, for each observable."""
        order = self._order(which)
        terms, errors, _ = self._terms(which, order)
        return _remaining(terms, errors) / (self.work.refinement**order - 1)

    def _allocation(self) -> np.ndarray:
        """N_l, never fewer than there are: for the observable that wants most."""
        # the larger of what all paths say and what the main ones say alone: the error of the result comes from these
        variances = np.array(
            [np.maximum(v.all.variances[0], v.main.variances[0] if v.main is not None else 0.0) for v in self.levels]
        )
        r = self.work.refinement
        seen = np.array([level.all.n for level in self.levels])
        for v in variances.T:
            decay = _decay(v[1:], r, seen[1:])
            decay = max(LOWEST_ORDER, decay) if math.isfinite(decay) else LOWEST_ORDER
            for l in range(2, len(v)):
                v[l] = max(v[l], (1.0 if seen[l] < FEW else 0.5) * v[l - 1] * r**-decay)
        steps = self._steps[:, None]
        wanted = np.sqrt(variances / steps) * np.sqrt(variances * steps).sum(axis=0) / (VARIANCE * self.eps**2)
        if wanted.max() > MOST_PATHS:
            raise ValueError(
                f"`eps` must be in reach; got eps={self.eps!r}, which takes {wanted.max():.3g} paths (a stream has {MOST_PATHS:.3g}). "
                "Ask for a larger one."
            )
        have = np.array([level.main.n if level.main is not None else 0 for level in self.levels])
        return np.maximum(np.maximum(np.ceil(wanted).max(axis=1), LEAST_PATHS), have).astype(np.int64)

    def result(self, confidence: float) -> Multilevel:
        """All that was found, with its checks."""
        work = self.work
        lost = self._lost
        diverged = max(1, sum(level.all.lost for level in self.levels)) if lost else 0
        own = [level.all if lost or level.main is None else level.main for level in self.levels]
        every = [level.all for level in self.levels]
        n = np.array([m.n for m in own])
        means = np.stack([m.means for m in own], axis=1)
        variances = np.stack([m.variances for m in every], axis=1)  # the pilot's paths know these as well
        kurtoses = np.array([m.kurtosis for m in every])
        errors = np.sqrt(variances / n[:, None])
        consistency = np.zeros_like(means[0])
        with np.errstate(all="ignore"):
            apart = np.abs(means[1, :-1] - means[1, 1:] + means[0, 1:])
            consistency[1:] = np.where(apart > 0, apart / (3 * (errors[1, :-1] + errors[1, 1:] + errors[0, 1:])), 0.0)
        names = tuple(o.name for o in self.levels[0].program.observables)
        warnings, biases = list(self.warnings), np.full(len(names), np.nan)
        alphas = np.array([_fitted_order(m, s, work.refinement)[0] for m, s in zip(*(a.T for a in self._means("all")))])
        seen = np.array([m.n for m in every])
        betas = np.array([_decay(v, work.refinement, seen[1:]) for v in variances[0, 1:].T])
        if lost:
            where = next(level for level in self.levels if level.all.lost or not np.isfinite(level.all.squares).all())
            warnings.append(
                f"{diverged:,} paths left the finite range, first with steps of {where.dt:g}. Take a shorter coarsest step by dt=."
            )
        else:
            biases = self._biases("all")
            judged = self._order("all")
            for o, name in enumerate(names):
                warnings += [
                    f"level {l}: kurtosis {kurtoses[l, o]:.3g} of the difference of {name} (more than {MOST_KURTOSIS:g}): "
                    "its variance rests on rare paths, and the standard error may be too small."
                    for l in np.flatnonzero(kurtoses[:, o] > MOST_KURTOSIS)
                ]
                warnings += [
                    f"level {l}: the means of {name} with steps of {self.levels[l - 1].dt:g} on levels {l - 1} and {l} disagree "
                    f"(check {consistency[l, o]:.3g}, more than 1): the two members are not of one family."
                    for l in np.flatnonzero(consistency[:, o] > 1)
                ]
                if judged[o] < self.weak:
                    warnings.append(
                        f"the levels of {name} decay with order {judged[o]:.2g}, below the weak order {self.weak:g}; the bias is judged by the former."
                    )
        first = min((m.first for m in every if m.first >= 0), default=-1)
        return Multilevel(
            names, work.horizon, self.eps, work.refinement, self.weak, np.array([level.dt for level in self.levels]), n,
            np.array([level.steps for level in self.levels]), means[0], variances[0], kurtoses, means[1], variances[1], consistency, biases,
            alphas, betas, work.cost, work.pilot_cost, tuple(warnings), diverged, first, confidence,
        )  # fmt: skip


def _whole(horizon: float, dt: float) -> None:
    steps = horizon / dt
    if abs(steps - round(steps)) > 1e-9 * max(1.0, steps) or round(steps) < 1:
        near = float(f"{horizon / max(1, round(steps)):.12g}")
        raise ValueError(
            f"`dt` must divide the horizon; got dt={dt!r}, which is {steps:.6g} steps to horizon={horizon!r}. Take dt={near!r}."
        )


def _combined(terms: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of terms by the weights of their errors, and its error."""
    floor = 1e-9 * np.abs(terms).max(axis=0) + 1e-300
    weights = 1 / (errors**2 + floor**2)
    return (weights * terms).sum(axis=0) / weights.sum(axis=0), 1 / np.sqrt(weights.sum(axis=0))


def _remaining(terms: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """max(|c_hat| + s, max_j |c_j| - s_j): the size of the terms together with its error, and of each alone without."""
    fitted, error = _combined(terms, errors)
    return np.maximum(np.abs(fitted) + error, (np.abs(terms) - errors).max(axis=0))


def _fitted_order(means: np.ndarray, errors: np.ndarray, refinement: int, least: int = 2) -> tuple[float, float]:
    """alpha in |m_l| ~ r^(-alpha l) and its error, from the levels whose mean is four times its error; NaN from fewer than `least`.

    Each logarithm has its statistical error and 5 % for what is not yet asymptotic.
    """
    with np.errstate(all="ignore"):
        kept = np.flatnonzero((np.abs(means) >= 4 * errors) & (means != 0) & np.isfinite(means))
    if len(kept) < least:
        return math.nan, math.nan
    y = -np.log(np.abs(means[kept])) / math.log(refinement)
    weights = 1 / (((errors[kept] / means[kept]) ** 2 + 0.05**2) / math.log(refinement) ** 2)
    x = kept - (weights * kept).sum() / weights.sum()
    norm = (weights * x * x).sum()
    return float((weights * x * y).sum() / norm), float(1 / np.sqrt(norm))


def _decay(values: np.ndarray, refinement: int, paths: Any = math.inf) -> float:
    """The order in which positive values decay with the level, by least squares; NaN for fewer than two.

    Variances count by their `paths`: a relative error of sqrt(10 / n), and 10 % for what is not yet asymptotic.
    """
    kept = np.flatnonzero((values > 0) & np.isfinite(values))
    if len(kept) < 2:
        return math.nan
    weights = 1 / (0.01 + 10 / np.broadcast_to(paths, values.shape)[kept])
    x, y = kept - (weights * kept).sum() / weights.sum(), -np.log(values[kept]) / math.log(refinement)
    return float((weights * x * y).sum() / (weights * x * x).sum())


def _kurtosis(program: Program, sums: Sums) -> np.ndarray:
    """E (d - E d)^4 / (Var d)^2 of each observable: from the end points if they were kept, else from the variances of the groups.

    The variance s^2 of a group of n has Var s^2 = (kurtosis - (n - 3) / (n - 1)) (Var d)^2 / n. NaN where d has no variance.
    """
    with np.errstate(all="ignore"):
        if sums.points is not None:
            dim = program.members[0].dim
            rows = []
            for o in program.observables:
                d = np.broadcast_to(o.value(sums.points[:dim]), sums.paths).astype(float)
                if program.pair:
                    d = d - o.value(sums.points[dim:])
                d = d - d.mean()
                rows.append((d**4).mean() / (d**2).mean() ** 2)
            return np.array(rows)
        n = int(sums.counts.max())
        full = sums.counts == n
        variances = sums.groups[full, -1, :, 5 if program.pair else 1] / (n - 1)
        return n * variances.var(axis=0, ddof=1) / variances.mean(axis=0) ** 2 + (n - 3) / (n - 1)
