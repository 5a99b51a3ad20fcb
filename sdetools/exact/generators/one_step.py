"""One step of a rule, and the coefficients of an SDE, as power series in the root r of the step's time.

The library traces a rule into a graph of operations, and the graph is evaluated in power series: the change of the state in one step
becomes a polynomial in the draws at every power of r. The draws enter the result through their moments. The time of a step is tau = r^unit, with
unit 2 unless a finer root is needed. A ring is a `DifferentialRing`: its polynomials in the coordinates of the state and the draws are the coefficients.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import numpy as np

from sdetools.dynamics.base import BoundOracle, Dynamics
from sdetools.dynamics.integrators.base import Integrator
from sdetools.dynamics.sdes.sde import SDE
from sdetools.exact.generators.differential_ring import DifferentialRing, NotExpandable
from sdetools.exact.generators.draw_laws import law_moment, polynomial_oracle
from sdetools.exact.generators.operators import Operator
from sdetools.exact.generators.power_series import Series
from sdetools.exact.generators.scaled_numbers import Number, ScaledNumbers, constant_row
from sdetools.exact.generators.smoothed_kinks import check_unshared, error_functions, guards, kinks, smoothed
from sdetools.graph.arrays import compiled
from sdetools.graph.replacing import replaced
from sdetools.graph.tracing import NotTraceable, trace
from sdetools.graph.value import CONDITIONS, Trace, Value, order, value
from sdetools.graph.views import broadcast
from sdetools.noise.oracle import NoisyOracle

KINKS = {"absolute", "maximum", "minimum", "sign", "floor"}
PAD = 4
"""So many times `unit` powers of r are computed beyond those of the result, since divisions by the step use some."""
MOST_COORDINATES = 8
"""Largest number of coordinates of the state in an expansion."""
Moment = Callable[[int], Any]
"""The moments of a draw: a function of the order k >= 1 that returns E z^k, a polynomial in the coordinates."""


@dataclass(frozen=True)
class OneStep:
    """A rule and its numbers, ready for an expansion in the root r of the step's time.

    Attributes:
        rule: The rule, a `Dynamics` or an `Integrator`.
        numbers: Its numbers (coefficients, parameters) as functions of r.
        names: The names of the coordinates of the state, all parts one after another but those in `idle`, then "t" if it is `timed`.
        timed: Whether the time is a further coordinate, the last.
        idle: The names of parts of the rule's state that no step reads, such as a buffer at beta = 0; they are no coordinates.
    """

    rule: Dynamics | Integrator
    numbers: ScaledNumbers
    names: tuple[str, ...]
    timed: bool
    idle: tuple[str, ...] = ()

    @property
    def noise(self) -> tuple[NoisyOracle | None, list[tuple[str, Any]], bool]:
        """The oracle with noise that is a polynomial in its draws (None for an integrator), the laws of all draws of a step, and whether they are exact.

        A law is a pair of a name and its numbers, as in `draw_laws.law_moment`. Noise that samples data is replaced by Gaussian noise of the same
        covariance, whose laws are then not exact: only moments up to the second agree. NotExpandable if the rule has draws besides those of one gradient.
        """
        if isinstance(self.rule, Integrator):
            rule = self.rule
            own = [({"normal": "gaussian", "two-point": "rademacher", "three-point": "three_point"}[rule.law], ())]
            return None, own * (rule.levels * rule.sde.noise_dim) + [("rademacher", ())] * rule.private_signs, True
        if self.rule.extra_draws or self.rule.copies > 1:
            raise NotExpandable(f"a rule must have no draws besides those of one gradient; {self.rule.name} has.")
        return polynomial_oracle(self.rule.oracle)

    def moments(self, home: DifferentialRing, largest: int) -> tuple[list[Series], list[Moment], bool]:
        """Return the change of the state in one step up to r^largest, r the root of its time, the moments of each draw of `home`, and whether all are exact.

        The change is a list with a series for each of `names`. NotExpandable if it is of order one, or has no such series.
        """
        home.largest, dim = largest + PAD * home.unit, self.rule.dim
        kept = [i for i, part in enumerate(self.rule.parts) if part not in self.idle]
        units = [series(home, unit) for unit in self.numbers.units] or [Series(home, {0: home.one})] * len(kept)
        old = [[Series(home, {0: p}) for p in home.x[i * dim : (i + 1) * dim]] for i in range(len(kept))]
        state: list[list[Series]] = [[Series(home, {})] * dim for _ in self.rule.parts]
        for i, row, unit in zip(kept, old, units, strict=True):
            state[i] = [e / unit for e in row]
        moved = self.moved(home, state)
        new = [moved[i] for i in kept]
        change = [unit * after - before for row, was, unit in zip(new, old, units) for after, before in zip(row, was)]
        if self.timed:
            change.append(Series(home, {home.unit: home.one}))
        if any(one.valuation < 1 for one in change):
            raise NotExpandable(
                f"a step of {self.rule.name} must become small with its time; here a part of the state changes by an amount of order one. "
                "A buffer with constant beta is such a part: its SDE has the position alone."
            )
        return self.draws(home, change, largest)

    def draws(self, home: DifferentialRing, change: Sequence[Series], largest: int) -> tuple[list[Series], list[Moment], bool]:
        """Return the series `change` up to r^largest, the moments of each draw of `home` (unused ones: 0), and whether all moments are exact.

        NotExpandable if a coefficient up to r^largest is unknown.
        """
        if any(one.precision <= largest for one in change):
            raise NotExpandable("a step must be a series in the root of its time without large negative powers.")
        _, laws, exact = self.noise
        home.largest = largest
        moments: list[Moment] = [*(_moment(home, law) for law in laws), *home.own_moments]
        moments += [lambda k: home.zero] * (len(home.z) - len(moments))
        return [one.truncated(largest) for one in change], moments, exact

    @cached_property
    def kinked(self) -> int:
        """The number of entries of signs and clippings of noisy numbers in a step, for each of which the ring needs a draw of its own."""
        from sympy import Symbol

        dim = self.rule.dim
        blank = DifferentialRing([Symbol(name) for name in self.names], len(self.noise[1]))
        outputs, _, z = self._graph(blank, [np.array([Series(blank, {})] * dim)] * len(self.rule.parts))
        return sum(one.node.size for one in kinks(outputs, z))

    def moved(self, home: DifferentialRing, state: Sequence[Sequence[Series]], first: int = 0) -> list[np.ndarray]:
        """Return all parts of the state after one step, in the order of `state`, those in `idle` included, each an array `(dim,)` of series.

        Args:
            home: The `DifferentialRing`. Its `own_moments` and `joint` are set to those of the signs and clippings in the step.
            state: The parts before the step, each `dim` series, parts in `idle` included.
            first: The number of the first draw of the ring that this step uses; it uses as many as `noise` has laws.
        """
        outputs, given, z = self._graph(home, state, first)
        home.own_moments, home.joint = [], []
        found = kinks(outputs, z)
        if not found:
            return evaluated(outputs, given, home)
        made = smoothed(home, found, [evaluated([one.inner], given, home)[0] for one in found], self.noise[1])
        fresh = [one.node.home.input(f"kink {i}", one.node.shape) for i, one in enumerate(found)]
        outputs = replaced(outputs, {v: v for v in given} | dict(zip((one.node for one in found), fresh, strict=True)))
        after = evaluated(outputs, given | {v: own[..., None] for v, own in zip(fresh, made.values, strict=True)}, home)
        check_unshared(home, [e for part in after for e in part], made.used)
        home.own_moments, home.joint = made.moments, made.joint
        return after

    def _graph(
        self, home: DifferentialRing, state: Sequence[Sequence[Series]] | Sequence[np.ndarray], first: int = 0
    ) -> tuple[list[Value], dict[Value, np.ndarray], Value]:
        """Return the graph of a step from arguments as in `moved`: the parts after it, the series by inputs, `(*shape, 1)`, and the input of the draws."""
        oracle, laws, _ = self.noise
        scope, dim = Trace(), self.rule.dim
        parts = [scope.input(f"part {name}", (dim,)) for name in self.rule.parts]
        z = scope.input("z", (len(laws),)) if laws else value(np.zeros(0))
        numbers: dict[Value, Sequence[Number]] = {}

        def inputs(name: str, own: Sequence[Number]) -> Value:
            if not own:
                return value(np.zeros(0))
            made = scope.input(name, (len(own),))
            numbers[made] = own
            return made

        rows = self.coefficients(home)
        # numbers that do not depend on the step are known: a rule may choose by them
        coefficients = [scope.input(f"coefficient {i}") if isinstance(row, Series) else row for i, row in enumerate(rows)]
        if isinstance(self.rule, Integrator):
            twin = copy.copy(self.rule)
            twin.law = "normal"  # so that a draw enters as itself; its law is in `laws`
            bound: Any = (z, inputs("p", self.numbers.equation))
        else:
            assert oracle is not None
            twin, bound = self.rule, BoundOracle(oracle, z, inputs("p", self.numbers.oracle))
        new = _traced(f"a step of {self.rule.name}", twin.rule, tuple(parts), bound, *coefficients)
        known = {v: np.array([[e] for e in row], dtype=object) for v, row in zip(parts, state)}
        known |= {z: np.array([[Series(home, {0: p})] for p in home.z[first : first + len(laws)]], dtype=object)} if laws else {}
        known |= {v: np.array([[series(home, n)] for n in own], dtype=object) for v, own in numbers.items()}
        known |= {v: np.array([row], dtype=object) for v, row in zip(coefficients, rows) if isinstance(v, Value)}
        return [_of_shape(v, (dim,)) for v in new], known, z

    def coefficients(self, home: DifferentialRing) -> list[Series | float]:
        """Return the coefficients of the rule (of an integrator: h, then the SDE's signals at each stage) as series, or floats if they do not depend on r."""
        if not isinstance(self.rule, Integrator):
            return [n[0] if n.keys() == {0} else series(home, n) for n in self.numbers.coefficients]
        h, signals, rule = Series(home, {2: home.one}), self.numbers.signals, self.rule
        if hasattr(rule, "step_numbers"):
            assert signals is not None
            return list(rule.step_numbers(h, *(n[0] for n in signals)))
        if signals is None:  # the time, at the stages of the step
            return [h, *(Series(home, {0: home.x[-1]}) + Fraction(c).limit_denominator(1000) * h for c in rule.stages)]
        constant_row(rule)
        return [h, *(series(home, n) for _ in rule.stages for n in signals)]


def expansion(step: OneStep, home: DifferentialRing, largest: int) -> Operator:
    """Return E f(x + D) - f(x) = sum_a E[D^a] / a! d^a f as an operator on f, where D is the change of the state in a step.

    The total orders of the multi-indices a are 1, ..., `largest`, the largest power of r, since D begins with r. NotExpandable if the step has no
    such series, or moments that are not known enter it. `home` is a ring with the coordinates and draws of the rule.
    """
    change, moments, exact = step.moments(home, largest)
    n = len(change)
    one = Series(home, {0: home.one})
    level: dict[tuple[int, ...], Series] = {(0,) * n: one}
    out: dict[tuple[int, ...], Series] = {}

    def mean(p: Any) -> Any:
        if not exact and home.degree_in_draws(p) > 2:
            raise NotExpandable("the moments of the noise beyond the second are not known for noise that samples data.")
        return home.mean(p, moments)

    for _ in range(largest):
        following: dict[tuple[int, ...], Series] = {}
        for index, product in level.items():
            last = max((i for i, k in enumerate(index) if k), default=0)
            for i in range(last, n):
                grown = (*index[:i], index[i] + 1, *index[i + 1 :])
                following[grown] = product * change[i]
        level = {index: product for index, product in following.items() if product}
        for index, product in level.items():
            out[index] = Fraction(1, math.prod(math.factorial(k) for k in index)) * product.mapped(mean)
    return Operator(home, out)


def generator(sde: SDE, numbers: ScaledNumbers, home: DifferentialRing, timed: bool, largest: int) -> Operator:
    """Return the generator A = sum_i a_i d_i + (1/2) sum_ij (b b^T)_ij d_i d_j of dX = a dt + b dW (Ito), times the time of a step, up to r^largest.

    Args:
        sde: The SDE; one in the Stratonovich calculus is converted.
        numbers: Its numbers as functions of r, the root of the step's time.
        home: The `DifferentialRing`, whose first coordinates are those of the SDE's state.
        timed: Whether the time is a further coordinate, after those of the state; A then has d_t.
        largest: The largest power of r.

    Raises:
        NotExpandable: If drift or diffusion are no formulas with a Taylor series, or do not remain finite as the step tends to 0.
    """
    home.largest = largest + PAD * home.unit
    drift, columns = coefficients_of(sde, numbers, home)
    n = len(drift)
    if sde.calculus == "stratonovich":
        for b in columns:
            for i in range(n):
                along = [b[j] * b[i].mapped(partial(home.derivative, i=j)) for j in range(n)]
                drift[i] = drift[i] + Fraction(1, 2) * sum(along[1:], along[0])
    size = max(n + timed, len(home.x))
    terms: dict[tuple[int, ...], Series] = {}

    def add(at: Sequence[int], c: Series) -> None:
        index = tuple(sum(i == j for j in at) for i in range(size))
        terms[index] = terms[index] + c if index in terms else c

    for i, a in enumerate(drift):
        add([i], a.shifted(home.unit))
    if timed:
        add([n], Series(home, {home.unit: home.one}))
    for b in columns:
        for i in range(n):
            for j in range(n):
                add([i, j], Fraction(1, 2) * (b[i] * b[j]).shifted(home.unit))
    if any(c.precision <= largest for c in terms.values()) or any(c.valuation < 1 for c in terms.values()):
        raise NotExpandable("drift and diffusion of the SDE must stay finite as the step tends to 0.")
    home.largest = largest
    return Operator(home, {a: c.truncated(largest) for a, c in terms.items()})


def coefficients_of(sde: SDE, numbers: ScaledNumbers, home: DifferentialRing) -> tuple[list[Series], list[list[Series]]]:
    """Return the drift, n series for a state of n coordinates, and the columns of the diffusion, a list of n series for each Brownian motion.

    The series are in the root r of the step's time, by `numbers`, the SDE's numbers as functions of r. The first coordinates of the ring `home` are
    those of the SDE's state. Where `numbers` has no `signals`, the last coordinate is the time.
    """
    n, scope = sde.dim * len(sde.parts), Trace()
    y = scope.input("y", (n,))
    p = scope.input("p", (len(numbers.equation),)) if numbers.equation else None
    signals = numbers.signals if numbers.signals is not None else [{}]
    s = [scope.input(f"s{i}") for i in range(len(signals))]
    given = {y: np.array([[Series(home, {0: home.x[i]})] for i in range(n)], dtype=object)}
    if p is not None:
        given[p] = np.array([[series(home, v)] for v in numbers.equation], dtype=object)
    for one, number in zip(s, signals):
        given[one] = np.array([Series(home, {0: home.x[-1]}) if numbers.signals is None else series(home, number)], dtype=object)
    q = sde.noise_dim
    traced = [_traced("the drift", sde.drift, y, p, s)]
    traced += [_traced("the diffusion", sde.diffusion, y, unit, p, s) for unit in np.eye(q).tolist()]
    drift, *columns = [list(v) for v in evaluated([_of_shape(v, (n,)) for v in traced], given, home)]
    return drift, columns


def idle_parts(rule: Dynamics) -> tuple[str, ...]:
    """Return the names of the parts of a rule's state that no step reads, found at a random state; the position, the first part, is none of them."""
    rng = np.random.default_rng(20240608)
    state = rng.uniform(0.5, 1.5, (len(rule.parts), rule.dim))
    bound = rule.bind(rng.uniform(0.2, 0.8, sum(d.n for d in rule.draws)))

    def after(own: np.ndarray) -> np.ndarray:
        return np.array([np.broadcast_to(part, (rule.dim,)) for part in rule.rule(tuple(own), bound, *constant_row(rule))])

    out, plain = [], after(state)
    for i, part in enumerate(rule.parts[1:], start=1):
        other = state.copy()
        other[i] += rng.uniform(0.5, 1.5, rule.dim)
        if np.array_equal(after(other), plain):
            out.append(part)
    return tuple(out)


def series(home: DifferentialRing, number: Number) -> Series:
    """Return a number, a dict from powers of the root r of the step's time to coefficients, as a `Series`."""
    return Series(home, {j: home.number(c) for j, c in number.items()})


def evaluated(outputs: Sequence[Value], given: Mapping[Value, np.ndarray], home: DifferentialRing) -> list[np.ndarray]:
    """Return values of a graph at power series: arrays of `Series` of the shapes of `outputs`.

    Args:
        outputs: The values of the graph, its nodes.
        given: An array of `Series`, `(*shape, 1)`, for each input of the graph of this shape.
        home: The `DifferentialRing` of the coefficients, polynomials in the coordinates of the state and the draws of a step.

    Raises:
        NotExpandable: If an operation has no Taylor series, such as a branch or a kink.
    """
    outputs, given = _without_guards(outputs, given, home)
    _check_operations(outputs)
    made = compiled(outputs, list(given))(*given.values())
    out = []
    for v, rows in zip(outputs, made):
        full = np.broadcast_to(
            np.asarray(rows, dtype=object)[..., None] if v.uniform else np.asarray(rows, dtype=object), (*v.shape, 1)
        )
        flat = [e if isinstance(e, Series) else Series(home, {0: home.number(e)}) for e in full.ravel()]
        filled = np.empty(len(flat), dtype=object)
        filled[:] = flat
        out.append(filled.reshape(v.shape))
    return out


def _without_guards(
    outputs: Sequence[Value], given: Mapping[Value, np.ndarray], home: DifferentialRing
) -> tuple[Sequence[Value], Mapping[Value, np.ndarray]]:
    """Return `outputs` and `given` of a graph without branches of error functions, which become inputs, and without guards max(v, 0) of roots."""
    if swaps := guards(outputs):
        outputs = replaced(outputs, {v: v for v in given} | swaps)
    while found := error_functions(outputs):
        node, x = found[0]
        assert node.home is not None
        (rows,) = evaluated([x], given, home)
        fresh = node.home.input(f"erf {len(given)}", node.shape)
        values = np.empty(rows.shape, dtype=object)
        for at, one in np.ndenumerate(rows):
            values[at] = one.erf()
        outputs = replaced(outputs, {v: v for v in given} | {node: fresh})
        given = {**given, fresh: values[..., None]}
    return outputs, given


def _check_operations(outputs: Sequence[Value]) -> None:
    """Raise NotExpandable if a graph has an operation without a Taylor series; conditions on the domain of a function are allowed."""
    nodes = order(outputs)
    allowed = set()
    for node in nodes:
        if node.op == "map" and node.name == "where":
            c, _, other = node.args
            if other.op == "const" and np.isnan(other.extra).all() and c.name in ("greater", "greater_equal"):
                allowed.add(c.key)
            else:
                raise NotExpandable("a step must have no branch, such as np.where; a branch has no Taylor series.")
    for node in nodes:
        if node.op in ("rows", "tally", "call"):
            raise NotExpandable(
                "a step must be a formula of NumPy's functions; here it samples data or calls a compiled function."
            )
        if node.op == "map" and (node.name in KINKS or (node.name in CONDITIONS and node.key not in allowed)):
            raise NotExpandable(f"a step must have a Taylor series; the function {node.name} has a kink or a jump.")


def _traced(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)` for traced values; NotExpandable, which names the part, if it cannot be traced."""
    try:
        return trace(function, part, *arguments)
    except NotTraceable as error:
        raise NotExpandable(
            f"an expansion must know the formula: {error}. Write it as an expression or with NumPy's functions."
        ) from error


def _of_shape(v: Any, shape: tuple[int, ...]) -> Value:
    return broadcast(value(v), shape)


def _moment(home: DifferentialRing, law: tuple[str, Any]) -> Moment:
    """Return the function of k >= 1 that gives the k-th moment of a law, a pair of a name and its numbers, as a constant polynomial."""
    return lambda k: home.number(law_moment(*law, k))
