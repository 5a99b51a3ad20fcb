"""The engine against one path at a time in pure Python, from the seed to the final point, on both CPU backends."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest

import sdetools as st

STEPS, PATHS, ETA, SEED = 9, 520, 0.125, 2**40 + 17
EXAMINED = (0, 1, 255, 256, 511, 519)
RNG = np.random.default_rng(8)
ETAS, BETAS = ETA * RNG.uniform(0.2, 1.5, STEPS), RNG.uniform(0.2, 0.95, STEPS)
PLAN = st.schedules.from_arrays(ETAS, BETAS, base=ETA)


def paths_of(members, x0, backend):
    """The final points of the examined paths."""
    given = dict(
        x0=x0, horizon=STEPS * ETA, paths=PATHS, observe=["1.0*x"], keep_final=True, seed=SEED, threads=1, backend=backend
    )
    return (st.simulate(*members, **given) if len(members) == 1 else st.weak_gap(*members, **given)).final[:, EXAMINED]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_sgdm_and_sgd_on_the_double_well(backend):
    """One normal a step, a root that depends on x, a random momentum; SGD on the averaged schedule shares the draws."""
    loss = st.losses.from_expression("(x**2 - 1)**2 / 4", variables="x")
    oracle = st.NoisyOracle(loss, st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x"), sigma=0.7)
    members = (st.SGDM(oracle, PLAN, momentum=([0.2], [[0.25]])), st.SGD(oracle, PLAN.averaged()))
    got = paths_of(members, [1.5], backend)
    key, start = naive.key_of(SEED, 0), naive.key_of(SEED, 1 << 32)

    def gradient(x, z):
        return [x[0] ** 3 - x[0] + 0.7 * (1 + 0.3 * math.sin(x[0])) * z[0]]

    flat = naive.averaged(ETAS, BETAS)
    for column, path in enumerate(EXAMINED):
        m0 = 0.2 + 0.5 * naive.normals(start, path, 0, 1)[0]
        draw = lambda k, path=path: naive.normals(key, path, k, 1)  # noqa: E731
        x = naive.sgdm([1.5], [m0], gradient, ETAS, BETAS, draw)[-1][0]
        z = naive.sgdm([1.5], [0.0], gradient, flat, [0.0] * STEPS, draw)[-1][0]
        assert got[0, column] == pytest.approx(x, rel=1e-11)
        assert got[1, column] == pytest.approx(z, rel=1e-11)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("law", ["signs", "uniforms", "three normals"])
def test_other_draws_in_two_coordinates(law, backend):
    """Signs from shared words, two uniforms from one call, three normals from two words."""
    loss = st.losses.from_expression("x**2/2 + x*y/3 + y**2", variables="x y")
    noise, draws, count, entry = {
        "signs": (st.noise.rademacher(2), naive.signs, 2, lambda z: z),
        "uniforms": (st.noise.uniform(2), naive.uniforms, 2, lambda z: [math.sqrt(12) * (u - 0.5) for u in z]),
        "three normals": (
            st.noise.gaussian(root=[[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]]),
            naive.normals,
            3,
            lambda z: [z[0] + z[1] / 2, 2 * z[2] - z[1]],
        ),
    }[law]
    oracle, key = st.NoisyOracle(loss, noise, sigma=0.4), naive.key_of(SEED, 0)
    got = paths_of((st.SGDM(oracle, PLAN),), [1.0, -1.0], backend)

    def gradient(x, z):
        u = entry(z)
        return [x[0] + x[1] / 3 + 0.4 * u[0], x[0] / 3 + 2 * x[1] + 0.4 * u[1]]

    for column, path in enumerate(EXAMINED):
        end = naive.sgdm([1.0, -1.0], [0.0, 0.0], gradient, ETAS, BETAS, lambda k, path=path: draws(key, path, k, count))[-1]
        np.testing.assert_allclose(got[:, column], end, rtol=1e-11)


def test_the_averaged_schedule_is_its_defining_sum():
    """The averaged schedule against its definition."""
    np.testing.assert_allclose(PLAN.averaged().etas(STEPS), naive.averaged(ETAS, BETAS), rtol=1e-12)
