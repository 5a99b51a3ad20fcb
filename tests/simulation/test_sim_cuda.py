"""CUDA kernels against the reference, path by path, on Numba's simulator; and their machine code, where the toolkit's compilers are
installed.

Only the test marked `gpu` needs a device.
"""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from apart import run_apart, toolkit, without_spills
from numba import cuda as numba_cuda

import sdetools as st
from sdetools.graph.reals import real_of
from sdetools.simulation import cuda, engine
from sdetools.simulation.records import PAIR, SINGLE

PROGRAMS = runpy.run_path(str(Path(__file__).parents[1] / "programs.py"))
CASES = PROGRAMS["all_programs"]()
REFUSED = ["minibatch without replacement, SVAG"]
"""Simulations with a compiled function, which threads of a device cannot call."""
PARTS = 4
FEW = ["rule SGDM", "dense 3", "dense 300", "separable 40", "minibatch", "long formula", "start mixture"]
"""Kernels of every kind: in registers, in memory, around matrix products, in several parts."""
ALL = pytest.mark.skipif("SDETOOLS_ALL_KERNELS" not in os.environ, reason="takes minutes: set SDETOOLS_ALL_KERNELS=1")
SHOWN = dict(trajectories=[4, 0, 2], slices="all")
LENGTH = 70
"""The number of steps: more than between two checks for divergence."""


def part(n: int) -> list[str]:
    """One part of the names of the simulations."""
    return [name for name in list(CASES)[n::PARTS] if name not in REFUSED]


def close(a, b, tolerance=1e-12) -> None:
    """Asserts that final points agree to the tolerance, and moments to the bound that follows from it.

    A recorded v, of size |mean| + sqrt(S) at most (S the sum of squares about the mean), may be off by e = tolerance (1 + size),
    and so may a mean; d = x - z by the sum of the bounds of x and z. Centring makes no vector longer, so by Cauchy and Schwarz a
    sum of products about means, of vectors that are off by sqrt(n) e each, is off by sqrt(n) (e sqrt(S') + e' sqrt(S)) + n e e' at
    most. (Its own roundings, n 2^-53 of such sizes, are a thousandth of that.)
    """
    np.testing.assert_allclose(a.final, b.final, rtol=tolerance, atol=tolerance)
    found, total, n = a.statistics.total, b.statistics.total, b.paths
    columns = PAIR if "d" in total else SINGLE
    spread = {m: np.sqrt(total[m + "2"]) for m in columns.means}
    e = {m: tolerance * (1 + np.abs(total[m]) + spread[m]) for m in columns.means}
    if "d" in e:
        e["d"] = e["x"] + e["z"]
    products = {key: n**0.5 * (e[u] * spread[v] + e[v] * spread[u]) + n * e[u] * e[v] for key, (u, v) in columns.products.items()}
    for key, allowed in (e | products).items():
        np.testing.assert_allclose((found[key] - total[key]) / allowed, 0.0, atol=1.0, err_msg=key)


def simulate(n: str) -> None:
    """Compares one part of the simulations on the simulator with NumPy."""
    for name in part(int(n)):
        case = CASES[name]()
        try:
            close(PROGRAMS["run"](case, "cuda"), PROGRAMS["run"](case, "numpy"))
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.slow
@pytest.mark.parametrize("n", range(PARTS))
def test_same_paths_on_the_simulator(n):
    """Every simulation, in four processes."""
    run_apart(__file__, "simulate", str(n), NUMBA_ENABLE_CUDASIM="1")


def others() -> None:
    """Covers what the simulations do not: controls, refusals, stored states, diverged paths, chunks, single precision."""
    run, case = PROGRAMS["run"], CASES["dense 3"]()
    reference = run(case, "numpy")
    with pytest.raises(AssertionError):  # other draws are detected
        close(run(case, "cuda", seed=4), reference)
    for name in REFUSED:
        with pytest.raises(ValueError, match=r"backend 'cuda' cannot run this: .*compiled for a CPU"):
            run(CASES[name](), "cuda")
    for name in ("dense 3", "dense 40", "rule SGDM", "minibatch"):
        case = CASES[name]()
        a, b = (run(case, backend, **SHOWN) for backend in ("cuda", "numpy"))
        for found, expected in ((a.trajectories, b.trajectories), (a.slices, b.slices)):
            assert found.dims == expected.dims
            np.testing.assert_allclose(found.values, expected.values, rtol=1e-12, atol=1e-12)
    oracle = st.NoisyOracle(st.losses.from_expression("x**4/4", "x"), st.noise.gaussian(dim=1), 1.0)
    given = dict(observe=["x"], x0=[1.2], horizon=0.6 * LENGTH, paths=300, seed=1, threads=1, times=[0.6 * LENGTH])
    runs = [st.simulate(st.SGD(oracle, st.schedules.constant(0.6)), backend=backend, **given) for backend in ("cuda", "numpy")]
    assert runs[0].diverged == runs[1].diverged and 0 < runs[0].diverged < 300
    assert runs[0].first_divergence == runs[1].first_divergence > 0
    for name in ("rule SGDM", "separable 40"):
        a, b = (run(CASES[name](), backend, dtype="float32").final for backend in ("cuda", "numpy"))
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)  # 4 steps of at most 100 roundings of 6e-8
        assert np.abs(a - run(CASES[name](), "numpy").final).max() > 2.0**-26


def stopped() -> None:
    """Compares paths that stand still, and stored sums of functionals, with NumPy."""
    oracle = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y"), st.noise.gaussian(dim=2))
    rule = st.SGDM(oracle, st.schedules.constant(0.1, 0.5))
    given = dict(x0=[1.0, 1.0], horizon=0.1 * LENGTH, paths=300, seed=1)
    runs = [
        st.exit_time(rule, leaves="x**2 + y**2 - 4.5", observe=["x"], times="all", backend=b, **given) for b in ("cuda", "numpy")
    ]
    assert 30 < runs[1].censored < 270
    for name in ("survival", "restricted_mean", "mean"):
        np.testing.assert_allclose(runs[0].data[name].values, runs[1].data[name].values, rtol=1e-12, atol=1e-12)
    runs = [st.stationary(rule, observe=["x", "x*y"], burn_in=0.6, backend=b, **given) for b in ("cuda", "numpy")]
    np.testing.assert_allclose(runs[0].means, runs[1].means, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_stopped_paths_and_sums_on_the_simulator():
    run_apart(__file__, "stopped", NUMBA_ENABLE_CUDASIM="1")


ONE = (
    *(np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.arctan, np.arcsin),
    *(np.arccos, np.sign, np.floor, np.abs),
)
TWO = (np.maximum, np.minimum, np.power, np.divide)


def corners(x):
    """Every function of the graph within and outside its domain and range; infinities and NaN are represented by finite numbers."""
    with np.errstate(all="ignore"):
        at = [0.0 * x[0] + a for a in (-1e3, 1e3, -2.0, 0.0, 0.7, np.nan)]
        found = [f(a) for a in at for f in ONE] + [f(a, b) for a in at for b in at for f in TWO]
        return [np.where(v != v, 3.5, np.where(v > 1e9, 5.5, np.where(v < -1e9, 7.5, v))) for v in found]


def corner_values(backend: str) -> np.ndarray:
    """`corners` as observables of a path at rest."""
    rest = st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1)), st.schedules.constant(0.5))
    observe = {f"c{n}": lambda x, n=n: corners(x)[n] for n in range(len(corners(np.zeros((1, 1)))))}
    return st.simulate(rest, [1.0], 0.5, 2, observe, times=[0.0, 0.5], threads=1, backend=backend).data["mean"].values


def far() -> None:
    """Compares `corners` on the simulator with NumPy."""
    found, expected = corner_values("cuda"), corner_values("numpy")
    assert np.isfinite(expected).all() and all(np.any(expected == code) for code in (3.5, 5.5, 7.5))
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.slow
def test_functions_agree_with_numpy_outside_their_domain():
    """The functions agree with NumPy outside their domain and range."""
    run_apart(__file__, "far", NUMBA_ENABLE_CUDASIM="1")


def test_an_error_of_a_billionth_of_sigma_is_detected():
    """Negative control of the tolerance: an error of 1e-9 in sigma is detected."""
    members, x0, more = CASES["gaussian"]()
    wrong = tuple(type(m)(m.oracle.with_sigma(m.oracle.sigma * (1 + 1e-9)), m.plan) for m in members)
    right = tuple(type(m)(m.oracle, m.plan) for m in members)
    with pytest.raises(AssertionError):
        close(*(PROGRAMS["run"]((pair, x0, more), "numpy") for pair in (wrong, right)))


def test_an_error_of_a_hundred_billionth_of_an_observable_is_detected():
    """Negative control of the bound of moments: the paths are the same."""
    members, x0, _ = CASES["gaussian"]()
    exact, off = (
        PROGRAMS["run"]((members, x0, {"observe": {"h": lambda x, c=c: c * x[0] ** 2}}), "numpy") for c in (1.0, 1 + 1e-11)
    )
    np.testing.assert_array_equal(exact.final, off.final)
    close(exact, exact)
    with pytest.raises(AssertionError):
        close(off, exact)


@pytest.mark.slow
def test_controls_stored_states_divergence_and_single_precision():
    """Runs `others` on the simulator."""
    run_apart(__file__, "others", NUMBA_ENABLE_CUDASIM="1")


def test_the_error_without_a_device_names_the_remedy():
    """The error names the remedy."""
    if numba_cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(ValueError, match=r"requires a CUDA device.*NUMBA_ENABLE_CUDASIM=1"):
        PROGRAMS["run"](CASES["dense 3"](), "cuda")


@pytest.mark.gpu
def test_same_paths_on_a_device():
    """Kernels of every kind on a device."""
    if not numba_cuda.is_available():
        pytest.skip("no GPU on this machine")
    for name in ("dense 3", "dense 300", "rule SGDM", "minibatch", "integrator 20 RI1 normal"):
        case = CASES[name]()
        close(PROGRAMS["run"](case, "cuda"), PROGRAMS["run"](case, "numpy"), 1e-11)  # sines and logarithms of another library


# ---- machine code


class Caught(Exception):
    """Carries a program out of the call that would run it."""


def program(name: str):
    """The program that a run of a case would execute."""

    def caught(program, *_):
        raise Caught(program)

    own, engine.make_task = engine.make_task, caught
    try:
        PROGRAMS["run"](CASES[name](), "cuda")
    except Caught as found:
        return found.args[0]
    finally:
        engine.make_task = own


def assemble(*names: str) -> None:
    """Compiles the kernels of simulations for two architectures; fails if registers spill."""
    from numba import types

    from sdetools.simulation import torch_cuda

    i, words = types.int64, types.uint64[::1]
    done = set()
    for name in names:
        for dtype in ("float64", "float32"):
            own = program(name)
            made, width = cuda.write(own, real_of(dtype)), own.coefficients.shape[1]
            real = types.float32 if dtype == "float32" else types.float64
            data = [types.Array(real if d.dtype.kind == "f" else i, d.ndim, "C") for d in made.data]
            row = real[::1]
            signature = types.void(i, i, i, i, words, row, row, types.float64, types.float64, row, row, row, i[::1], *data)
            for phase in [*made.start, *(p for _, p in made.step), *made.record, *made.anchor, *made.check]:
                if isinstance(phase, cuda.Product) or (text := phase.text(len(data), width), dtype) in done:
                    continue
                done.add((text, dtype))
                without_spills(torch_cuda.function(text, dtype), signature, name)
    assert len(done) > 3 * len(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [pytest.param(FEW, id="few"), *(pytest.param(part(n), id=str(n), marks=ALL) for n in range(PARTS))]
)
def test_machine_code_without_spills(names):
    """Needs the toolkit's compilers, but no device."""
    run_apart(__file__, "assemble", *names, CUDA_HOME=toolkit())
