"""Paths in single precision: on every backend the paths of double precision, up to rounding; moments are in double precision.

The effect of rounding on a path is bounded in advance, not fitted. U = 2^-24 is the largest relative error of one rounding. A step
makes at most `ROUNDINGS` + d of them that affect a number (a dot product has d), relative to numbers of size S at most, the largest
of the path, its start, and 1, the size of the losses' constants. A perturbation grows at most by the factor `growth`, which two
runs in double precision from neighbouring starts show. So |x32 - x64| <= steps (`ROUNDINGS` + d) U S growth. Draws in float32
differ by their own rounding, of which one is counted. Seeds are fixed, so the result is always the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit, types

import sdetools as st
from sdetools import _compiled
from sdetools.dynamics.sdes.slow import RETRACTIONS
from sdetools.graph.reals import DOUBLE, SINGLE, real_of
from sdetools.simulation import engine, kernel
from sdetools.simulation.cpu import write
from sdetools.simulation.engine import execute
from sdetools.simulation.store import Store
from sdetools.studies.means import make_program

sys.path.insert(0, str(Path(__file__).parent))
from test_sim_kernels import CASES, ETA, FIXED, MOVING, PATHS, STEPS, X2, oracle, pair_of

U = 2.0**-24
EPS = float(np.finfo(np.float32).eps)
ROUNDINGS = 24
"""The number of roundings of a step that affect a number of the state, except those of a dot product.

A rule has some ten operations a number, and the longest noise in the list below as many.
"""
BACKENDS = ("numba", "numpy", "torch")
SPREAD = np.array([[2.0, 0.6], [0.6, 0.5]])


def run(case, backend, dtype="float32", seed=3, **other):
    """A run, or a gap, of a case."""
    members, x0, more = case
    given = dict(x0=x0, horizon=STEPS * ETA, paths=PATHS, times="all", keep_final=True, threads=1, seed=seed, backend=backend)
    given |= more | other
    if len(members) == 1:
        return st.simulate(*members, dtype=dtype, **given)
    return st.weak_gap(*members, dtype=dtype, **given)


def size_and_growth(case, ends):
    """The largest number of a path, and the growth of a perturbation of its start, from runs in double precision alone."""
    members, x0, more = case
    x0 = x0 if isinstance(x0, st.starts.Law) else np.asarray(x0, dtype=float)
    size = max(1.0, np.abs(ends).max(), 0.0 if isinstance(x0, st.starts.Law) else np.abs(x0).max())
    nudge = 1e-6 * size
    moved = x0.moved(np.full(x0.dim, nudge)) if isinstance(x0, st.starts.Law) else x0 + nudge
    near = run((members, moved, more), "numpy", "float64").final
    return size, max(1.0, np.abs(near - ends).max() / nudge)


def bound(case, ends, steps=STEPS):
    """The largest error that rounding can cause."""
    size, growth = size_and_growth(case, ends)
    return steps * (ROUNDINGS + case[0][0].dim) * U * size * growth


def check(case):
    """Compares every backend in float32 with the reference in double precision; stored states are numbers of float32."""
    ends = run(case, "numpy", "float64").final
    allowed = bound(case, ends)
    for backend in BACKENDS:
        found = run(case, backend).final
        np.testing.assert_array_equal(found, found.astype(np.float32), err_msg=backend)
        np.testing.assert_allclose(found, ends, rtol=0, atol=allowed, err_msg=backend)
    return ends, allowed


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", CASES)
def test_losses_noises_and_pairs(name):
    """All cases of the compiled backend: losses, noises, minibatches, labels, pairs, controls, functionals, user functions."""
    ends, allowed = check(CASES[name]())
    assert allowed < 0.01 * max(1.0, np.abs(ends).max())


class Adaptive(st.Dynamics):
    """Adam's rule without its corrections, with two gradients a step."""

    parts, coefficients = ("x", "m", "v"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        """One step."""
        x, m, v = state
        g = 0.5 * (oracle(x) + oracle(x - eta * m))
        m, v = beta * m + (1 - beta) * g, 0.99 * v + 0.01 * g * g
        return x - eta * m / (np.sqrt(v) + 0.1), m, v


BOWL = st.losses.quadratic([[1.3, 0.4], [0.4, 0.7]], center=[0.5, -1.0])
NOISY = oracle(BOWL, st.noise.gaussian(dim=2))
AVERAGED = FIXED.averaged()
LINEAR = st.SDE(
    drift=["-x + 0.3*y", "-0.7*y + 0.1*t"], diffusion=[["0.4*x + 0.1", "0.5*y"], ["0.2*y", "0.3*exp(-x**2)"]], variables="x y"
)
DIAGONAL = st.SDE(drift=["-x", "-y"], diffusion=["0.3*x + 0.1", "0.2"], variables="x y")
LIMIT, KINETIC = st.LimitSDE(NOISY, AVERAGED), st.KineticSDE(NOISY, FIXED)
DYNAMICS = {
    "HeavyBall": lambda: st.HeavyBall(NOISY, gamma=ETA * 0.2, beta=0.8),
    "Nesterov": lambda: st.Nesterov(NOISY, FIXED, step_time=ETA),
    "QHM": lambda: st.QHM(NOISY, FIXED, nu=0.7),
    "PNM": lambda: st.PNM(NOISY, FIXED, step_time=ETA),
    "STORM": lambda: st.STORM(NOISY, AVERAGED),
    "IGT": lambda: st.IGT(NOISY, AVERAGED),
    "AccSGD": lambda: st.AccSGD(NOISY, AVERAGED, step_time=ETA),
    "PrimalAveraging": lambda: st.PrimalAveraging(NOISY, AVERAGED),
    "RandomScaling": lambda: st.RandomScaling(NOISY, FIXED),
    "SNGM": lambda: st.SNGM(NOISY, FIXED),
    "SGDF": lambda: st.SGDF(NOISY, FIXED),
    "Auxiliary": lambda: st.Auxiliary(NOISY, FIXED, momentum=([0.5, 0.0], SPREAD)),
    "Adaptive": lambda: Adaptive(NOISY, FIXED),
    "EulerMaruyama": lambda: st.EulerMaruyama(LINEAR, ETA),
    "EulerMaruyama, three-point": lambda: st.EulerMaruyama(LINEAR, ETA, "three-point"),
    "Milstein": lambda: st.Milstein(DIAGONAL, ETA),
    "Platen": lambda: st.Platen(LINEAR, ETA),
    "RI1": lambda: st.RI1(LINEAR, ETA),
    "SRA1": lambda: st.SRA1(LIMIT, ETA),
    "Heun": lambda: st.Heun(LIMIT, ETA),
    "gradient flow": lambda: st.EulerMaruyama(st.GradientFlow(NOISY, AVERAGED), ETA),
    "UBU": lambda: st.UBU(KINETIC, ETA),
    "BAOAB": lambda: st.BAOAB(KINETIC, ETA),
    "OBABO": lambda: st.OBABO(KINETIC, ETA),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", DYNAMICS)
def test_rules_and_integrators(name):
    """Every rule and integrator."""
    dynamics = DYNAMICS[name]()
    check(((dynamics,), X2, dict(observe=["*".join(dynamics.names)])))


SLOW = {
    "valley": (st.losses.exponential_valley(1.0), [0.3, 0.0]),
    "hyperbola": (st.losses.hyperbola(), [2.0, 0.5]),
    "sphere": (st.losses.sphere(3), [0.6, 0.0, 0.8]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("scheme", [st.EulerMaruyama, st.Platen])
def test_the_slow_sde(scheme, name):
    """The slow SDE, with its own bound.

    A step is y + D, with D at most the largest in double precision, and the retraction to the manifold. So sums of numbers of size
    S are rounded, 2 + `RETRACTIONS` times, and the factors of D relative to it. These are, besides `ROUNDINGS`: a Jacobi rotation
    (10) and four matrix products (2 d each) of the frame, two contractions of the third derivative (d^2 each) and products (2 d),
    and one solution (2 d^2 at most) of Newton's method, because later steps are to earlier ones as a step is to S. One eigenvalue
    of the Hessians here is not 0, so no other condition number enters.
    """
    loss, x0 = SLOW[name]
    d = loss.dim
    motion = scheme(st.SlowSDE(oracle(loss, st.noise.gaussian(dim=d), 0.3), FIXED, at=x0), ETA)
    case = (motion,), x0, dict(observe=["*".join(motion.names)])
    double = run(case, "numpy", "float64", trajectories=PATHS)
    step = np.abs(double.trajectories.diff("time")).max().item()
    size, growth = size_and_growth(case, double.final)
    factors = ROUNDINGS + 10 + 8 * d + 2 * d**2 + 2 * d + 2 * d**2
    allowed = STEPS * U * growth * ((2 + RETRACTIONS) * size + factors * step)
    for backend in BACKENDS:
        found = run(case, backend).final
        np.testing.assert_array_equal(found, found.astype(np.float32), err_msg=backend)
        np.testing.assert_allclose(found, double.final, rtol=0, atol=allowed, err_msg=backend)
        assert np.abs(found - double.final).max() > U / 4  # not double precision


STARTS = {
    "gaussian": st.starts.gaussian([1.0, -2.0], SPREAD),
    "uniform": st.starts.uniform([0.0, -3.0], [6.0, 3.0]),
    "mixture": st.starts.mixture([0.25, 0.75], [[-1.0, 0.0], st.starts.gaussian([1.0, 2.0], 1.0)]),
    "columns": np.random.default_rng(0).standard_normal((2, 37)),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts(name):
    """Laws of starts, and arrays of points."""
    check((pair_of(NOISY, FIXED), STARTS[name], dict(observe=["x0"])))


def test_steps_of_different_length():
    """The longer steps read sums of the short steps' draws, and of their integrals."""
    members = st.SGD(oracle(BOWL, st.noise.gaussian(dim=2)), st.schedules.constant(ETA)), st.SRA1(LIMIT, ETA / 4)
    case = members, X2, dict(observe=["x0"])
    ends = run(case, "numpy", "float64").final
    allowed = 4 * bound(case, ends)  # four short steps are one long step
    for backend in BACKENDS:
        np.testing.assert_allclose(run(case, backend).final, ends, rtol=0, atol=allowed)


def dense(d):
    """A quadratic with eigenvalues from 1/10 to 4, whose gradient is a matrix product."""
    rng = np.random.default_rng(d)
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    H = Q * np.linspace(0.1, 4.0, d) @ Q.T
    return st.losses.from_function(lambda x: H @ x, d, value=lambda x: (x * (H @ x)).sum(axis=0) / 2)


def separable(d):
    """A double well in each coordinate."""
    return st.losses.from_function(lambda x: x**3 - x, d, value=lambda x: (x**4 / 4 - x**2 / 2).sum(axis=0))


@pytest.mark.sample(2)
@pytest.mark.parametrize("d", [1, 3, 40, 300])
@pytest.mark.parametrize("kind", [dense, separable])
def test_dimensions(kind, d):
    """Dimensions 1, 3, 40 and 300."""
    check((pair_of(oracle(kind(d), st.noise.gaussian(dim=d))), np.linspace(0.5, 1.0, d), dict(observe=["x0**2"])))


def test_an_error_of_a_thousandth_of_sigma_is_detected():
    """Negative control of the bound."""
    members, x0, more = CASES["gaussian"]()
    ends = run((members, x0, more), "numpy", "float64").final
    o = members[0].oracle
    wrong = tuple(type(m)(o.with_sigma(o.sigma * 1.001), m.plan) for m in members)
    right = tuple(type(m)(o, m.plan) for m in members)
    off = run((wrong, x0, more), "numba").final - run((right, x0, more), "numpy", "float64").final
    assert np.abs(off).max() > 5 * bound((members, x0, more), ends)


@pytest.mark.parametrize("steps", [100, 4000])
def test_a_contraction_damps_rounding_errors(steps):
    """Rounding errors of x <- (1 - h lambda) x - h sigma z in two coordinates.

    The accumulated error is at most c U S / (h lambda), whatever the number of steps.
    """
    h, slow = 0.25, 0.5
    o = oracle(st.losses.quadratic([slow, 1.5]), st.noise.gaussian(dim=2), sigma=1.0)
    given = dict(x0=[1.0, 1.0], horizon=h * steps, paths=64, observe=["x0"], times=[h * steps], keep_final=True, threads=1)
    plan = st.schedules.constant(h)
    ends = st.simulate(st.SGD(o, plan), backend="numba", **given).final
    found = st.simulate(st.SGD(o, plan), backend="numba", dtype="float32", **given).final
    # of size S at most: |x| <= 6 standard deviations of its law, h / sqrt(2 h lambda) each (z of 4,000 steps and 64 paths: chance 1e-3)
    size = max(1.0, 6 * h / np.sqrt(2 * h * slow - (h * slow) ** 2))
    assert (
        0 < np.abs(found - ends).max() < 6 * U * size / (h * slow)
    )  # of a step: eta, sigma, z, their product, the drift, the sum


# ---- sums and moments


def flip(steps):
    """SGD with eta = 2 on x^2/2 from .7: x becomes -x exactly, and every increment of the path's length is float32(1.4)."""
    o = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(1))
    return dict(x0=[0.7], horizon=2.0 * steps, paths=1, functionals=st.PathLength(), times=[2.0 * steps], threads=1), st.SGD(
        o, st.schedules.constant(2.0)
    )


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_functionals_are_accurate_over_many_steps(backend):
    """The error of the path length does not grow with the number of steps."""
    steps = 20_000 if backend == "torch" else 200_000
    given, sgd = flip(steps)
    true = steps * float(np.float32(1.4))
    found = st.simulate(sgd, backend=backend, dtype="float32", **given).at(0).value
    assert abs(found / true - 1) <= 4 * U  # of the increment, the sum, its compensation, and the record
    plain = np.add.accumulate(np.full(steps, 1.4, np.float32))[-1]
    assert abs(plain / true - 1) > 100 * U  # negative control: sequential addition


def test_moments_are_double():
    """The mean of 10^5 paths of float32 at 1000 + z, from the paths themselves in double precision; a sum in float32 would miss."""
    o = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), 1.0)
    given = dict(x0=[1000.0], horizon=1.0, paths=100_000, observe=["x0"], times=[1.0], keep_final=True)
    for backend in BACKENDS:
        found = st.simulate(st.SGD(o, st.schedules.constant(1.0 / 64)), backend=backend, dtype="float32", **given)
        x = found.final[0]
        assert abs(found.at("x0").value / x.mean() - 1) < 1e-14 * 100
        np.testing.assert_allclose(found.statistics.variance[0, 0], x.var(ddof=1), rtol=1e-9)
        assert abs(float(np.add.accumulate(x.astype(np.float32))[-1]) / x.sum() - 1) > 1e-6  # negative control


def test_differences_of_a_pair_are_taken_in_double():
    """The difference d = x - z is computed in double precision."""
    gap = run((pair_of(NOISY, FIXED), X2, dict(observe=["x0"])), "numba")
    x, z = gap.final[0], gap.final[2]
    np.testing.assert_allclose(gap.statistics.total["d"][-1, 0], (x - z).mean(), rtol=1e-12)


# ---- the kernels


def recompiled(monkeypatch, case, dtype):
    """The LLVM code of a program's kernel."""
    made, callback = [], _compiled.callback

    def kept(function, *given, **options):
        made.append(callback(function, *given, **options))
        return made[-1]

    monkeypatch.setattr(kernel, "_kernel", kernel._kernel.__wrapped__)
    monkeypatch.setattr(kernel, "load", lambda file, key: None)
    monkeypatch.setattr(_compiled, "callback", kept)
    run(case, "numba", dtype, times=[STEPS * ETA], keep_final=False)
    monkeypatch.undo()
    own = [m for m in made if m._sig.args == (types.int64,)]  # a chunk's kernel each, all of one text
    return own[0]._library.get_llvm_str()


ARITHMETIC = ("fadd", "fsub", "fmul", "fdiv", "fneg")


def operations(code, kind):
    """The number of lines that compute with numbers, or vectors of numbers, of a type."""
    words = [line.split() for line in code.splitlines()]
    return sum(any(w in ARITHMETIC for w in line[:4]) and any(w.strip("<>,") == kind for w in line) for line in words)


def curved(x):
    """A gradient with kinks and elementary functions."""
    return [np.tanh(x[0]) + np.where(x[1] > 0.2, x[1], 0.5 * x[0]), np.exp(-x[1] * x[1]) * abs(x[0]) + 0.3 * np.floor(3 * x[1])]


IN_SINGLE = {
    "pair with its control": lambda: (pair_of(NOISY, MOVING, momentum=([0.1, 0.2], SPREAD)), X2, dict(observe=["x0**2"])),
    "signs": lambda: (pair_of(oracle(BOWL, st.noise.rademacher(2)), FIXED), X2, dict(observe=["x0"])),
    "functions": lambda: (
        (st.SGD(oracle(st.losses.from_function(curved, 2), st.noise.uniform(2)), AVERAGED),),
        X2,
        dict(observe={"h": lambda x: np.maximum(x[0], x[1] * 3)}, functionals=st.PathLength()),
    ),
    "loops and products": lambda: (
        pair_of(oracle(dense(300), st.noise.gaussian(dim=300)), FIXED),
        np.linspace(0.5, 1.0, 300),
        dict(observe=["x0**2"]),
    ),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", IN_SINGLE)
def test_a_kernel_computes_nothing_in_double(name, monkeypatch):
    """One Python number in its text would convert all operands to double precision, at half the speed."""
    case = IN_SINGLE[name]()
    code = recompiled(monkeypatch, case, "float32")
    assert operations(code, "float") > 0 and operations(code, "double") == 0
    code = recompiled(monkeypatch, case, "float64")  # negative control
    assert operations(code, "float") == 0 and operations(code, "double") > 0


def test_numbers_make_no_new_kernel_and_the_type_does():
    """The text depends on the type, not on parameters."""

    def text(sigma, x0, real):
        members = pair_of(oracle(BOWL, st.noise.gaussian(dim=2), sigma), FIXED)
        program, *_ = make_program(members, x0, STEPS * ETA, ["x0**2"], "all", (), True, True)
        return write(program, real).text

    assert text(0.5, [1.0, 2.0], SINGLE) == text(0.7, [3.0, 1.5], SINGLE) != text(0.5, [1.0, 2.0], DOUBLE)


def test_twice_as_many_lanes_fit():
    """A block has twice as many lanes in single precision."""

    def lanes(real):
        members = (st.SGD(oracle(separable(400), st.noise.gaussian(dim=400)), AVERAGED),)
        program, *_ = make_program(members, np.ones(400), ETA, ["x0"], "all", (), False, True)
        return write(program, real).lanes

    assert lanes(SINGLE) == 2 * lanes(DOUBLE)


# ---- the run


def test_threads_and_chunks_change_no_bit():
    """Neither threads nor chunks affect the result."""
    members, x0, more = CASES["gaussian"]()
    program, *_ = make_program(members, x0, STEPS * ETA, more["observe"], "all", (), True, True)
    for backend in BACKENDS:
        given = dict(paths=5000, seed=1, keep=True, backend=backend, dtype="float32")
        one, two, cut = (execute(program, threads=n, leaves=leaves, **given) for n, leaves in ((1, None), (2, 2), (2, 1)))
        for other in (two, cut):
            assert other.groups.tobytes() == one.groups.tobytes() and other.points.tobytes() == one.points.tobytes()
        assert execute(program, threads=1, **given | {"seed": 2}).groups.tobytes() != one.groups.tobytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_chosen_paths_are_those_of_the_run(backend):
    """Trajectories and slices in float32 are the run's own paths, to the bit."""
    found = run(CASES["gaussian"](), backend, trajectories=[0, 299], slices=[STEPS * ETA])
    for array, chosen in ((found.trajectories, [0, 299]), (found.slices, range(PATHS))):
        ends = array.isel(time=-1, part=0).transpose("member", "coordinate", "path").values
        np.testing.assert_array_equal(ends.reshape(-1, len(chosen)), found.final[:, chosen])
        np.testing.assert_array_equal(array.values, array.values.astype(np.float32))
        assert array.attrs["dtype"] == "float32"


def test_a_store_keeps_types_apart(tmp_path, monkeypatch):
    """Chunks in double precision are not used in float32; those in float32 are, to the bit."""
    members, x0, more = CASES["gaussian"]()
    program, *_ = make_program(members, x0, STEPS * ETA, more["observe"], "all", (), True, True)
    ran = []
    chunk = engine.run_chunk
    monkeypatch.setattr("sdetools.simulation.engine.run_chunk", lambda task, index: ran.append(task.dtype) or chunk(task, index))
    found = []
    with Store(tmp_path / "s.sqlite", "both", False) as store:
        for dtype in ("float64", "float32", "float32"):
            found.append(execute(program, 600, 1, threads=1, store=store, dtype=dtype).groups.tobytes())
    assert ran == ["float64", "float32"]
    assert found[0] != found[1] == found[2]


def test_results_report_the_type():
    """Results report the type."""
    case = CASES["double well"]()
    single, double = run(case, "numba"), run(case, "numba", "float64")
    assert "in float32" in repr(single) and "float" not in repr(double)
    assert (single.data.attrs["dtype"], double.data.attrs["dtype"]) == ("float32", "float64")
    alone = (case[0][1:], *case[1:2], dict(observe=["x"]))
    assert "in float32" in repr(run(alone, "numba")) and "float" not in repr(run(alone, "numba", "float64"))


# ---- invalid input


def branching(x):
    """A gradient with a branch."""
    out = np.zeros_like(x)
    for i in range(len(x)):
        out[i] = x[i] if x[i] > 0.5 else 2 * x[i] - 0.5  # a branch on a value: not traced, but compiled
    return out


of_doubles, of_any = njit("float64[:](float64[:])")(branching), njit(branching)


@pytest.mark.slow
def test_a_compiled_gradient_of_doubles_alone_is_refused():
    """The type and the backend are not changed silently; without a signature the same function is compiled for float32."""
    noise = st.noise.gaussian(dim=2)
    for backend in ("auto", "numba"):
        with pytest.raises(ValueError, match="`dtype` must be 'float64' for the gradient of .* compiled for float64 only"):
            run((pair_of(oracle(st.losses.from_function(of_doubles, 2), noise), FIXED), X2, dict(observe=["x0"])), backend)
    check((pair_of(oracle(st.losses.from_function(of_any, 2), noise), FIXED), X2, dict(observe=["x0"])))


@pytest.mark.parametrize("dtype", ["single", "float16", np.float32, None])
def test_other_types_are_refused(dtype):
    """Only 'float64' and 'float32' are types."""
    with pytest.raises(ValueError, match="`dtype` must be 'float64' or 'float32'; got dtype="):
        run(CASES["gaussian"](), "auto", dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("svag", [False, True])
def test_more_samples_than_float32_has_integers_are_refused(svag, backend, monkeypatch):
    """2^24 + 1 is the first integer that is not a float32; nothing is drawn, so the samples need not exist."""
    assert np.float32(2**24 + 1) == 2**24 == SINGLE.whole and float(2**53 + 1) == 2**53 == DOUBLE.whole
    loss = st.losses.least_squares(np.ones((5, 1)), np.arange(5.0))
    o = st.NoisyOracle(loss, st.noise.minibatch(loss, 2), 1.0)
    case = (st.SGD(st.noise.svag(o, 2) if svag else o, st.schedules.constant(ETA)),), [1.0], dict(observe=["x0"])
    monkeypatch.setattr(loss, "samples", 2**24)
    run(case, backend)
    monkeypatch.setattr(loss, "samples", 2**24 + 1)
    run(case, backend, "float64")
    with pytest.raises(ValueError, match="more than 16,777,216 samples, .* got 'float32' and 16,777,217 samples. Omit dtype="):
        run(case, backend)


def test_the_type_of_a_name():
    """Types by name, arrays of a type, and numbers in source text."""
    assert real_of("float64") is DOUBLE and real_of("float32") is SINGLE
    assert [r.array(np.arange(3.0)).dtype for r in (DOUBLE, SINGLE)] == [np.float64, np.float32]
    assert SINGLE.array(np.arange(3)).dtype == np.int64
    assert (DOUBLE.number(2.0), SINGLE.number(2.0), DOUBLE.number(-0.0)) == ("2.0", "real(2.0)", "(-0.0)")
