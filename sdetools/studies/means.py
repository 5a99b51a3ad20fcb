"""Means of observables along one dynamics, estimated from many paths, and the validation of a simulation's arguments.

A dynamics is a one-step rule with its noise and the time of one step. Arrays `(times, observables)` have one row for each recorded time, in
ascending order, and one column for each observable and then for each functional, in the order of `names`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check, starts
from sdetools.dynamics.arguments import check_dynamics
from sdetools.dynamics.base import Moving
from sdetools.estimates import Estimate
from sdetools.results.protocol import call_text, estimates_table
from sdetools.simulation.engine import check_records
from sdetools.simulation.philox import Stream
from sdetools.simulation.program import Program
from sdetools.studies.clock import moment, recorded_steps, steps_to
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.facts import Facts
from sdetools.studies.kept_paths import KeptPaths, PathRequest
from sdetools.studies.known import Known
from sdetools.studies.observables import column, observables
from sdetools.studies.sampler import Sampler, paths_for_precision, sampling
from sdetools.studies.statistics import SingleStatistics

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Simulation(KeptPaths):
    """Estimated means E h(x_k) of observables along one dynamics at the recorded times; the return value of `st.simulate`.

    Attributes:
        dynamics: The dynamics.
        times: The recorded times, `(times,)`, in ascending order.
        steps: The steps at these times, integers `(times,)`.
        names: The names of the observables and then of the functionals (sums over the steps of a path).
        statistics: Sample means, variances and standard errors, `(times, observables)` each.
        confidence: The confidence level of intervals.
        known: Properties of the values that follow from the computation: exactness, bounds, rounding. `facts` has them as arrays.
        trajectories: Selected paths at the recorded times, an array over (path, time, part, coordinate); None if not requested. A part is the
            position "x" or another array of the state, such as the momentum buffer "m".
        slices: All paths at selected times, an array over (path, time, part, coordinate); None if not requested.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    dynamics: Moving
    times: np.ndarray
    steps: np.ndarray
    names: tuple[str, ...]
    statistics: SingleStatistics
    confidence: float
    known: Known | Facts

    @property
    def members(self) -> tuple[Moving, ...]:
        """A tuple whose only element is the dynamics."""
        return (self.dynamics,)

    @property
    def paths(self) -> int:
        """The number of paths, diverged ones included."""
        return self.statistics.sums.paths

    @property
    def diverged(self) -> int:
        """The number of diverged paths: those whose state was not finite at some step."""
        return int(self.statistics.sums.diverged[0])

    @property
    def first_divergence(self) -> int:
        """The first step at which the state of a path was not finite; -1 if all were finite."""
        return int(self.statistics.sums.first_divergence[0])

    @property
    def final(self) -> np.ndarray | None:
        """The positions of all paths after the last step, `(dim, paths)`; None without `keep_final=True`."""
        return self.statistics.sums.points

    def at(self, observable: str | int = 0, time: float | None = None) -> Estimate:
        """Return the estimate of E h at a recorded time; NaN with an infinite interval if a path diverged by then.

        Args:
            observable: The name of the observable, or its index in `names`.
            time: The recorded time; None for the last.

        Raises:
            ValueError: If there is no such observable, or the time was not recorded.
        """
        o, t = column(self.names, observable), moment(self.times, time)
        value, stderr = float(self.statistics.mean[t, o]), float(self.facts.stderr[t, o])
        name = f"E[{self.names[o]}] at t={self.times[t]:g}"
        diverged = self.diverged if 0 <= self.first_divergence <= self.steps[t] else 0
        first = self.first_divergence if diverged else -1
        return Estimate(
            value,
            stderr,
            self.paths,
            self.confidence,
            name,
            diverged,
            first,
            skewness=self.statistics.skewness(t, o),
            **self.facts.of(t, o),
        )

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset with `mean`, `stderr` and `variance` (of h over paths) over (time, observable), and the coordinate `step` along `time`.

        Functionals come behind the observables. Its attributes are the numbers of paths and of diverged paths, the first step of divergence
        (`first_divergence`, -1 for none), and the fields of `origin`.
        """
        import xarray

        dims = ("time", "observable")
        fields = {"mean": self.statistics.mean, "stderr": self.statistics.stderr, "variance": self.statistics.variance}
        return xarray.Dataset(
            {name: (dims, values) for name, values in fields.items()},
            coords={"time": self.times, "observable": list(self.names), "step": ("time", self.steps)},
            attrs={"paths": self.paths, "diverged": self.diverged, "first_divergence": self.first_divergence}
            | self.origin.attributes,
        )

    def table(self) -> str:
        """Return a text table of the means and their intervals: a line for each observable and each of its recorded times."""
        rows = ((name, f"{t:.4g}", self.at(name, float(t))) for name in self.names for t in self.times)
        return estimates_table("mean", self.confidence, rows)

    def plot(self, observable: str | int | None = None, *, ax: Any = None) -> Figure:
        """Plot means over time with their pointwise intervals, and return the figure.

        Args:
            observable: The name of an observable, or its index in `names`; None for all, as curves in the same axes.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, gap_curve

        chosen = self.names if observable is None else (self.names[column(self.names, observable)],)
        rows = {name: [self.at(name, float(t)) for t in self.times] for name in chosen}
        parts = [{name: [getattr(e, end) for e in row] for name, row in rows.items()} for end in ("value", "low", "high")]
        band = f"{100 * self.confidence:g} % intervals"
        axes = gap_curve(
            self.times, *parts, band=band, ylabel="mean" if len(chosen) > 1 else f"E[{chosen[0]}]", zero=False, ax=ax
        )
        return figure_of(axes)

    def main_estimates(self) -> dict[str, Estimate]:
        """Return a dict of the mean at the last recorded time, by the name of the observable or functional."""
        return {name: self.at(name) for name in self.names}

    def __repr__(self) -> str:
        how = " in float32" if self.statistics.sums.dtype == "float32" else ""
        lines = [f"{self.dynamics.name}: {self.paths:,} paths{how}, {self.steps[-1]} steps to t={self.times[-1]:g}"]
        if self.diverged:
            lines.append(f"  {self.diverged:,} paths left the finite range, first at step {self.first_divergence}")
        return "\n  ".join([*lines, *(repr(self.at(name)) for name in self.names)])


def simulate(
    dynamics: Moving,
    x0: Any,
    horizon: float,
    paths: int | None = None,
    observe: Any = (),
    *,
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
) -> Simulation:
    r"""Estimate the means E h(x_k) of observables along one dynamics, from independent paths.

    Step k is at time t = k step_time. The draws depend on `seed` and `stream` alone.

    Args:
        dynamics: An optimiser, an SDE with an integrator, or any other one-step rule.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time, a whole number of steps of `dynamics.step_time`.
        paths: The number of paths. Give either `paths` or `precision`.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        precision: The half-width that the interval of every recorded mean shall have, in the units of the observable. A pilot run of 32,768 paths with
            other draws determines the number of paths.
        times: A list of times to record, or "all" for every step. None records every step up to 8 / (1 - beta) (512 of them, evenly spaced, if these
            are more), later ones with the ratio 1.1, and the last.
        functionals: A sum over the steps of the path, such as `st.PathLength()`, or a list of these. They are recorded like observables, in columns
            behind them.
        keep_final: Whether to keep the positions of all paths after the last step, as `run.final`.
        trajectories: A number n for the first n paths, or a list of path indices. The states of these paths at the recorded times are kept as
            `run.trajectories`. These paths are simulated again after all others, equal to the bit.
        slices: A list of times, recorded or not, at which the states of all paths are kept, as `run.slices`; None for none.
        confidence: The confidence level of intervals, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The estimated means with their intervals, and the states of paths that were requested.

    Raises:
        ValueError: If an argument is invalid; the message states the rule and a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.none(dim=1))
        >>> rule = st.SGD(oracle, st.schedules.constant(eta=0.5))
        >>> run = st.simulate(rule, x0=[1.0], horizon=1.0, paths=10, observe=["x**2"], trajectories=[3, 7], backend="numpy")
        >>> run.at("x**2")
        E[x**2] at t=1 = 0.0625 (exact)
        >>> run.trajectories.sel(path=7, part="x", coordinate="x").values.tolist()
        [1.0, 0.5, 0.25]
    """
    how = Execution.of(execution)
    call = call_text(simulate, locals(), **how.changed())
    _check.flag("keep_final", keep_final)
    program, record, step_time = make_program((dynamics,), x0, horizon, observe, times, functionals, control=False, coupled=True)
    request = PathRequest.of(program, step_time, trajectories, slices)
    with sampling(how, seed, stream, lambda: program.fingerprint(seed, stream, paths, precision)) as sampler:
        paths = chosen_paths(paths, precision, program, confidence, sampler)
        sums, kept = request.run(paths, sampler, keep_final)
    names = tuple(o.name for o in (*program.observables, *program.functionals))
    statistics = SingleStatistics(sums)
    return Simulation(
        dynamics,
        record * step_time,
        record,
        names,
        statistics,
        confidence,
        Known(program, statistics),
        origin=sampler.origin(call, sums),
        **kept,
    )


def make_program(
    members: tuple[Moving, ...],
    x0: Any,
    horizon: float,
    observe: Any,
    times: Any,
    functionals: Any,
    control: Any,
    coupled: bool,
) -> tuple[Program, np.ndarray, float]:
    """Validate the arguments of a simulation of one dynamics or of a pair, and return its description for the engine.

    Args:
        members: One dynamics, or the two of a pair.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time, on the clock of the longer step.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        times: A list of times to record, or "all" for every step. None for every step up to 8 / (1 - beta), later ones with the ratio 1.1, and the last.
        functionals: A sum over the steps of the path, such as `st.PathLength()`, or a list of these; recorded like observables, in columns behind them.
        control: Whether to use a control variate of the gap where one exists: for coupled members of equal step, of which the first has momentum and
            noise with a variance that is not sampled from data.
        coupled: Whether the members share their draws.

    Returns:
        The triple of the program, its recorded steps as integers `(times,)` counted in the longer of the members' steps, and the time of one such
        step.

    Raises:
        ValueError: If an argument is invalid, the members differ in dimension or in the order of coordinates, or their steps do not nest.
    """
    from sdetools.studies.clock import plan_control

    for member, name in zip(members, ("dynamics",) if len(members) == 1 else ("first", "second"), strict=True):
        check_dynamics(member, name)
    first = members[0]
    if len(members) == 2:
        if members[0].dim != members[1].dim:
            raise ValueError(
                f"the two dynamics must have one dimension; got {members[0].dim} and {members[1].dim}. "
                "Make them on losses with the same number of coordinates."
            )
        names = [m.names for m in members]
        if set(names[0]) == set(names[1]) and names[0] != names[1]:
            raise ValueError(
                f"the two losses must name their coordinates in one order; got {' '.join(names[0])} and {' '.join(names[1])}. "
                "Pass the same variables= to both."
            )
    coupled, control = _check.flag("coupled", coupled), _check.flag("control", control)
    every = nested(members)
    longest = max(every)
    step_time = max(m.step_time for m in members)  # results are recorded on the clock of the longer step
    start = starts.checked(x0, first.dim)
    for member in members:
        if isinstance(start, starts.Law) and not member.starts_from_law:
            raise ValueError(
                f"`x0` of {member.name} on a slow SDE must be a point or an array of points (dim, n), for Phi is computed of each "
                f"beforehand; got the {start!r}. Pass points of it: law.sample(numpy.random.default_rng(0), 1000)."
            )
    steps = steps_to(horizon, step_time)
    record = recorded_steps(times, steps, step_time, max(m.longest_memory * r / longest for m, r in zip(members, every)))
    test_functions = observables(observe, first)
    functionals = tuple(functionals) if isinstance(functionals, (list, tuple)) else (functionals,)
    for functional in functionals:
        if isinstance(functional, type) or not callable(getattr(functional, "increment", None)):
            raise ValueError(
                f"`functionals` must have `increment(before, after)`; got {_check.shown(functional)}. Try st.PathLength()."
            )
        if not 0 <= _check.count("coordinate", getattr(functional, "coordinate", 0), least=-first.dim) < first.dim:
            raise ValueError(f"`coordinate` of {functional.name} must lie in 0..{first.dim - 1}; got {functional.coordinate}.")
    if not test_functions and not functionals:
        raise ValueError("`observe` must name at least one observable; got none. Pass for example observe=['x**2'].")
    program = Program(
        members, (start,) * len(members), steps * longest, record * longest, test_functions, functionals, None, coupled, every
    )
    check_records(program)  # first, because planning the anchors takes a loop over the records
    if control and coupled and first.finite_variance and not first.sampled and every == (1, 1):
        program = replace(program, control=plan_control(first, steps, record))
    return program, record, step_time


def nested(members: tuple[Moving, ...]) -> tuple[int, ...]:
    """Return the step of each member in units of the shortest step, a tuple of integers such as (1, 4) in the order of `members`.

    Args:
        members: One dynamics, or the two of a pair.

    Raises:
        ValueError: If the longer step is not a whole multiple of the shorter one.
    """
    shortest = min(m.step_time for m in members)
    ratios = [m.step_time / shortest for m in members]
    every = tuple(round(r) for r in ratios)
    if not all(math.isclose(r, n, rel_tol=1e-9) for r, n in zip(ratios, every)):
        a, b = (m.step_time for m in members)
        raise ValueError(
            f"the steps of the two dynamics must nest, one a whole multiple of the other; got step_time={a:g} and {b:g}. "
            "Give both the same step_time=, plans of the same base eta, or an integrator a dt that divides the other's step."
        )
    return every


def chosen_paths(paths: Any, precision: Any, program: Program, confidence: float, sampler: Sampler) -> int:
    """Return the number of paths of a run: `paths` itself, or the number that reaches `precision` by a run of pilot paths.

    Args:
        paths: The requested number of paths, at least 1; None to determine it from `precision`.
        precision: The half-width that every recorded interval shall have; None if `paths` is given.
        program: The description of the simulation.
        confidence: The confidence level of the intervals.
        sampler: Seed, stream and options of execution.

    Raises:
        ValueError: If not exactly one of `paths` and `precision` is given, an argument is invalid, or the pilot paths do not determine the
            number.
    """
    _check.confidence(confidence)
    if (paths is None) == (precision is None):
        raise ValueError("give either `paths` or `precision`, one of them; for example paths=100_000.")
    if paths is not None:
        return _check.count("paths", paths, hint="It is the number of simulated paths, at least one, such as 10_000.")
    return paths_for_precision(program, precision, confidence, sampler)
