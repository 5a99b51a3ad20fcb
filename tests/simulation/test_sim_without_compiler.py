"""With NUMBA_DISABLE_JIT=1, where Numba compiles nothing, the NumPy and torch backends run; the compiled one says why it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys
import numpy as np
import sdetools as st

def mean(noise, loss, backend, **more):
    sgd = st.SGD(st.NoisyOracle(loss, noise, sigma=0.5), st.schedules.constant(0.1))
    return st.simulate(sgd, [1.0, 0.5], 0.5, 40, [loss.names[0], "1 + " + loss.names[1]], backend=backend, seed=3, **more).at(1).value

rows = np.array([[1.0, 0.2], [0.3, 1.0], [0.7, 0.7]])
data, formula = st.losses.least_squares(rows, [1.0, 2.0, 3.0]), st.losses.hyperbola()
found = {}
for backend in ("numpy", "torch"):
    found[backend] = [
        mean(st.noise.gaussian(2), formula, backend), mean(st.noise.rademacher(2), formula, backend),
        mean(st.noise.uniform(2), formula, backend), mean(st.noise.minibatch(data, 2), data, backend),
    ]
found["numpy"].append(mean(st.noise.minibatch(data, 2, replace=False), data, "numpy", dtype="float32"))
found["automatic"] = st.simulate(
    st.SGD(st.NoisyOracle(formula, st.noise.gaussian(2)), st.schedules.constant(0.1)), [1.0, 0.5], 0.1, 4, ["x"]
).origin.backend
try:
    mean(st.noise.gaussian(2), formula, "numba")
    found["refused"] = ""
except ValueError as error:
    found["refused"] = str(error)
print(json.dumps(found))
"""


def results(**variables: str) -> dict:
    """Run the program in a new process with these environment variables, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_numpy_and_torch_run_without_a_compiler_and_give_the_same_numbers():
    """The draws come from NumPy then; "auto" is not the compiled backend, and "numba" is refused with the way out."""
    without, with_compiler = results(NUMBA_DISABLE_JIT="1"), results(NUMBA_DISABLE_JIT="0")
    for backend in ("numpy", "torch"):
        np.testing.assert_allclose(without[backend], with_compiler[backend], rtol=1e-6 if backend == "numpy" else 1e-12)
    assert without["automatic"] == "numpy" and with_compiler["automatic"] == "numba"
    assert with_compiler["refused"] == ""
    assert without["refused"] == (
        "`backend` must be 'numpy' or 'torch' while NUMBA_DISABLE_JIT=1 turns the compiler off; got 'numba'. "
        "Unset that variable, or pass backend='numpy'."
    )
