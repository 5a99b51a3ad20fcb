"""The torch backend computes the same paths as the others: to rounding in double precision, to its own rounding in single precision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import sdetools as st

torch = pytest.importorskip("torch", reason="torch is an extra")

ETA = 0.02
PLAN = st.schedules.warmup(ETA, steps=20, start=ETA / 4, beta=0.8)
PATHS = 700
EPS32 = float(np.finfo(np.float32).eps)


def oracle(loss, noise, sigma=ETA**-0.5):
    """A noisy oracle."""
    return st.NoisyOracle(loss, noise, sigma)


def optimisers(noise, loss=None):
    """SGDM and SGD, and observables."""
    o = oracle(loss or st.losses.hyperbola(), noise)
    return (st.SGDM(o, PLAN, momentum=([0.1, 0.0], [[1.0, 0.5], [0.5, 1.0]])), st.SGD(o, PLAN.averaged())), [
        "x**2 + y**2",
        "abs(x - 2)",
    ]


def limit(r):
    """SGD and its limit SDE with steps shorter by the factor r."""
    o = oracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
    plan = st.schedules.constant(ETA)
    return (st.SGD(o, plan), st.SRA1(st.LimitSDE(o, plan), dt=ETA / r)), ["x**2 + y**2"]


def minibatch():
    """SGDM and SGD on minibatches of a logistic regression."""
    rng = np.random.default_rng(3)
    loss = st.losses.logistic(rng.normal(size=(40, 2)), np.sign(rng.normal(size=40)), l2=0.1)
    o = st.NoisyOracle(loss, st.noise.minibatch(loss, 4), 1.0)
    return (st.SGDM(o, PLAN), st.SGD(o, PLAN.averaged())), {"L": loss, "h": lambda x: x[0] ** 2}


SDE = st.SDE(
    drift=["-x + 0.3*y", "-0.7*y + 0.1*t"], diffusion=[["0.4*x + 0.1", "0.5*y"], ["0.2*y", "0.3*exp(-x**2)"]], variables="x y"
)
CASES = {
    "gaussian": lambda: optimisers(st.noise.gaussian(dim=2)),
    "signs": lambda: optimisers(st.noise.rademacher(2)),
    "three-point": lambda: optimisers(st.noise.three_point(2)),
    "student": lambda: optimisers(st.noise.student_t(2, degrees=9.0)),
    "sums of draws": lambda: limit(4),
    "minibatch": minibatch,
    "general noise": lambda: ((st.Platen(SDE, ETA),), ["x**2", "tanh(y)"]),
    "choices": lambda: ((st.EulerMaruyama(SDE, ETA, "three-point"),), ["abs(x)", "sqrt(1 + y**2)"]),
}


def both(case, backend, paths=PATHS, **more):
    """A run, or a gap, of a case on a backend."""
    members, observe = case
    given = (
        dict(x0=[2.0, 0.5], horizon=40 * ETA, paths=paths, observe=observe, keep_final=True, backend=backend, threads=1) | more
    )
    return st.simulate(*members, **given) if len(members) == 1 else st.weak_gap(*members, **given)


@pytest.mark.parametrize("name", CASES)
def test_torch_agrees_with_the_reference_path_by_path(name):
    """Final points and moments of every case."""
    case = CASES[name]()
    slow, fast = both(case, "numpy"), both(case, "torch")
    np.testing.assert_allclose(fast.final, slow.final, rtol=1e-10, atol=1e-10)
    for key, expected in slow.statistics.total.items():
        scale = np.abs(expected) + (1e-3 if key in "xzdch" else PATHS * 1e-3)
        assert (np.abs(fast.statistics.total[key] - expected) / scale).max() < 1e-9, key
    np.testing.assert_array_equal(fast.statistics.sums.counts.sum(), PATHS)
    assert np.abs(both(case, "torch", seed=5).final - slow.final).max() > 1e-3  # negative control: another seed is another path


def kinked(x):
    """A gradient with a branch."""
    out = np.zeros_like(x)
    for i in range(len(x)):
        out[i] = x[i] if x[i] > 0.5 else 2 * x[i] - 0.5  # a branch on a value: not traced, but compiled by Numba
    return out


def calls():
    """A loss that is a torch function, and one that is compiled by Numba."""
    noise = st.noise.gaussian(dim=2)
    losses = st.losses.from_torch(lambda x: (x[0] * x[1] - 1) ** 2 / 2, dim=2), st.losses.from_function(njit(kinked), 2)
    return tuple(st.SGD(oracle(loss, noise), PLAN.averaged()) for loss in losses), ["x0**2"]


@pytest.fixture(scope="module")
def compiler():
    """Skips a test where torch cannot compile."""
    from sdetools.simulation import torch_run

    if fault := torch_run._compiler_fault(torch.device("cpu")):
        pytest.skip(f"torch cannot compile here: {fault}")


COMPILED = {"calls": calls} | {name: CASES[name] for name in ("student", "sums of draws", "minibatch", "choices")}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_steps_are_the_same_paths(name, compiler, monkeypatch):
    """Only steps are compiled, and their paths are the same."""
    case, made, own = COMPILED[name](), [], torch.compile
    plain = both(case, "torch")
    monkeypatch.setattr(torch, "compile", lambda *args, **more: made.append(args) or own(*args, **more))
    fast = both(case, "torch:compile")
    assert len(made) == (2 if name == "sums of draws" else 1)  # steps of two lengths; nothing but steps
    np.testing.assert_allclose(fast.final, plain.final, rtol=1e-12, atol=1e-12)
    assert fast.statistics.sums.backend == "torch:compile"


def test_compiled_steps_in_single_precision(compiler):
    """Compiled steps in float32 differ by rounding."""
    case = CASES["gaussian"]()
    single, double = both(case, "torch:cpu:compile", dtype="float32"), both(case, "torch")
    assert EPS32 / 10 < np.abs(single.final - double.final).max() < 1000 * EPS32


@pytest.mark.slow
def test_the_error_without_a_compiler_names_the_remedy():
    """The error names the remedy."""
    code = (
        "import runpy, pytest\n"
        f"case = runpy.run_path({__file__!r})\n"
        "with pytest.raises(ValueError, match=r\"torch can compile for cpu; got 'torch:compile' .*/none/.* or use 'torch'\"):\n"
        "    case['both'](case['CASES']['gaussian'](), 'torch:compile')\n"
        "case['both'](case['CASES']['gaussian'](), 'torch')\n"
    )
    env = os.environ | {"CXX": "/none/g++", "PYTHONPATH": os.pathsep.join([str(Path(st.__file__).parents[1]), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["gaussian", "sums of draws", "general noise"])
def test_the_error_of_single_precision_is_its_rounding(name):
    """40 steps on numbers below 10: some hundred roundings of float32, and no fewer than one."""
    case = CASES[name]()
    error = np.abs(both(case, "torch:cpu", dtype="float32").final - both(case, "torch").final).max()
    assert EPS32 / 10 < error < 1000 * EPS32


def test_a_torch_function_is_a_loss():
    """A torch function and the same expression give the same derivatives and paths."""
    same = st.losses.from_torch(lambda x: (x[0] * x[1] - 1) ** 2 / 2, dim=2, names="x y")
    expression = st.losses.hyperbola()
    x = np.random.default_rng(0).normal(size=(2, 5))
    for name in ("value", "gradient", "hessian", "third"):
        np.testing.assert_allclose(getattr(same, name)(x), getattr(expression, name)(x), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(getattr(same, name)(x[:, 0]), getattr(expression, name)(x[:, 0]), rtol=1e-12, atol=1e-12)
    noise = st.noise.gaussian(dim=2)
    ours, theirs = both(optimisers(noise, same), "auto"), both(optimisers(noise), "numba")
    np.testing.assert_allclose(ours.final, theirs.final, rtol=1e-10, atol=1e-10)
    loss = st.simulate(st.SGD(oracle(same, noise), PLAN.averaged()), [2.0, 0.5], 0.4, 300, {"L": same, "h": "x"}, seed=2)
    again = st.simulate(
        st.SGD(oracle(expression, noise), PLAN.averaged()), [2.0, 0.5], 0.4, 300, {"L": expression, "h": "x"}, seed=2
    )
    assert abs(loss.at("L").value / again.at("L").value - 1) < 1e-10


@pytest.mark.parametrize("backend", ["torch", "torch:compile"])
def test_batches_and_resuming_change_no_bit(backend, tmp_path, monkeypatch, request):
    """The size of batches and a resumed run do not affect the result."""
    from sdetools.simulation import torch_run

    if backend == "torch:compile":
        request.getfixturevalue("compiler")
    case = CASES["gaussian"]()
    whole = both(case, backend, paths=5_000)
    monkeypatch.setattr(torch_run, "CPU_BATCH", 512)
    monkeypatch.setattr("sdetools.simulation.layout.LEAST_WORK", 1)  # a leaf a chunk: two a batch
    parts = both(case, backend, paths=5_000, store=tmp_path / "s.sqlite")
    again = both(case, backend, paths=5_000, store=tmp_path / "s.sqlite", resume=True)
    for other in (parts, again):
        np.testing.assert_array_equal(other.statistics.sums.groups, whole.statistics.sums.groups)
        np.testing.assert_array_equal(other.final, whole.final)


def test_an_operation_uses_the_threads_of_the_run():
    """Torch's own number, or that of `threads` if it is smaller; afterwards torch has its own number again. The result is the same."""
    seen = set()

    def quadratic(x):
        seen.add(torch.get_num_threads())
        return (x * x).sum() / 2

    rule = st.SGD(oracle(st.losses.from_torch(quadratic, dim=2), st.noise.gaussian(dim=2)), st.schedules.constant(ETA))
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        for threads, expected in ((1, 1), (2, 2), (8, 3)):
            seen.clear()
            run = st.simulate(rule, [1.0, 0.5], 5 * ETA, observe=["x0"], paths=PATHS, seed=1, backend="torch", threads=threads)
            found.append(run.at("x0").value)
            assert seen == {expected} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1


def test_divergence_times_equal_the_reference():
    """Counts and divergence times against NumPy."""
    o = oracle(st.losses.double_well(), st.noise.gaussian(dim=1), 3.0)
    wild = st.SGD(o, st.schedules.constant(0.4))
    given = dict(x0=[1.0], horizon=40.0, paths=600, observe=["x"], threads=1)
    slow, fast = (st.simulate(wild, backend=b, **given) for b in ("numpy", "torch"))
    assert slow.diverged > 0
    assert (fast.diverged, fast.first_divergence) == (slow.diverged, slow.first_divergence)
    assert np.isnan(fast.at("x").value)


def test_divergence_times_of_a_pair_of_unequal_steps():
    """In short steps of the pair, exactly and for each member: that of the longer step is a multiple of its step."""
    sde = st.SDE(drift=["-x**3"], diffusion=["0.5*x + 1"], variables="x")
    pair = [st.EulerMaruyama(sde, dt=dt) for dt in (1 / 64, 1 / 16)]
    given = dict(x0=[60.0], horizon=2.0, paths=600, observe=["x"], threads=1)
    slow, compiled, fast = (st.weak_gap(*pair, backend=b, **given).statistics.sums for b in ("numpy", "numba", "torch"))
    assert (slow.first_divergence > 0).all() and slow.first_divergence[1] % 4 == 0 and slow.diverged.all()
    for sums in (compiled, fast):
        assert (sums.diverged.tolist(), sums.first_divergence.tolist()) == (
            slow.diverged.tolist(),
            slow.first_divergence.tolist(),
        )


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        *(("torch:warp", "warp"), ("torch:cuda:99", "cuda:99"), ("torch:cpu:float32", "cpu:float32"), ("jax", "'jax'")),
        *(("torch:warp:compile", "warp:compile"), ("torch:compile:cpu", "compile:cpu")),
    ],
)
def test_an_unavailable_device_is_refused(backend, message):
    """The message names the device."""
    with pytest.raises(ValueError, match=message):
        both(CASES["gaussian"](), backend)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "one number"),
        (lambda x: x[7], "one point"),
        (lambda x: (x * float("nan")).sum(), "finite"),
        (3.0, "torch function"),
    ],
)
def test_invalid_losses_are_refused(function, message):
    """Functions that are not losses of one point."""
    with pytest.raises(ValueError, match=message):
        st.losses.from_torch(function, dim=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("name", ["gaussian", "signs", "three-point", "sums of draws", "general noise"])
def test_a_gpu_agrees_path_by_path(name):
    """Final points on a device."""
    case = CASES[name]()
    np.testing.assert_allclose(both(case, "torch:cuda").final, both(case, "numpy").final, rtol=1e-9, atol=1e-9)
