"""The reference: the same programs by plain NumPy on arrays of paths, with no compilation. Slow, obvious, and the twin of every kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdetools.dynamics.base import State
from sdetools.simulation.draws import fill
from sdetools.simulation.program import NEVER, Program, parts_of, told
from sdetools.simulation.records import Trees, in_leaves, leaf_counts, of_leaves
from sdetools.starts import Law


def run_reference(
    program: Program,
    keys: np.ndarray,
    first: int,
    paths: int,
    look: Callable[[int, list[State]], None] | None = None,
    scale: float = 1.0,
    lengths: Sequence[int] = (),
    dtype: str = "float64",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Moments `(nodes, records, columns, statistics)` and paths of the nodes of `lengths` leaves (one of all unless said) from path `first`
    on; lost paths and first losses of the members.

    `scale` multiplies the draws of the steps: to look at a program farther out than its own paths come. `look(k, states)` is called with the
    members' states before step k, and after the last one. Of `dtype` are draws, coefficients and the state at the end of a step; within a
    step NumPy's rules hold, by which data of the user's in double make double.
    """
    path = np.arange(first, first + paths)
    trees = Trees(lengths or (len(leaf_counts(paths)),), paths)
    sums = np.zeros((len(trees.counts), len(program.record), program.columns, len(program.statistics)))
    seen = np.full(len(program.members), NEVER)
    with np.errstate(all="ignore"):
        states = _starts(program, path, fill(program.start_plan, int(keys[-1]), path, 0, dtype))
        held = np.zeros((program.members[0].dim, paths), dtype)
        totals = np.zeros((len(program.members), len(program.functionals), paths))
        gathered = np.zeros((program.noise.gathered, paths), dtype)
        anchors: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        record = {int(k): t for t, k in enumerate(program.record)}
        for k in range(program.steps + 1):
            if look is not None:
                look(k, states)
            if program.control is not None and program.control.anchor_slot[k] >= 0:
                x, m = states[0][:2]
                anchors[int(program.control.anchor_slot[k])] = (x - program.control.memory[k] * m, held.copy())
            if k in record:
                sums[:, record[k]] = trees(program.statistics, _record(program, record[k], states, held, totals, anchors))
            if k == program.steps:
                break
            draws = [
                scale * fill(plan, int(keys[s]), path, k // program.noise.every(s), dtype)
                if (k + 1) % program.noise.every(s) == 0
                else np.zeros(0)
                for s, plan in enumerate(program.noise.sets)
            ]
            _gather(program, gathered, draws[0])
            held = _step(program, k, states, held, totals, draws, gathered)
            for i, state in enumerate(states):
                if seen[i] == NEVER and not all(np.isfinite(part).all() for part in state):
                    seen[i] = k + 1
    lost = np.array([(~np.isfinite(np.concatenate(s)).all(axis=0)).sum() for s in states], dtype=np.int64)
    return sums, trees.counts, lost, seen


def _starts(program: Program, path: np.ndarray, z: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    out = []
    for i, (member, x0) in enumerate(zip(program.members, program.x0)):
        law, momentum = program.start_rows(i)
        if isinstance(x0, Law):
            x0 = np.asarray(x0.points(z[law]), dtype=float)
        elif x0.ndim == 2:
            x0 = x0[:, path % x0.shape[1]]
        start = member.start(x0, z[momentum]) if member.start_draws else member.start(x0)
        shapes = [(len(p), z.shape[1]) for p in start]
        out.append(
            tuple(np.array(np.broadcast_to(p if np.ndim(p) == 2 else p[:, None], n), z.dtype) for p, n in zip(start, shapes))
        )
    return out


def _gather(program: Program, gathered: np.ndarray, z: np.ndarray) -> None:
    """Adds a step's draws to what a longer step will read; see `functions.Functions._gather`."""
    n = program.noise.motions
    if len(gathered) > n:
        gathered[n:] += gathered[:n] + 0.5 * z[:n] + 0.5 / 3**0.5 * z[n:]
    gathered[:n] += z[:n]


def _sums(program: Program, gathered: np.ndarray) -> np.ndarray:
    """The draws of a longer step, of variance 1 again; emptied for the next one."""
    n, share = program.noise.motions, max(program.every) ** -0.5
    total = gathered[:n] * share
    area = gathered[n:] * share**3
    gathered[:] = 0.0
    return np.concatenate([total, 3**0.5 * (2 * area - total)]) if len(area) else total


def _step(
    program: Program,
    k: int,
    states: list[Any],
    held: np.ndarray,
    totals: np.ndarray,
    draws: list[np.ndarray],
    gathered: np.ndarray,
) -> np.ndarray:
    at = 0
    new_held = held
    row = program.coefficients[min(k, len(program.coefficients) - 1)].astype(held.dtype)
    for i, member in enumerate(program.members):
        coefficients = row[at : at + len(member.coefficients)]
        at += len(member.coefficients)
        if (k + 1) % program.every[i]:
            continue
        z = draws[program.noise.member_set[i]]
        z = (_sums(program, gathered) if program.noise.shares_sums(i) else z)[: sum(d.n for d in member.draws)]
        before = states[i]
        found = parts_of(member, member.rule(before, member.bind(z), *coefficients), before)
        states[i] = tuple(part.astype(held.dtype, copy=False) for part in found)
        if i == 0 and program.control is not None:
            noise = member.oracle.sigma * member.oracle.noise.value(before[0], z)
            new_held = np.asarray(member.rule((before[0], held), lambda _: noise, *coefficients)[1], held.dtype)
        for f, functional in enumerate(program.functionals):
            totals[i, f] += functional.increment(before[0], states[i][0])
    return new_held


def _record(
    program: Program, t: int, states: list[Any], held: np.ndarray, totals: np.ndarray, anchors: dict[int, Any]
) -> np.ndarray:
    """Moments of the leaves, `(leaves, columns, statistics)`."""
    columns, control = program.statistics, program.control
    counts = leaf_counts(len(states[0][0][0]))
    out = np.empty((len(counts), program.columns, len(columns)))
    lost = [(0.0 * s[0]).sum(axis=0, dtype=float) for s in states]
    for o, h in enumerate([*program.observables, *program.functionals]):
        if o < len(program.observables):
            values = [_one_row(h, s[0]) + dead for s, dead in zip(states, lost)]
        else:
            values = list(totals[:, o - len(program.observables)])
        named = dict(zip(columns.means, values))
        if program.pair:
            c = np.zeros_like(values[0])
            if control is not None and o < len(program.observables):
                y, kept = anchors[int(control.slot[t])]
                c = control.factor[t] * (h.gradient(y) * (held - control.fading[t] * kept)).sum(axis=0)
                c = np.where(c - c == 0.0, c, 0.0)
            named |= {"d": values[0] - values[1], "c": c}
        rows = in_leaves(np.array([named[name] for name in columns.means]))
        out[:, o] = np.stack(of_leaves(columns, rows, counts), axis=-1)
    return out


def _one_row(observable: Any, x: np.ndarray) -> np.ndarray:
    """h of each path."""
    value = np.asarray(observable.value(x))
    if value.dtype == object or (value.shape not in ((), (1,), (1, x.shape[1]), x.shape[1:])):
        raise ValueError(
            f"the observable {observable.name} must give one number a path; it gave {told(value)}. Return for example x[0]**2."
        )
    return value.reshape(-1) if value.ndim > 1 else value
