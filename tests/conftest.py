"""What all tests share: the path to the slow twins, the `slow` mark, and one thread where a test asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests, and workers that they spawn, can import `naive`


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: more than about ten seconds; leave out with -m 'not slow'")


@pytest.fixture
def single() -> dict:
    """Keyword arguments of a run on one thread."""
    return {"threads": 1}
