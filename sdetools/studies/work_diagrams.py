"""Work-precision diagrams: the weak or strong error of several methods at several steps, against evaluations and measured time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Dynamics, Moving
from sdetools.dynamics.integrators.base import Integrator
from sdetools.estimates.interval import quantile
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text
from sdetools.simulation.philox import Stream
from sdetools.simulation.program import Program
from sdetools.simulation.records import LEAF, PAIR
from sdetools.starts import Law
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.known import Known
from sdetools.studies.means import make_program
from sdetools.studies.observables import column
from sdetools.studies.sampler import Sampler, sampling
from sdetools.studies.statistics import PairStatistics, SingleStatistics

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

TIMED, LONGEST_TIMED = 1 << 12, 1 << 20
"""The least and the largest number of paths of a run whose time is measured."""
LEAST_SECONDS = 0.05
"""A run whose time is measured takes at least this time, or has the largest number of paths."""
COUNTED = ("drift", "diffusion", "gradient", "force")
"""The functions of an SDE whose evaluations are counted."""
STRONG = "root mean square"
"""The name of the only column of strong errors."""


@dataclass(frozen=True, eq=False)
class WorkPrecision(Result):
    """Errors of methods at several steps with their costs; the return value of `st.work_precision`.

    Arrays `(methods, dts)` have a row for each method and a column for each step size, in the orders of `methods` and `dts`.

    Attributes:
        methods: The names of the methods.
        dts: The step sizes, `(dts,)`, in descending order.
        names: The names of the observables; for a strong error the single name "root mean square".
        errors: The errors, `(methods, dts, observables)`: |E h(X_T) - expected|, or sqrt(E |X_T - reference|^2).
        lows: The lower ends of their intervals, likewise; 0 if the error is below the noise.
        highs: The upper ends.
        evaluations: The number of evaluations of drift and diffusion, or of gradients, on one path from 0 to T, integers `(methods, dts)`.
        seconds: The measured time of one path in seconds, `(methods, dts)`: that of a run of many paths, divided by their number.
        paths: The number of paths of each method at each step.
        confidence: The confidence level of each interval.
        diverged: The number of diverged paths, over all methods and steps.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    methods: tuple[str, ...]
    dts: np.ndarray
    names: tuple[str, ...]
    errors: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    evaluations: np.ndarray
    seconds: np.ndarray
    paths: int
    confidence: float = 0.95
    diverged: int = 0
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def strong(self) -> bool:
        """Whether errors are strong ones, root mean squares of distances between paths."""
        return self.names == (STRONG,)

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over (method, dt, observable): `error` (also as `mean`), its interval `low` and `high`, and `resolved`, whether that excludes 0.

        Over (method, dt) it has the costs of a path, `evaluations` and `seconds`. The attributes are the numbers of paths and of diverged paths, and
        the fields of `origin`.
        """
        import xarray

        fields = {"error": self.errors, "mean": self.errors, "low": self.lows, "high": self.highs, "resolved": self.lows > 0}
        return xarray.Dataset(
            {name: (("method", "dt", "observable"), values) for name, values in fields.items()}
            | {name: (("method", "dt"), getattr(self, name)) for name in ("evaluations", "seconds")},
            coords={"method": list(self.methods), "dt": self.dts, "observable": list(self.names)},
            attrs={"paths": self.paths, "diverged": self.diverged} | self.origin.attributes,
        )

    def table(self, *, seconds: bool = True) -> str:
        """Return a text table with a line for each method, observable and step: the error, its interval, the local slope, and the costs of a path.

        The local slope is the slope of log error against log dt between this step and the one before, where both are resolved.

        Args:
            seconds: Whether to show the measured time, which differs from run to run.
        """
        head = f"{'method':<18.18} {'observable':<18.18} {'dt':>9} {'error':>10} {f'{100 * self.confidence:g} % interval':>24} {'slope':>6} {'evaluations':>12}"
        lines = [head + (f" {'us a path':>10}" if seconds else "")]
        for m, method in enumerate(self.methods):
            for o, name in enumerate(self.names):
                slopes = self._slopes(m, o)
                for d, dt in enumerate(self.dts):
                    interval = f"[{self.lows[m, d, o]:.3g}, {self.highs[m, d, o]:.3g}]"
                    slope = f"{slopes[d]:.2f}" if math.isfinite(slopes[d]) else "-"
                    line = f"{method:<18.18} {name:<18.18} {dt:>9.4g} {self.errors[m, d, o]:>10.3g} {interval:>24} {slope:>6} {self.evaluations[m, d]:>12,}"
                    lines.append(line + (f" {1e6 * self.seconds[m, d]:>10.3g}" if seconds else ""))
        if self.diverged:
            lines.append(f"{self.diverged:,} paths diverged; errors that depend on them are NaN")
        return "\n".join(lines)

    def _slopes(self, m: int, o: int) -> np.ndarray:
        """Return the local slopes of a method and an observable, `(dts,)`; NaN for the first step and next to errors that are not resolved."""
        with np.errstate(all="ignore"):
            log = np.where(self.lows[m, :, o] > 0, np.log(self.errors[m, :, o]), np.nan)
            return np.concatenate([[np.nan], np.diff(log) / np.diff(np.log(self.dts))])

    def plot(self, observable: str | int = 0, *, seconds: bool = False, ax: Any = None) -> Figure:
        """Plot costs against errors on logarithmic axes, a curve for each method, and return the figure. Lower is cheaper.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            seconds: Whether the cost is the measured time of a path, instead of its number of evaluations.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import cost_diagram, figure_of

        o, cost = column(self.names, observable), self.seconds if seconds else self.evaluations
        curves = {
            name: (cost[m], self.errors[m, :, o], self.lows[m, :, o], self.highs[m, :, o]) for m, name in enumerate(self.methods)
        }
        xlabel = "strong error" if self.strong else f"weak error of {self.names[o]}"
        return figure_of(cost_diagram(curves, xlabel, "seconds a path" if seconds else "evaluations a path", ax=ax))

    def __repr__(self) -> str:
        kind = "strong" if self.strong else "weak"
        return f"{kind} errors of {', '.join(self.methods)} at {len(self.dts)} steps, {self.paths:,} paths each\n{self.table()}"


def work_precision(
    methods: Mapping[str, Callable[[float], Moving]] | Sequence[Callable[[float], Moving]],
    dts: Sequence[float],
    x0: Any,
    horizon: float,
    paths: int = 10_000,
    observe: Any = (),
    *,
    expected: Any = None,
    reference: Moving | None = None,
    strong: bool = False,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> WorkPrecision:
    r"""Measure the error of several methods at several steps, and what it costs: the work-precision diagram of numerical analysis.

    The weak error is |E h(X_T^dt) - E h(X_T)|, the strong error sqrt(E |X_T^dt - X_T|^2). What X_T is, is given by the numbers `expected`, or by
    `reference`, a dynamics with a small step that follows the same Brownian path; the errors are then those against this dynamics. A point whose
    interval contains 0 is not resolved: its error is below the noise of `paths` paths.

    Args:
        methods: A dict from names to functions of dt that return a dynamics of this step, such as `{"Euler": lambda dt: st.EulerMaruyama(sde, dt)}`;
            or a list of such functions, whose dynamics give the names.
        dts: The step sizes; the horizon is a whole number of each.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time T.
        paths: The number of paths at each step.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
            Omit it for a strong error.
        expected: The exact E h(X_T): a number for a single observable, or a dict from names to numbers.
        reference: A dynamics with a step that divides all of `dts`, and Brownian increments that they can share. Give either `expected` or this.
        strong: Whether to measure the strong error, which needs `reference` and at least 512 paths.
        confidence: The confidence level of each interval, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The errors with their intervals, and the costs.

    Raises:
        ValueError: If an argument is invalid, or a method cannot follow the reference's Brownian path; the message states a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> sde = st.SDE(drift=["-x"], diffusion=["0.5*x"], variables="x")
        >>> methods = {"Euler": lambda dt: st.EulerMaruyama(sde, dt), "Platen": lambda dt: st.Platen(sde, dt)}
        >>> found = st.work_precision(methods, [0.5, 0.25], [1.0], 1.0, 20_000, ["x"], expected=0.36787944)
        >>> found.evaluations.tolist(), bool(found.errors[0, 0, 0] > found.errors[1, 0, 0])
        ([[4, 8], [12, 24]], True)
    """
    how = Execution.of(execution)
    call = call_text(work_precision, locals(), **how.changed())
    paths = _check.count("paths", paths, hint="It is the number of simulated paths, at least one.")
    _check.confidence(confidence)
    sizes = np.unique([_check.positive("dts", dt) for dt in np.atleast_1d(np.asarray(dts, dtype=object)).ravel().tolist()])[::-1]
    if not len(sizes):
        raise ValueError("`dts` must contain at least one step; got none. Pass for example [0.1, 0.05].")
    makes = _makes(methods, float(sizes[0]))
    if (expected is None) == (reference is None):
        raise ValueError(
            "`expected` or `reference` must be given, one of them; got "
            f"{'neither' if expected is None else 'both'}. Pass exact expectations, or a dynamics with a small step."
        )
    if strong and (reference is None or paths < 2 * LEAF):
        raise ValueError(
            f"`strong` must go with `reference` and at least {2 * LEAF} paths; got {paths} paths and reference={reference!r}."
        )
    members = {name: [_made(name, make, float(dt)) for dt in sizes] for name, make in makes.items()}
    h: Any = {name: _Coordinate(i) for i, name in enumerate(next(iter(members.values()))[0].names)} if strong else observe
    programs = [[_program(member, reference, x0, horizon, h) for member in row] for row in members.values()]
    names = tuple(o.name for o in programs[0][0].observables)
    targets = _targets(expected, names)
    errors, seconds, diverged = [], [], 0
    with sampling(how, seed, stream, lambda: programs[0][0].fingerprint(seed, stream, paths, call)) as sampler:
        for member, program in ((m, p) for row, own in zip(members.values(), programs) for m, p in zip(row, own)):
            sums = sampler.run(program, paths)
            diverged += int(sums.diverged.sum())
            if strong:
                errors.append([_strong(PairStatistics(sums), confidence)])
            else:
                errors.append(_weak(program, sums, targets, confidence))
            alone = program if reference is None else _program(member, None, x0, horizon, h)
            seconds.append(_seconds(alone, sampler))
        origin = sampler.origin(call, sums)
    shape = len(members), len(sizes)
    values, lows, highs = np.moveaxis(np.array(errors, dtype=float).reshape(*shape, -1, 3), -1, 0).copy()
    counts = [[_evaluations(member, x0) * round(horizon / member.step_time) for member in row] for row in members.values()]
    return WorkPrecision(
        tuple(members), sizes, (STRONG,) if strong else names, values, lows, highs, np.array(counts), np.reshape(seconds, shape), paths,
        confidence, diverged, origin,
    )  # fmt: skip


@dataclass(frozen=True)
class _Coordinate:
    """The observable x_i."""

    i: int

    def __call__(self, x: Any) -> Any:
        return x[self.i]


def _makes(methods: Any, dt: float) -> dict[str, Callable[[float], Moving]]:
    """Return methods as a dict from names to functions of dt; ValueError if there are none, or two have one name."""
    if isinstance(methods, Mapping):
        made = dict(methods)
    else:
        if not (callable(methods) or isinstance(methods, Sequence)) or isinstance(methods, str):
            raise ValueError(
                f"`methods` must be a list or dict of functions of dt; got {_check.shown(methods)}. "
                "Pass for example [lambda dt: st.Platen(sde, dt)]."
            )
        listed = [methods] if callable(methods) else list(methods)
        made = {_made("a method", make, dt).name: make for make in listed}
        if len(made) < len(listed):
            raise ValueError(
                f"`methods` must have different names; got {', '.join(made)} for {len(listed)} methods. Pass a dict."
            )
    if not made:
        raise ValueError(
            "`methods` must contain at least one function of dt; got none. Pass for example [lambda dt: st.Platen(sde, dt)]."
        )
    return {str(name): make for name, make in made.items()}


def _made(name: str, make: Any, dt: float) -> Moving:
    """Return the dynamics of a method with step `dt`; ValueError if the method returns something else."""
    member = make(dt) if callable(make) else make
    if not isinstance(member, Moving) or not math.isclose(member.step_time, dt, rel_tol=1e-9):
        got = f"step {member.step_time:g}" if isinstance(member, Moving) and callable(make) else _check.shown(member)
        raise ValueError(f"`methods` must be functions of dt that return a dynamics of step dt; for dt={dt:g} {name} has {got}.")
    return member


def _program(member: Moving, reference: Moving | None, x0: Any, horizon: float, observe: Any) -> Program:
    """Return the program (description of a simulation) of a dynamics, or of the pair with its reference, which records the last step only."""
    members = (member,) if reference is None else (member, reference)
    return make_program(members, x0, horizon, observe, [horizon], (), control=False, coupled=True)[0]


def _targets(expected: Any, names: tuple[str, ...]) -> np.ndarray | None:
    """Return the exact expectations in the order of the observables, `(observables,)`, or None for None; ValueError if one is missing."""
    if expected is None:
        return None
    given = expected if isinstance(expected, Mapping) else {names[0]: expected}
    if sorted(given) != sorted(names):
        raise ValueError(f"`expected` must have a number for each of {', '.join(names)}; got {', '.join(map(str, given))}.")
    return np.array([_check.number("expected", given[name]) for name in names])


def _weak(program: Program, sums: Any, targets: np.ndarray | None, confidence: float) -> list[tuple[float, float, float]]:
    """Return the weak error of each observable with its interval, as triples (error, low, high).

    Args:
        program: The description of the simulation.
        sums: Its moments.
        targets: The exact expectations; None for a pair.
        confidence: The confidence level.
    """
    statistics = SingleStatistics(sums) if targets is not None else PairStatistics(sums)
    value = statistics.mean[-1] - targets if isinstance(statistics, SingleStatistics) else statistics.gap[-1]
    facts, out = Known(program, statistics).facts, []
    for o, (v, s, rounding) in enumerate(zip(value, facts.stderr[-1], facts.rounding[-1])):
        half = quantile(confidence, sums.paths) * s + rounding if s > 0 or not facts.random[-1, o] else math.inf
        out.append((abs(v), max(0.0, abs(v) - half), abs(v) + half) if math.isfinite(v) else (math.nan, 0.0, math.inf))
    return out


def _strong(statistics: PairStatistics, confidence: float) -> tuple[float, float, float]:
    """Return the triple (error, low, high): the root mean square of |x - z| with its interval, from the means of |x - z|^2 over groups of paths.

    Args:
        statistics: The moments of the pair x, z, whose observables are the coordinates.
        confidence: The confidence level.
    """
    sums = statistics.sums
    used = sums.counts > 0
    counts, groups = sums.counts[used], PAIR.by_name(sums.groups[used, -1])
    squares = (groups["d"] ** 2 + groups["d2"] / counts[:, None]).sum(axis=1)
    total, n = counts.sum(), len(counts)
    mean = float((counts * squares).sum() / total)
    stderr = (
        math.sqrt(n / (n - 1) * float((counts**2 * (squares - mean) ** 2).sum())) / total if math.isfinite(mean) else math.nan
    )
    if not math.isfinite(mean):
        return math.nan, 0.0, math.inf
    half = quantile(confidence, n) * stderr
    return math.sqrt(mean), math.sqrt(max(0.0, mean - half)), math.sqrt(mean + half)


def _seconds(program: Program, sampler: Sampler) -> float:
    """Return the time of one path in seconds, from a run of many paths that is neither stored nor resumed, after one that compiles."""
    own = replace(sampler, execution=replace(sampler.execution, store=None, resume=False, progress=False))
    own.run(program, LEAF)
    paths = TIMED
    while True:
        begin = time.perf_counter()
        own.run(program, paths)
        seconds = time.perf_counter() - begin
        if seconds >= LEAST_SECONDS or paths >= LONGEST_TIMED:
            return seconds / paths
        paths *= 4


def _evaluations(member: Moving, x0: Any) -> int:
    """Return the number of evaluations in one step of a dynamics: of its noisy gradient, or of the drift and the diffusion of its SDE.

    One step is taken at the start of the first path, for a law at 0, with all draws 0.5, and the calls are counted.
    """
    count = depth = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal count, depth
            count += depth == 0
            depth += 1
            try:
                return function(*given, **named)
            finally:
                depth -= 1

        return counted

    at = np.zeros(member.dim) if isinstance(x0, Law) else np.asarray(x0, dtype=float).reshape(member.dim, -1)[:, 0]
    own, z = copy(member), np.full(sum(d.n for d in member.draws), 0.5)
    if isinstance(own, Integrator):
        own.sde = copy(own.sde)
        for name in COUNTED:
            if callable(getattr(own.sde, name, None)):
                setattr(own.sde, name, counting(getattr(own.sde, name)))
    bound = own.bind(z)
    with np.errstate(all="ignore"):
        own.rule(own.start(at), counting(bound) if isinstance(own, Dynamics) else bound, *own.coefficient_values(1)[0])
    return count
