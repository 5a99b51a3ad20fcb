"""Kernels whose tiles of components take many steps at a time: the same paths as by the reference, and only where tiles are independent.

The order in which (step, component) is computed changes, and nothing else: draws have addresses. Dimension 150 makes tiles of 64 rows of
normals and an incomplete one of 22, and tiles of 32 rows of uniforms.
"""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st
from sdetools.simulation.cpu import write
from sdetools.studies.means import make_program

RNG = np.random.default_rng(11)
DIM, ETA, STEPS, PATHS = 150, 0.125, 11, 300
MOVING = st.schedules.from_arrays(ETA * RNG.uniform(0.2, 1.5, STEPS), RNG.uniform(0.2, 0.95, STEPS), base=ETA)
X0 = np.linspace(-1.5, 1.5, DIM)
WELL = st.losses.from_function(value=lambda x: np.sum(x**4 / 4 - x**2 / 2), dim=DIM)
NORMAL = st.noise.gaussian(dim=DIM)
UNIFORM = st.noise.from_function(
    lambda x, z: (z - 0.5) * np.sqrt(12.0),
    dim=DIM,
    draws=st.noise.Uniform(DIM),
    covariance=1.0,
    state_dependent=False,
    check=False,
)


def sgdm(loss=WELL, noise=NORMAL):
    """SGDM with a schedule whose coefficients differ from step to step."""
    return st.SGDM(st.NoisyOracle(loss, noise, sigma=0.6), MOVING)


def sde():
    """An integrator of an SDE without interactions between coordinates; it computes all increments of a step first."""
    return st.EulerMaruyama(st.LimitSDE(st.NoisyOracle(WELL, NORMAL, sigma=0.6), MOVING), ETA)


class Neighbours(st.Dynamics):
    """Each coordinate reads the old value of the next one."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        """Move against the gradient, and towards the next coordinate."""
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m + 0.1 * (np.roll(x, -1) - x), m


def neighbours():
    """A rule that is not separable."""
    return Neighbours(st.NoisyOracle(WELL, NORMAL, sigma=0.6), MOVING)


INDEPENDENT = {
    "normals": lambda: (sgdm(),),
    "uniforms": lambda: (sgdm(noise=UNIFORM),),
    "svag": lambda: (st.SGDM(st.noise.svag(st.NoisyOracle(WELL, NORMAL, sigma=0.6), 3), MOVING),),
    "pair": lambda: (sgdm(), st.SGD(st.NoisyOracle(WELL, NORMAL, sigma=0.6), MOVING.averaged())),
}
OTHERS = {
    "sde": lambda: (sde(),),
    "neighbours": lambda: (neighbours(),),
    "a sum": lambda: (sgdm(st.losses.from_function(value=lambda x: np.sum(x**2) ** 2 / 600, dim=DIM)),),
    "a matrix": lambda: (sgdm(st.losses.quadratic(np.eye(DIM) + 0.1)),),
    "signs": lambda: (sgdm(noise=st.noise.rademacher(DIM)),),
}
CASES = INDEPENDENT | OTHERS


def run(members, backend, **more):
    """Simulate one dynamics or a pair."""
    given = dict(
        x0=X0, horizon=STEPS * ETA, paths=PATHS, observe=["x0**2", "x100*x149"], times=[3 * ETA, 8 * ETA, STEPS * ETA],
        keep_final=True, trajectories=[0, 299], backend=backend, threads=1,
    ) | more  # fmt: skip
    return st.weak_gap(*members, **given) if len(members) == 2 else st.simulate(*members, **given)


def blocked(members):
    """Return whether the kernel has the loop over steps within that over tiles."""
    program, *_ = make_program(members, X0, STEPS * ETA, ["x0"], "all", (), True, True)
    text = write(program).text
    return "for t in range(0" in text and text.index("for t in range(0") < text.index("for k in range(first_step")


@pytest.mark.parametrize("name", CASES)
def test_tiles_take_many_steps_only_where_they_are_independent(name):
    assert blocked(CASES[name]()) == (name in INDEPENDENT)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", CASES)
def test_paths_are_those_of_the_reference(name):
    """Final points and chosen paths at times with several steps between; another seed differs (negative control)."""
    fast, slow = (run(CASES[name](), backend) for backend in ("numba", "numpy"))
    np.testing.assert_allclose(fast.final, slow.final, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(fast.trajectories, slow.trajectories, rtol=1e-11, atol=1e-11)
    assert np.abs(run(CASES[name](), "numba", seed=5).final - slow.final).max() > 1e-3


@pytest.mark.parametrize("name", INDEPENDENT)
def test_recorded_times_change_no_bit(name):
    """With a record at each step a tile takes one step at a time."""
    few, every = run(INDEPENDENT[name](), "numba"), run(INDEPENDENT[name](), "numba", times="all")
    np.testing.assert_array_equal(few.final, every.final)
    np.testing.assert_array_equal(few.trajectories, every.trajectories.sel(time=few.trajectories.time))


def test_the_step_of_divergence_is_that_of_the_reference():
    """Paths from beyond the stability limit diverge; their steps are watched one by one."""
    far = np.where(np.arange(DIM) == 140, 7.0, X0)
    with np.errstate(all="ignore"):
        fast, slow = (
            run((sgdm(),), backend, x0=far, horizon=40 * ETA, times=[40 * ETA], trajectories=None)
            for backend in ("numba", "numpy")
        )
    assert slow.diverged > 0 and 0 < slow.first_divergence < 40
    assert (fast.diverged, fast.first_divergence) == (slow.diverged, slow.first_divergence)


class Steps:
    """A functional that counts steps: one scalar beside the loop over tiles, which must not be counted once for each tile."""

    name = identity = "steps"

    def increment(self, before, after):
        """Return 1 for each step."""
        return 1.0


@pytest.mark.parametrize("functional", [Steps(), st.PathLength()])
def test_what_is_computed_beside_the_tiles_is_computed_once_a_step(functional):
    """A count, which is exact, and a sum over all coordinates, against the reference."""
    fast, slow = (run((sgdm(),), backend, functionals=functional) for backend in ("numba", "numpy"))
    np.testing.assert_allclose(fast.final, slow.final, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(fast.statistics.mean[:, 2], slow.statistics.mean[:, 2], rtol=1e-11)
    assert not isinstance(functional, Steps) or fast.statistics.mean[:, 2].tolist() == fast.steps.tolist()
