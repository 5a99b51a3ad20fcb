"""Shared configuration of the tests: the path of the reference implementations, the mark `slow`, and a fixture for one thread."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests, and worker processes that they start, can import `naive`


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark `slow`."""
    config.addinivalue_line("markers", "slow: takes more than about ten seconds; skip with -m 'not slow'")


@pytest.fixture
def single() -> dict:
    """Return the keyword arguments of a run on one thread."""
    return {"threads": 1}
