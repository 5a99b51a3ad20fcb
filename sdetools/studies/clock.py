"""Conversion of times to steps, the default recording times, and the anchor steps of the control variate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.simulation.program import ControlVariate

DENSE = 512
"""The largest number of recorded steps in the dense initial phase, which is thinned evenly if it has more."""
GROWTH = 1.1
"""The ratio of successive recorded steps after the initial phase."""
LONGEST = 10**8
"""The largest number of steps of a run. While a run is planned, its schedules occupy a few gigabytes at this length."""
LAG = 3.0
"""The lag of the control variate in units of the momentum's memory 1 / (1 - beta)."""


def steps_to(horizon: float, step_time: float, name: str = "horizon") -> int:
    """Return the number of steps to a time; ValueError if it is not a whole number of steps."""
    horizon = _check.positive(name, horizon)
    steps = horizon / step_time
    if steps > LONGEST:
        raise ValueError(
            f"`{name}` must be at most {LONGEST:,} steps; got {name}={horizon!r}, which is {steps:.6g} steps of {step_time:.6g}. "
            "Take an earlier time or longer steps."
        )
    whole = round(steps)
    if whole < 1 or not math.isclose(steps, whole, rel_tol=1e-9):
        near = float(f"{max(1, whole) * step_time:.12g}")
        raise ValueError(
            f"`{name}` must be a whole number of steps; got {name}={horizon!r}, which is {steps:.6g} steps of {step_time:.6g}. "
            f"Take {name}={near!r} ({max(1, whole)} steps), or another step_time."
        )
    return whole


def asked_steps(name: str, times: Any, steps: int, step_time: float) -> np.ndarray:
    """Return the steps of a list of times, or every step for "all"."""
    if isinstance(times, str):
        if times != "all":
            raise ValueError(f"`{name}` must be a list of times, 'all' or None; got {times!r}.")
        return np.arange(steps + 1)
    asked = np.atleast_1d(_check.finite(name, times))
    if asked.ndim != 1 or not len(asked) or asked.min() < 0 or asked.max() > steps * step_time * (1 + 1e-9):
        raise ValueError(f"`{name}` must be a list of times between 0 and the horizon {steps * step_time:.6g}; got {times!r}.")
    return np.unique([0 if t == 0 else steps_to(t, step_time, name) for t in asked.tolist()])


def recorded_steps(times: Any, steps: int, step_time: float, memory: float) -> np.ndarray:
    """Return the steps to record.

    Args:
        times: A list of times, or "all"; by default every step up to 8 / (1 - beta) and then geometrically spaced steps.
        steps: The number of steps of the run.
        step_time: The time of one step.
        memory: The longest memory 1 / (1 - beta), in steps.
    """
    if times is not None:
        return asked_steps("times", times, steps, step_time)
    dense = min(steps, math.ceil(8 * memory))
    recorded = set(np.unique(np.linspace(0, dense, min(dense, DENSE) + 1).round().astype(int)).tolist()) | {steps}
    k = float(max(dense, 10))
    while k < steps:
        recorded.add(round(k))
        k *= GROWTH
    return np.array(sorted(recorded))


def moment(times: np.ndarray, time: float | None) -> int:
    """Return the index of a recorded time, by default of the last one; ValueError if the time was not recorded."""
    if time is None:
        return len(times) - 1
    found = int(np.argmin(np.abs(times - time)))
    if not abs(times[found] - time) <= 1e-9 * max(1.0, abs(time)):
        raise ValueError(
            f"`time` must be a recorded time; got {time!r}, and the nearest is {times[found]:.10g}. Ask for it by times=."
        )
    return found


def longest_memory(*members: Moving) -> float:
    """Return 1 / (1 - beta) of the slowest momentum, in steps."""
    return max(m.longest_memory for m in members)


def plan_control(member: Moving, steps: int, record: np.ndarray) -> ControlVariate | None:
    """Return the control variate of a momentum method, with a lag between 3 and 4.5 memories; None without momentum.

    The anchor of a recorded step k is the last step at which (y, E) was stored and that lies at least one lag before k, or the start.
    """
    memory, fading = member.memory(steps), member.fading(steps)
    if memory is None or fading is None or not memory.any():
        return None
    lag = math.ceil(LAG * longest_memory(member))
    anchors: list[list[int]] = []  # step, last use
    used = np.empty(len(record), np.int64)
    for t, k in enumerate(record.tolist()):
        want = max(0, k - lag)
        if not anchors or want - anchors[-1][0] > lag // 2:
            anchors.append([want, k])
        anchors[-1][1] = k
        used[t] = len(anchors) - 1
    slot_of, free_at = np.empty(len(anchors), np.int64), list[int]()
    anchor_slot = np.full(steps + 1, -1, np.int64)
    for a, (start, last) in enumerate(anchors):
        slot = next((s for s, end in enumerate(free_at) if end < start), None)
        if slot is None:
            slot = len(free_at)
            free_at.append(last)
        free_at[slot] = last
        slot_of[a] = slot
        anchor_slot[start] = slot
    starts = np.array([a[0] for a in anchors])[used]
    rho = np.array([np.prod(fading[a:k]) for a, k in zip(starts.tolist(), record.tolist())])
    return ControlVariate(anchor_slot, slot_of[used], memory[record], rho, memory)
