"""The order of a weak gap in the learning rate: a least-squares fit with a bootstrap interval, local slopes, and unresolved points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.estimates import Estimate, SupEstimate
from sdetools.estimates.band import MANY_GROUPS, multiplier_noise
from sdetools.estimates.estimate import RESOLVED
from sdetools.results.protocol import BY_HAND, Origin, Result, call_text, plain
from sdetools.simulation.philox import Stream
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.gap import WeakGap, weak_gap
from sdetools.studies.means import make_program
from sdetools.studies.observables import column
from sdetools.studies.sampler import sampling

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure

BOOTSTRAP = 1000
"""The number of bootstrap draws."""


@dataclass(frozen=True, eq=False, repr=False)
class OrderEstimate(Estimate):
    """The order of a gap in the learning rate: the slope of log gap against log eta over the resolved points, with its bootstrap standard error.

    A point is the gap at one eta, resolved if it is at least four standard errors. The n points of the fit are in descending order of eta.

    Attributes:
        etas: The learning rates of the fit, `(n,)`; empty if fewer than two points are resolved, and `value` is then NaN.
        gaps: The absolute values of the gaps of the fit, `(n,)`.
        local: The n - 1 slopes between neighbouring points, from the largest eta down.

    The other attributes are those of `Estimate`; `value` is the order.
    """

    etas: np.ndarray = field(default_factory=lambda: np.zeros(0))
    gaps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    local: tuple[Estimate, ...] = ()

    def fit(self, gaps: Any) -> float:
        """Return the least-squares slope of other gaps against the learning rates of the fit, to compare with `value`.

        Args:
            gaps: Positive gaps, such as exact ones, one for each learning rate in the attribute `etas` (the resolved ones, not all of the
                study), in that order; ValueError for another number. With fewer than two the slope is NaN.
        """
        return slope(self.etas, np.asarray(gaps, dtype=float)) if len(self.etas) > 1 else math.nan


def _spread(draws: np.ndarray, random: bool) -> float:
    """Return the standard deviation of bootstrap draws `(BOOTSTRAP,)`, and exactly 0 if `random` is False, which rounding could make positive."""
    return float(draws.std()) if random else 0.0


def slope(etas: np.ndarray, gaps: np.ndarray) -> float:
    """Return the least-squares slope of log gap against log eta, with equal weights, for n > 1 different etas and gaps, positive, `(n,)` each."""
    return float(_weights(etas) @ np.log(gaps))


def _weights(etas: np.ndarray) -> np.ndarray:
    """Return x / (x . x), `(n,)`, with the centred x = log eta; its product with log gap is the slope. `etas` are n > 1 learning rates."""
    x = np.log(etas) - np.log(etas).mean()
    return x / (x @ x)


@dataclass(frozen=True, eq=False)
class OrderStudy(Result):
    """Weak gaps over a list of learning rates, and their order in the learning rate; the return value of `st.order_study`.

    Attributes:
        etas: The learning rates, `(etas,)`, in descending order.
        gaps: The weak gap at each learning rate, in the order of `etas`.
        expected: A mapping from an observable's name to its expected gaps, in the order of `etas`; None if not given.
        confidence: The confidence level of intervals.
        origin: The call, seed, stream, backend, floating-point type and version.
    """

    etas: np.ndarray
    gaps: tuple[WeakGap, ...]
    expected: Mapping[str, tuple[float, ...]] | None = None
    confidence: float = 0.95
    origin: Origin = field(default=BY_HAND, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the observables and then of the functionals (sums over the steps of a path), in the order of indices and of columns."""
        return self.gaps[0].names

    @property
    def diverged(self) -> int:
        """The number of paths whose state was not finite at some step, summed over both dynamics and all learning rates."""
        return sum(g.diverged for g in self.gaps)

    def estimates(self, observable: str | int = 0, time: float | None = None) -> tuple[Estimate, ...]:
        """Return estimates in the order of `etas`: the supremum of |gap| over the recorded times, or the gap at one time.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            time: A time that the gap of every learning rate recorded, otherwise ValueError; None for the supremum.
        """
        return tuple(g.sup(observable) if time is None else g.at(observable, time) for g in self.gaps)

    def sup(self, observable: str | int, eta: float) -> SupEstimate:
        """Return the supremum of |gap| over the recorded times at one learning rate, with its simultaneous band.

        Args:
            observable: The name of the observable, or its index in `names`.
            eta: A learning rate of the study, up to a relative error of 1e-12.

        Raises:
            ValueError: If the learning rate or the observable is not part of the study.
        """
        found = np.flatnonzero(np.isclose(self.etas, eta, rtol=1e-12, atol=0.0))
        if not len(found):
            raise ValueError(f"`eta` must be one of {', '.join(f'{e:g}' for e in self.etas)}; got eta={eta!r}.")
        return self.gaps[found[0]].sup(observable)

    def order(self, observable: str | int = 0, time: float | None = None) -> OrderEstimate:
        """Return the order of the gap in eta: the least-squares slope of log gap against log eta over the points of at least four standard errors.

        Args:
            observable: The name of the observable, or its index in `names`; ValueError if there is none.
            time: A time that the gap of every learning rate recorded, otherwise ValueError; None for the supremum over the recorded times.

        Returns:
            The order, with a bootstrap interval; NaN with an infinite interval if fewer than two points are resolved.
        """
        key = (column(self.names, observable), time)
        if key not in self._orders:
            self._orders[key] = self._fit(*key)
        return self._orders[key]

    @cached_property
    def _orders(self) -> dict[tuple[int, float | None], OrderEstimate]:
        """A dict of the return values of `order` so far, by (index of the observable, time)."""
        return {}

    def _fit(self, o: int, time: float | None) -> OrderEstimate:
        """Compute the order for the observable with index `o`, of the gap at a recorded time or, for None, of the supremum."""
        points = self.estimates(o, time)
        kept = [i for i, e in enumerate(points) if e.resolved and not e.diverged and e.value != 0]
        n, diverged = self.gaps[0].paths, self.diverged
        first = min((g.first_divergence for g in self.gaps if g.diverged), default=-1)
        name = f"order of the gap of {self.names[o]}"
        if len(kept) < 2:
            return OrderEstimate(math.nan, math.nan, n, self.confidence, name, diverged, first)
        etas, values = self.etas[kept], np.array([abs(points[i].value) for i in kept])
        logs, weights = np.log([self._draws(i, o, points[i]) for i in kept]), _weights(etas)
        rounding = np.array([points[i].rounding for i in kept]) / values
        exact = [not points[i].random for i in kept]
        local = []
        for a, b in zip(range(len(kept) - 1), range(1, len(kept))):
            width = np.log(etas[a] / etas[b])
            value, draws = np.log(values[a] / values[b]) / width, (logs[a] - logs[b]) / width
            label = f"slope {etas[a]:.4g} to {etas[b]:.4g}"
            random = not (exact[a] and exact[b])
            known = {"random": random, "rounding": float(rounding[a] + rounding[b]) / abs(width)}
            local.append(Estimate(float(value), _spread(draws, random), n, self.confidence, label, **known))
        return OrderEstimate(
            slope(etas, values), _spread(weights @ logs, not all(exact)), n, self.confidence, name, diverged, first, 1, etas, values, tuple(local),
            random=not all(exact), rounding=float(np.abs(weights) @ rounding),
        )  # fmt: skip

    def _draws(self, i: int, o: int, point: Estimate) -> np.ndarray:
        """Return bootstrap draws of |gap|, `(BOOTSTRAP,)`, at the i-th learning rate for the observable with index `o`.

        `point` is the estimated gap there: a supremum over time, or the gap at one time.
        """
        residuals = self.gaps[i].statistics.residuals(o)
        if isinstance(point, SupEstimate) and len(residuals) >= MANY_GROUPS:
            return point.bootstrap(multiplier_noise(residuals, BOOTSTRAP, seed=20_231_012 + i))
        xi = np.random.default_rng([20_231_012, i]).standard_normal(BOOTSTRAP)
        return np.maximum(np.abs(point.value + xi * point.stderr), 1e-3 * abs(point.value))

    def main_estimates(self) -> dict[str, OrderEstimate]:
        """Return a dict of the order of the supremum by the name of the observable or functional."""
        return {name: self.order(name) for name in self.names}

    def paths_needed(self, observable: str | int = 0) -> np.ndarray:
        """Return for each eta the number of paths that reduces the standard error of the supremum to a quarter of the gap, integers `(etas,)`.

        The size of the gap is the measured one where it is resolved, otherwise that of the attribute `expected`, otherwise that of the line
        fitted by `order`. The number is 0 where none of these exists or the standard error is 0 or NaN. `observable`: a name or index in `names`.
        """
        points, order = self.estimates(observable), self.order(observable)
        name, out = self.names[column(self.names, observable)], []
        for i, (eta, point) in enumerate(zip(self.etas, points)):
            size = 0.0
            if point.resolved:
                size = abs(point.value)
            elif self.expected is not None and name in self.expected:
                size = self.expected[name][i]
            elif len(order.etas) >= 2:
                size = math.exp(np.log(order.gaps).mean() + order.value * (math.log(eta) - np.log(order.etas).mean()))
            out.append(point.paths_for(size / RESOLVED) if size > 0 and point.stderr > 0 else 0)
        return np.array(out)

    @cached_property
    def data(self) -> xarray.Dataset:
        """A dataset over (eta, observable), with the coordinate `paths` along `eta`.

        Its variables are `gap` (the supremum over time, also as `mean`), `stderr`, the ends of the interval `low` and `high`, `resolved`,
        `time_of_max` and `paths_needed`. Its attributes are the number of diverged paths and the fields of `origin`.
        """
        import xarray

        rows = [self.estimates(name) for name in self.names]

        def table(of: Callable[[Any], float]) -> np.ndarray:
            """Return a property of all estimates, where `of` maps an estimate to a number, as an array `(etas, observables)`."""
            return np.array([[of(e) for e in row] for row in rows]).T

        fields = {
            "gap": table(lambda e: e.value), "mean": table(lambda e: e.value), "stderr": table(lambda e: e.stderr),
            "low": table(lambda e: e.low), "high": table(lambda e: e.high), "resolved": table(lambda e: e.resolved),
            "time_of_max": table(lambda e: e.time), "paths_needed": np.array([self.paths_needed(n) for n in self.names]).T,
        }  # fmt: skip
        return xarray.Dataset(
            {name: (("eta", "observable"), values) for name, values in fields.items()},
            coords={"eta": self.etas, "observable": list(self.names), "paths": ("eta", [g.paths for g in self.gaps])},
            attrs={"diverged": self.diverged} | self.origin.attributes,
        )

    def table(self) -> str:
        """Return a text table with a line for each observable and learning rate, then a line with the order of each observable."""
        lines = [f"{'observable':<18} {'eta':>10} {'sup gap':>12} {f'{100 * self.confidence:g} % band':>26} {'paths':>10}"]
        for name in self.names:
            needed = self.paths_needed(name)
            for eta, e, g, n in zip(self.etas, self.estimates(name), self.gaps, needed):
                band = f"[{e.low:.4g}, {e.high:.4g}]"
                note = "" if e.resolved else f"  unresolved{f': {n:,} paths would resolve it' if n else ''}"
                divergence = f"  {g.diverged:,} paths diverged, first at step {g.first_divergence}" if g.diverged else ""
                lines.append(f"{name:<18.18} {eta:>10.4g} {e.value:>12.5g} {band:>26} {g.paths:>10,}{note}{divergence}")
        for name in self.names:
            order = self.order(name)
            if math.isnan(order.value):
                lines.append(f"order of {name}: unresolved (fewer than two resolved points)")
                continue
            local = ", ".join(f"{e.value:.3f}" for e in order.local)
            lines.append(f"order of {name}: {order.value:.4f} [{order.low:.4f}, {order.high:.4f}]; local slopes {local}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the study as the text of a JSON object with `confidence`, `gaps` and `orders`, with all digits.

        `gaps` is a list of objects, one for each observable and eta, with the keys observable, eta, gap, stderr, low, high, paths, resolved,
        paths_needed, diverged_paths, first_divergence; `orders` of objects with observable, order, low, high, local. Numbers that are not finite are null.
        """
        rows = []
        for name in self.names:
            needed = self.paths_needed(name)
            for eta, e, g, n in zip(self.etas.tolist(), self.estimates(name), self.gaps, needed.tolist()):
                rows.append({
                    "observable": name, "eta": eta, "gap": e.value, "stderr": e.stderr, "low": e.low, "high": e.high, "paths": g.paths,
                    "resolved": bool(e.resolved), "paths_needed": n, "diverged_paths": g.diverged, "first_divergence": g.first_divergence,
                })  # fmt: skip
        orders = [
            {"observable": o.name.removeprefix("order of the gap of "), "order": o.value, "low": o.low, "high": o.high,
             "local": [e.value for e in o.local]}
            for o in map(self.order, self.names)
        ]  # fmt: skip
        return json.dumps(plain({"confidence": self.confidence, "gaps": rows, "orders": orders}), indent=2) + "\n"

    def plot(self, exact: Mapping[str, Any] | None = None, slopes: Sequence[float] = (0.5, 1.0), *, ax: Any = None) -> Figure:
        """Plot the suprema of the gaps against eta on logarithmic axes, with their intervals, and return the figure.

        Args:
            exact: A mapping from an observable's name to its exact suprema max_t |gap|, in the order of `etas`, drawn as dashed lines; None for none.
            slopes: The slopes of dotted reference lines.
            ax: The axes; None for those of a new figure.
        """
        from sdetools.plots import figure_of, loglog_orders

        points = {name: self.estimates(name) for name in self.names}
        axes = loglog_orders(
            self.etas,
            {name: [e.value for e in row] for name, row in points.items()},
            {name: [e.low for e in row] for name, row in points.items()},
            {name: [e.high for e in row] for name, row in points.items()},
            exact, slopes, band=f"{100 * self.confidence:g} % band",
            ylabel="sup over time of the gap",
            ax=ax,
        )  # fmt: skip
        return figure_of(axes)

    def __repr__(self) -> str:
        return self.table()


def order_study(
    pair: Callable[[float], tuple[Moving, Moving]],
    etas: Sequence[float],
    x0: Any,
    horizon: float,
    paths: Any = None,
    observe: Any = (),
    *,
    expected: Mapping[str, Callable[[float], float]] | None = None,
    coupled: bool = True,
    control: bool = True,
    precision: Any = None,
    times: Any = None,
    functionals: Any = (),
    keep_final: bool = False,
    trajectories: Any = None,
    slices: Any = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    **execution: Unpack[ExecutionOptions],
) -> OrderStudy:
    r"""Estimate the weak gap of `pair(eta)` for each learning rate of a list, and its order in eta.

    Args:
        pair: A function of eta that returns two dynamics (x, z) whose gap E h(x_k) - E h(z_k) is measured.
        etas: Learning rates, positive and all different, in any order. Their draws are independent.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time, a whole number of the longer steps of the pair at each eta.
        paths: The number of paths, or a function of eta that returns it. Give either `paths` or `precision`.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        expected: A mapping from an observable's name to its expected gap as a function of eta, used by `paths_needed` for unresolved points.
        coupled: Whether the two dynamics share their draws.
        control: Whether the difference is regressed on the control variate of `weak_gap`, the noise in the first momentum buffer, where there is one.
        precision: The half-width that the interval of every recorded gap shall have, or a function of eta that returns it.
        times: A list of times to record, or "all" for every step. None for every step up to 8 / (1 - beta), later ones with the ratio 1.1, and the last.
        functionals: A sum over the steps of the path, such as `st.PathLength()`, or a list of these; recorded like observables, in columns behind them.
        keep_final: Whether to keep the positions of all paths after the last step, in the gap of each eta.
        trajectories: A number of first paths, or a list of path indices, whose states at the recorded times are kept in the gap of each eta.
        slices: A list of times at which the states of all paths are kept in the gap of each eta; None for none.
        confidence: The confidence level of intervals, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The gaps in descending order of eta, their order with its bootstrap interval, and local slopes.

    Raises:
        ValueError: If an argument is invalid; the message states the rule and a remedy.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import sdetools as st
        >>> oracle = lambda eta: st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=eta**-0.5)
        >>> plan = lambda eta: st.schedules.constant(eta=eta, beta=0.5)
        >>> pair = lambda eta: (st.SGDM(oracle(eta), plan(eta)), st.SGD(oracle(eta), plan(eta).averaged()))
        >>> study = st.order_study(pair, etas=[0.1, 0.05], x0=[1.0], horizon=1.0, paths=20_000, observe=["x"])
        >>> 0.8 < study.order("x").value < 1.2
        True
    """
    how = Execution.of(execution)
    call = call_text(order_study, locals(), **how.changed())
    _check.function("pair", pair, ["eta"], "It returns two dynamics: lambda eta: (first(eta), second(eta)).")
    if expected is not None and not (isinstance(expected, Mapping) and all(map(callable, expected.values()))):
        raise ValueError(f"`expected` must be a dict from observables to functions of eta; got {_check.shown(expected)}.")
    rates = _check.finite("etas", _check.several("etas", etas, "Write for example [0.1, 0.05]."))
    if rates.ndim != 1 or len(rates) == 0 or len(np.unique(rates)) < len(rates) or rates.min() <= 0:
        raise ValueError(f"`etas` must be a list of different positive learning rates; got {etas!r}.")
    rates = np.sort(rates)[::-1]
    stream = Stream.of(stream)
    members: list[Any] = []
    programs: list[Any] = []
    for eta in rates.tolist():
        made = pair(eta)
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            raise ValueError(f"`pair` must return two dynamics; for eta={eta:g} it returned {_check.shown(made)}.")
        members.append(made)
        programs.append(make_program(tuple(made), x0, horizon, observe, times, functionals, False, False)[0])
    if unknown := set(expected or ()) - {h.name for h in (*programs[0].observables, *programs[0].functionals)}:
        raise ValueError(f"`expected` must name observables of `observe`; got {_check.shown(min(unknown, key=str))}.")
    gaps = []
    options: dict[str, Any] = dict(
        observe=observe, coupled=coupled, control=control, times=times, functionals=functionals, keep_final=keep_final,
        trajectories=trajectories, slices=slices, confidence=confidence, seed=seed,
    )  # fmt: skip

    def identity() -> str:
        return f"order study {[program.fingerprint(seed, stream) for program in programs]}"

    with sampling(how, seed, stream, identity) as sampler:
        for i, (eta, (first, second)) in enumerate(zip(rates.tolist(), members)):
            amount = {
                name: asked(eta) if callable(asked) else asked for name, asked in (("paths", paths), ("precision", precision))
            }
            gaps.append(weak_gap(first, second, x0, horizon, **amount, **options, stream=stream.at(i), **sampler.execution))
    planned = None if expected is None else {name: tuple(float(f(eta)) for eta in rates.tolist()) for name, f in expected.items()}
    return OrderStudy(rates, tuple(gaps), planned, confidence, replace(gaps[0].origin, call=call, stream=stream.number))
