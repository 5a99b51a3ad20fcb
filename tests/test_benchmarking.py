"""Measurements and output of `sdetools bench`. No test depends on timings, as the machine may be busy."""

import dataclasses
import json
import math

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from sdetools.benchmarking import dimension, first_result
from sdetools.benchmarking.cases import DIMS, PROBLEMS, regression, runner, sgdm, symmetric
from sdetools.benchmarking.dimension import Effort, dimension_table
from sdetools.benchmarking.dimension_table import Cell, Comparison, DimensionTable, LeftOut
from sdetools.benchmarking.implementations import Implementation, run_interleaved
from sdetools.benchmarking.machine import topology
from sdetools.benchmarking.roofline import draws, probes, product, roofline
from sdetools.cli.bench_command import main

TINY = Effort(seconds=1e-3, rounds=1, first=False)


@pytest.fixture(scope="module")
def found():
    """A table measured with minimal effort."""
    return dimension_table((3, 1, 2, 2), 2, TINY)


def cell(problem="dense quadratic", dim=2, ns=1.1, limit=1.0, bound=1.15, first=1.0, again=0.2):
    """Return a cell with the given numbers."""
    return Cell(problem, dim, 256, 1024, 100, ns, limit, 0.9, 50.0, 45.0, bound, first, again)


# ---- what is measured


@pytest.mark.slow
def test_cells_are_those_of_the_problems(found):
    """Cells cover the problems at their dimensions."""
    assert [(c.problem, c.dim) for c in found.cells] == [
        *(("dense quadratic", d) for d in (1, 2, 3)),
        *(("double well", d) for d in (1, 2, 3)),
        ("diagonal network", 2),  # u and v have equally many coordinates
        ("network, batches", 2),
    ]
    assert not found.left_out


def test_the_roofline_of_a_cell_is_flops_at_the_peak_and_its_draws(found):
    """The limit of a cell is flops over peak plus draws."""
    for c in found.cells:
        batch = 32 if c.problem == "network, batches" else 0
        flops, drawn = 0.0 if c.problem == "double well" else 2.0 * (c.dim + batch), batch / c.dim if batch else 1.0
        assert c.limit == pytest.approx(drawn * c.normal + (flops / c.peak if flops else 0.0), rel=1e-12)
        assert c.peak >= c.peak_at_dim >= 0.0
        assert (c.peak > 0) == (flops > 0)
        assert c.lanes == 256 and c.paths % 256 == 0 and c.steps >= 1 and math.isfinite(c.ns)
        assert c.first is None and c.again is None


def test_bounds_are_the_documented_ones():
    """Bounds and dimensions of every problem."""
    assert [PROBLEMS["dense quadratic"].bound(d) for d in DIMS] == [1.15] * 4 + [1.25] * 2 + [1.15] * 5
    assert {PROBLEMS["double well"].bound(d) for d in DIMS} == {1.3}
    assert {PROBLEMS[name].bound(d) for d in DIMS for name in ("diagonal network", "network, batches")} == {1.4}
    assert [d for d in DIMS if PROBLEMS["diagonal network"].takes(d)] == [2, 4, 8, 16, 32, 64, 128, 512, 2048]


def test_comparisons_name_threads_and_mark_extrapolation(found):
    """Names and remarks of comparisons."""
    names = [c.name for c in found.comparisons]
    assert names[0] == "coupled pair with control over the single"
    assert "one thread over 2, by the wall" in names
    assert ", of which the threads received " in found.comparisons[1].remark
    assert names[-1] == "seconds for 10^10 two-dimensional path-steps"
    assert found.comparisons[-1].remark.startswith("extrapolated from ") and found.comparisons[-1].bound is None
    assert all(c.value > 0 for c in found.comparisons)


def test_one_thread_is_not_compared_with_itself():
    """There is no thread comparison for one thread."""
    names = [c.name for c in dimension.comparisons(1, False, TINY)]
    assert not any("thread" in name for name in names)


def test_single_precision_is_compared_where_there_is_one(found):
    """Single precision is compared if the library has it."""
    assert any("float32" in c.name for c in found.comparisons) == dimension.has_single_precision()


def test_progress_is_reported_before_each_cell():
    """The callback receives the cell, the number done and the total."""
    seen = []
    dimension_table((1,), 1, TINY, lambda what, done, total: seen.append((what, done, total)))
    assert seen[0] == ("dense quadratic, d = 1", 0, 3)
    assert [done for _, done, _ in seen] == [0, 1, 2, 3]


def test_cells_that_exceed_the_memory_are_left_out(monkeypatch):
    """Cells that exceed the memory are listed, not measured."""
    monkeypatch.setattr(dimension, "COPIES", 1e15)
    made = dimension_table((2,), 1, TINY)
    assert [c.problem for c in made.cells] == ["double well"]
    assert [(o.problem, o.dim) for o in made.left_out] == [(name, 2) for name in PROBLEMS if name != "double well"]
    assert "dense quadratic, d = 2, was left out: it would need" in made.table()


@pytest.mark.parametrize("dims", [(), (0,), (2.5,), (-1, 2), (20_000,), ("2",)])
def test_dimensions_are_positive_integers(dims):
    """Other dimensions are refused."""
    with pytest.raises(ValueError, match="`dims` must"):
        dimension_table(dims, 1, TINY)


@pytest.mark.parametrize("threads", [0, -1, 1.5, 10**6])
def test_threads_are_positive_integers(threads):
    """Other numbers of threads are refused."""
    with pytest.raises(ValueError, match="`threads` must"):
        dimension_table((1,), threads, TINY)


@pytest.mark.slow
def test_an_unseen_loss_is_measured_in_processes_of_its_own():
    """Both times to the first result are positive."""
    unseen, again = first_result.measure("double well", 1)
    assert unseen > 0 and again > 0


# ---- the problems


@pytest.mark.parametrize("d", [1, 2, 7, 64])
def test_the_quadratic_is_dense_symmetric_and_has_known_eigenvalues(d):
    """Properties of the dense quadratic's matrix."""
    H = symmetric(d)
    assert (H == H.T).all()
    assert np.count_nonzero(H) == d * d
    # A reflection rounds each entry by a few units of the last place of the largest eigenvalue, 1.
    assert np.abs(np.linalg.eigvalsh(H) - np.geomspace(0.1, 1.0, d)).max() <= 16 * d * np.finfo(float).eps


def test_gradients_are_those_of_the_formulas():
    """Gradients of all problems agree with their formulas."""
    d, x = 6, np.random.default_rng(3).normal(size=6)
    assert PROBLEMS["dense quadratic"].loss(d, symmetric(d)).gradient(x) == pytest.approx(symmetric(d) @ x, rel=1e-13)
    assert PROBLEMS["double well"].loss(d).gradient(x) == pytest.approx(x**3 - x, rel=1e-13)
    a, y = regression(d)
    assert a.shape == (6, 3) and y.shape == (6,)
    pulled = a.T @ (a @ (x[:3] ** 2 - x[3:] ** 2) - y) / 6
    expected = np.concatenate([2 * pulled * x[:3], -2 * pulled * x[3:]])
    for name in ("diagonal network", "network, batches"):
        assert PROBLEMS[name].loss(d, a, y).gradient(x) == pytest.approx(expected, rel=1e-12)


def test_minibatch_noise_adds_the_cost_of_the_batch_gradient():
    """Batch size, sigma, flops and draws of the minibatch problem."""
    made, problem = PROBLEMS["network, batches"].dynamics(4, *regression(4)), PROBLEMS["network, batches"]
    assert (made.oracle.noise.size, made.oracle.sigma) == (32, 2.0)
    assert (problem.flops_at(4), problem.draws_at(4)) == (72.0, 8.0)


def test_runner_has_the_requested_steps_and_paths():
    """A runner records one time after the requested steps."""
    run = runner(sgdm(PROBLEMS["double well"].loss(2), 2), 2, 512)(7)
    assert run.paths == 512 and run.steps[-1] == 7 and len(run.times) == 1


# ---- the roofline


def test_amount_of_a_probe_is_its_work():
    """Probes of products and draws count their work."""
    made = product(64, 32, "float32", seconds=0.0)
    assert made.amount == 2 * 64 * 64 * 32
    made.work()
    for uniform in (False, True):
        drawn = draws(32, "float64", seconds=0.0, uniform=uniform)
        assert drawn.amount == 64 * 32
        drawn.work()


def test_products_use_one_blas_thread(monkeypatch):
    """The number of BLAS threads is restored after a probe."""
    seen, dot = [], np.dot
    monkeypatch.setattr(np, "dot", lambda a, b, out: seen.append(_blas_threads()) or dot(a, b, out=out))
    with threadpool_limits(limits=2, user_api="blas"):
        assert _blas_threads() == {2}
        product(64, 32, "float64", seconds=0.0).work()
        assert _blas_threads() == {2}
    assert seen == [{1}] * 3


def _blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("dim, expected", [(2, [64, 1024]), (512, [512, 1024]), (1024, [1024]), (1100, [1024, 1100])])
def test_the_peak_is_the_fastest_of_the_square_and_the_dimension(dim, expected):
    """Peak rates and draw time from the probes' seconds."""
    made = probes(dim, 32, "float64", True)
    per = [p.amount / (2.0 * n * n * 32) for p, n in zip(made[1:], expected, strict=True)]
    assert all(p == round(p) for p in per)
    seconds = [made[0].amount, *(p.amount / rate for p, rate in zip(made[1:], (30.0, 20.0)))]
    seen = roofline(made, seconds, dim)
    assert (seen.peak, seen.peak_at_dim) == pytest.approx((30.0, 20.0 if dim > 1024 else 30.0), rel=1e-12)
    assert seen.draw == pytest.approx(1.0, rel=1e-12)


def test_a_loss_without_products_has_the_cost_of_a_normal():
    """Without flops the limit is the time of a draw."""
    made = probes(2, 256, "float64", False)
    assert roofline(made, [made[0].amount * 2e-9], 2).nanoseconds(0.0) == pytest.approx(2.0)


# ---- the machine


@pytest.mark.parametrize(
    "siblings, expected",
    [(("0", "1"), "2 cores"), (("0-1", "0-1"), "2 hardware threads of 1 core"), ((), "2 processors; the system")],
)
def test_cores_are_distinguished_from_hardware_threads(tmp_path, monkeypatch, siblings, expected):
    """Descriptions of the topology from the system's files."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    for i, text in enumerate(siblings):
        (tmp_path / f"cpu{i}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{i}" / "topology" / "thread_siblings_list").write_text(text + "\n")
    assert topology(tmp_path).startswith(expected)


def test_implementations_run_interleaved():
    """Implementations run in the order A B A B."""
    seen = []
    impls = [Implementation(name, 1, lambda paths, name=name: seen.append((name, paths)), paths=4) for name in "ab"]
    run_interleaved(impls, 2)
    assert seen == [("a", 4), ("b", 4)] * 2
    assert [len(impl.seconds) for impl in impls] == [2, 2]


# ---- the result


def test_misses_lists_the_bounds_that_a_cell_exceeds():
    """Descriptions of exceeded bounds."""
    assert cell().misses() == []
    assert cell(ns=1.16).misses() == ["ratio 1.16 > 1.15"]
    assert cell(first=1.6).misses() == ["first result 1.60 s > 1.5"]
    assert cell(first=1.6, dim=10_000).misses() == []
    assert cell(first=2.1, dim=10_000, again=0.4).misses() == ["first result 2.10 s > 2.0", "again 0.40 s > 0.3"]
    assert cell(first=None, again=None).misses() == []


@pytest.mark.parametrize(
    "bound, sense, verdict",
    [
        (1.3, "at most", "holds"),
        (1.1, "at most", "misses"),
        (1.1, "at least", "holds"),
        (1.3, "at least", "misses"),
        (None, "", ""),
    ],
)
def test_verdict_of_a_comparison(bound, sense, verdict):
    """Verdicts for upper, lower and absent bounds."""
    assert Comparison("x", 1.2, bound, sense).verdict == verdict


def test_table_and_figure_contain_every_cell():
    """Contents of the table and of the figure."""
    made = DimensionTable(
        {"processor": "p"}, 2, (cell(), cell("double well", 10_000, ns=3.0)), (Comparison("both", 1.5, 1.4, "at most", "r"),), ()
    )
    text = made.table()
    assert "processor p" in text and "| 10,000 |" in text and "ratio 3.00 > 1.15" in text
    row = next(line for line in text.splitlines() if "both" in line)
    assert [word.strip() for word in row.split("|")[1:-1]] == ["both", "1.5", "at most 1.4", "misses", "r"]
    left, right = made.plot().axes
    assert (left.get_xscale(), left.get_yscale(), right.get_xscale()) == ("log", "log", "log")
    assert [list(line.get_ydata()) for line in left.lines[:4]] == [[1.1], [1.0], [3.0], [1.0]]


def test_a_file_is_read_as_it_was_written(found, tmp_path):
    """Saving and loading returns an equal table, and its JSON has the same numbers."""
    file = tmp_path / "t.nc"
    odd = DimensionTable({"a": 1}, 1, (cell(),), (), (LeftOut("dense quadratic", 10_000, "would need 6 GB of memory"),))
    for made in (found, odd):
        made.save(file)
        assert DimensionTable.load(file) == made
        assert json.loads(made.to_json())["cells"] == [dataclasses.asdict(c) for c in made.cells]


# ---- the command


@pytest.mark.slow
def test_the_command_prints_plots_and_saves(tmp_path, monkeypatch, capsys):
    """Output and files of the command."""
    monkeypatch.setattr(dimension, "QUICK", TINY)
    monkeypatch.chdir(tmp_path)
    assert main(["--dimension", "2,1", "--quick", "--threads", "1", "--plot", "d.svg"]) == 0
    out = capsys.readouterr().out
    assert "wrote bench-dimension.json" in out and "wrote d.svg" in out and "double well" in out
    written = json.loads((tmp_path / "bench-dimension.json").read_text())
    assert {"processor", "numpy", "numba", "blas", "sdetools", "topology", "load"} <= written["hardware"].keys()
    assert [c["dim"] for c in written["cells"]] == [1, 2, 1, 2, 2, 2]
    assert (tmp_path / "d.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dimension", "0"], "`dims` must"),
        (["--dimension", "2,x"], "takes a list like 2,64,512"),
        (["--dimension", "2,,3"], "takes a list like 2,64,512"),
        (["--dimension", "2", "--plot", "d.xyz"], "must end in .png"),
        (["--dimension", "2", "--plot", "nowhere/d.png"], "must be in an existing folder"),
        (["--json", "nowhere/d.json"], "must be in an existing folder"),
        (["--dimension", "2", "--part", "speed"], "exclude each other"),
        (["--plot", "d.png"], "--plot needs --dimension"),
        (["--threads", "0"], "--threads must be between"),
        (["--dimension", "2", "--threads", "5000"], "--threads must be between"),
    ],
)
def test_bad_arguments_are_reported(arguments, message, tmp_path, monkeypatch, capsys):
    """Bad arguments give exit code 2, a message and no file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
