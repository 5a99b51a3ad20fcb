"""Functions written for one path, such as `np.linalg.norm(g)` without an axis, are applied path by path on all backends."""

from __future__ import annotations

from itertools import pairwise

import naive
import numpy as np
import pytest

import sdetools as st

DIM, PATHS, STEPS, SEED = 3, 4, 5, 2
H = np.diag([1.0, 2.0, 3.0])
X0 = np.random.default_rng(0).standard_normal((DIM, PATHS))


def clipped(x, g, eta):
    """Clipped gradients."""
    return x - eta * g * np.minimum(1.0, 1.0 / np.linalg.norm(g))


def centred(x, g, eta):
    """Gradients minus their mean over coordinates."""
    return x - eta * (g - np.mean(g))


def shifted(x, g, eta):
    """A cyclic shift and a matrix product."""
    return np.roll(x, 1) - eta * g @ np.diag([1.0, 2.0, 1.0])


def along(x, g, eta):
    """An array of coordinates."""
    return x - eta * np.arange(1.0, 4.0) * g / (1 + x @ x)


def summed(x, g, eta):
    """Cumulative sums over coordinates."""
    return x - eta * np.cumsum(g)


def branching(x, g, eta):
    """Normalised gradients beyond a threshold."""
    return x - eta * (g / np.linalg.norm(g) if np.linalg.norm(g) > 1.5 else g)


TEXTS = {f.__name__: f for f in (clipped, centred, shifted, along, summed, branching)}


def moving(text, noise=None):
    """A dynamics with this rule."""

    class Rule(st.Dynamics):
        @staticmethod
        def rule(state, oracle, eta):
            return (text(state[0], oracle(state[0]), eta),)

    noise = st.noise.gaussian(dim=DIM) if noise is None else noise
    return Rule(st.NoisyOracle(st.losses.quadratic(H), noise, sigma=0.5), st.schedules.constant(eta=0.125))


def run(dynamics, backend, **options):
    """A run from four points."""
    given = {"x0": X0, "horizon": STEPS * 0.125, "paths": PATHS, "observe": ["x0"], "keep_final": True, "seed": SEED}
    return st.simulate(dynamics, backend=backend, **given | options)


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
@pytest.mark.parametrize("name", [n for n in TEXTS if n != "branching"])
def test_a_rule(name, backend):
    """Against the rule on one point after another, with draws from pure Python."""
    np.testing.assert_allclose(run(moving(TEXTS[name]), backend).final, reference(name), rtol=0, atol=1e-12)


def test_a_rule_that_branches_runs_on_numpy():
    """A rule that branches on a value runs on NumPy, with a warning."""
    with pytest.warns(RuntimeWarning, match="branches on a value"):
        found = run(moving(branching), "auto")
    np.testing.assert_allclose(found.final, reference("branching"), rtol=0, atol=1e-12)


def reference(name):
    """The final points of single paths."""
    key, out = naive.key_of(SEED, 0), []
    for p in range(PATHS):
        x = X0[:, p]
        for k in range(STEPS):
            x = TEXTS[name](x, H @ x + 0.5 * np.array(naive.normals(key, p, k, DIM)), 0.125)
        out.append(x)
    return np.transpose(out)


NOISES = {
    "a root": lambda: st.noise.rademacher(root=lambda x: np.eye(3) * np.sqrt(1 + np.sum(x * x)) + np.outer(x, x), dim=DIM),
    "a diagonal": lambda: st.noise.uniform(root=lambda x: np.diag(1 + x**2), dim=DIM),
    "draws on a sphere": lambda: st.noise.from_function(
        lambda x, z: np.sqrt(3) * z / np.linalg.norm(z), dim=DIM, draws=st.noise.Normal(3), covariance=1.0
    ),
    "a product": lambda: st.noise.from_function(
        lambda x, z: np.outer(x, x) @ z, dim=DIM, draws=st.noise.Normal(3), covariance=lambda x: np.outer(x, x) @ np.outer(x, x)
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NOISES)
def test_noises_starts_functionals_and_observables(name):
    """Functions for one path in every other argument."""
    law = st.starts.from_function(lambda z: z / np.linalg.norm(z), dim=DIM, draws=st.noise.Normal(3), covariance=np.eye(3) / 3)
    length = st.Accumulate("length", lambda before, after: np.linalg.norm(after - before))
    observe = {"square": lambda x: x @ x, "near": lambda x: np.linalg.norm(x) < 0.9, "most": lambda x: np.max(x)}
    sgd = st.SGD(st.NoisyOracle(st.losses.quadratic(H), NOISES[name](), sigma=0.5), st.schedules.constant(eta=0.125))
    runs = {
        b: run(sgd, b, x0=law, observe=observe, functionals=[length], trajectories=PATHS) for b in ("numba", "numpy", "torch")
    }
    paths = runs["numpy"].trajectories.sel(part="x").transpose("path", "time", "coordinate").values
    for found in runs.values():
        np.testing.assert_allclose(found.final, runs["numpy"].final, rtol=0, atol=1e-12)
        last = found.final.T
        np.testing.assert_allclose(found.at("square").value, np.mean([x @ x for x in last]), rtol=1e-13)
        np.testing.assert_allclose(found.at("near").value, np.mean([np.linalg.norm(x) < 0.9 for x in last]), rtol=1e-13)
        np.testing.assert_allclose(found.at("most").value, np.mean([max(x) for x in last]), rtol=1e-13)
        lengths = [sum(np.linalg.norm(b - a) for a, b in pairwise(path)) for path in paths]
        np.testing.assert_allclose(found.at("length").value, np.mean(lengths), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(paths[:, 0], axis=1), 1.0, rtol=1e-14)


def test_functions_on_rows_are_called_once():
    """Negative control: a function that is correct on rows is called once for all paths."""
    seen = []

    def watched(x):
        seen.append(np.shape(x))
        return np.sum(x * x, axis=0)

    run(moving(clipped), "numpy", observe={"h": watched}, paths=64)
    assert (DIM, 64) in seen and seen.count((DIM,)) < 64


SDES = {
    "without noise": (lambda x: -x * np.linalg.norm(x), None),
    "conditions": (lambda x: x > 0, lambda x: np.diag(x > 0.5)),
    "from a time on": (lambda x, t: -x + t * np.sum(x), lambda x, t: np.eye(3) * t * np.linalg.norm(x)),
    "far out": (lambda x: -x * np.minimum(1.0, 50.0 / np.linalg.norm(x)), np.eye(3)),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", SDES)
def test_sdes(name):
    """Drifts and diffusions for one path.

    They contain norms that exceed a threshold only for all paths together, terms that are 0 at first, steps without draws, and sums
    of conditions.
    """
    dynamics = (st.Platen if name == "conditions" else st.EulerMaruyama)(st.SDE(*SDES[name], dim=DIM), dt=0.125)
    runs = [run(dynamics, b, paths=2000, x0=10 * X0 / 3).final for b in ("numba", "numpy", "torch")]
    for found in runs[1:]:
        np.testing.assert_allclose(found, runs[0], rtol=1e-12, atol=1e-12)
    if name == "without noise":
        x = 10 * X0[:, 1] / 3
        for _ in range(STEPS):
            x = x + 0.125 * -x * np.linalg.norm(x)
        np.testing.assert_allclose(runs[1][:, 1], x, rtol=1e-13)


@pytest.mark.slow
def test_thresholds_that_only_all_paths_together_exceed():
    """Thresholds that the norm of all paths together exceeds, and that of single paths does not."""
    near = {"near": lambda x: np.linalg.norm(x) < 20, "least": lambda x: np.sum(x) > -30}
    length = st.Accumulate("steps", lambda before, after: 1.0 * (np.linalg.norm(after - before) < 9))
    law = st.starts.from_function(
        lambda z: z * np.minimum(1, 20 / np.linalg.norm(z)), dim=DIM, draws=st.noise.Normal(3), covariance=1.0
    )
    noise = st.noise.from_function(
        lambda x, z: z * np.minimum(1, 20 / np.linalg.norm(z)), dim=DIM, draws=st.noise.Normal(3), covariance=1.0
    )
    sgd = st.SGD(st.NoisyOracle(st.losses.quadratic(H), noise, sigma=0.5), st.schedules.constant(eta=0.125))
    found = {b: run(sgd, b, x0=law, paths=2000, observe=near, functionals=[length]) for b in ("numba", "numpy")}
    np.testing.assert_allclose(found["numpy"].final, found["numba"].final, rtol=0, atol=1e-12)
    for made in found.values():
        assert made.at("near").value == made.at("least").value == 1.0
        assert made.at("steps").value == STEPS
