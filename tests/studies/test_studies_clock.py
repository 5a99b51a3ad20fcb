"""Recorded steps, anchors of the control variate, and programs of one or two dynamics, against explicit lists."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import sdetools as st
from sdetools.studies.clock import DENSE, moment, plan_control, recorded_steps, steps_to
from sdetools.studies.means import make_program, nested

LOSS = st.losses.from_expression("x**2/2")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=1))


def test_steps_to_a_time():
    """A whole number of steps up to one part in 10^9, of at least one step."""
    assert [steps_to(t, 0.1) for t in (0.1, 0.3, 1.2, 1.2 * (1 + 9e-10), 1.2 * (1 - 9e-10))] == [1, 3, 12, 12, 12]
    assert steps_to(0.7 * (1 + 9e-10), 0.7) == 1
    for t, near in ((1.2 * (1 + 2e-9), 12), (1.25, 12), (0.04, 1), (1.2 * (1 - 2e-9), 12), (0.1 * (1 + 2e-9), 1)):
        with pytest.raises(ValueError, match=rf"Take horizon={near * 0.1:.12g} \({near} step"):
            steps_to(t, 0.1)


def geometric(start, steps):
    """Return round(start 1.1^j) below the last step, and the last step."""
    return {round(start * 1.1**j) for j in range(200) if start * 1.1**j < steps} | {steps}


@pytest.mark.parametrize(
    ("steps", "memory", "expected"),
    [
        (1000, 2.5, {*range(21)} | geometric(20, 1000)),  # 8 memories
        (1000, 2.51, {*range(22)} | geometric(21, 1000)),  # rounded up
        (60, 1.0, {*range(9)} | geometric(10, 60)),  # growth begins at 10, where a step is one
        (5, 100.0, {*range(6)}),
        (10, 1.25, {*range(11)}),
        (700, 100.0, {round(k * 700 / DENSE) for k in range(DENSE + 1)}),
        (3000, 100.0, {round(k * 800 / DENSE) for k in range(DENSE + 1)} | geometric(800, 3000)),
    ],
)
def test_recorded_steps_by_default(steps, memory, expected):
    """Eight memories are recorded step by step, later steps geometrically."""
    assert recorded_steps(None, steps, 0.1, memory).tolist() == sorted(expected)


def test_recorded_steps_as_requested():
    """Lists of times and "all"."""
    assert recorded_steps("all", 4, 0.1, 9.0).tolist() == [0, 1, 2, 3, 4]
    assert recorded_steps([0.3, 0.1, 0.0, 0.3], 4, 0.1, 9.0).tolist() == [0, 1, 3]
    assert recorded_steps(0.4, 4, 0.1, 9.0).tolist() == [4]
    with pytest.raises(ValueError, match=r"between 0 and the horizon 0\.4"):
        recorded_steps([0.5], 4, 0.1, 9.0)


def member_of(steps, longest=10 / 3, memory=None):
    """Return a momentum whose coefficients identify their step, `steps + 1` of them as in the dynamics."""
    return SimpleNamespace(
        longest_memory=longest,
        memory=lambda n: np.arange(n + 1) + 0.5 if memory is None else memory,
        fading=lambda n: 1 - 1 / (np.arange(n) + 2.0),
    )


def test_anchors_of_an_example():
    """Lag 10: an anchor is used until a recorded step needs one more than 5 steps later; its slot is free after its last use."""
    record = np.array([0, 5, 10, 12, 15, 16, 17, 25, 40])
    found = plan_control(member_of(40), 40, record)
    starts = [0, 0, 0, 0, 0, 6, 6, 15, 30]
    expected = np.full(41, -1)
    expected[[0, 6, 15, 30]] = [0, 1, 2, 0]
    assert found.anchor_slot.tolist() == expected.tolist()
    assert found.slot.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 0] and found.slots == 3
    assert found.factor.tolist() == (record + 0.5).tolist() and found.memory.tolist() == (np.arange(41) + 0.5).tolist()
    # the product of (j + 1) / (j + 2) over j = a ... k - 1
    np.testing.assert_allclose(found.fading, [(a + 1) / (k + 1) for a, k in zip(starts, record, strict=True)], rtol=1e-12)


def test_a_lag_is_three_memories_rounded_up():
    """Only the anchor of the last record lies one lag before it."""
    for longest, lag in ((10 / 3, 10), (3.4, 11), (1.0, 3)):
        found = plan_control(member_of(40, longest), 40, np.array([40]))
        assert np.flatnonzero(found.anchor_slot >= 0).tolist() == [40 - lag]


def test_no_momentum_has_no_control():
    """There is no control variate without momentum."""
    assert plan_control(member_of(40, memory=np.zeros(41)), 40, np.array([40])) is None
    assert plan_control(SimpleNamespace(memory=lambda n: None, fading=lambda n: None), 40, np.array([40])) is None


# -- programs ------------------------------------------------------------------------------------------------------------------------


def test_steps_must_be_integer_multiples():
    """Ratios of steps are integers up to rounding."""

    def steps_of(*times):
        return nested(tuple(SimpleNamespace(step_time=t) for t in times))

    assert steps_of(0.3) == (1,) and steps_of(0.1, 0.3) == (1, 3) and steps_of(0.4, 0.1 * (1 + 9e-10)) == (4, 1)
    for apart in (1 + 2e-9, 1 - 2e-9, 1.5):
        with pytest.raises(ValueError, match="must nest, one a whole multiple"):
            steps_of(0.4, 0.1 * apart)


def program_of(*members, times=None, **more):
    """Return the program of some dynamics on a quadratic loss."""
    return make_program(members, [2.0], 12.0, ["x"], times, (), more.get("control", True), more.get("coupled", True))


def test_a_program_runs_on_the_shortest_step_and_records_on_the_longest():
    """A momentum with memory 4 at steps of 0.25 and an integrator at steps of 0.125: 8 memories are recorded step by step."""
    plan = st.schedules.constant(0.25, beta=0.75)
    pair = st.SGDM(ORACLE, plan), st.EulerMaruyama(st.SDE(drift=["-x"], diffusion=["0.5"], variables="x"), 0.125)
    for members, memory in ((pair, 4), (pair[::-1], 4), (pair[1:], 1)):
        program, record, step_time = program_of(*members)
        longest = 2 if len(members) == 2 else 1
        steps = 96 // longest
        assert record.tolist() == sorted({*range(8 * memory + 1)} | geometric(max(10, 8 * memory), steps))
        assert step_time == 0.125 * longest and program.steps == 96 and program.record.tolist() == (record * longest).tolist()
        assert program.every == tuple(2 if m is pair[0] else 1 for m in members)
        assert program.members == members and [x.tolist() for x in program.x0] == [[2.0]] * len(members)
        assert program.control is None  # the steps differ


def test_memories_are_counted_in_the_longest_step():
    """A memory of 8 steps of 0.125 is one of 4 steps of 0.25: 32 of them are recorded step by step, later ones geometrically."""
    momentum = st.SGDM(ORACLE, st.schedules.constant(0.125, beta=0.875))
    coarse = st.EulerMaruyama(st.SDE(drift=["-x"], diffusion=["0.5"], variables="x"), 0.25)
    _, record, _ = make_program((momentum, coarse), [2.0], 25.0, ["x"], None, (), True, True)
    assert record.tolist() == sorted({*range(33)} | geometric(32, 100))


def test_a_control_is_planned_for_coupled_momentum_on_one_grid():
    """Not for independent members, for a first member without momentum, or with control=False."""
    plan = st.schedules.constant(0.25, beta=0.5)
    momentum, plain = st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())
    program, record, _ = program_of(momentum, plain)
    expected = plan_control(momentum, 48, record)
    for name in ("anchor_slot", "slot", "factor", "fading", "memory"):
        np.testing.assert_array_equal(getattr(program.control, name), getattr(expected, name))
    assert program.control.memory.shape == (49,)
    for how in ({"control": False}, {"coupled": False}):
        assert program_of(momentum, plain, **how)[0].control is None
    assert program_of(plain, momentum)[0].control is None


def test_times_of_a_short_run_are_distinguished():
    """On a slow clock all times are small: the tolerance is relative to the last one."""
    times = 1e-10 * np.arange(5)
    assert moment(times, 2e-10) == 2 and moment(times, 2e-10 * (1 + 1e-12)) == 2 and moment(times, None) == 4
    with pytest.raises(ValueError, match="must be a recorded time"):
        moment(times, 1.5e-10)
    long = np.array([0.0, 1e-7, 1e4])
    assert moment(long, 1e-7 + 1e-10) == 1
    with pytest.raises(ValueError, match="must be a recorded time"):  # 1e-9 of the last time is no excuse for early ones
        moment(long, 2e-7)
