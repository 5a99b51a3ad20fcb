"""Trajectories and slices: they are the paths of the moments, and a rerun gives the same bits whatever the threads and chunks."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

import sdetools as st
from sdetools.simulation import engine
from sdetools.simulation.chunk_batches import Arrays
from sdetools.simulation.engine import execute
from sdetools.simulation.layout import Layout
from sdetools.simulation.records import GROUPS, LEAF, Trees, leaf_counts
from sdetools.simulation.store import Store
from sdetools.studies.means import make_program

BACKENDS = ("numba", "numpy", "torch")
PATHS, ETA = 3 * LEAF + 41, 0.125
PLAN = st.schedules.constant(ETA, 0.75)
RNG = np.random.default_rng(6)
SOME = [700, 3, PATHS - 1, 256, 17, 255, 0]


def sgdm(loss, noise, sigma=0.5, **more):
    """SGDM on a loss."""
    return st.SGDM(st.NoisyOracle(loss, noise, sigma), PLAN, **more)


def dense(dim):
    """A quadratic whose gradient is a matrix product."""
    root = RNG.normal(size=(dim, dim)) / np.sqrt(dim)
    return st.losses.quadratic(root @ root.T)


@cache
def cases():
    """By name: members, start, and options of the program."""
    bowl = st.losses.from_expression("x**2/2 + x**2*y**2/4 + sin(y)", variables="x y")
    well = st.losses.from_expression("(x**2 - 1)**2/4", variables="x")
    data = st.losses.logistic(RNG.normal(size=(24, 3)), np.sign(RNG.normal(size=24)))
    normal, drawn = st.noise.gaussian, {"momentum": ([0.1, 0.2], [0.3, 0.4])}
    first = sgdm(bowl, normal(dim=2), **drawn)
    second = st.SGD(first.oracle, PLAN.averaged())
    law = st.starts.gaussian([1.0, 0.5], 0.04 * np.eye(2))
    wide = RNG.normal(size=300)
    limit = st.LimitSDE(second.oracle, PLAN)
    return {
        "one coordinate": ((sgdm(well, normal(root=[["1 + 0.3*sin(x)"]], variables="x")),), [1.5], {}),
        "signs": ((sgdm(bowl, st.noise.rademacher(2)),), [1.0, 0.5], {}),
        "three coordinates, batches": ((sgdm(data, st.noise.minibatch(data, 4), 1.0),), [0.1, 0.2, 0.3], {}),
        "forty coordinates": ((sgdm(dense(40), normal(dim=40)),), RNG.normal(size=40), {}),
        "matrices of three hundred": ((sgdm(dense(300), normal(dim=300)),), wide, {}),
        "pair with control": ((first, second), law, {"functionals": [st.PathLength()]}),
        "independent pair": ((second, first), law, {"coupled": False}),
        "two step lengths": ((second, st.EulerMaruyama(limit, ETA / 4)), [1.0, 0.5], {}),
        "points in turn": ((second,), RNG.normal(size=(2, 5)), {}),
    }  # fmt: skip


NAMES = tuple(cases())


@cache
def program(name):
    """The program of a case."""
    members, x0, how = cases()[name]
    more = {"functionals": (), "coupled": True} | how
    observe = [*dict.fromkeys((members[0].names[0], members[0].names[-1]))]
    return make_program(members, x0, 5 * ETA, observe, [0.0, ETA, 3 * ETA, 5 * ETA], control=True, **more)[0]


@cache
def ran(name, backend, **how):
    """A run with all states: trajectories of all paths, slices at the recorded times, and final points."""
    if backend == "torch":
        pytest.importorskip("torch")
    p = program(name)
    return execute(p, PATHS, 5, threads=1, keep=True, backend=backend, slices=tuple(p.record), trajectories=range(PATHS), **how)


def same(a, b):
    """Asserts that two arrays are equal, to the bit."""
    np.testing.assert_array_equal(a, b)
    assert a.tobytes() == b.tobytes()


# -- moments of the paths ---------------------------------------------------------------------------------------------------


@pytest.mark.sample(9)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_trajectories_equal_the_states_of_the_run(name, backend):
    """The whole state, at recorded times and at the end, from the main run and from the rerun."""
    run, p = ran(name, backend), program(name)
    rows = p.state_rows.ravel()
    assert run.trajectories.shape == run.slices.shape == (4, len(rows), PATHS)
    same(run.trajectories, run.slices)
    same(run.trajectories[-1, np.isin(rows, p.positions)], run.points)
    assert np.isfinite(run.trajectories[:, rows >= 0]).all() and np.isnan(run.trajectories[:, rows < 0]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_moments_are_those_of_the_paths(name, backend):
    """Means and squares of the first and last coordinate along the tree of leaves, against the run's moments.

    NumPy and torch give the same bits; kernels agree to the rounding of two sums of PATHS terms.
    """
    run, p = ran(name, backend), program(name)
    positions = run.trajectories[:, np.isin(p.state_rows.ravel(), p.positions)].reshape(4, len(p.members), -1, PATHS)
    lengths = [1] * len(leaf_counts(PATHS))
    observed = sorted({0, positions.shape[2] - 1})
    for t in range(4):
        for o, coordinate in enumerate(observed):
            x = dict(zip("xz" if p.pair else "h", positions[t, :, coordinate]))
            leaves = Arrays().moments(p.statistics, [*x.values(), *([np.zeros(PATHS)] if p.pair else [])], PATHS)
            mine = Trees(lengths, PATHS)(p.statistics, leaves)[:, 0]
            for s, name_of in enumerate(p.statistics.names):
                if "c" in name_of:
                    continue  # the control variate is not a function of the position
                theirs = run.groups[: len(lengths), t, o, s]
                if backend != "numba":
                    same(mine[:, s], theirs)
                else:
                    bound = 4 * LEAF * 2.0**-53 * np.abs(np.array([*x.values()])).max() ** (2 if name_of.endswith("2") else 1)
                    np.testing.assert_allclose(theirs, mine[:, s], rtol=0, atol=bound * (LEAF if name_of.endswith("2") else 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mean_without_rounding_is_the_mean_of_the_paths(backend):
    """On a linear loss with signs every number and sum is a small multiple of 1/8, so the means are exactly equal."""
    if backend == "torch":
        pytest.importorskip("torch")
    walk = st.SGD(st.NoisyOracle(st.losses.linear([0.0]), st.noise.rademacher(1)), st.schedules.constant(ETA))
    run = st.simulate(walk, [0.0], 8 * ETA, 1024, ["x0"], trajectories=1024, backend=backend, threads=1)
    np.testing.assert_array_equal(run.trajectories.mean("path").values[:, 0, 0], run.data["mean"].values[:, 0])
    assert np.unique(run.trajectories.values[-1]).size <= 9 and run.trajectories.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_backends_agree_path_by_path(name):
    """Trajectories of the compiled backends against NumPy."""
    slow = ran(name, "numpy").trajectories
    for backend in ("numba", "torch"):
        np.testing.assert_allclose(ran(name, backend).trajectories, slow, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_selected_paths_in_the_requested_order(name, backend):
    """Selected paths, in any order, are the same; those of another seed or index are not (negative control)."""
    p, all_ = program(name), ran(name, backend).trajectories
    some = execute(p, PATHS, 5, threads=1, backend=backend, trajectories=SOME)
    same(some.trajectories, all_[:, :, SOME])
    assert some.points is None and some.slices is None
    same(some.groups, ran(name, backend).groups)
    other = execute(p, PATHS, 6, threads=1, backend=backend, trajectories=SOME).trajectories
    real = p.state_rows.ravel() >= 0
    assert not np.isclose(other[-1, real], some.trajectories[-1, real]).any(axis=1).all()
    assert not np.array_equal(all_[-1, real][:, [701, *SOME[1:]]], some.trajectories[-1, real])


# -- threads, chunks and executors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pair with control", "two step lengths", "matrices of three hundred"])
@pytest.mark.parametrize("how", [{"threads": 2}, {"threads": 7}, {"leaves": 1}, {"leaves": 2, "threads": 2}, {"threads": None}])
def test_the_same_bits_for_any_threads_and_chunks(name, how):
    """Neither threads nor chunks affect trajectories and slices."""
    given = {"threads": 1} | how
    run, whole = execute(program(name), PATHS, 5, trajectories=SOME, slices=[4], **given), ran(name, "numba")
    same(run.trajectories, whole.trajectories[:, :, SOME])
    more = execute(program(name), PATHS, 5, slices=tuple(program(name).record), keep=True, **given)
    same(more.slices, whole.slices)
    same(more.points, whole.points)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("leaves", [1, 2])
def test_reruns_have_the_width_of_the_run(backend, leaves):
    """The last bits of a matrix product depend on its width, so reruns have the width of the run, for chunks of any size."""
    p = program("matrices of three hundred")
    run = execute(p, PATHS, 5, threads=2, leaves=leaves, backend=backend, slices=tuple(p.record), trajectories=SOME)
    same(run.trajectories, run.slices[:, :, SOME])


def test_on_an_executor():
    """Trajectories from an executor."""
    p = program("pair with control")
    with ThreadPoolExecutor(3) as pool:
        run = execute(p, PATHS, 5, executor=pool, leaves=1, trajectories=SOME)
    same(run.trajectories, ran("pair with control", "numba").trajectories[:, :, SOME])


@pytest.mark.parametrize("backend", BACKENDS)
def test_stopped_and_resumed(tmp_path, backend):
    """With chunks missing in the middle: slices are stored with chunks, trajectories are computed again."""
    p = program("matrices of three hundred")
    given = dict(paths=PATHS, seed=5, leaves=1, threads=1, backend=backend, slices=[2, 4], trajectories=SOME, keep=True)
    if backend == "torch":
        pytest.importorskip("torch")
    whole = execute(p, **given)
    with Store(tmp_path / "s.db", "mine") as store:
        execute(p, store=store, **given)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("DELETE FROM chunks WHERE chunk % 3 = 1")
        assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (3,)
    connection.close()
    with Store(tmp_path / "s.db", "mine", resume=True) as store:
        again = execute(p, store=store, **given)
    for field in ("groups", "points", "slices", "trajectories"):
        same(getattr(again, field), getattr(whole, field))


def test_only_chunks_with_selected_paths_are_rerun(monkeypatch):
    """The main run stores nothing for selected paths."""
    seen, run_chunk = [], engine.run_chunk

    def counted(task, index):
        seen.append((task.points.chosen is not None, index, task.points.steps.size))
        return run_chunk(task, index)

    monkeypatch.setattr(engine, "run_chunk", counted)
    execute(program("signs"), 10 * LEAF, 5, threads=1, leaves=1, trajectories=[9 * LEAF, 0, 9 * LEAF + 1, 4 * LEAF - 1])
    assert seen == [(False, i, 0) for i in range(10)] + [(True, i, 4) for i in (0, 3, 9)]


@pytest.mark.parametrize("paths", [1, 300, 256 * GROUPS + 1, 5 * 256 * GROUPS - 700, 10**6])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 7, 64, 1000])
def test_the_chunk_of_a_path(paths, wanted):
    """Against the first and last paths of the chunks."""
    layout = Layout(paths, wanted)
    chunks = [layout.chunk(i) for i in range(layout.chunks)]
    first = np.array([c.first for c in chunks])
    last = first + np.array([c.paths for c in chunks]) - 1
    for ends in (first, last):
        np.testing.assert_array_equal(layout.holding(ends), np.arange(layout.chunks))


def test_trajectories_of_diverged_paths():
    """Diverged paths have the same infinities and NaN in trajectories as in the run, to the bit.

    On x^4 at this learning rate paths that start beyond 4 diverge: the odd ones.
    """
    loss = st.losses.from_expression("x**4/4", variables="x")
    rule = st.SGD(st.NoisyOracle(loss, st.noise.gaussian(dim=1), 2.0), st.schedules.constant(ETA))
    p = make_program((rule,), [[3.0, 6.0]], 12 * ETA, ["x"], "all", (), False, True)[0]
    for backend in BACKENDS:
        run = execute(p, 600, 5, threads=1, backend=backend, slices=tuple(p.record), trajectories=[599, 3, 0, 300])
        assert run.diverged.tolist() == [300]
        same(run.trajectories, run.slices[:, :, [599, 3, 0, 300]])
        np.testing.assert_array_equal(np.isfinite(run.trajectories[-1, 0]), [False, False, True, True])
