"""Shared configuration of the tests: one thread a process, no limits in seconds, the path of the reference implementations, a fixture for one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

# Worker processes of pytest share the cores already: with two threads each, small operations of torch wait for each other and take seven times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
threadpool_limits(1, "blas")  # of a NumPy that is imported already
# A test that is right does not fail because the machine is busy.
hypothesis.settings.register_profile("sdetools", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("sdetools")
sys.path.insert(0, str(Path(__file__).parent))  # so that tests, and worker processes that they start, can import `naive`


@pytest.fixture
def single() -> dict:
    """Return the keyword arguments of a run on one thread."""
    return {"threads": 1}
