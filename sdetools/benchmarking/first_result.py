"""How long the first result of a loss takes, in a process of its own: `python -m sdetools.benchmarking.first_result PROBLEM DIM [again]`.

Seconds of processor time from the loss to the result of one step of one path. For an unseen loss another one has run before, so that what
all kernels share is there; `again`, with the kernel on disk from an earlier process, nothing has. Data are made, and the library and Numba
imported, before the clock runs.
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
from sdetools.benchmarking.ways import clock


def measure(problem: str, dim: int) -> tuple[float, float]:
    """Seconds to the first result of an unseen loss, and of the same in a new process."""
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
    import numpy as np

    import sdetools as st

    chosen = PROBLEMS[problem]
    data = chosen.data(dim)
    sgdm(st.losses.quadratic(np.ones(1)), 1)  # imports what makes them
    st.simulate  # noqa: B018
    if not again:  # what compiles is imported; what is found compiled needs none of it
        warm = st.losses.from_function(value=lambda x: np.sum(np.abs(x) ** 3), dim=3)
        runner(sgdm(warm, 3), 3, 1)(1)
    return clock(lambda: runner(chosen.dynamics(dim, *data), dim, 1)(1), time.process_time)


if __name__ == "__main__":
    print(json.dumps(_first(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["again"])))
