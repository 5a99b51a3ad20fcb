"""Shared configuration of the tests: one thread a process, no limits in seconds, the path of the reference implementations, a fixture for one thread."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
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


NEEDS_TORCH = re.compile(
    r"^(import torch|from torch|from sdetools\.(bridge|recipes)|import sdetools\.(bridge|recipes)|from backends )", re.MULTILINE
)
HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore files that import torch where it is not installed, as with Pythons for which it is a download of gigabytes."""
    if HAS_TORCH or collection_path.suffix != ".py":
        return None
    own = collection_path.parent.name in ("bridge", "recipes") or collection_path.name.startswith("torch")
    return True if own or NEEDS_TORCH.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of a test with the marker `sample(n)` as slow, but for n of them, evenly spread."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for those in cases.values():
        (n,) = those[0].get_closest_marker("sample").args  # type: ignore[union-attr]
        kept = {len(those) * i // n for i in range(n)}
        for i, item in enumerate(those):
            if len(those) > n and i not in kept:
                item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Iterator[None]:
    """Skip a test that imports torch where it is not installed."""
    try:
        return (yield)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not (isinstance(cause, ModuleNotFoundError) and cause.name == "torch"):
            cause = cause.__cause__ or cause.__context__
        if HAS_TORCH or cause is None:
            raise
        pytest.skip("torch is not installed")


def pytest_report_header() -> str | None:
    """Say so."""
    return (
        None
        if HAS_TORCH
        else "torch is not installed: the files that import it are not collected, and tests that need it are skipped"
    )


@pytest.fixture
def single() -> dict:
    """Return the keyword arguments of a run on one thread."""
    return {"threads": 1}
