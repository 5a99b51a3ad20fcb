"""The reference backend: the same programs in plain NumPy on arrays of paths, without compilation.

It is slow and simple, and the compiled backends are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np

from sdetools._arrays import PathByPath, few_paths, on_rows, with_outliers
from sdetools.dynamics.base import Dynamics, Moving, State
from sdetools.noise.base import sample_draws
from sdetools.simulation.chunk_batches import Arrays, ChunkBatches, walk
from sdetools.simulation.chunks import ChunkResult, ChunkTask
from sdetools.simulation.draws import DrawPlan, fill, fill_steps
from sdetools.simulation.program import Program, description, parts_of
from sdetools.starts import Law

BLOCK = 1 << 14
"""The number of draws that are made together, if those of one step are fewer."""


class NumpyRunner(ChunkBatches):
    """The runner of the NumPy backend: it advances the paths of a chunk as arrays `(dim, paths)`, in the thread that calls `run`.

    Args:
        task: The `ChunkTask`, which contains the program.
    """

    on_device = False
    longest_rows = 16

    def __init__(self, task: ChunkTask) -> None:
        super().__init__(task, 1, Arrays())
        self.alone = _alone(self.program)

    def paths(self, first: int, count: int) -> ArrayPaths:
        return ArrayPaths(self.program, self.task.arguments[0], first, count, dtype=self.task.dtype, alone=self.alone)

    def run(self, batch: Sequence[int]) -> list[ChunkResult]:
        with np.errstate(all="ignore"):
            return super().run(batch)


def run_reference(
    program: Program,
    keys: np.ndarray,
    first: int,
    paths: int,
    look: Callable[[int, list[State]], None] | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """Run up to 256 paths in NumPy and return their moments; for tests and for the examination of a program.

    Args:
        program: The simulation.
        keys: The keys of the draws (`philox.stream_key`), uint64 `(sets + 1,)`: one for a single dynamics or a coupled pair, two for an independent
            pair, and last that of the starts.
        first: The index of the first path.
        paths: The number of paths, at most 256; of more, the moments would be those of the first 256.
        look: A function `look(k, states)`, called before each step k and after the last one with a list of the states of the dynamics, each
            a tuple of arrays `(dim, paths)`: position, momentum, ... None calls nothing.
        scale: A factor of the draws of the steps, to examine a program farther from its start than its own paths reach.

    Returns:
        Moments `(recorded steps, quantities, statistics)`, float64; a quantity is an observable or a functional, and the statistics are those of
        `records.SINGLE` for one dynamics or `records.PAIR` for two.
    """
    with np.errstate(all="ignore"):
        moving, out = ArrayPaths(program, keys, first, paths, scale), []
        for k, rows in walk(program, moving, range(program.steps + 1)):
            if look is not None:
                look(k, moving.states)
            if rows is not None:
                out.append(Arrays().moments(program.statistics, rows, paths)[0])
    return np.array(out)


class ArrayPaths:
    """Consecutive paths as NumPy arrays, advanced step by step: the `chunk_batches.MovingPaths` of the NumPy backend.

    Draws, coefficients and the state at the end of a step have type `dtype`. Within a step NumPy's promotion rules apply: user data in
    double precision give intermediate results in double precision.

    Args:
        program: The simulation.
        keys: The keys of the draws (`philox.stream_key`), uint64 `(sets + 1,)`: one for a single dynamics or a coupled pair, two for an independent
            pair, and last that of the starts.
        first: The index of the first path.
        paths: The number of paths.
        scale: A factor of the draws of the steps; 1 for a simulation.
        dtype: "float64" or "float32".
        alone: For each of the dynamics, whether its steps must be computed path by path, because its rule is written for one path only; None
            determines this by trial steps.

    Attributes:
        k: The present step; the state is the one before it.
        states: For each of the dynamics a tuple of arrays `(dim, paths)`: position, momentum, ...
    """

    def __init__(
        self,
        program: Program,
        keys: np.ndarray,
        first: int,
        paths: int,
        scale: float = 1.0,
        dtype: str = "float64",
        alone: Sequence[bool] | None = None,
    ) -> None:
        self.program, self.keys, self.scale, self.dtype, self.k = program, keys, scale, np.dtype(dtype), 0
        self.path = np.arange(first, first + paths)
        self.alone = _alone(program) if alone is None else alone
        self.increments = [_increments(f, program.members[0].dim) for f in program.functionals]
        self.states = self._starts(fill(program.start_plan, int(keys[-1]), self.path, 0, dtype))
        self.momentum_noise = np.zeros((program.members[0].dim, paths), dtype)
        self.totals = np.zeros((len(program.members), len(program.functionals), paths))
        self.made: dict[int, tuple[int, np.ndarray]] = {}  # for each set of draws the first step of the last block, and its draws
        self.accumulated = np.zeros((program.noise.accumulated, paths), dtype)

    def _starts(self, z: np.ndarray) -> list[State]:
        """Return the initial states of the members, a tuple of arrays `(dim, paths)` for each, from the draws of the start, `(draws, paths)`."""
        program, out = self.program, []
        for i, (member, x0) in enumerate(zip(program.members, program.x0)):
            law, momentum = program.start_rows(i)
            if isinstance(x0, Law):
                x0 = np.asarray(x0.points(z[law]), dtype=float)
            elif x0.ndim == 2:
                x0 = x0[:, self.path % x0.shape[1]]
            start = member.start(x0, z[momentum]) if member.start_draws else member.start(x0)
            wide = [np.broadcast_to(p if np.ndim(p) == 2 else p[:, None], (len(p), len(self.path))) for p in start]
            out.append(tuple(np.array(p, self.dtype) for p in wide))
        return out

    # ---- steps

    def advance(self, k: int) -> None:
        while self.k < k:
            self._step(self.k)
            self.k += 1

    def _step(self, k: int) -> None:
        """Advance those members by step k of the program whose step ends with it, in place."""
        program, noise, at = self.program, self.program.noise, 0
        draws = [
            self._draws(s, plan, k // noise.every(s)) if (k + 1) % noise.every(s) == 0 else np.zeros((0, len(self.path)))
            for s, plan in enumerate(noise.sets)
        ]
        self._accumulate(draws[0])
        row = program.coefficients[min(k, len(program.coefficients) - 1)].astype(self.dtype)
        for i, member in enumerate(program.members):
            coefficients = row[at : at + len(member.coefficients)]
            at += len(member.coefficients)
            if (k + 1) % program.every[i]:
                continue
            z = self._sums() if noise.shares_sums(i) else draws[noise.member_set[i]]
            z, before = z[: sum(d.n for d in member.draws)], self.states[i]
            moved = _step(member, coefficients)
            found = (PathByPath(moved) if self.alone[i] else moved)(z, *before)
            self.states[i] = tuple(part.astype(self.dtype, copy=False) for part in np.split(found, len(before)))
            if program.stop is not None:
                stands = _one_row(program.observables[program.stop], before[0]) != 0.0
                self.states[i] = tuple(np.where(stands, old, new) for old, new in zip(before, self.states[i]))
            if i == 0 and program.control is not None:
                assert isinstance(member, Dynamics)
                deviation = member.oracle.sigma * member.oracle.noise.value(before[0], z)
                noise_part = member.rule((before[0], self.momentum_noise), lambda _, v=deviation: v, *coefficients)[1]
                self.momentum_noise = np.asarray(noise_part, self.dtype)
            for f, increment in enumerate(self.increments):
                self.totals[i, f] += increment(before[0], self.states[i][0])

    def _draws(self, s: int, plan: DrawPlan, step: int) -> np.ndarray:
        """Return the draws of set `s` in a step, `(draws, paths)`; those of a block of `BLOCK` numbers or one step are made together."""
        first, made = self.made.get(s, (0, np.empty(0)))
        if not first <= step < first + len(made):
            steps = -(-self.program.steps // self.program.noise.every(s)) - step
            count = max(1, min(steps, BLOCK // max(1, plan.rows * len(self.path))))
            first, made = step, self.scale * fill_steps(plan, int(self.keys[s]), self.path, step, count, self.dtype)
            self.made[s] = first, made
        return made[step - first]

    def _accumulate(self, z: np.ndarray) -> None:
        """Add the draws of a step, `(draws, paths)`, to the sums for the longer step of a pair; see `step_graphs.Functions._accumulate`."""
        n, sums = self.program.noise.motions, self.accumulated
        if len(sums) > n:
            sums[n:] += sums[:n] + 0.5 * z[:n] + 0.5 / 3**0.5 * z[n:]
        sums[:n] += z[:n]

    def _sums(self) -> np.ndarray:
        """Return the draws of the longer step, `(draws, paths)`: the sums normalised to variance 1. The sums are reset to 0."""
        n, share = self.program.noise.motions, max(self.program.every) ** -0.5
        total, area = self.accumulated[:n] * share, self.accumulated[n:] * share**3
        self.accumulated[:] = 0.0
        return np.concatenate([total, 3**0.5 * (2 * area - total)]) if len(area) else total

    # ---- records

    def anchor(self, memory: float) -> tuple[np.ndarray, np.ndarray]:
        x, m = self.states[0][:2]
        return x - memory * m, self.momentum_noise

    def recorded(self, anchor: Any, c: float, rho: float) -> list[np.ndarray]:
        program = self.program
        nan_if_diverged, rows = [(0.0 * s[0]).sum(axis=0, dtype=float) for s in self.states], []
        for h in program.observables:
            rows += [_one_row(h, s[0]) + nan for s, nan in zip(self.states, nan_if_diverged)]
            if program.pair:
                control = np.zeros_like(rows[-1])
                if anchor is not None:
                    y, kept = anchor
                    control = c * (h.gradient(y) * (self.momentum_noise - rho * kept)).sum(axis=0)
                rows.append(np.where(control - control == 0.0, control, 0.0))
        for totals in self.totals.swapaxes(0, 1):
            rows += [*totals, *([np.zeros_like(totals[0])] if program.pair else [])]
        return rows

    def diverged(self, i: int) -> np.ndarray:
        return ~np.isfinite(np.concatenate(self.states[i])).all(axis=0)

    def rows_of(self, rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
        controlled = [self.momentum_noise] if self.program.control is not None else []
        sums = self.totals.swapaxes(0, 1).reshape(-1, len(self.path))
        return np.concatenate([*(p for state in self.states for p in state), *controlled, sums])[rows, picked].astype(float)


def _step(member: Moving, coefficients: Any) -> Callable[..., np.ndarray]:
    """Return a function of the draws `(draws, paths)` and of the parts before a step, `(dim, paths)` each: position, momentum, ...

    It returns the parts after the step, stacked to an array `(parts * dim, paths)`.
    """

    def moved(z: np.ndarray, *state: np.ndarray) -> np.ndarray:
        return np.concatenate(parts_of(member, member.rule(state, member.bind(z), *coefficients), state))

    return moved


def _alone(program: Program) -> list[bool]:
    """Determine by trial steps, for each member, whether its rule is written for one path only, such as `np.linalg.norm(g)` without an axis."""
    out, at = [], 0
    for member in program.members:
        rng, n, mixed = np.random.default_rng(0), few_paths(member.dim), False
        for size, row in ((0.1, 0), (1.0, len(program.coefficients) // 2), (10.0, -1)):
            moved = _step(_unchecked(member), program.coefficients[row, at : at + len(member.coefficients)])
            z, points = sample_draws(member.draws, rng, n), size * rng.standard_normal((len(member.parts), member.dim, n))
            mixed = mixed or on_rows(moved, *([z, *state] for state in with_outliers(points))) is not moved
        out.append(mixed)
        at += len(member.coefficients)
    return out


def _unchecked(member: Moving) -> Moving:
    """Return a copy of the member without the check of a declared class of noise, which examines all paths together; itself if it has none."""
    sde = getattr(member, "sde", None)
    if sde is None or not sde.presumed:
        return member
    own = copy(member)
    own.sde = copy(sde)  # type: ignore[attr-defined]
    own.sde.presumed = False  # type: ignore[attr-defined]
    return own


def _increments(functional: Any, dim: int) -> Callable[..., Any]:
    """Return the function `increment(before, after)` of a functional, which is applied path by path if it is written for one path only."""
    return on_rows(
        functional.increment, *map(list, with_outliers(np.random.default_rng(0).standard_normal((2, dim, few_paths(dim)))))
    )


def _one_row(observable: Any, x: np.ndarray) -> np.ndarray:
    """Return h(x) for the positions `(dim, paths)`, an array `(paths,)` or one number for all; ValueError if h does not give one number per path."""
    value = np.asarray(observable.value(x))
    if value.dtype == object or (value.shape not in ((), (1,), (1, x.shape[1]), x.shape[1:])):
        raise ValueError(
            f"the observable {observable.name} must give one number a path; it gave {description(value)}. Return for example x[0]**2."
        )
    return value.reshape(-1) if value.ndim > 1 else value
