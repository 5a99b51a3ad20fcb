"""Comparison of optimisers with their slow SDE: means over slow time, distances in law at the end, and paths on the manifold.

A unit of slow time is 1/eta^2 steps of an optimiser. Phi(x) is the limit of the gradient flow that starts at x, a minimiser of the loss.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving, check_oracle, check_plan
from sdetools.dynamics.integrators import EulerMaruyama
from sdetools.dynamics.rules import SGD, SGDM
from sdetools.dynamics.sdes.slow import SlowSDE
from sdetools.manifold.flow import FlowError, project
from sdetools.noise.oracle import NoisyOracle
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text, plain
from sdetools.schedules import Plan
from sdetools.simulation.philox import Stream
from sdetools.starts import point
from sdetools.studies.distance import Distance, distance
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.means import Simulation, make_program, simulate
from sdetools.studies.sampler import sampling

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

SLOW = "slow SDE"
"""The name of the slow SDE's run."""
SHOWN = 6
"""The number of paths in the plot of the manifold."""
FRAMES = 24
"""The number of recorded times by default."""
LIMIT_STEPS = 200
"""The number of steps of the slow SDE's integrator by default."""


@dataclass(frozen=True, eq=False)
class SlowStudy(Result):
    """The slow SDE and its optimisers over slow time, t = k eta^2 at step k of an optimiser; the return value of `st.slow_study`.

    The slow SDE moves on the manifold of minimisers of the loss; Phi(x) is the limit of the gradient flow that starts at x.

    Attributes:
        oracle: The noisy gradient: loss, gradient noise and noise scale.
        slow: The slow SDE.
        x0: The start of the optimisers, `(dim,)`.
        runs: The simulations by name: "slow SDE", "SGD" and, if the plan has momentum, "SGDM".
        distances: Distances in law between the last points of an optimiser and of the slow SDE. The key (run, h), with the names of an optimiser's run
            and of an observable, is the Wasserstein distance of h, the key (run, "h kolmogorov") its Kolmogorov distance.
        paths_shown: The positions of some paths of each run by name, `(dim, 1 + times, paths)`, the start first; empty in more than 3 dimensions.
        start: The start of the slow SDE, Phi(x_0), `(dim,)`.
        rank: The rank of the Hessian of the loss on the manifold, dim minus the manifold's dimension.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    oracle: NoisyOracle
    slow: SlowSDE
    x0: np.ndarray
    runs: Mapping[str, Simulation]
    distances: Mapping[tuple[str, str], Distance]
    paths_shown: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    start: np.ndarray = field(default_factory=lambda: np.zeros(0))
    rank: int = 0
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def diverged(self) -> int:
        """The number of paths whose state was not finite at some step, summed over all runs."""
        return sum(run.diverged for run in self.runs.values())

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset with `mean` and `stderr` over (run, time, observable), at the slow times that all runs recorded; `run` has the names of runs.

        Its attributes are those of the first run's dataset, the number of diverged paths of all runs, and the fields of `origin`.
        """
        import xarray

        names = list(self.runs)
        common = set.intersection(*(set(np.round(run.times, 12)) for run in self.runs.values()))
        parts = [run.data.sel(time=[t for t in run.times if round(t, 12) in common]) for run in self.runs.values()]
        for part in parts[1:]:
            part["time"] = parts[0]["time"]
        out = xarray.concat([part[["mean", "stderr"]].drop_vars("step", errors="ignore") for part in parts], dim="run")
        out = out.assign_coords(run=names).assign_attrs(next(iter(self.runs.values())).data.attrs)
        return out.assign_attrs({"diverged": self.diverged} | self.origin.attributes)

    def table(self) -> str:
        """Return a text table with a line for each run and observable: the final mean with its interval, and the distances to the slow SDE.

        The column "equal laws" is the quantile of the Wasserstein distance W1 between two samples of one law.
        """
        names = next(iter(self.runs.values())).names
        lines = [f"{'':24}{'observable':20}{'mean at the end':>26}{'W1':>11}{'equal laws':>12}{'Kolmogorov':>12}"]
        for name, run in self.runs.items():
            for h in names:
                e = run.at(h)
                row = f"{name:24}{h:20}{f'{e.value:.5g} +- {e.half_width:.2g}':>26}"
                if (name, h) in self.distances:
                    w, k = self.distances[name, h], self.distances[name, f"{h} kolmogorov"]
                    row += f"{w.value:>11.4g}{w.floor_high:>12.4g}{k.value:>12.4g}"
                lines.append(row.rstrip())
            if run.diverged:
                lines.append(f"  {run.diverged:,} paths of {name} diverged, first at step {run.first_divergence}")
        return "\n".join(lines)

    def main_estimates(self) -> dict[str, Distance]:
        """Return a dict of the distances in law between the last points of an optimiser and of the slow SDE, by the names of run and observable.

        "SGDM x" is the Wasserstein distance of order 1 of x for the run "SGDM", and "SGDM x kolmogorov" the Kolmogorov distance.
        """
        return {f"{run} {what}": distance for (run, what), distance in self.distances.items()}

    def __repr__(self) -> str:
        where = ", ".join(f"{v:.4g}" for v in self.start)
        return f"slow clock from Phi(x_0) = ({where}), rank {self.rank}: {', '.join(self.runs)}\n{self.table()}"

    def to_json(self) -> str:
        """Return the study as the text of a JSON object with `start`, `rank`, `runs` and `distances`; numbers that are not finite are null.

        `runs` is an object by the names of runs; each has "times", "paths", "diverged", and by the name of an observable "mean" and "stderr" at
        these times. `distances` is a list of objects with the keys "run", "what" (as in the attribute), "value", "low", "high", "equal laws".
        """
        runs = {
            name: {"times": run.times.tolist(), "paths": run.paths, "diverged": run.diverged}
            | {h: {"mean": run.statistics.mean[:, i].tolist(), "stderr": run.statistics.stderr[:, i].tolist()} for i, h in enumerate(run.names)}
            for name, run in self.runs.items()
        }  # fmt: skip
        distances = [
            {"run": name, "what": what, "value": d.value, "low": d.low, "high": d.high, "equal laws": d.floor_high}
            for (name, what), d in self.distances.items()
        ]
        return json.dumps(
            plain({"start": self.start.tolist(), "rank": self.rank, "runs": runs, "distances": distances}), indent=1
        )

    def plot(self, *, ax: Any = None) -> Figure:
        """Plot the means of each observable over slow time, one panel each with all runs and their pointwise intervals; return the figure.

        Args:
            ax: The axes, one for each observable; None for those of a new figure.
        """
        from sdetools import plots

        curves = {
            h: {
                name: (run.times, *np.transpose([(e.value, e.half_width) for e in (run.at(h, float(t)) for t in run.times)]))
                for name, run in self.runs.items()
            }
            for h in next(iter(self.runs.values())).names
        }
        return plots.figure_of(plots.curve_panels(curves, xlabel=r"$t = k\eta^2$", ax=ax))

    def picture(self) -> Figure:
        """Return the figure of `plot_manifold()`. Deprecated: call that method instead."""
        warnings.warn("`picture()` is now `plot_manifold()`.", DeprecationWarning, stacklevel=2)
        return self.plot_manifold()

    def plot_manifold(self, *, ax: Any = None) -> Figure:
        """Plot the manifold of minimisers with some paths of each run, and return the figure.

        Args:
            ax: The axes, three-dimensional ones for three coordinates; None for those of a new figure.

        Raises:
            ValueError: If the loss has not 2 or 3 coordinates, or the result was loaded from a file.
        """
        from sdetools import plots

        loss = self.oracle.loss
        if loss is None:
            raise ValueError("a plot of the manifold must have the loss; a file stores only its name. Run the study again.")
        if loss.dim not in (2, 3):
            raise ValueError(f"a plot of the manifold must have 2 or 3 coordinates; got {loss.dim}. Take plot().")
        return plots.figure_of(plots.manifold_plot(loss, self.paths_shown, self._manifold_points(), self.x0, ax))

    def _manifold_points(self) -> np.ndarray:
        """Return points of the manifold in a box around the paths shown, `(dim, n)`, for the plot."""
        points = np.concatenate([p.reshape(len(p), -1) for p in self.paths_shown.values()], axis=1)
        points = points[:, np.isfinite(points).all(axis=0)]
        low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
        margin = 0.15 * np.maximum(high - low, 0.3 * (high - low).max() + 1e-3)
        n = 300 if len(points) == 2 else 1500
        box = low - margin + (high - low + 2 * margin) * np.random.default_rng(0).random((len(points), n))
        return projected(self.oracle.loss, np.concatenate([box, points[:, :: max(1, points.shape[1] // 300)]], axis=1))


def projected(loss: Any, points: np.ndarray) -> np.ndarray:
    """Return Phi of those points whose gradient flow converges to the manifold, `(dim, m)` with 0 <= m <= n, in the order of the points.

    Phi(x) is the limit of the gradient flow that starts at x.

    Args:
        loss: The loss, of which the manifold contains the minimisers.
        points: The points, `(dim, n)`.
    """
    try:
        return project(loss, points, 1e-6, max_steps=500)
    except FlowError:
        if points.shape[1] == 1:
            return points[:, :0]
        half = points.shape[1] // 2
        return np.concatenate([projected(loss, points[:, :half]), projected(loss, points[:, half:])], axis=1)


def slow_study(
    oracle: NoisyOracle,
    plan: Plan,
    x0: Any,
    horizon: float,
    paths: int,
    observe: Sequence[str] | None = None,
    *,
    dt: float | None = None,
    integrator: Any = EulerMaruyama,
    times: Any = None,
    shown: int = SHOWN,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> SlowStudy:
    r"""Compare SGD and SGDM with the slow SDE that starts at Phi(x0), over slow time: a unit of slow time is 1/eta^2 steps of the optimisers.

    The optimisers share their draws; the SDE has draws of its own. SGDM is omitted if the plan has no momentum.

    Args:
        oracle: The noisy gradient, `st.NoisyOracle`.
        plan: Learning rate eta and momentum beta, from `st.schedules`. SGD runs on its averaged schedule, without momentum.
        x0: The point where the optimisers start, `(dim,)`.
        horizon: The final slow time, a whole number of steps of eta^2.
        paths: The number of paths of each run, at least 2.
        observe: A list of expressions to observe, in the names of the coordinates; None for the coordinates themselves.
        dt: The integrator's step in slow time. None takes the largest multiple of eta^2 that divides the horizon and is at most horizon / 200,
            and eta^2 for a horizon of fewer than 200 steps of eta^2.
        integrator: The integrator of the slow SDE, a function of the SDE and dt that returns a dynamics.
        times: Slow times to record, a list; each is a whole number of steps of every run. None for at most 24 evenly spaced ones.
        shown: The number of paths of each run that are kept for the plot of the manifold; 0 for none.
        confidence: The confidence level of the intervals of means.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The runs with their means over slow time, and the distances in law at its end.

    Raises:
        ValueError: If an argument is invalid, or the gradient flow from `x0` does not reach a manifold of minimisers (see `st.SlowSDE`).
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.exponential_valley(), st.noise.rademacher(dim=2))
        >>> found = slow_study(oracle, st.schedules.constant(eta=0.1, beta=0.5), x0=[0.0, 0.0], horizon=0.5, paths=2000, dt=0.05)
        >>> list(found.runs), found.distances["SGD", "x"].value < 0.15
        (['slow SDE', 'SGD', 'SGDM'], True)
    """
    how = Execution.of(execution)
    call = call_text(slow_study, locals(), **how.changed())
    x0 = point(x0, check_oracle(oracle).dim, "slow_study")
    _check.function("integrator", integrator, ["sde", "dt"], "Pass a class such as st.Platen.")
    shown = _check.count("shown", shown, least=0)
    slow = SlowSDE(oracle, check_plan(plan).averaged(), at=x0)
    horizon, paths = _check.positive("horizon", horizon), _check.count("paths", paths, least=2)
    unit = plan.eta**2
    steps = horizon / unit
    if steps < 1 or abs(steps - round(steps)) > 1e-6 * steps:
        better = max(1, round(steps)) * unit
        raise ValueError(
            f"`horizon` must be a whole number of steps of eta^2 = {unit:g}; got horizon={horizon!r}. Take horizon={better:.10g}."
        )
    every = next(k for k in range(max(1, round(steps) // LIMIT_STEPS), 0, -1) if round(steps) % k == 0)
    dt = every * unit if dt is None else _check.positive("dt", dt)
    times = recorded(horizon, dt, unit) if times is None else times
    members: dict[str, Moving] = {SLOW: integrator(slow, dt), "SGD": SGD(oracle, plan.averaged(), step_time=unit)}
    if plan.has_momentum:
        members["SGDM"] = SGDM(oracle, plan, step_time=unit)
    names = list(observe) if observe else list(oracle.loss.names)
    own = Stream.of(stream)
    given: dict[str, Any] = dict(x0=x0, horizon=horizon, observe=names, times=times)

    def identity() -> str:
        programs = [make_program((m,), x0, horizon, names, times, (), False, True)[0] for m in members.values()]
        return f"slow study {[program.fingerprint(seed, own, paths) for program in programs]}"

    with sampling(how, seed, own, identity) as sampler:
        options: dict[str, Any] = dict(confidence=confidence, seed=seed, **sampler.execution)
        runs = {
            name: simulate(member, paths=paths, keep_final=True, stream=own.at(int(name == SLOW)), **given, **options)
            for name, member in members.items()
        }
    return SlowStudy(
        oracle,
        slow,
        np.asarray(x0, dtype=float),
        runs,
        _distances(runs, names, seed),
        _sample_paths(members, x0, times, shown, seed, own, how.backend),
        slow.start(np.asarray(x0, dtype=float))[0],
        slow.rank,
        replace(runs[SLOW].origin, call=call, stream=own.number),
    )


def recorded(horizon: float, dt: float, unit: float) -> np.ndarray:
    """Return the slow times to record by default, `(times,)` in ascending order, at most `FRAMES` of them, the last included but not 0.

    They are multiples of the longer of the two steps.

    Args:
        horizon: The final slow time.
        dt: The integrator's step.
        unit: The optimiser's step in slow time, eta^2.
    """
    longer = max(dt, unit)
    n = round(horizon / longer)
    return longer * np.unique(np.linspace(1, n, min(n, FRAMES)).round().astype(int))


def _distances(runs: Mapping[str, Simulation], names: Sequence[str], seed: int) -> dict[tuple[str, str], Distance]:
    """Return distances in law between the last points of each optimiser and of the slow SDE, with the keys of `SlowStudy.distances`.

    Args:
        runs: The simulations by name, with their final positions.
        names: The observables, as expressions.
        seed: The seed of the resampling.
    """
    from sdetools.studies.observables import observables

    member = runs[SLOW].dynamics
    tests = observables(list(names), member)
    out = {}
    ends = {name: [np.atleast_1d(h.value(run.final)) for h in tests] for name, run in runs.items()}
    for name in runs:
        if name != SLOW:
            for h, own, limit in zip(names, ends[name], ends[SLOW]):
                out[name, h] = distance(own[None], limit[None], seed=seed)
                out[name, f"{h} kolmogorov"] = distance(own[None], limit[None], "kolmogorov", seed=seed)
    return out


def _sample_paths(
    members: Mapping[str, Moving], x0: Any, times: np.ndarray, shown: int, seed: int, stream: Stream, backend: str
) -> dict[str, np.ndarray]:
    """Return some paths of each dynamics by name, `(dim, 1 + times, shown)`, at the start and the given times.

    An empty dict is returned if `shown` is 0 or there are more than 3 coordinates.

    Args:
        members: The dynamics by name.
        x0: The start of the optimisers, `(dim,)`.
        times: Slow times, `(times,)`.
        shown: The number of paths.
        seed: The seed of the draws.
        stream: The stream of draws of that seed.
        backend: The backend of the study.
    """
    if not shown or next(iter(members.values())).dim > 3:
        return {}
    out = {}
    for name, member in members.items():
        run = simulate(
            member, x0=x0, horizon=float(max(times)), paths=shown, observe=[member.names[0]], times=[0.0, *times], trajectories=shown,
            seed=seed, stream=stream.at(int(name == SLOW)), backend=backend,
        )  # fmt: skip
        assert run.trajectories is not None
        out[name] = run.trajectories.isel(part=0).transpose("coordinate", "time", "path").values
    return out
