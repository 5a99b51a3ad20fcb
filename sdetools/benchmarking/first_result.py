"""Time to the first result of a loss in a new process: `python -m sdetools.benchmarking.first_result PROBLEM DIM [again]`.

The time is the processor time from the definition of the loss to the result of one step of one path. For an unseen loss another one has
run before, so that work shared by all kernels is excluded. With `again` the kernel is on disk from an earlier process, and nothing
has run before. Data are made, and the library and Numba imported, before the clock starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sdetools
from sdetools.benchmarking.cases import PROBLEMS, runner, sgdm
from sdetools.benchmarking.implementations import clock


def measure(problem: str, dim: int) -> tuple[float, float]:
    """Return the seconds from the definition of a loss to its first result, for an unseen loss and for the same loss in a second new process.

    The first result is that of one step of SGDM on one path, after `import sdetools` and its other imports. The second process finds the
    compiled kernel on disk. Both seconds are processor times.

    Args:
        problem: The name of a problem in `cases.PROBLEMS`, such as "double well".
        dim: The dimension.

    Returns:
        The pair (unseen, again) of seconds. The machine code is kept in a temporary folder, so earlier runs do not matter.

    Raises:
        CalledProcessError: If a process fails, as it does for an unknown problem.
    """
    with tempfile.TemporaryDirectory(prefix="sdetools-bench-") as folder:
        places = [str(Path(sdetools.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"SDETOOLS_CACHE": folder, "PYTHONPATH": os.pathsep.join(places)}
        command = [sys.executable, "-m", __name__, problem, str(dim)]
        unseen, again = (
            json.loads(subprocess.run([*command, *more], env=environment, check=True, capture_output=True, text=True).stdout)
            for more in ([], ["again"])
        )
    return unseen, again


def _first(problem: str, dim: int, again: bool) -> float:
    """Return the processor time to the first result of a problem in this process, in seconds; with `again` no other loss has run before."""
    import numpy as np

    import sdetools as st

    chosen = PROBLEMS[problem]
    data = chosen.data(dim)
    sgdm(st.losses.quadratic(np.ones(1)), 1)  # imports the modules that define dynamics
    st.simulate  # noqa: B018
    if not again:  # imports the compiler, which cached kernels do not need
        warm = st.losses.from_function(value=lambda x: np.sum(np.abs(x) ** 3), dim=3)
        runner(sgdm(warm, 3), 3, 1)(1)
    return clock(lambda: runner(chosen.dynamics(dim, *data), dim, 1)(1), time.process_time)


if __name__ == "__main__":
    print(json.dumps(_first(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["again"])))
