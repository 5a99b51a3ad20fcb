"""How many first steps the two members of a pair take together, whatever the draws: proven on the graph of these steps.

Adam and RMSProp with bias correction, or sign descent with and without momentum, take the same first step, since their averages start at 0.
Their gap is then 0 there, exactly. No sample can show this, and their steps are not analytic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools.dynamics.base import Moving
from sdetools.graph.identities import Examination
from sdetools.graph.value import Trace
from sdetools.simulation.program import Program, parts_of

MOST_STEPS = 4
"""The largest number of steps that are examined."""
POINTS = 24
"""The number of random points of the examination."""


def steps_together(program: Program) -> int:
    """Return the number k of first steps, at most 4, after each of which both members are at one point for all starts and draws; 0 if not proven.

    The differences of their positions after each step are written as a formula of the start and the draws, which must be 0 identically: equal as
    graphs, or as `graph.identities.Examination` proves from 24 random points.

    Args:
        program: The description of a pair of dynamics that share their draws and have equal steps. For another program, or formulas that cannot be
            traced, the result is 0.
    """
    if not program.pair or not program.coupled or program.every != (1, 1):
        return 0
    trace, together = Trace(), 0
    x = trace.input("x", (program.members[0].dim,))
    examination = Examination(x, np.random.default_rng(20240701).standard_normal((x.size, POINTS)))
    try:
        with np.errstate(all="ignore"):
            states = [_start(member, x, trace) for member in program.members]
            rows = [member.coefficient_values(min(program.steps, MOST_STEPS)).tolist() for member in program.members]
            for k in range(len(rows[0])):
                states = [_moved(m, s, row[k], trace, k) for m, s, row in zip(program.members, states, rows)]
                first, second = (state[0] for state in states)
                if first.key != second.key and not examination.vanishes(first - second).all():
                    return together
                together = k + 1
    except Exception:  # a part of the formula cannot be traced, for any reason
        pass
    return together


def _start(member: Moving, x: Any, trace: Trace) -> tuple[Any, ...]:
    """Return the traced state (position, then other parts) before the first step from the traced point `x`; a random start's draws are an input."""
    draws = sum(d.n for d in member.start_draws)
    u: Any = trace.input("u", (draws,))
    return tuple(member.start(x, u) if draws else member.start(x))


def _moved(member: Moving, state: tuple[Any, ...], row: list[float], trace: Trace, k: int) -> tuple[Any, ...]:
    """Return the traced state after step `k`.

    Args:
        member: The dynamics.
        state: The traced state before the step, a tuple of its parts.
        row: The coefficients of the step, such as eta and beta.
        trace: The trace; its input `z<k>` is the draws of the step, which both members read.
        k: The number of the step, from 0.
    """
    z = trace.input(f"z{k}", (max(sum(d.n for d in member.draws), 1),))
    like = tuple(trace.input("x", (member.dim,)) for _ in state)
    return parts_of(member, member.rule(state, member.bind(z), *row), like)
