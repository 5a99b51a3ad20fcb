"""Tests of compilation ahead of time: cached kernels, unchanged results, and no process where the cache has kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

CLAIMS = """
import sdetools as st

@st.claim("first", statement="Waits until the other process has compiled a kernel, or for a minute.")
def first(run):
    import os, pathlib, time
    folder = pathlib.Path(os.environ["SDETOOLS_CACHE"]) / "kernels"
    begin = time.monotonic()
    while os.environ.get("WAIT") and not list(folder.glob("k*.py")) and time.monotonic() - begin < 60:
        time.sleep(0.1)
    run.measure("kernels of the other process", float(len(list(folder.glob("k*.py")))), at_least=0.0)

@st.claim("second", statement="E x^2 of a walk.")
def second(run):
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=1.0)
    found = st.simulate(st.SGD(oracle, st.schedules.constant(0.5)), [1.0], 2.0, observe=["x**2"], **run.options()).at("x**2")
    run.measure("E x^2", found, expected=0.335, tolerance=0.1)
    with run.control("twice the value"):
        run.measure("E x^2", found, expected=0.67, tolerance=0.1)
"""


def verify(folder, name, *more, wait=False):
    environment = dict(os.environ, SDETOOLS_CACHE=str(folder / f"cache-{name}")) | ({"WAIT": "1"} if wait else {})
    command = [sys.executable, "-m", "sdetools.cli", "verify", str(folder / "claims.py"), "--out", str(folder / name), *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads((folder / name / "results.json").read_text())["claims"]
    return {c["id"]: c for c in found}


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="with one core nothing is compiled ahead")
def test_the_other_process_compiles_kernels_and_does_not_change_results(tmp_path):
    (tmp_path / "claims.py").write_text(CLAIMS)
    ahead, alone = verify(tmp_path, "ahead", "--ahead", wait=True), verify(tmp_path, "alone")
    assert ahead["first"]["measurements"][0]["value"] >= 1 and alone["first"]["measurements"][0]["value"] == 0
    assert ahead["second"]["measurements"] == alone["second"]["measurements"] and ahead["second"]["verdict"] == "supported"


def test_no_process_starts_with_cached_kernels_and_none_outlives_the_run(tmp_path, monkeypatch):
    from sdetools.claims import ahead, collect

    (tmp_path / "claims.py").write_text(CLAIMS)
    claims, started = collect(tmp_path), []
    real = subprocess.Popen

    def popen(*args, **more):
        started.append(real([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    monkeypatch.setattr(ahead.subprocess, "Popen", popen)
    monkeypatch.setattr(ahead.os, "cpu_count", lambda: 2)
    for cold, many, expected in ((False, claims, 0), (True, claims[:1], 0), (True, claims, 1)):
        monkeypatch.setattr(ahead, "_cache_is_empty", lambda cold=cold: cold)
        begin = time.monotonic()
        with ahead.compiling_ahead(many):
            assert len(started) == expected
        assert time.monotonic() - begin < 10
    assert started[0].poll() is not None
