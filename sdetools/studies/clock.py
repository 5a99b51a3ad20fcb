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
    """Return the number of steps from time 0 to a time, an integer of at least 1.

    Args:
        horizon: The time, positive.
        step_time: The time of one step.
        name: The name of the argument in error messages.

    Raises:
        ValueError: If the time is not a whole number of steps, up to a relative error of 1e-9, or is more than `LONGEST` steps.
    """
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
            f"`{name}` must be a whole number of steps; got {name}={horizon!r}, which is {fraction(steps)} steps of {step_time:.12g}. "
            f"Take {name}={near!r} ({max(1, whole)} step{'s' if whole > 1 else ''}), or another step_time."
        )
    return whole


def fraction(steps: float) -> str:
    """Return a number of steps as text, with as many digits as show that it is not whole.

    >>> fraction(2.5), fraction(3.0000001)
    ('2.5', '3.0000001')
    """
    return next((text for digits in (6, 9, 12) if not float(text := f"{steps:.{digits}g}").is_integer()), repr(steps))


def asked_steps(name: str, times: Any, steps: int, step_time: float) -> np.ndarray:
    """Return the steps of the requested times as an integer array, in ascending order and without repetition.

    Args:
        name: The name of the argument `times` in error messages.
        times: A time or a list of times from 0 to the horizon, or "all" for every step, 0 and the last included.
        steps: The number of steps of the run.
        step_time: The time of one step.

    Raises:
        ValueError: If `times` is another text or is empty, or if a time lies outside the run or is not a whole number of steps.
    """
    if isinstance(times, str):
        if times != "all":
            raise ValueError(f"`{name}` must be a list of times, 'all' or None; got {times!r}.")
        return np.arange(steps + 1)
    asked = np.atleast_1d(_check.coordinates(name, times))
    if asked.ndim != 1 or not len(asked) or asked.min() < 0 or asked.max() > steps * step_time * (1 + 1e-9):
        raise ValueError(f"`{name}` must be a list of times between 0 and the horizon {steps * step_time:.6g}; got {times!r}.")
    return np.unique([0 if t == 0 else steps_to(t, step_time, name) for t in asked.tolist()])


def recorded_steps(times: Any, steps: int, step_time: float, memory: float) -> np.ndarray:
    """Return the steps at which observables are evaluated, as an integer array `(times,)` in ascending order.

    Args:
        times: A list of times, or "all" for every step. None selects step 0 and every step up to 8 `memory` (if these are more than `DENSE` = 512,
            so many of them, evenly spaced), later steps each 1.1 times the one before, and the last step.
        steps: The number of steps of the run.
        step_time: The time of one step.
        memory: The longest memory 1 / (1 - beta) of the dynamics, in steps.

    Raises:
        ValueError: If `times` is another text or an empty list, or a time lies outside the run or is not a whole number of steps.
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
    """Return the index in `times` of a recorded time; ValueError if the time was not recorded.

    Args:
        times: The recorded times, `(times,)`.
        time: The time t, which may differ from a recorded one by 1e-9 of the last recorded time, and by 1e-9 max(1, |t|); None for the last.
    """
    if time is None:
        return len(times) - 1
    time = _check.number("time", time, "be a recorded time", "Leave it out for the last.")
    found = int(np.argmin(np.abs(times - time)))
    if not abs(times[found] - time) <= 1e-9 * min(max(1.0, abs(time)), np.abs(times).max()):
        raise ValueError(
            f"`time` must be a recorded time; got {time!r}, and the nearest is {times[found]:.10g}. Ask for it by times=."
        )
    return found


def longest_memory(*members: Moving) -> float:
    """Return the longest memory of one or more dynamics, in steps: the largest 1 / (1 - beta), 1 for dynamics without momentum."""
    return max(m.longest_memory for m in members)


def plan_control(member: Moving, steps: int, record: np.ndarray) -> ControlVariate | None:
    """Return the control variate of a momentum method: the noise that entered its momentum buffer since an earlier step, the anchor.

    At some steps a, the auxiliary position y_a = x_a - c_a m_a (c_a is the dynamics' `memory` at step a) and the noise E_a accumulated in the momentum
    buffer m are stored. The anchor of a recorded step k is the last of these that lies at least one lag before k; step 0, where there is none. A lag
    is `LAG` = 3 memories 1 / (1 - beta), and an anchor lies at most 1.5 lags back.

    Args:
        member: The dynamics.
        steps: The number of steps of the run.
        record: The recorded steps, `(times,)`.

    Returns:
        The `simulation.program.ControlVariate`: the steps to store, and the anchor and the weights of each recorded step. None for a dynamics
        without momentum.
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
