"""The weak gap E h(x_k) - E h(z_k) between two dynamics on the same noise, its simultaneous band and its maximum.

Arrays `(times, observables)` have one row for each recorded time, in ascending order, and one column for each observable and then for each
functional, in the order of `names`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.band import multiplier_maxima
from sdetools.results.protocol import call_text, estimates_table
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import moment
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.facts import Facts
from sdetools.studies.kept_paths import KeptPaths, PathRequest
from sdetools.studies.known import Known
from sdetools.studies.means import chosen_paths, make_program, nested
from sdetools.studies.observables import column
from sdetools.studies.sampler import sampling
from sdetools.studies.statistics import PairStatistics

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

LEAST_GROUPS = 4
"""The least number of groups from which correlations in time are estimated; with fewer the band is Bonferroni's."""


@dataclass(frozen=True, eq=False)
class WeakGap(KeptPaths):
    """The estimated weak gap E h(x_k) - E h(z_k) between two dynamics, the members, at the recorded times; the return value of `st.weak_gap`.

    Attributes:
        first: The dynamics x.
        second: The dynamics z.
        times: The recorded times, `(times,)`, in ascending order.
        steps: The steps at these times, integers `(times,)`, counted in steps of the member with the longer step.
        names: The names of the observables and then of the functionals (sums over the steps of a path).
        statistics: Sample moments of the pair: the gap, its standard error and the moments of each member, `(times, observables)` each.
        coupled: Whether the two share their draws.
        controlled: Whether a control variate is used: a quantity of mean zero on which the difference is regressed to reduce its variance.
        confidence: The confidence level of intervals.
        known: Properties of the values that follow from the computation: exactness, bounds, rounding. `facts` has them as arrays.
        trajectories: Selected paths at the recorded times, an array over (member, path, time, part, coordinate); None if not requested. A part is the
            position "x" or another array of the state, such as the momentum buffer "m".
        slices: All paths at selected times, an array over (member, path, time, part, coordinate); None if not requested.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    first: Moving
    second: Moving
    times: np.ndarray
    steps: np.ndarray
    names: tuple[str, ...]
    statistics: PairStatistics
    coupled: bool
    controlled: bool
    confidence: float
    known: Known | Facts

    @property
    def members(self) -> tuple[Moving, ...]:
        """The two dynamics as a tuple `(first, second)`."""
        return self.first, self.second

    @property
    def paths(self) -> int:
        """The number of paths of each dynamics, those that diverged (whose state was not finite at some step) included."""
        return self.statistics.sums.paths

    @property
    def diverged(self) -> int:
        """The number of paths whose state was not finite at some step, those of the first dynamics plus those of the second."""
        return int(self.statistics.sums.diverged.sum())

    @property
    def first_divergence(self) -> int:
        """The first step by whose end the state of a path of either dynamics was not finite, counted as in `steps`; -1 if all were finite."""
        shortest = min((s for s in self.statistics.sums.first_divergence.tolist() if s >= 0), default=-1)
        return -(-shortest // max(nested(self.members))) if shortest >= 0 else -1

    @property
    def final(self) -> np.ndarray | None:
        """The positions of all paths after the last step, `(2 dim, paths)`; None without `keep_final=True`.

        The first `dim` rows are the coordinates of the first dynamics, the others those of the second.
        """
        return self.statistics.sums.points

    def at(self, observable: str | int = 0, time: float | None = None) -> Estimate:
        """Return the estimate of the gap E h(x) - E h(z) at a recorded time; NaN with an infinite interval if a path diverged by then.

        Args:
            observable: The name of the observable, or its index in `names`.
            time: The recorded time; None for the last.

        Raises:
            ValueError: If there is no such observable, or the time was not recorded.
        """
        o, t = column(self.names, observable), moment(self.times, time)
        value, stderr = float(self.statistics.gap[t, o]), float(self.facts.stderr[t, o])
        name = f"gap of {self.names[o]} at t={self.times[t]:g}"
        diverged = self.diverged if 0 <= self.first_divergence <= self.steps[t] else 0
        return Estimate(
            value, stderr, self.paths, self.confidence, name, diverged, self.first_divergence if diverged else -1, 1 + self.controlled,
            skewness=self.statistics.skewness(t, o), **self.facts.of(t, o),
        )  # fmt: skip

    def sup(self, observable: str | int = 0) -> SupEstimate:
        """Return the estimate of max_k |gap_k|, gap_k = E h(x_k) - E h(z_k), over the recorded steps k, with the simultaneous band of the gaps.

        It is NaN if a path diverged by the last of these steps.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
        """
        o = column(self.names, observable)
        if o not in self._sups:
            self._sups[o] = self._supremum(o)
        return self._sups[o]

    @cached_property
    def _sups(self) -> dict[int, SupEstimate]:
        """A dict of the return values of `sup` so far, by the index of the observable."""
        return {}

    def _supremum(self, o: int) -> SupEstimate:
        """Return the estimate of max_k |gap_k| for the observable with index `o`."""
        curve, errors = self.statistics.gap[:, o], self.facts.stderr[:, o]
        argmax = int(np.nanargmax(np.abs(curve))) if np.isfinite(curve).any() else 0
        points = self.facts.along(o)
        residuals = np.where(errors > 0, self.statistics.residuals(o), 0.0)
        usable = len(residuals) >= LEAST_GROUPS and np.isfinite(residuals).all()
        draws = np.sort(multiplier_maxima(residuals)) if usable else np.zeros(0)
        value = float(np.abs(curve).max())
        return SupEstimate(
            value, float(errors[argmax]), self.paths, self.confidence, f"sup gap of {self.names[o]}", self.diverged,
            self.first_divergence, 1 + self.controlled, curve, errors, draws, argmax, float(self.times[argmax]),
            random=bool(points["random"].any()), rounding=float(points["rounding"][argmax]), points=points,
        )  # fmt: skip

    def band(self, observable: str | int = 0, confidence: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the simultaneous band of the gap: its lower and its upper limit at the recorded times, `(times,)` each.

        With probability `confidence` the gap lies in the band at all these times. The limits are infinite where the error is unknown.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            confidence: The confidence level, strictly between 0 and 1; None for that of the result.
        """
        return self.sup(observable).band(confidence)

    def variance_reduction(self, observable: str | int = 0, time: float | None = None) -> tuple[float, float]:
        """Return the factors by which coupling reduces the variance of the gap: `(coupling alone, coupling with the control variate)`.

        Each is the variance of independent sampling over that of the method; infinite or NaN where the latter is 0. Without a control variate both
        are equal.

        Args:
            observable: The name of the observable, or its index in `names`.
            time: The recorded time; None for the last.

        Raises:
            ValueError: If there is no such observable, or the time was not recorded.
        """
        o, t = column(self.names, observable), moment(self.times, time)
        return float(self.statistics.reductions[0][t, o]), float(self.statistics.reductions[1][t, o])

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over (time, observable), with the coordinate `step` along `time`; functionals come behind the observables.

        Its variables are `gap` (also as `mean`), `stderr`, `first_mean`, `first_stderr`, `second_mean` and `second_stderr` of the two members,
        and the variance of independent sampling over that of coupling (`reduction_coupled`) and over that of the method used (`reduction`).
        Its attributes are the numbers of paths and of diverged paths, the first step of divergence (`first_divergence`, -1 for none), and the fields of
        `origin`.
        """
        import xarray

        dims, s = ("time", "observable"), self.statistics
        (first, first_var), (second, second_var) = s.member("x"), s.member("z")
        fields = {
            "gap": s.gap, "stderr": s.stderr, "first_mean": first, "second_mean": second,
            "first_stderr": np.sqrt(first_var / self.paths), "second_stderr": np.sqrt(second_var / self.paths),
            "reduction_coupled": s.reductions[0], "reduction": s.reductions[1],
        }  # fmt: skip
        return xarray.Dataset(
            {name: (dims, values) for name, values in fields.items()} | {"mean": (dims, s.gap)},
            coords={"time": self.times, "observable": list(self.names), "step": ("time", self.steps)},
            attrs={"paths": self.paths, "diverged": self.diverged, "first_divergence": self.first_divergence}
            | self.origin.attributes,
        )

    def table(self) -> str:
        """Return a text table: for each observable a line for the gap at each recorded time and one for max |gap|, with their intervals."""
        rows: list[tuple[str, str, Estimate]] = []
        for name in self.names:
            rows += [(name, f"{t:.4g}", self.at(name, float(t))) for t in self.times]
            rows.append((name, "supremum", self.sup(name)))
        return estimates_table("gap", self.confidence, rows)

    def plot(self, observable: str | int = 0, exact: np.ndarray | None = None, *, ax: Any = None) -> Figure:
        """Plot the gap over time with its simultaneous band, and return the figure.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            exact: Exact gaps at the recorded times, `(times,)`, drawn as a dashed curve; None for no such curve.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, gap_curve

        o = column(self.names, observable)
        low, high = self.band(o)
        band = f"{100 * self.confidence:g} % band"
        axes = gap_curve(
            self.times, self.statistics.gap[:, o], low, high, exact, band=band, ylabel=f"gap of {self.names[o]}", ax=ax
        )
        return figure_of(axes)

    def main_estimates(self) -> dict[str, SupEstimate]:
        """Return a dict of the maximum of |gap| over the recorded times, by the name of the observable or functional."""
        return {name: self.sup(name) for name in self.names}

    def __repr__(self) -> str:
        how = "coupled, with the control variate" if self.controlled else "coupled" if self.coupled else "independent"
        how += ", in float32" if self.statistics.sums.dtype == "float32" else ""
        lines = [
            f"{self.first.name} - {self.second.name}: {self.paths:,} paths ({how}), {self.steps[-1]} steps to t={self.times[-1]:g}"
        ]
        if self.diverged:
            lines.append(f"{self.diverged:,} paths left the finite range, first at step {self.first_divergence}")
        return "\n  ".join([*lines, *(repr(self.sup(name)) for name in self.names)])


def weak_gap(
    first: Moving,
    second: Moving,
    x0: Any,
    horizon: float,
    paths: int | None = None,
    observe: Any = (),
    *,
    coupled: bool = True,
    control: bool = True,
    precision: float | None = None,
    times: Any = None,
    functionals: Any = (),
    keep_final: bool = False,
    trajectories: Any = None,
    slices: Any = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> WeakGap:
    r"""Estimate the weak gap E h(x_k) - E h(z_k) between two dynamics that start together and share their noise draw by draw.

    The steps of the two may differ in length if one is a whole multiple of the other. They are then compared at the steps of the longer one, and
    share Brownian increments, which add up; other draws cannot be shared by unequal steps.

    Args:
        first: The dynamics x.
        second: The dynamics z.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`. From a law, coupled
            members start at one point on every path, independent members each at their own.
        horizon: The final time, a whole number of the longer steps.
        paths: The number of paths. Give either `paths` or `precision`.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        coupled: Whether the two share their draws; if not they are simulated independently.
        control: Whether the difference is regressed on a control variate of mean zero, the noise in the momentum buffer of `first`. It
            brings the standard deviation of the difference to the order of the gap itself. Ignored where there is no such variate.
        precision: The half-width that the interval of every recorded gap shall have, in the units of the observable. A pilot run of 32,768 paths with
            other draws determines the number of paths.
        times: A list of times to record, or "all" for every step. None for every step up to 8 / (1 - beta), later ones with the ratio 1.1, and the last.
        functionals: A sum over the steps of the path, such as `st.PathLength()`, or a list of these; recorded like observables, in columns behind them.
        keep_final: Whether to keep the positions of all paths after the last step, as `gap.final`.
        trajectories: A number of first paths, or a list of path indices, whose states at the recorded times are kept, as `gap.trajectories`.
        slices: A list of times, recorded or not, at which the states of all paths are kept, as `gap.slices`; None for none.
        confidence: The confidence level of intervals and of the simultaneous band, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The estimated gap at the recorded times, with its band and its maximum.

    Raises:
        ValueError: If an argument is invalid, or the two dynamics cannot be compared or coupled; the message states the rule and a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=0.1**-0.5)
        >>> plan = st.schedules.constant(eta=0.1, beta=0.5)
        >>> gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), x0=[1.0], horizon=1.0, paths=20_000, observe=["x"])
        >>> gap.sup("x").resolved
        True
    """
    how = Execution.of(execution)
    call = call_text(weak_gap, locals(), **how.changed())
    _check.flag("keep_final", keep_final)
    program, record, step_time = make_program((first, second), x0, horizon, observe, times, functionals, control, coupled)
    request = PathRequest.of(program, step_time, trajectories, slices)
    program.noise  # noqa: B018  refuses draws that cannot be shared, before anything runs
    with sampling(how, seed, stream, lambda: program.fingerprint(seed, stream, paths, precision)) as sampler:
        paths = chosen_paths(paths, precision, program, confidence, sampler)
        sums, kept = request.run(paths, sampler, keep_final)
    names = tuple(o.name for o in (*program.observables, *program.functionals))
    controlled, statistics = program.control is not None, PairStatistics(sums)
    known = Known(program, statistics)
    return WeakGap(
        first,
        second,
        record * step_time,
        record,
        names,
        statistics,
        coupled,
        controlled,
        confidence,
        known,
        origin=sampler.origin(call, sums),
        **kept,
    )
