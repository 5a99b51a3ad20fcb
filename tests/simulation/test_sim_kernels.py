"""Kernels against the NumPy reference, path by path, over losses, noises, dynamics, pairs, functionals and starts.

Both backends use the same draws, so final points agree to rounding (1e-10 relative), and so do all sums. The cases cover each loss
and noise of the galleries, SVAG of them, each dynamics, coupled and independent pairs, with and without the control variate, random
momenta, variable schedules, and dimensions 1, 2, 3 and 20.
"""

from __future__ import annotations

import mpmath
import naive
import numpy as np
import pytest

import sdetools as st
from sdetools.simulation import backends
from sdetools.simulation.backends import RUNNERS

RNG = np.random.default_rng(7)
STEPS, PATHS, ETA = 7, 300, 0.125
X2, X3, X20 = [1.2, 0.7], [0.9, -0.5, 0.4], np.linspace(-1, 1, 20)
MOVING = st.schedules.from_arrays(ETA * RNG.uniform(0.2, 1.5, 5), RNG.uniform(0.2, 0.95, 5), base=ETA)
FIXED = st.schedules.constant(ETA, 0.8)
ROOT2 = [[1.0, 0.3], [-0.4, 0.8]]
REGRESSION = st.losses.least_squares(RNG.standard_normal((11, 3)), RNG.standard_normal(11), l2=0.1)
CLASSES = st.losses.logistic(RNG.standard_normal((9, 3)), RNG.integers(0, 2, 9), l2=0.05)
SPREAD = ([0.1, 0.2], [[1.0, 0.5], [0.5, 2.0]])


def oracle(loss, noise, sigma=0.6):
    """A noisy oracle."""
    return st.NoisyOracle(loss, noise, sigma=sigma)


def pair_of(o, plan=MOVING, **more):
    """SGDM, and SGD on the averaged schedule."""
    return st.SGDM(o, plan, **more), st.SGD(o, plan.averaged())


def ema_pair(law, **more):
    """SGDM and SGD on a 2-D quadratic with a dense root."""
    return pair_of(oracle(st.losses.quadratic([[1.3, 0.4], [0.4, 0.7]], center=[0.5, -1.0]), law), **more)


def valley(law):
    """Heavy ball and SGD on the exponential valley."""
    o = oracle(st.losses.exponential_valley(0.7), law)
    heavy = st.HeavyBall(o, gamma=ETA * 0.2, beta=0.8)
    return heavy, st.SGD(o, heavy.averaged())


def independent():
    """Two dynamics with independent draws."""
    first = oracle(st.losses.double_well(), st.noise.gaussian(dim=1))
    second = oracle(st.losses.double_well(), st.noise.rademacher(1))
    return st.SGDM(first, MOVING, momentum=([0.3], [[2.0]])), st.SGDM(second, MOVING, momentum=([-0.3], [[1.0]]))


class Ring(st.Dynamics):
    """Every coordinate reads its neighbours' old values, so no store may precede the load of another coordinate."""

    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        """SGDM with shifted states."""
        x, m = state
        m = beta * m + (1 - beta) * (oracle(x) + 0.3 * np.roll(x, 1, axis=0) - 0.1 * np.roll(m, -2, axis=0))
        return x - eta * m + 0.01 * np.roll(m, 3, axis=0) * x, m


class Alike(st.Dynamics):
    """Identical, uncoupled coordinates, which compile to loops."""

    parts, coefficients = ("x", "m", "v"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        """Adam without its corrections."""
        x, m, v = state
        g = oracle(x)
        m, v = beta * m + (1 - beta) * g, beta * v + (1 - beta) * g * g
        return x - eta * m / np.sqrt(v + 0.1), m, v


def coupled_twenty(kind):
    """A dynamics in twenty coordinates."""
    loss = st.losses.quadratic(np.full(20, 0.8), center=np.linspace(-1, 1, 20))
    return (kind(oracle(loss, st.noise.gaussian(dim=20)), MOVING),), np.linspace(-1, 1, 20), dict(observe=["x0*x1 + x19"])


def bending(x, z):
    """Noise that depends on x."""
    return [z[0] * (1 + 0.2 * x[0] ** 2), z[1] * np.cos(x[0])]


def nested(x):
    """A formula that is too long for straight-line code, with kinks, trigonometric functions and constants."""
    y = x[0] * x[1]
    for i in range(25):
        y = np.maximum(0.3 * x[i % 2] + 0.01 * i, 0.5 * y * x[(i + 1) % 2] - 0.1) + 0.2 * np.tan(0.3 * np.tanh(y + 0.1 * i))
    return y * y + 0.5 * np.sum(x * x)


def long(rule=st.SGDM, law=None):
    """A dynamics on that loss."""
    o = oracle(st.losses.from_function(value=nested, dim=2), law or st.noise.gaussian(root=ROOT2))
    return rule(o, MOVING)


MOMENTS = ["x0", "x1", "x0**2", "x0*x1"]
BATCH3 = ["x0", "x2", "x1**2", "x0*x2"]
PATH = (st.PathLength(), st.SquaredIncrements(0))

CASES = {
    "long formula": lambda: ((long(),), X2, dict(observe=MOMENTS)),
    "long formula, signs in bits": lambda: ((long(law=st.noise.rademacher(root=ROOT2)),), X2, dict(observe=MOMENTS)),
    "long formula, a pair with control": lambda: (
        pair_of(oracle(st.losses.from_function(value=nested, dim=2), st.noise.gaussian(root=ROOT2))),
        X2,
        dict(observe=["x0*x1", st.losses.from_function(value=nested, dim=2)]),
    ),
    # one coordinate, state-dependent root, random momentum, control variate
    "double well": lambda: (
        pair_of(
            oracle(st.losses.double_well(), st.noise.gaussian(root=[["1 + 0.3*sin(x)"]], variables="x")),
            momentum=([0.2], [[0.5]]),
        ),
        [1.5],
        dict(observe=["x**2", "cos(2*x)"]),
    ),
    "gaussian": lambda: (ema_pair(st.noise.gaussian(root=ROOT2), momentum=SPREAD), X2, dict(observe=MOMENTS)),
    "rademacher": lambda: (ema_pair(st.noise.rademacher(root=ROOT2)), X2, dict(observe=MOMENTS, control=False)),
    "uniform": lambda: (ema_pair(st.noise.uniform(root=ROOT2)), X2, dict(observe=MOMENTS, control=False)),
    "centred exponential": lambda: (ema_pair(st.noise.centred_exponential(root=ROOT2)), X2, dict(observe=MOMENTS, control=False)),
    "two point": lambda: (valley(st.noise.two_point(2, probability=0.3)), X2, dict(observe=["x + y**2"], functionals=PATH)),
    "three point": lambda: (
        (
            st.Auxiliary(oracle(st.losses.sphere(3), st.noise.three_point(3)), MOVING, momentum=[0.1, 0.2, 0.3]),
            st.SGD(oracle(st.losses.sphere(3), st.noise.three_point(3)), MOVING.averaged()),
        ),
        X3,
        dict(observe=["x0 + x1*x2"]),
    ),
    "student": lambda: (
        (st.SGDM(oracle(st.losses.hyperbola(), st.noise.student_t(2, degrees=4.0)), MOVING),),
        X2,
        dict(
            observe=["x*y"],
            functionals=(st.PathLength(), st.LossVariation(st.losses.hyperbola()), st.Accumulate("f", lambda a, b: a[0] * b[1])),
        ),
    ),
    "label noise of a model": lambda: (
        (
            st.SGDM(
                oracle(st.losses.label_noise_valley(), st.noise.label_noise(model="sqrt(1 + x**2)*y", std=0.5, variables="x y")),
                FIXED,
            ),
        ),
        X2,
        dict(observe=["x", "y**2"]),
    ),
    "degenerate root": lambda: (
        (st.SGD(oracle(st.losses.linear([0.5, -1.0]), st.noise.gaussian(root=[[1.0], [2.0]])), MOVING.averaged()),),
        X2,
        dict(observe=MOMENTS),
    ),
    "many signs": lambda: (
        (st.SGD(oracle(st.losses.linear([0.5]), st.noise.rademacher(root=np.linspace(0.01, 1, 70)[None])), MOVING.averaged()),),
        [1.0],
        dict(observe=["x0"]),
    ),
    "no noise": lambda: (
        (st.HeavyBall(oracle(st.losses.hyperbola(), st.noise.none(2)), gamma=ETA * 0.1, beta=0.9),),
        X2,
        dict(observe=["x*y"]),
    ),
    "twenty coordinates": lambda: (
        pair_of(
            oracle(st.losses.quadratic(np.linspace(0.2, 1.5, 20)), st.noise.gaussian(root=RNG.standard_normal((20, 3)) / 2)),
            FIXED,
        ),
        X20,
        dict(observe=["x0", "x3*x19"]),
    ),
    "a ring of twenty": lambda: coupled_twenty(Ring),
    "twenty alike": lambda: coupled_twenty(Alike),
    "twenty signs, SVAG": lambda: (
        (st.SGDM(st.svag(oracle(st.losses.quadratic(np.linspace(0.2, 1.5, 20)), st.noise.rademacher(20)), 3), FIXED),),
        X20,
        dict(observe=["x0*x1"]),
    ),
    "minibatch": lambda: (pair_of(oracle(REGRESSION, st.noise.minibatch(REGRESSION, size=2), 1.0)), X3, dict(observe=BATCH3)),
    "batches of one sample": lambda: (
        (st.SGD(oracle(REGRESSION, st.noise.minibatch(REGRESSION, size=1), 0.7), MOVING.averaged()),),
        X3,
        dict(observe=BATCH3),
    ),
    "minibatch without replacement, SVAG": lambda: (
        (st.SGDM(st.svag(oracle(REGRESSION, st.noise.minibatch(REGRESSION, size=2, replace=False), 1.7), 2), MOVING),),
        X3,
        dict(observe={"L": REGRESSION, "x0": "x0"}),
    ),
    "logistic": lambda: (
        (st.SGD(oracle(CLASSES, st.noise.minibatch(CLASSES, size=2), 1.0), MOVING.averaged()),),
        X3,
        dict(observe={"L": CLASSES}),
    ),
    "labels of a batch": lambda: (
        pair_of(oracle(REGRESSION, st.noise.label_noise(REGRESSION, std=0.5, kind="gaussian", size=3, batch=True), 1.0)),
        X3,
        dict(observe=BATCH3),
    ),
    "labels": lambda: (pair_of(oracle(REGRESSION, st.noise.label_noise(REGRESSION, std=0.5, size=3))), X3, dict(observe=BATCH3)),
    "gaussian of a minibatch": lambda: (
        pair_of(oracle(REGRESSION, st.noise.minibatch(REGRESSION, size=2).as_gaussian())),
        X3,
        dict(observe=BATCH3),
    ),
    "functions": lambda: (
        pair_of(
            oracle(
                st.losses.from_function(naive.user_gradient, 2, value=naive.user_value),
                st.noise.gaussian(dim=2, root=naive.user_root),
            )
        ),
        X2,
        dict(observe={"f": naive.user_observable, "x1": "x1"}),
    ),
    "noise by a function": lambda: (
        (
            st.SGDM(
                oracle(st.losses.from_expression("a*x**2/2 + y**4/4", variables="x y", parameters={"a": 1.3}), bending_noise()),
                MOVING,
            ),
        ),
        X2,
        dict(observe=["x*y"]),
    ),
    "compiled gradient": lambda: (
        (st.SGDM(oracle(st.losses.from_function(naive.user_compiled_gradient, 2), st.noise.gaussian(dim=2)), MOVING),),
        X2,
        dict(observe=["x0"]),
    ),
    "independent": lambda: (independent(), [1.5], dict(observe=["x**2"], coupled=False, functionals=PATH)),
}


def bending_noise():
    """The noise of `bending`."""
    return st.noise.from_function(
        bending,
        dim=2,
        draws=(st.noise.Normal(2),),
        covariance=lambda x: [[(1 + 0.2 * x[0] ** 2) ** 2, 0 * x[0]], [0 * x[0], np.cos(x[0]) ** 2]],
    )


def both(case, backend, seed=3):
    """A run, or a gap, of a case on a backend."""
    members, x0, more = case
    given = (
        dict(x0=x0, horizon=STEPS * ETA, paths=PATHS, times="all", keep_final=True, threads=1, seed=seed, backend=backend) | more
    )
    return st.simulate(*members, **given) if len(members) == 1 else st.weak_gap(*members, **given)


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", CASES)
def test_kernel_and_reference_agree_path_by_path(name):
    """Final points and moments of every case."""
    case = CASES[name]()
    fast, slow = both(case, "numba"), both(case, "numpy")
    assert np.isfinite(slow.final).all() and slow.final.shape[1] == PATHS
    np.testing.assert_allclose(fast.final, slow.final, rtol=1e-10, atol=1e-10)
    for key, expected in slow.statistics.total.items():
        got = fast.statistics.total[key]
        scale = np.abs(expected) + (1e-3 if key in "xzdch" else PATHS * 1e-3)
        assert (np.abs(got - expected) / scale).max() < 1e-9, key
    np.testing.assert_array_equal(fast.statistics.sums.counts, slow.statistics.sums.counts)
    assert fast.diverged == slow.diverged == 0
    other = both(case, "numba", seed=4)
    if case[0][0].oracle.draws:  # negative control: another seed is another path
        assert np.abs(other.final - slow.final).max() > 1e-3


# NumPy is the reference, CUDA is tested on its simulator, and torch on all programs; a new backend begins here.
@pytest.mark.parametrize("backend", [name for name in RUNNERS if name not in ("numpy", "cuda")])
@pytest.mark.parametrize("name", ["gaussian", "double well", "two point", "independent"])
def test_every_backend_of_the_table_agrees_with_the_reference_path_by_path(name, backend):
    """Final points, and moments; another seed is another path."""
    case = CASES[name]()
    own, slow, other = both(case, backend), both(case, "numpy"), both(case, backend, seed=4)
    assert own.origin.backend == backend
    np.testing.assert_allclose(own.final, slow.final, rtol=1e-10, atol=1e-10)
    for key, expected in slow.statistics.total.items():
        scale = np.abs(expected) + (1e-3 if key in "xzdch" else PATHS * 1e-3)
        assert (np.abs(own.statistics.total[key] - expected) / scale).max() < 1e-9, key
    assert np.abs(other.final - slow.final).max() > 1e-3


@pytest.mark.parametrize("backend", [f"{name}{option}" for name in RUNNERS if name != "torch" for option in (":", ":x")])
def test_only_torch_has_options(backend):
    with pytest.raises(
        ValueError, match="`backend` must be 'auto', 'numba', 'numpy', 'cuda', or 'torch' with or without a device"
    ):
        both(CASES["gaussian"](), backend)


@pytest.mark.parametrize(("package", "line"), [("jax", "pip install jax"), ("torch", r"pip install .*\[torch\]")])
def test_a_backend_whose_package_is_missing_names_it(monkeypatch, package, line):
    def missing(_):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setitem(RUNNERS, "own", "own_run.Own")
    monkeypatch.setattr(backends, "import_module", missing)
    with pytest.raises(ValueError, match=f"the own backend requires {package}; .*{line}"):
        both(CASES["gaussian"](), "own")


def test_an_error_of_a_millionth_of_sigma_is_detected():
    """Negative control of the tolerance."""
    members, x0, more = CASES["gaussian"]()
    o = members[0].oracle
    wrong = tuple(type(m)(o.with_sigma(o.sigma * (1 + 1e-6)), m.plan) for m in members)
    right = tuple(type(m)(o, m.plan) for m in members)
    gap = both((wrong, x0, more), "numba").final - both((right, x0, more), "numpy").final
    assert np.abs(gap).max() > 1e-8


def test_numbers_do_not_make_new_kernels(monkeypatch):
    """Another eta, beta, sigma, start, covariance or seed: the same source text."""
    from sdetools.simulation.cpu import write
    from sdetools.studies.means import make_program

    def text(sigma, plan, x0, scale):
        members = pair_of(oracle(st.losses.quadratic(scale), st.noise.gaussian(root=[[scale]]), sigma), plan)
        program, *_ = make_program(members, x0, STEPS * ETA, ["x0**2"], "all", (), True, True)
        return write(program).text

    assert text(0.5, MOVING, [1.0], 1.5) == text(2.0, st.schedules.constant(ETA / 2, 0.8), [3.0], 2.5)
    assert text(0.5, MOVING, [1.0], 1.5) != text(0.5, MOVING, [1.0], 1.5).replace("c0_eta", "c0_other")


@pytest.mark.parametrize("paths", [1, 255, 256, 257, 512])
def test_every_number_of_paths_around_a_block(paths):
    """The last block is incomplete: the first paths of a longer run are those of the shorter run."""
    members, x0, more = CASES["double well"]()
    given = dict(x0=x0, horizon=STEPS * ETA, times="all", keep_final=True, threads=1) | more
    long, short = (st.weak_gap(*members, paths=n, **given) for n in (600, paths))
    np.testing.assert_array_equal(short.final, long.final[:, :paths])
    x, z = short.final
    np.testing.assert_allclose(short.statistics.total["x"][-1], [(x**2).mean(), np.cos(2 * x).mean()], rtol=1e-12)
    d = x**2 - z**2
    np.testing.assert_allclose(short.statistics.total["d2"][-1, 0], ((d - d.mean()) ** 2).sum(), rtol=1e-9)
    assert short.statistics.sums.counts.sum() == paths


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
def test_angles_of_far_points(backend):
    """The values sin 10^40 and others, in a gradient, a noise and an observable, against 400 digits; a nested one against NumPy."""
    far = 1e40
    with mpmath.workdps(400):
        sine, cosine, tangent = (float(f(mpmath.mpf(far))) for f in (mpmath.sin, mpmath.cos, mpmath.tan))
    at_rest = st.NoisyOracle(st.losses.from_expression("cos(x)"), st.noise.gaussian(root=[["tan(x)"]], variables="x"))
    given = dict(x0=[far], horizon=0.5, paths=300, times="all", threads=1, backend=backend)
    run = st.simulate(st.SGD(at_rest, FIXED.averaged()), observe=["sin(x)", "cos(x)", "tan(x)", "sin(x/1e39 + cos(x))"], **given)
    expected = [sine, cosine, tangent, np.sin(far / 1e39 + cosine)]
    np.testing.assert_allclose(run.statistics.mean[0], expected, rtol=1e-14)  # a step of size 1 does not move 10^40
    assert run.diverged == 0


def test_angles_in_many_coordinates():
    """Trigonometric functions in loops over coordinates: kernel and reference agree, near the origin and far from it.

    Far from it one step is compared, because two steps are chaotic.
    """
    names = [f"x{i}" for i in range(30)]
    loss = st.losses.from_expression(" + ".join(f"cos({n}) + sin(2*{n})" for n in names), variables=names)
    moving = st.SGDM(oracle(loss, st.noise.gaussian(dim=30)), FIXED)
    for scale, horizon in ((1.0, 0.5), (1e12, ETA)):
        start = scale * np.linspace(1, 2, 30)
        given = dict(x0=start, horizon=horizon, paths=PATHS, observe=["x0", "sin(x29)"], keep_final=True, threads=1)
        fast, slow = (st.simulate(moving, backend=backend, **given) for backend in ("numba", "numpy"))
        np.testing.assert_allclose(fast.final, slow.final, rtol=0, atol=max(1e-10, 2 * np.spacing(2 * scale)))


def test_operations_on_large_arrays_beyond_the_limit_are_refused(monkeypatch):
    """The message names the limit and the remedy, before anything is compiled."""
    monkeypatch.setattr("sdetools.simulation.cpu.LONGEST", 50)
    members, x0, more = CASES["gaussian"]()
    with pytest.raises(ValueError, match="at most 50 lines.*backend='numpy'"):
        both((members, x0, more), "numba")
