r"""Talay-Tubaro extrapolation: the leading term of an integrator's weak error is eliminated by simulating with steps dt and dt/2.

An integrator of weak order p on a smooth problem has E h(X_T^dt) = E h(X_T) + c dt^p + O(dt^(p+1)), so that

    (2^p E h(X^(dt/2)) - E h(X^dt)) / (2^p - 1) = E h(X_T) + O(dt^(p+1)).

If the integrator's draws are Brownian increments, both steps share one Brownian path, so that their difference has a small variance.
With two-point and three-point draws they are independent.

Source: D. Talay, L. Tubaro, Stochastic Analysis and Applications 8 (1990) 483-509.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools._moved import RenamedAttribute, renamed_argument
from sdetools.dynamics.base import Moving
from sdetools.estimates import Estimate
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import moment
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.gap import WeakGap, weak_gap
from sdetools.studies.observables import column

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Extrapolation(Result):
    """Extrapolated means (2^p E h(X^(dt/2)) - E h(X^dt)) / (2^p - 1), and the estimated bias of the shorter step; the result of `st.extrapolate`.

    X^dt is the integrator's solution with step dt, h an observable, and p the weak order of the integrator.

    Attributes:
        pair: The weak gap between the dynamics with steps dt/2 (first) and dt (second).
        weak_order: The weak order p.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    pair: WeakGap
    weak_order: float
    origin: Origin = field(default=BY_HAND, compare=False)
    weak = RenamedAttribute("weak_order")

    @property
    def diverged(self) -> int:
        """The number of paths whose state was not finite at some step, those with the shorter step plus those with the longer."""
        return self.pair.diverged

    @property
    def factor(self) -> float:
        """The weight 2^p / (2^p - 1) of the mean with the shorter step in the extrapolated mean, p the weak order."""
        return 2.0**self.weak_order / (2.0**self.weak_order - 1)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the observables and then of the functionals (sums over the steps of a path), in the order of indices and of columns."""
        return self.pair.names

    @property
    def times(self) -> np.ndarray:
        """The recorded times, `(times,)`, in ascending order."""
        return self.pair.times

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard error of z + a (x - z), `(times, observables)` each, with x from the step dt/2, z from dt and a = `factor`."""
        s, a = self.pair.statistics, self.factor
        (_, fine), (mean, coarse) = s.member("x"), s.member("z")
        with np.errstate(all="ignore"):  # diverged paths stay NaN
            variance = a * fine - (a - 1) * coarse + (a * a - a) * s.variance
            return mean + a * s.gap, np.sqrt(np.maximum(variance, 0.0) / self.pair.paths)

    def _estimate(
        self, value: np.ndarray, stderr: np.ndarray, random: np.ndarray, label: str, observable: str | int, time: float | None
    ) -> Estimate:
        """Return one entry of arrays `(times, observables)` as an Estimate; NaN if a path diverged by then.

        Args:
            value: The values.
            stderr: Their standard errors.
            random: Whether draws enter the values.
            label: The beginning of the estimate's name, such as "E".
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            time: The recorded time; None for the last.
        """
        o, t = column(self.names, observable), moment(self.times, time)
        like = self.pair.at(o, float(self.times[t]))
        name = f"{label}[{self.names[o]}] at t={self.times[t]:g}"
        if like.diverged:
            return Estimate(math.nan, math.nan, like.n, like.confidence, name, like.diverged, like.first_divergence)
        rounding = (2 * self.factor - 1) * like.rounding
        return Estimate(
            float(value[t, o]), float(stderr[t, o]), like.n, like.confidence, name, random=bool(random[t, o]), rounding=rounding
        )

    def at(self, observable: str | int = 0, time: float | None = None) -> Estimate:
        """Return the estimate of the extrapolated E h at a recorded time; NaN if a path diverged by then.

        Args:
            observable: The name of the observable, or its index in `names`.
            time: The recorded time; None for the last.

        Raises:
            ValueError: If there is no such observable, or the time was not recorded.
        """
        return self._estimate(*self._moments, self.pair.facts.drawn, "E", observable, time)

    def main_estimates(self) -> dict[str, Estimate]:
        """Return a dict of the extrapolated mean at the last recorded time, by the name of the observable or functional."""
        return {name: self.at(name) for name in self.names}

    def bias(self, observable: str | int = 0, time: float | None = None) -> Estimate:
        """Return the bias of the shorter step, -(E h(X^(dt/2)) - E h(X^dt)) / (2^p - 1) = c (dt/2)^p + O(dt^(p+1)); NaN if a path diverged by then.

        X^dt is the solution with step dt, p the weak order, and c the constant of the leading error term c dt^p.

        Args:
            observable: The name of the observable, or its index in `names`.
            time: The recorded time; None for the last.

        Raises:
            ValueError: If there is no such observable, or the time was not recorded.
        """
        s, known, weight = self.pair.statistics, self.pair.facts, self.factor - 1
        return self._estimate(-weight * s.gap, weight * known.stderr, known.random, "bias of E", observable, time)

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over (time, observable).

        Its variables are the extrapolated `mean` and its `stderr`, the means `fine_mean` and `coarse_mean` with the shorter and the longer step, and
        the `bias` of the shorter step with `bias_stderr`. Its attributes are the numbers of paths and of diverged paths, the weak order, and the
        fields of `origin`.
        """
        import xarray

        (value, stderr), s = self._moments, self.pair.statistics
        fields = {
            "mean": value, "stderr": stderr, "fine_mean": s.member("x")[0], "coarse_mean": s.member("z")[0],
            "bias": -(self.factor - 1) * s.gap, "bias_stderr": (self.factor - 1) * s.stderr,
        }  # fmt: skip
        return xarray.Dataset(
            {name: (("time", "observable"), values) for name, values in fields.items()},
            coords={"time": self.times, "observable": list(self.names)},
            attrs={"paths": self.pair.paths, "weak_order": self.weak_order, "diverged": self.pair.diverged}
            | self.origin.attributes,
        )

    def table(self) -> str:
        """Return a text table with a line for each observable and time: the extrapolated mean, its interval, and the bias of the shorter step."""
        lines = [
            f"{'observable':<18} {'time':>10} {'mean':>14} {f'{100 * self.pair.confidence:g} % interval':>28} {'bias of dt/2':>14} {'stderr':>10}"
        ]
        for name in self.names:
            for t in self.times:
                e, b = self.at(name, float(t)), self.bias(name, float(t))
                lines.append(
                    f"{name:<18.18} {t:>10.4g} {e.value:>14.6g} {e.confidence_interval()!s:>28} {b.value:>14.4g} {b.stderr:>10.2g}"
                )
        return "\n".join(lines)

    def plot(self, observable: str | int = 0, *, ax: Any = None) -> Figure:
        """Plot the extrapolated mean over time with its pointwise interval, and return the figure.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, gap_curve

        row = [self.at(observable, float(t)) for t in self.times]
        parts = [[getattr(e, end) for e in row] for end in ("value", "low", "high")]
        label = f"E[{self.names[column(self.names, observable)]}], extrapolated"
        return figure_of(gap_curve(self.times, *parts, ylabel=label, zero=False, ax=ax))

    def __repr__(self) -> str:
        p, pair = self.weak_order, self.pair
        how = "on one Brownian path" if pair.coupled else "on independent draws"
        head = f"{pair.first.name}: steps {pair.first.step_time:g} and {pair.second.step_time:g} {how}, {pair.paths:,} paths, order {p:g}"
        rows = [
            f"{self.at(o)!r}"
            + (
                f"; the shorter step alone is {b.value:.2g} +- {b.half_width:.1g} away"
                if math.isfinite((b := self.bias(o)).value)
                else ""
            )
            for o in range(len(self.names))
        ]
        return "\n  ".join([head, *rows])


def extrapolate(
    make: Callable[[float], Moving],
    dt: float,
    x0: Any,
    horizon: float,
    paths: int | None = None,
    observe: Any = (),
    *,
    weak_order: float | None = None,
    coupled: bool | None = None,
    control: bool = False,
    precision: float | None = None,
    times: Any = None,
    functionals: Any = (),
    keep_final: bool = False,
    trajectories: Any = None,
    slices: Any = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    weak: float | None = None,
    **execution: Unpack[ExecutionOptions],
) -> Extrapolation:
    r"""Estimate E h(X_T) from steps dt and dt/2 without the leading error term: weak order p + 1 for an integrator of weak order p.

    Args:
        make: A function of dt that returns a dynamics of step dt, usually `lambda dt: st.EulerMaruyama(sde, dt)`.
        dt: The longer step.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time T, a whole number of steps dt.
        paths: The number of paths. Give either `paths` or `precision`.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        weak_order: The weak order p; None for the integrator's own.
        coupled: Whether the dynamics with the two steps share their draws; None for True if the draws are Brownian increments and False otherwise.
        control: Whether the difference is regressed on the control variate of `weak_gap`, the noise in the momentum buffer, where there is one.
        precision: The half-width that the interval of the difference of the two steps shall have, in the units of the observable.
        times: A list of times to record, or "all" for every step. None for every step up to 8 / (1 - beta), later ones with the ratio 1.1, and the last.
        functionals: A sum over the steps of the path, such as `st.PathLength()`, or a list of these; recorded like observables, in columns behind them.
        keep_final: Whether to keep the positions of all paths after the last step, as `run.pair.final`.
        trajectories: A number of first paths, or a list of path indices, whose states at the recorded times are kept, as `run.pair.trajectories`.
        slices: A list of times at which the states of all paths are kept, as `run.pair.slices`; None for none.
        confidence: The confidence level of intervals, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        weak: Deprecated name of `weak_order`.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The extrapolated means, and the estimated bias of the shorter step.

    Raises:
        ValueError: If an argument is invalid, or `weak_order` is missing and the dynamics declares none; the message states a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> sde = st.SDE(drift=["-x"], diffusion=["0.3*x"], variables="x")
        >>> run = st.extrapolate(lambda dt: st.EulerMaruyama(sde, dt), 0.1, [1.0], 1.0, paths=20_000, observe=["x"])
        >>> abs(run.at("x").z(2 * 0.95**20 - 0.9**10)) < 4.5  # 0.0004 from exp(-1); one step of 0.05 alone is 0.009 away
        True
        >>> abs(run.bias("x").z(0.95**20 - (2 * 0.95**20 - 0.9**10))) < 4.5
        True
    """
    weak_order, weak = renamed_argument("weak", weak, "weak_order", weak_order), None
    call = call_text(extrapolate, locals(), **Execution.of(execution).changed())
    if not callable(make):
        raise ValueError(
            f"`make` must be a function of dt that returns a dynamics; got {make!r}. Try lambda dt: st.Platen(sde, dt)."
        )
    dt = _check.positive("dt", dt)
    members = make(dt / 2), make(dt)
    for member, step in zip(members, (dt / 2, dt)):
        if not isinstance(member, Moving):
            raise ValueError(f"`make` must return a dynamics; for dt={step:g} it returned {member!r}.")
        if not math.isclose(member.step_time, step, rel_tol=1e-12):
            raise ValueError(
                f"`make(dt)` must return a dynamics of step dt; for dt={step:g} its step is {member.step_time:g}. Use its argument dt."
            )
    order = weak_order if weak_order is not None else getattr(members[0], "weak_order", None)
    if order is None:
        raise ValueError(f"`weak_order` must be given, for {members[0].name} declares no weak order; for an optimiser it is 1.")
    order = _check.positive("weak_order", order)
    coupled = coupled if coupled is not None else members[0].brownian > 0
    gap = weak_gap(
        *members, x0, horizon, paths, observe, coupled=coupled, control=control, precision=precision, times=times, functionals=functionals,
        keep_final=keep_final, trajectories=trajectories, slices=slices, confidence=confidence, seed=seed, stream=stream, **execution,
    )  # fmt: skip
    return Extrapolation(gap, order, replace(gap.origin, call=call))
