"""Memory use does not grow with the number of paths or steps: peak resident size of new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sdetools as st

SCRIPT = """
import resource, sys
import sdetools as st
paths, steps, keep, chosen = map(int, sys.argv[1:])
oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=2.0)
plan = st.schedules.constant(1 / 64, 0.5)
pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
gap = st.weak_gap(*pair, [1.0], steps / 64, paths, ["x**2", "x"], threads=2, keep_final=bool(keep), trajectories=chosen or None)
assert gap.paths == paths and gap.sup("x").value > 0
try:  # the peak of this program alone: ru_maxrss of a child begins at that of its parent
    with open("/proc/self/status") as lines:
        print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(paths: int, steps: int, keep: bool = False, chosen: int = 0) -> float:
    """The peak resident size of a run, in MiB."""
    env = os.environ | {"PYTHONPATH": str(Path(st.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(paths), str(steps), str(int(keep)), str(chosen)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(done.stdout)


@pytest.mark.slow
def test_peak_memory_of_ten_thousand_and_a_million_paths():
    """Within 100 MB of each other; two million kept pairs of points, 31 MiB, are detected (negative control)."""
    peak(256, 64)  # compiles the kernel, unless it is cached
    small, large = peak(10_000, 64), peak(1_000_000, 64)
    assert abs(large - small) < 100
    assert peak(2_000_000, 1, keep=True) - small > 20


@pytest.mark.slow
def test_peak_memory_of_trajectories():
    """A hundred trajectories of a million paths take the memory of a hundred of ten thousand.

    All trajectories of half a million paths, 61 MiB, are detected (negative control).
    """
    small = peak(10_000, 64, chosen=100)
    assert abs(peak(1_000_000, 64, chosen=100) - small) < 20
    assert peak(500_000, 1, chosen=500_000) - small > 40


@pytest.mark.slow
def test_peak_memory_of_many_steps():
    """From 64 to 100,000 steps only the schedule grows, by about 60 bytes a step."""
    peak(256, 64)  # compiles the kernel, unless it is cached
    assert peak(256, 100_000) - peak(256, 64) < 50
