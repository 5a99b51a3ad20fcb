"""Ctrl-C and SIGTERM in real processes: one line says what is kept and how to resume, and the resumed run has the same bits."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sdetools as st
from sdetools.simulation.interruption import interruptible

TOP = Path(__file__).resolve().parents[2]
COMMAND = ["gap", "--loss", "x**2/2", "--x0", "1", "--eta", "0.01", "--observe", "x", "--threads", "1"]
SCRIPT = """
import sdetools as st
oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))
st.simulate(st.SGD(oracle, st.schedules.constant(0.01)), [1.0], 1.0, 10**9, ["x"], threads=1, store={store!r})
"""
SWEEP = """
import time, sdetools as st
def slow(a):
    time.sleep(0.2)
    return a / 3
st.sweep(slow, a=list(range(1000)), store={store!r})
"""


def stored(file: Path) -> int:
    """Return the number of finished chunks or points in a store."""
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    except sqlite3.Error:
        return 0


def interrupted(words, store, number) -> tuple[int, list[str]]:
    """Start a process, send it a signal when its store has a row, and return its exit code and the lines of its error output.

    Tests that run in the background of a shell ignore Ctrl-C, and would hand this on: the process begins with the default action.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        begin = time.monotonic()
        while not stored(store) and process.poll() is None and time.monotonic() - begin < 120:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert stored(store) > 0
    return process.returncode, errors.splitlines()


@pytest.mark.parametrize("text, what", [(SCRIPT, "chunks"), (SWEEP, "points")], ids=["simulate", "sweep"])
def test_ctrl_c_in_a_script_ends_in_one_line(tmp_path, text, what):
    store = tmp_path / "run.sqlite"
    code, lines = interrupted(["-c", text.format(store=str(store))], store, signal.SIGINT)
    assert code == -signal.SIGINT
    assert lines[-1] == (
        f"KeyboardInterrupt: interrupted; the finished {what} are kept in {store}: "
        "run again with resume=True, or with --resume at the command line"
    )
    assert sum(line.startswith("Traceback") for line in lines) == 1


@pytest.mark.sample(1)
@pytest.mark.parametrize("number, code, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_at_the_command_line_ends_in_one_line(tmp_path, number, code, word):
    out = tmp_path / "out"
    words = [*COMMAND, "--paths", str(10**9), "--out", str(out)]
    ended, lines = interrupted(["-m", "sdetools", *words], out / "store.sqlite", number)
    assert ended == code
    assert lines == [f"sdetools: {word}; what is finished is kept; to resume: sdetools {' '.join(map(_quoted, words))} --resume"]


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def test_the_message_of_an_inner_run_stays_where_the_outer_one_keeps_nothing():
    with (
        pytest.raises(KeyboardInterrupt, match="kept in inner"),
        interruptible(lambda: None),
        interruptible(lambda: "kept in inner"),
    ):
        raise KeyboardInterrupt
    with (
        pytest.raises(KeyboardInterrupt, match="kept in outer"),
        interruptible(lambda: "kept in outer"),
        interruptible(lambda: "inner"),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt, match="nothing is kept without a store"), interruptible(lambda: None):
        raise KeyboardInterrupt


def test_other_errors_pass_unchanged():
    with pytest.raises(ValueError, match="own"), interruptible(lambda: "kept"):
        raise ValueError("own")


def test_a_resumed_simulation_has_the_same_bits(tmp_path):
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))
    given = dict(
        dynamics=st.SGD(oracle, st.schedules.constant(0.125)), x0=[1.0], horizon=1.0, paths=5000, observe=["x"], threads=1
    )
    calls = []

    def report(done, total):
        calls.append(done)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the finished chunks are kept in"):
        st.simulate(**given, store=tmp_path / "s", progress=report)
    again, whole = st.simulate(**given, store=tmp_path / "s", resume=True), st.simulate(**given)
    assert again.statistics.sums.groups.tobytes() == whole.statistics.sums.groups.tobytes()
