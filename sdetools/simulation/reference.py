"""The reference: the same programs by plain NumPy on arrays of paths, with no compilation. Slow, obvious, and the twin of every kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools.simulation.philox import fill
from sdetools.simulation.program import NEVER, Program, parts_of, told


def run_reference(
    program: Program, keys: np.ndarray, first: int, paths: int, points: np.ndarray, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments, lost paths and first losses of the paths from `first` on; the last positions go to `points` if it has room for them.

    `scale` multiplies the draws of the steps: to look at a program farther out than its own paths come.
    """
    path = np.arange(first, first + paths)
    sums = np.zeros((len(program.record), program.columns, len(program.statistics)))
    seen = np.full(len(program.members), NEVER)
    with np.errstate(all="ignore"):
        states = _starts(program, fill(program.start_plan, int(keys[-1]), path, 0))
        held = np.zeros((program.members[0].dim, paths))
        totals = np.zeros((len(program.members), len(program.functionals), paths))
        gathered = np.zeros((program.noise.gathered, paths))
        anchors: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        record = {int(k): t for t, k in enumerate(program.record)}
        for k in range(program.steps + 1):
            if program.control is not None and program.control.anchor_slot[k] >= 0:
                x, m = states[0][:2]
                anchors[int(program.control.anchor_slot[k])] = (x - program.control.memory[k] * m, held.copy())
            if k in record:
                sums[record[k]] = _record(program, record[k], states, held, totals, anchors)
            if k == program.steps:
                break
            draws = [
                scale * fill(plan, int(keys[s]), path, k // program.noise.every(s))
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
    if points.shape[1]:
        points[:] = np.concatenate([s[0] for s in states])
    return sums, lost, seen


def _starts(program: Program, z: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    out = []
    for i, (member, x0) in enumerate(zip(program.members, program.x0)):
        own, offset = sum(d.n for d in member.start_draws), program.start_offset(i)
        start = member.start(x0, z[offset : offset + own]) if own else member.start(x0)
        out.append(tuple(np.array(np.broadcast_to(p if np.ndim(p) == 2 else p[:, None], (len(p), z.shape[1]))) for p in start))
    return out


def _gather(program: Program, gathered: np.ndarray, z: np.ndarray) -> None:
    """Adds a step's draws to what a longer step will read; see `frame.gather_text`."""
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
    for i, member in enumerate(program.members):
        coefficients = program.coefficients[min(k, len(program.coefficients) - 1), at : at + len(member.coefficients)]
        at += len(member.coefficients)
        if (k + 1) % program.every[i]:
            continue
        z = draws[program.noise.member_set[i]]
        z = (_sums(program, gathered) if program.noise.shares_sums(i) else z)[: sum(d.n for d in member.draws)]
        before = states[i]
        states[i] = parts_of(member, member.rule(before, member.bind(z), *coefficients), before)
        if i == 0 and program.control is not None:
            noise = member.oracle.sigma * member.oracle.noise.value(before[0], z)
            new_held = member.rule((before[0], held), lambda _: noise, *coefficients)[1]
        for f, functional in enumerate(program.functionals):
            totals[i, f] += functional.increment(before[0], states[i][0])
    return new_held


def _record(
    program: Program, t: int, states: list[Any], held: np.ndarray, totals: np.ndarray, anchors: dict[int, Any]
) -> np.ndarray:
    rows, control = [], program.control
    lost = [0.0 * s[0].sum(axis=0) for s in states]
    for o, h in enumerate([*program.observables, *program.functionals]):
        if o < len(program.observables):
            values = [_one_row(h, s[0]) + dead for s, dead in zip(states, lost)]
        else:
            values = list(totals[:, o - len(program.observables)])
        if not program.pair:
            mean, own = _centred(values[0])
            rows.append([mean, (own**2).sum()])
            continue
        c = np.zeros_like(values[0])
        if control is not None and o < len(program.observables) and getattr(h, "value_stage", None) is None:
            y, kept = anchors[int(control.slot[t])]
            c = control.factor[t] * (h.gradient(y) * (held - control.fading[t] * kept)).sum(axis=0)
            c = np.where(c - c == 0.0, c, 0.0)
        (mx, x), (mz, z), (md, d), (mc, c) = (_centred(v) for v in (*values, values[0] - values[1], c))
        rows.append([mx, mz, md, (x * x).sum(), (z * z).sum(), (d * d).sum(), mc, (c * c).sum(), (d * c).sum()])
    return np.array(rows)


def _one_row(observable: Any, x: np.ndarray) -> np.ndarray:
    """h of each path."""
    value = np.asarray(observable.value(x))
    if value.dtype == object or (value.shape not in ((), (1,), (1, x.shape[1]), x.shape[1:])):
        raise ValueError(
            f"the observable {observable.name} must give one number a path; it gave {told(value)}. Return for example x[0]**2."
        )
    return value.reshape(-1) if value.ndim > 1 else value


def _centred(values: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean, and the values about it: about the first value first, so that equal values give exactly zero."""
    own = values - values[0]
    shift = own.mean()
    return values[0] + shift, own - shift
