"""Domains and special values, one table for every backend, and the machine code of the functions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from backends import BACKENDS, REAL, SINGLE, TYPES, computed, right_angles, true, ulps
from numba import cfunc, njit

from sdetools import _machine_code
from sdetools.graph import lanes, rows

inf, nan = np.inf, np.nan
PI = np.pi
TINY = {"float64": 5e-324, "float32": 1e-45}
ODD = dict.fromkeys((0.0, "-0", "tiny", "-tiny"), "itself")
"""Values of an odd function with derivative 1 about zero; -0.0 is a string, because a dictionary equates it with 0.0."""
CORNERS = {
    "exp": {-inf: 0.0, inf: inf, 0.0: 1.0, "-0": 1.0, 1000.0: inf, -1000.0: 0.0, "tiny": 1.0},
    "expm1": {-inf: -1.0, inf: inf, 1000.0: inf, -1000.0: -1.0, **ODD},
    "sinh": {-inf: -inf, inf: inf, 1000.0: inf, -1000.0: -inf, **ODD},
    "cosh": {-inf: inf, inf: inf, 0.0: 1.0, "-0": 1.0, 1000.0: inf, -1000.0: inf},
    "tanh": {-inf: -1.0, inf: 1.0, 1000.0: 1.0, -1000.0: -1.0, **ODD},
    "log": {0.0: -inf, "-0": -inf, -1.0: nan, "-tiny": nan, -inf: nan, inf: inf, 1.0: 0.0},
    "log1p": {-1.0: -inf, -1.5: nan, -inf: nan, inf: inf, **ODD},
    "arctan": {-inf: -PI / 2, inf: PI / 2, 1e30: PI / 2, 1.0: PI / 4, -1.0: -PI / 4, **ODD},
    "arcsin": {1.0: PI / 2, -1.0: -PI / 2, 1.5: nan, -inf: nan, inf: nan, **ODD},
    "arccos": {1.0: 0.0, -1.0: PI, 0.0: PI / 2, "-0": PI / 2, 1.5: nan, -1.5: nan, inf: nan, -inf: nan},
    "sin": {inf: nan, -inf: nan, **ODD},
    "cos": {inf: nan, -inf: nan, 0.0: 1.0, "-0": 1.0, "tiny": 1.0},
    "tan": {inf: nan, -inf: nan, **ODD},
    "sign": {0.0: 0.0, "-0": 0.0, 3.0: 1.0, -3.0: -1.0, inf: 1.0, -inf: -1.0, "tiny": 1.0, "-tiny": -1.0},
    "floor": {0.0: 0.0, "-0": -0.0, 1.5: 1.0, -1.5: -2.0, inf: inf, -inf: -inf, "tiny": 0.0, "-tiny": -1.0, 1e30: "itself"},
}
PAIRS = {
    "power": [
        *((x, y, 1.0) for x in (0.0, -0.0, 1.0, -2.0, inf, -inf, nan) for y in (0.0, -0.0)),
        *((1.0, y, 1.0) for y in (0.5, inf, -inf, nan, 1e30)),
        *((-1.0, y, 1.0) for y in (inf, -inf, 1e30)),
        *((0.0, y, inf) for y in (-1.0, -2.0, -0.5, -inf)),
        *((0.0, y, 0.0) for y in (1.0, 2.0, 0.5, inf)),
        *((-0.0, -1.0, -inf), (-0.0, -3.0, -inf), (-0.0, -2.0, inf), (-0.0, -0.5, inf), (-0.0, -inf, inf)),
        *((-0.0, 1.0, -0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0), (-0.0, 0.5, 0.0), (-0.0, inf, 0.0)),
        *((0.5, inf, 0.0), (0.5, -inf, inf), (2.0, inf, inf), (2.0, -inf, 0.0), (-0.5, inf, 0.0), (-2.0, inf, inf)),
        *((inf, 0.5, inf), (inf, -0.5, 0.0), (inf, inf, inf), (inf, -inf, 0.0)),
        *((-inf, 3.0, -inf), (-inf, 2.0, inf), (-inf, 0.5, inf), (-inf, -3.0, -0.0), (-inf, -2.0, 0.0), (-inf, -0.5, 0.0)),
        *((-2.0, 0.5, nan), (-2.0, -1.5, nan), ("-tiny", 0.5, nan), (nan, 1.0, nan), (2.0, nan, nan), (0.0, nan, nan)),
        *((-2.0, 3.0, -8.0), (-2.0, 2.0, 4.0), (-2.0, -1.0, -0.5), (10.0, 400.0, inf), (10.0, -400.0, 0.0), (-10.0, 401.0, -inf)),
        *((-10.0, -401.0, -0.0), (2.0, 10.0, 1024.0), ("tiny", 1.0, "itself"), ("-tiny", 1.0, "itself"), (-3.0, 1.0, "itself")),
    ],
    "maximum": [
        (1.0, 2.0, 2.0),
        (2.0, 1.0, 2.0),
        (nan, 1.0, nan),
        (1.0, nan, nan),
        (-inf, inf, inf),
        (inf, nan, nan),
        (-0.0, -0.0, -0.0),
    ],
    "minimum": [
        (1.0, 2.0, 1.0),
        (2.0, 1.0, 1.0),
        (nan, 1.0, nan),
        (1.0, nan, nan),
        (-inf, inf, -inf),
        (inf, nan, nan),
        (0.0, 0.0, 0.0),
    ],
    "heaviside": [
        *((-1.0, 0.5, 0.0), (0.0, 0.5, 0.5), (-0.0, 0.5, 0.5), (2.0, 0.5, 1.0), (inf, 0.5, 1.0), (-inf, 0.5, 0.0)),
        *((nan, 0.5, nan), (0.0, nan, nan), (1.0, nan, 1.0), ("tiny", 0.5, 1.0), ("-tiny", 0.5, 0.0)),
    ],
}
"""Of two zeros with different signs NumPy returns either, depending on the processor."""


def number(given: float | str, dtype: str, itself: float = nan) -> float:
    words = {"-0": -0.0, "tiny": TINY[dtype], "-tiny": -TINY[dtype], "itself": itself}
    return words[given] if isinstance(given, str) else given


def assert_same(got: np.ndarray, expected: np.ndarray, where: list, rounding: float) -> None:
    """Equal with the sign of zero, NaN where NaN is expected; finite values to some rounding."""
    for point, a, b in zip(where, got.tolist(), expected.tolist()):
        close = np.isfinite(b) and b != 0 and abs(a / b - 1) <= rounding
        same = (np.isnan(a) and np.isnan(b)) or (a == b and np.signbit(a) == np.signbit(b)) or close
        assert same, f"at {point}: {a}, and not {b}"


@pytest.mark.sample(32)
@pytest.mark.parametrize("repeat", [1, 40], ids=["one", "many"])  # torch uses other code for full vectors
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SINGLE)
def test_special_values(name, backend, dtype, repeat):
    table = {**CORNERS[name], nan: nan}
    points = [number(x, dtype) for x in table for _ in range(repeat)]
    expected = [number(y, dtype, number(x, dtype)) for x, y in table.items() for _ in range(repeat)]
    x, expected = np.array(points, dtype), np.array(expected, dtype)
    assert_same(computed(backend, name, x), expected, points, np.finfo(dtype).eps)


@pytest.mark.sample(34)
@pytest.mark.parametrize("repeat", [1, 40], ids=["one", "many"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PAIRS)
def test_special_values_of_two_arguments(name, backend, dtype, repeat):
    points = [
        (number(x, dtype), number(y, dtype), number(z, dtype, number(x, dtype))) for x, y, z in PAIRS[name] for _ in range(repeat)
    ]
    x, y, expected = np.array(points, dtype).T.copy()
    assert_same(computed(backend, name, x, y), expected, points, np.finfo(dtype).eps)


def test_a_wrong_special_value_is_detected():
    """Negative control."""
    for a, b in ((0.0, -0.0), (nan, 0.0), (inf, nan), (1.0, 1.0 + 1e-9), (inf, 1e308)):
        with pytest.raises(AssertionError):
            assert_same(np.array([a]), np.array([b]), [0], 1e-12)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("backend", ["torch", "lanes", "rows"])
def test_powers_of_all_special_values_match_numpy(backend, dtype):
    ends = [0.0, 1.0, 2.0, 0.5, 3.0, 7.0, 1.5, 1e30, 1e-30, 2.0**23 - 1, 2.0**24, 2.0**31 + 2.0**10, TINY[dtype], inf]
    ends = np.array([*ends, *np.negative(ends), nan], dtype)
    x, y = (a.ravel().copy() for a in np.meshgrid(ends, ends))
    assert_same(computed(backend, "power", x, y), computed("numpy", "power", x, y), list(zip(x, y)), 2 * np.finfo(dtype).eps)


EDGES = {
    "exp": [709.78, 709.782712893384, -708.4, -720.0, -744.0, -745.13, 1e-20],
    "expm1": [709.78, 709.782712893384, -36.0, -38.0, 1e-310, -2e-16],
    "sinh": [709.79, -710.4, 710.4758600739439, 1e-310, 1e-8],
    "cosh": [709.79, -710.4, 710.4758600739439, 1e-8],
    "tanh": [18.0, 19.5, 1e-310, -1e-8],
    "log": [1e-310, 5e-324, 1.7976931348623157e308, 1.3e308, 1 + 2.0**-52, 1 - 2.0**-53, 2.0**0.5, 0.5**0.5],
    "log1p": [1e-310, -1 + 2.0**-53, 1.7976931348623157e308, 1.3e308, 2.0**53, 2.0**-53, -(2.0**-53), 0.41421356, -0.29289322],
    "arctan": [1e-310, 1.0, 1 + 2.0**-52, 1e300],
    "arcsin": [0.5, 0.5 + 2.0**-53, 1 - 2.0**-53, 1e-310],
    "arccos": [0.5, 0.5 + 2.0**-53, 1 - 2.0**-53, -1 + 2.0**-53, -0.5, 1e-310],
    "sin": [1e-310, 3.141592653589793, 2.0**30],
    "cos": [1e-310, 1.5707963267948966, 2.0**30],
    "tan": [1e-310, 1.5707963267948966, 3.141592653589793, 2.0**30],
}
"""Arguments where a formula changes, a result is subnormal, or a range ends."""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", REAL)
def test_edge_arguments_within_two_ulp(name, backend):
    x = np.repeat(EDGES[name], 9)
    (wrong,) = ulps(true(name), (x,), computed(backend, name, x))
    assert np.all(wrong <= 2), (x[np.argmax(wrong)], wrong.max())


# -- the code -------------------------------------------------------------------------------------------------------------------


def test_a_kernel_keeps_the_signs_of_zero():
    """Sums, differences and choices around the functions, as in NumPy."""

    @njit(**lanes.FAST)
    def kernel(x, out):
        for j in range(len(x)):
            out[0, j] = 0.0 - x[j]
            out[1, j] = -x[j] + 0.0
            out[2, j] = lanes.vsinh(x[j]) * -1.0
            out[3, j] = 1.0 / (0.0 - lanes.vatan(x[j]))
            out[4, j] = lanes.vexpm1(x[j]) - 0.0
            out[5, j] = lanes.vmaximum(x[j], lanes.vfloor(x[j]))

    x = np.repeat([0.0, -0.0], 20)
    out = np.empty((6, 40))
    kernel(x, out)
    with np.errstate(divide="ignore"):
        expected = [0.0 - x, -x + 0.0, -np.sinh(x), 1 / (0.0 - np.arctan(x)), np.expm1(x) - 0.0, np.maximum(x, np.floor(x))]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(expected))


def assembly(name: str, dtype: str) -> str:
    made = cfunc("int64(int64, int64, int64, int64, int64, int64)", fastmath=lanes.FLAGS, error_model="numpy")
    return made(rows.function(name, dtype)._pyfunc)._library.get_asm_str()


@pytest.mark.sample(1)
@pytest.mark.parametrize("name, dtype", [*((n, "float64") for n in rows.NAMES), ("exp", "float32"), ("sincos", "float32")])
def test_row_functions_are_vectorised(name, dtype):
    """At least as many packed products and sums on x86 (`...pd`, `...ps`) or ARM (`.2d`, `.4s`) as a polynomial has."""
    x86 = r"\bv?f?n?m(?:ul|add|sub)\w*p[ds]\b"
    arm = r"\bfml?[aulns]+\w*\s.*\.(?:2d|4s)"
    pattern = {"x86_64": x86, "AMD64": x86, "aarch64": arm, "arm64": arm}.get(os.uname().machine)
    if pattern is None:
        pytest.skip("no pattern for the assembly of this processor")
    found = assembly(name, dtype)
    assert len(re.findall(pattern, found)) >= 12
    scalar = len(re.findall(pattern.replace("p[ds]", "s[ds]"), found))
    assert name in ("sin", "cos", "tan", "sincos") or scalar == 0  # no scalar code, not even at the end of a row


def test_functions_are_accurate_without_fma_instructions():
    """The functions compiled for the baseline processor: `fma` is a slow, exact call, and no product is fused with a sum."""
    if os.uname().machine != "x86_64":
        pytest.skip("every ARM processor of 64 bits has fma")
    rng = np.random.default_rng(1)
    code = (
        "import numpy as np; from numba import njit; from sdetools.graph import lanes\n"
        "@njit(**lanes.FAST)\ndef f(x, y):\n    for j in range(len(x)):\n"
        "        y[0, j], y[1, j] = lanes.sincos(x[j])\n        y[2, j] = lanes.vtan(x[j])\n"
        "        y[3, j] = lanes.vexp(x[j] * 5e-7)\n        y[4, j] = lanes.vtanh(x[j] * 1e-8)\n        y[5, j] = lanes.vlog(x[j])\n"
        f"x = np.array({right_angles(2.0 ** rng.uniform(0, 29, 200)).tolist()})\n"
        "y = np.empty((6, len(x))); f(x, y); asm = ''.join(f.inspect_asm().values())\n"
        "assert 'vfmadd' not in asm and 'fma' in asm; print(*x); [print(*row) for row in y]"
    )
    plain = dict(os.environ, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    x, *got = np.array([line.split() for line in done.stdout.splitlines()], float)
    given = [(mpmath.sin, x), (mpmath.cos, x), (mpmath.tan, x), (mpmath.exp, x * 5e-7), (mpmath.tanh, x * 1e-8), (mpmath.log, x)]
    for (f, at), values in zip(given, got):
        (wrong,) = ulps(f, (at,), values)
        assert np.all(wrong <= 2), f


def test_the_package_imports_no_heavy_dependency():
    code = "import sys, sdetools.graph; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numba", "torch", "llvmlite"} & set(loaded)


def test_an_edit_of_any_inlined_file_changes_the_key(tmp_path, monkeypatch):
    """Every file that the functions on rows are inlined from is part of the key of their machine code."""
    names = ("bits", "elementary", "gemm", "interpreter", "lanes", "lanes32", "programs", "rows")
    files = [Path(lanes.__file__).with_name(f"{name}.py") for name in names]
    (tmp_path / "graph").mkdir()
    for other in ("simulation/records.py", "manifold/kernels.py", "noise/sampling_kernel.py"):  # named files of other packages
        (tmp_path / other).parent.mkdir()
        (tmp_path / other).touch()
    for file in files:
        (tmp_path / "graph" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(_machine_code, "PACKAGE", tmp_path)
    keys = {_machine_code.text_key.__wrapped__()}
    for file in files:
        with (tmp_path / "graph" / file.name).open("a") as copy:
            copy.write("\n")
        keys.add(_machine_code.text_key.__wrapped__())
    assert len(keys) == 1 + len(files)
