"""The lines of `cuda_draws.py` against NumPy: on Numba's CUDA simulator, in a separate process, and compiled by Numba for a CPU.

The simulator runs them as Python. Compiled for a CPU they have the types that they have on a device, float32 and uint64.
"""

from __future__ import annotations

import numpy as np
import pytest
from apart import run_apart, toolkit, without_spills
from numba import njit

from sdetools.noise import Normal, Sign, Uniform
from sdetools.simulation import cuda_draws, draws, philox
from sdetools.simulation.draws import DrawPlan, fill

LIBRARIES = 4 * 2.0**-52
"""Relative to the radius: log, sqrt, sin and cos of two libraries, within one unit each."""
SINGLE = 8 * 2.0**-24
"""Relative to the radius, in float32: see `test_sim_draws.py`."""
PLANS = [
    DrawPlan(d)
    for d in (
        (Normal(1),),
        (Normal(2), Sign(3)),
        (Normal(3), Uniform(1)),
        (Sign(70), Normal(5)),
        (Sign(64), Uniform(5), Sign(33)),
        (Normal(70), Uniform(33), Sign(130)),
        (Normal(64), Uniform(32), Normal(128), Sign(1)),
    )
]
STEPS = [0, 1, 2, 3, 41, (1 << 33) + 5]
KEY, FIRST, PATHS = (1 << 63) + 12345, (1 << 33) - 2, 5
VARIANTS = [(where, dtype) for where in ("memory", "registers") for dtype in ("float64", "float32")]
BODY = """
        _k0, _k1 = u(key) & low, u(key) >> half
        path = first + j
"""
KERNEL = "def kernel(first, key, paths, k, Z):\n    j = cuda.grid(1)\n    if j < paths:" + BODY
LOOP = "def kernel(first, key, paths, k, Z):\n    for j in range(paths):" + BODY


def function(head: str, plan: DrawPlan, where: str, dtype: str, **more):
    """A function that writes the draws of a plan to Z."""
    place = (lambda row: f"Z[({row}) * paths + j]") if where == "memory" else (lambda row: f"z{row}")
    write = cuda_draws.in_memory if where == "memory" else cuda_draws.in_registers
    lines = [line for s in plan.segments for line in write(s, place, dtype=dtype)]
    if where == "registers":
        lines += [f"Z[{r} * paths + j] = z{r}" for r in range(plan.rows)]
    space = cuda_draws.names(dtype) | more
    exec(compile(head + "".join(f"        {line}\n" for line in lines), "<draws>", "exec"), space)
    return space["kernel"]


def simulate(file: str) -> None:
    """Saves the draws of every plan on the simulator to a file."""
    from numba import cuda

    found = {}
    for p, plan in enumerate(PLANS):
        for where, dtype in VARIANTS:
            kernel = cuda.jit(function(KERNEL, plan, where, dtype, cuda=cuda))
            for step in STEPS:
                Z = cuda.to_device(np.full(plan.rows * PATHS, 77, dtype))
                kernel[2, 4](FIRST, np.uint64(KEY), PATHS, step, Z)  # three excess threads
                found[f"{p} {where} {dtype} {step}"] = Z.copy_to_host().reshape(plan.rows, PATHS)
    np.savez(file, **found)


def check(got: np.ndarray, plan: DrawPlan, step: int, patch: pytest.MonkeyPatch) -> None:
    """Asserts that signs and uniforms agree to the bit, and normals to the rounding of their radius."""
    path = np.arange(FIRST, FIRST + PATHS)
    expected = fill(plan, KEY, path, step)
    with patch.context() as within:
        within.setattr(draws, "normals", lambda word, *_: (np.hypot(*philox.normals(word)),) * 2)
        radius = fill(plan, KEY, path, step)
    for s in plan.segments:
        rows = slice(s.row, s.row + s.n)
        if s.kind is Normal:
            tolerance = (SINGLE if got.dtype == np.float32 else LIBRARIES) * radius[rows]
            assert (np.abs(got[rows] - expected[rows]) <= tolerance).all(), s
        elif s.kind is Uniform and got.dtype == np.float32:
            np.testing.assert_array_equal(got[rows], np.minimum(expected[rows].astype(np.float32), np.float32(1 - 2.0**-24)))
        else:
            np.testing.assert_array_equal(got[rows], expected[rows])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The draws on the simulator."""
    file = tmp_path_factory.mktemp("cuda") / "draws.npz"
    run_apart(__file__, "simulate", str(file), NUMBA_ENABLE_CUDASIM="1", PYTHONWARNINGS="error")
    return np.load(file)


@pytest.mark.parametrize(("where", "dtype"), VARIANTS)
@pytest.mark.parametrize("p", range(len(PLANS)), ids=[str(p.draws) for p in PLANS])
def test_on_the_simulator(simulated, p, where, dtype, monkeypatch):
    """Draws on the simulator, for every plan."""
    for step in STEPS:
        got = simulated[f"{p} {where} {dtype} {step}"]
        assert got.dtype == dtype
        check(got, PLANS[p], step, monkeypatch)


def test_another_step_is_detected(simulated, monkeypatch):
    """Negative control: the draws of a step do not pass as those of the next one."""
    for p, plan in enumerate(PLANS):
        for where, dtype in VARIANTS:
            with pytest.raises(AssertionError):
                check(simulated[f"{p} {where} {dtype} 2"], plan, 3, monkeypatch)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("where", "dtype"), VARIANTS)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_with_the_types_that_numba_infers(p, where, dtype, monkeypatch):
    """Draws with the types that Numba infers."""
    kernel = njit(function(LOOP, PLANS[p], where, dtype))
    for step in STEPS:
        Z = np.full(PLANS[p].rows * PATHS, 77, dtype)
        kernel(FIRST, np.uint64(KEY), PATHS, step, Z)
        check(Z.reshape(-1, PATHS), PLANS[p], step, monkeypatch)


@pytest.mark.slow
def test_float32_is_float32_throughout():
    """Draws in float32 use no addition or multiplication in double precision; draws in double precision do."""
    seen = {}
    for where, dtype in VARIANTS:
        kernel = njit(function(LOOP, DrawPlan((Normal(3), Uniform(3), Sign(3))), where, dtype))
        kernel(FIRST, np.uint64(KEY), PATHS, 0, np.zeros(9 * PATHS, dtype))
        (text,) = kernel.inspect_llvm().values()
        operations = ("fadd", "fsub", "fmul", "fdiv")
        seen[where, dtype] = [line for line in text.splitlines() if "double" in line and any(op in line for op in operations)]
    assert all(bool(found) == (dtype == "float64") for (_, dtype), found in seen.items()), seen


def assemble() -> None:
    """Compiles plans of all kinds and sizes for two architectures; fails if registers spill."""
    from numba import cuda, types

    for plan in (PLANS[1], PLANS[3], PLANS[5]):
        for where, dtype in VARIANTS:
            if where == "registers" and plan.rows > 100:
                continue
            i, number = types.int64, types.float32 if dtype == "float32" else types.float64
            signature = types.void(i, types.uint64, i, i, number[::1])
            without_spills(function(KERNEL, plan, where, dtype, cuda=cuda), signature, (plan, where))


@pytest.mark.slow
def test_machine_code_without_spills():
    """Needs the toolkit's compilers, but no device."""
    run_apart(__file__, "assemble", CUDA_HOME=toolkit(), PYTHONWARNINGS="error")
