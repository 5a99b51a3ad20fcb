"""`sdetools sweep`: the library's numbers, resumed to the same text, and invalid input that writes nothing."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import sdetools as st
from sdetools.cli import main

POINT = [
    "--loss",
    "(x*y - 1)**2 / 2",
    "--variables",
    "x y",
    "--x0",
    "2,0.5",
    "--observe",
    "x",
    "--paths",
    "600",
    "--horizon",
    "0.5",
]
GRID = ["--eta", "0.125,0.0625", "--beta", "0.5,0.75"]


def call(*arguments):
    return CliRunner().invoke(main, ["sweep", *map(str, arguments)])


def test_the_numbers_are_those_of_the_library(tmp_path):
    done = call(*POINT, *GRID, "--seed", 7, "--seeds", 2, "--out", tmp_path / "out", "--plot", tmp_path / "map.png")
    assert done.exit_code == 0, done.output
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["store.sqlite", "sweep.csv", "sweep.svg"]
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    head, *rows = ((line.split(",")) for line in (tmp_path / "out" / "sweep.csv").read_text().splitlines())
    found = {tuple(float(row[head.index(name)]) for name in ("eta", "beta", "seed")): float(row[head.index("x")]) for row in rows}
    assert sorted(found) == [(eta, beta, seed) for eta in (0.0625, 0.125) for beta in (0.5, 0.75) for seed in (7, 8)]
    oracle = st.NoisyOracle(
        st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y"), st.noise.gaussian(dim=2), sigma=0.125**-0.5
    )
    plan = st.schedules.constant(eta=0.125, beta=0.75)
    gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [2.0, 0.5], 0.5, 600, ["x"], seed=8)
    assert found[0.125, 0.75, 8] == gap.sup("x").value
    assert len(done.stdout.splitlines()) == 5 and done.stdout.split()[:3] == ["eta", "beta", "variable"]


def test_a_resumed_sweep_prints_the_same_and_another_grid_is_refused(tmp_path):
    first = call(*POINT, *GRID, "--out", tmp_path)
    again = call(*POINT, *GRID, "--out", tmp_path, "--resume", "--executor", "threads:2")
    assert (first.exit_code, again.exit_code) == (0, 0) and again.stdout == first.stdout
    other = call(*POINT, "--eta", "0.125", "--out", tmp_path, "--resume")
    assert other.exit_code == 2 and "belongs to another experiment" in other.stderr and other.stderr.count("\n") == 1


def test_processes_print_the_same():
    assert call(*POINT, *GRID, "--executor", "processes:2").stdout == call(*POINT, *GRID).stdout


def test_a_point_that_fails_is_named_or_recorded():
    """A horizon of half a step."""
    given = [*POINT[:-1], "0.125", "--eta", "0.125,0.25"]
    done = call(*given)
    assert done.exit_code == 2 and done.stdout == "" and "at the point eta=0.25, beta=0.9, seed=0" in done.stderr
    assert done.stderr.count("\n") == 1
    recorded = call(*given, "--errors", "record")
    assert recorded.exit_code == 0 and "failed" in recorded.stdout and "1 points failed" in recorded.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--eta", "0.1,zero"], "`eta` must be numbers separated by commas"),
        (["--eta", "0.1", "--beta", "0.5,1"], "`beta` must lie in [0, 1)"),
        (["--eta", "0.1", "--plot", "map.nothing"], "`plot` must be a file of a format that can be drawn"),
        (["--eta", "0.1", "--plot", "none/map.png"], "`plot` must lie in a folder that exists"),
        (["--eta", "0.1", "--resume"], "--resume needs --out"),
        (["--eta", "0.1", "--precision", "0.1"], "--paths and --precision are mutually exclusive"),
        (["--eta", "0.1,0.1"], "`eta` must be different values"),
    ],
)
def test_invalid_input_writes_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    done = call(*POINT, *arguments, *([] if "--resume" in arguments else ["--out", "out"]))
    assert done.exit_code == 2 and words in done.stderr and done.stdout == "" and done.stderr.count("\n") == 1
    assert list(tmp_path.rglob("*.csv")) == list(tmp_path.rglob("*.svg")) == []
