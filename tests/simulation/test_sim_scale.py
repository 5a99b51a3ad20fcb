"""Units of work: the tree of sums, and results that do not depend on the division into chunks, the workers, or the order of arrival."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import random
import sqlite3
import threading
import tracemalloc
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import sdetools as st
from sdetools.simulation import engine
from sdetools.simulation.chunk_batches import Arrays
from sdetools.simulation.chunks import NEVER, ChunkResult, make_task
from sdetools.simulation.engine import execute
from sdetools.simulation.layout import LEAST_WORK, MOST_CHUNKS, MOST_WORK, Layout, wanted_leaves
from sdetools.simulation.philox import Stream
from sdetools.simulation.records import GROUPS, LEAF, PAIR, SINGLE, Columns, Tree, Trees, leaf_counts, of_leaves
from sdetools.simulation.store import Store, StoreError
from sdetools.simulation.trajectories import stored
from sdetools.studies.means import make_program

PATHS = LEAF * (GROUPS * 66 + 37) + 19
"""67 leaves a group: a group has two chunks of 64 leaves, and the last group is incomplete."""
ETA = 0.25
WALK = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.rademacher(1))
MANY = st.NoisyOracle(st.losses.from_expression("x**4/4 - x**2/2"), st.noise.gaussian(dim=1), sigma=3.5)


def pair(oracle=WALK, steps=2, observe=("x**2", "x"), times="all"):
    """The program of SGDM and SGD."""
    plan = st.schedules.constant(ETA, 0.5)
    members = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    return make_program(members, [1.0], steps * ETA, list(observe), times, (), True, True)[0]


def single(oracle=WALK, steps=2):
    """The program of SGD."""
    return make_program((st.SGD(oracle, st.schedules.constant(ETA)),), [1.0], steps * ETA, ["x**2", "x"], "all", (), False, True)[
        0
    ]


def assert_same(a, b):
    """Asserts that two results are the same, to the bit."""
    for field in ("groups", "counts", "diverged", "first_divergence", "points"):
        x, y = getattr(a, field), getattr(b, field)
        assert (x is None and y is None) or x.tobytes() == y.tobytes(), field


# -- the tree -------------------------------------------------------------------------------------------------------------------


def node(leaves, counts):
    """The node of a range of leaves, by recursion on Python's numbers: split at the largest power of two below the length."""
    if len(leaves) == 1:
        return leaves[0], counts[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    (a, n), (b, m) = node(leaves[:half], counts[:half]), node(leaves[half:], counts[half:])
    share = m / (n + m)
    step = {name: b[name] - a[name] for name in "xzdc"}
    out = {name: a[name] + share * step[name] for name in "xzdc"}
    for name, (u, v) in {"x2": "xx", "z2": "zz", "d2": "dd", "c2": "cc", "dc": "dc"}.items():
        out[name] = (a[name] + b[name]) + (n * share * step[u]) * step[v]
    return out, n + m


def leaves_of(paths, seed=0):
    """The moments of the leaves of a random pair, and its four rows: means of size 10^3 with standard deviations of 1."""
    rng = np.random.default_rng(seed)
    x, z, c = np.array([[1e3], [999.0], [0.0]]) + rng.standard_normal((3, paths))
    return Arrays().moments(PAIR, [x, z, c], paths)[:, 0], np.array([x, z, x - z, c])


def compiled(moments, lengths, paths):
    """The nodes of the same leaves, from the function that kernels call."""
    from sdetools.simulation import launch, library

    made = launch.Nodes(PAIR, (1, 1), lengths)
    for leaf, count in zip(moments, leaf_counts(paths).tolist()):
        made.leaf[0, 0] = leaf
        library.function("carry").ctypes(made.tree, count, 0, 0, 0, 0)
    return made.sums[:, 0, 0], made.counts


@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 32, 37])
def test_every_implementation_of_the_tree_equals_the_recursion(leaves):
    """All implementations of the joins against the recursion, and nodes that arrive in random order."""
    paths = leaves * LEAF - 100
    moments, _ = leaves_of(paths)
    counts = leaf_counts(paths)
    expected, n = node([dict(zip(PAIR.names, leaf.tolist())) for leaf in moments], counts.tolist())
    expected = np.array([expected[name] for name in PAIR.names])
    together = Trees([leaves], paths)
    made, made_counts = compiled(moments, [leaves], paths)
    assert n == paths == together.counts[0] == made_counts[0]
    assert together(PAIR, moments[:, None].copy())[0, 0].tobytes() == expected.tobytes() == made[0].tobytes()
    for seed in range(3):
        tree, order, root = Tree(PAIR, leaves), list(range(leaves)), None
        tree.span, tree.top = leaves, (leaves - 1).bit_length()  # a single group
        random.Random(seed).shuffle(order)
        for i in order:
            assert root is None
            root = tree.add(0, 0, i, moments[i], int(counts[i]))
        assert root[0].tobytes() == expected.tobytes() and root[1] == paths and not tree.waiting
    if leaves > 3:  # negative control: a sequential sum has another order, and other bits
        row = moments[0]
        for i in range(1, leaves):
            row = Trees([2], 2 * LEAF)(PAIR, np.array([[row], [moments[i]]]))[0, 0]
        assert row.tobytes() != expected.tobytes()


def test_nodes_of_several_lengths_at_once():
    """Nodes that are computed together equal those computed alone."""
    lengths, paths = [4, 4, 1, 7, 2], 18 * LEAF - 5
    moments, _ = leaves_of(paths)
    ends = np.cumsum(lengths)
    trees = Trees(lengths, paths)
    got = trees(PAIR, moments[:, None].copy())[:, 0]
    made, counts = compiled(moments, lengths, paths)
    assert got.tobytes() == made.tobytes() and trees.counts.tolist() == counts.tolist() and counts.sum() == paths
    for own, end, length in zip(got, ends, lengths):
        alone = Trees([length], min(paths, end * LEAF) - (end - length) * LEAF)
        assert own.tobytes() == alone(PAIR, moments[end - length : end, None].copy())[0, 0].tobytes()


@pytest.mark.parametrize("paths", [1, 2, 255, 256, 257, 5 * LEAF + 19])
def test_moments_of_a_tree_against_exact_sums(paths):
    """Moments against fractions.

    A deviation of 1 from 10^3 is the difference of values with rounding errors of 10^3 eps: 1e-12 a path and product, 4e-16 of a
    mean.
    """
    moments, rows = leaves_of(paths, seed=paths)
    got = dict(zip(PAIR.names, Trees([len(moments)], paths)(PAIR, moments[:, None])[0, 0].tolist()))
    exact = {name: [Fraction(v) for v in row.tolist()] for name, row in zip(PAIR.means, rows)}
    mean = {name: sum(row) / paths for name, row in exact.items()}
    for name in PAIR.means:
        assert abs(got[name] - mean[name]) <= 2e-15 * max(1, abs(mean[name])), name
    for name, (a, b) in PAIR.products.items():
        expected = sum((u - mean[a]) * (v - mean[b]) for u, v in zip(exact[a], exact[b]))
        assert abs(got[name] - expected) <= 1e-12 * paths, name


def test_positions_of_statistics():
    """Statistics in another order, with their positions and values."""
    own = Columns(("u2", "v", "u", "uv"), {"u2": ("u", "u"), "uv": ("u", "v")})
    assert own.means == ("v", "u") and own.table.tolist() == [[2, 2], [-1, -1], [-1, -1], [2, 1]]
    u, v = np.random.default_rng(1).standard_normal((2, LEAF))
    found = dict(zip(own.names, of_leaves(own, np.array([v, u])[:, None], np.array([LEAF]))))
    apart_u, apart_v = u - math.fsum(u) / LEAF, v - math.fsum(v) / LEAF
    for name, expected in dict(u2=apart_u @ apart_u, v=v.mean(), u=u.mean(), uv=apart_u @ apart_v).items():
        assert found[name][0] == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert [len(SINGLE), len(PAIR)] == [2, 9] and SINGLE.table.tolist() == [[-1, -1], [0, 0]]


# -- the layout -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paths", [1, 256, 257, 65_536, 65_537, 1_000_000, PATHS])
@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 5, 64, 67, 1000, 10**6])
def test_chunks_are_nodes_and_contain_every_path(paths, wanted):
    """Every path is in exactly one chunk, and chunks are nodes of the tree."""
    layout = Layout(paths, wanted)
    span = math.ceil(math.ceil(paths / LEAF) / GROUPS)
    at, seen = 0, set()
    for index in range(layout.chunks):
        chunk = layout.chunk(index)
        assert chunk.first == at and chunk.paths > 0 and sum(chunk.lengths) == math.ceil(chunk.paths / LEAF) <= max(1, wanted)
        at += chunk.paths
        for g, length in enumerate(chunk.lengths, chunk.group):
            begin = g * span + (chunk.index << chunk.level)
            own = min((chunk.index + 1) << chunk.level, span, math.ceil(paths / LEAF) - g * span) - (chunk.index << chunk.level)
            assert length == own and (begin, g) not in seen
            seen.add((begin, g))
    assert at == paths


@pytest.mark.parametrize("steps", [1, 100, 10**6])
@pytest.mark.parametrize("paths", [1, 10**4, 10**6, 10**9, 10**12])
def test_sizes_of_chunks_follow_the_work(paths, steps):
    """Between the bounds in operations, unless a leaf takes more, a run takes less, or there would be too many chunks."""
    leaves = wanted_leaves(paths, 6.0 * steps)
    layout = Layout(paths, leaves)
    work = layout.size * LEAF * 6.0 * steps
    assert layout.chunks <= MOST_CHUNKS
    if layout.size > 1 and layout.chunks < MOST_CHUNKS // 2:
        assert work <= MOST_WORK
    if layout.chunks > GROUPS:
        assert work >= MOST_WORK / 4
    if layout.chunks > 1:
        assert work >= LEAST_WORK / 2
    assert wanted_leaves(paths, 6.0 * steps, most=64) <= 64


# -- the same bits --------------------------------------------------------------------------------------------------------------


class Shuffled(Executor):
    """An executor that completes its tasks in random order, one of them whenever nine are pending."""

    _max_workers = 3

    def __init__(self, chunks, seed=0):
        self.chunks, self.random, self.tasks, self.order = chunks, random.Random(seed), [], []

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        self.tasks.append((future, fn, args))
        while self.tasks and (len(self.tasks) == 9 or args[1] == self.chunks - 1):
            f, run, a = self.tasks.pop(self.random.randrange(len(self.tasks)))
            f.set_running_or_notify_cancel()
            f.set_result(run(*a))
            self.order.append(a[1])
        return future


@pytest.fixture(scope="module")
def whole():
    """The result on one thread."""
    return execute(pair(), PATHS, seed=1, threads=1)


@pytest.mark.sample(1)
@pytest.mark.parametrize("leaves", [1, 2, 4, 64, 67, 1000])
def test_any_size_of_chunks(whole, leaves):
    """The size of chunks does not affect the result."""
    assert_same(execute(pair(), PATHS, seed=1, threads=1, leaves=leaves), whole)


@pytest.mark.sample(1)
@pytest.mark.parametrize("operations", [1e-3, 1e9])
def test_any_count_of_operations(whole, operations):
    """The assumed cost of a step does not affect the result."""
    assert_same(execute(pair(), PATHS, seed=1, threads=2, operations=operations), whole)


def test_another_seed_gives_other_bits(whole):
    """Negative control."""
    assert execute(pair(), PATHS, seed=2, threads=1).groups.tobytes() != whole.groups.tobytes()


@pytest.mark.sample(1)
@pytest.mark.parametrize("leaves", [1, 4, 64])
def test_any_order_of_arrival(whole, leaves):
    """The order of arrival does not affect the result."""
    chunks = Layout(PATHS, leaves).chunks
    pool = Shuffled(chunks, seed=leaves)
    assert_same(execute(pair(), PATHS, seed=1, executor=pool, leaves=leaves), whole)
    assert sorted(pool.order) == list(range(chunks)) != pool.order


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_threads(whole, threads):
    """The number of threads does not affect the result."""
    assert_same(execute(pair(), PATHS, seed=1, threads=threads, leaves=16), whole)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_processes(whole, how):
    """Forked and spawned processes give the same result."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(how)) as pool:
        assert_same(execute(pair(), PATHS, seed=1, executor=pool, leaves=32), whole)


@pytest.mark.sample(1)
@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
@pytest.mark.parametrize("program", [single, pair])
def test_every_backend_with_final_points_and_diverged_paths(backend, program):
    """The result of every backend does not depend on chunks, with final points and diverged paths.

    Groups have two leaves, and the last leaf is incomplete. Each diverged path is counted once, at the divergence time of the whole
    run.
    """
    if backend == "torch":
        pytest.importorskip("torch")
    paths = LEAF * (GROUPS + 40) - 7
    given = dict(paths=paths, seed=5, threads=1, keep=True, backend=backend)
    runs = [execute(program(MANY, steps=12), leaves=leaves, **given) for leaves in (None, 1, 4)]
    assert 0 < runs[0].diverged[-1] < paths and runs[0].first_divergence[-1] > 0
    for run in runs[1:]:
        assert_same(run, runs[0])
    assert runs[0].counts.tolist()[:147] == [2 * LEAF] * 147 and runs[0].counts.sum() == paths


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_means_are_those_of_the_points(backend):
    """Means and sums of squares of each group against its final points."""
    paths = LEAF * (GROUPS * 2 + 5) - 7
    run = execute(single(), paths, seed=5, threads=2, keep=True, backend=backend, leaves=2)
    for g, ends in enumerate(np.split(run.points[0], range(3 * LEAF, paths, 3 * LEAF))):
        mean = math.fsum(ends) / len(ends)
        assert run.groups[g, -1, 1, 0] == pytest.approx(mean, abs=1e-15)
        assert run.groups[g, -1, 1, 1] == pytest.approx(math.fsum((ends - mean) ** 2), rel=1e-13)


class Stop(Exception):
    """Interrupts a run."""

    pass


@pytest.mark.sample(3)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", [1, 30, 500])
def test_stopped_and_resumed(whole, tmp_path, after, threads):
    """An interrupted run is resumed, also with chunks missing in the middle: those are run, and no others."""
    chunks, calls = Layout(PATHS, 16).chunks, []

    def progress(done, total):
        calls.append(done)
        if len(calls) == after:
            raise Stop

    given = dict(paths=PATHS, seed=1, leaves=16)
    with Store(tmp_path / "s.db", "mine") as store, pytest.raises(Stop):
        execute(pair(), store=store, progress=progress, threads=threads, **given)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("DELETE FROM chunks WHERE chunk % 7 = 3")
        kept = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    connection.close()
    ran, true_run, lock = [], engine.run_chunk, threading.Lock()

    def counted(task, index):
        with lock:
            ran.append(index)
        return true_run(task, index)

    with Store(tmp_path / "s.db", "mine", resume=True) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_chunk", counted)
        assert_same(execute(pair(), store=store, threads=threads, **given), whole)
    assert len(ran) == len(set(ran)) == chunks - kept


# -- stores ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored_version", "layout"), [(0, 1), (2, 2)])
def test_a_store_of_an_old_layout_is_refused(tmp_path, stored_version, layout):
    """Stores of earlier versions are refused by name of the versions, and replaced by a new run."""
    path = tmp_path / "s.db"
    with Store(path, "mine") as store:
        execute(pair(), 3000, seed=1, store=store)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        connection.execute(f"PRAGMA user_version = {stored_version}")  # as in earlier versions
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=rf"another order of summation .*\(its layout is {layout}, the current one is 3\).*run without resuming"
    ):
        Store(path, "mine", resume=True)
    assert path.read_bytes() == before
    with Store(path, "mine") as store:  # without resuming it is replaced, like any store
        execute(pair(), 3000, seed=1, store=store)
    Store(path, "mine", resume=True).close()


def test_rows_are_read_one_by_one(tmp_path):
    """Rows before a damaged row are read; a store need not fit into memory."""
    path = tmp_path / "s.db"
    with Store(path, "mine") as store:
        for chunk in (5, 0, 3):
            store.save("a", chunk, stub(make_stub(pair(), 8 * LEAF), chunk))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE chunks SET crc = crc + 1 WHERE chunk = 5")
    connection.close()
    with Store(path, "mine", resume=True) as store:
        rows = store.load("a")
        assert [next(rows)[0], next(rows)[0]] == [0, 3]
        with pytest.raises(StoreError, match="chunk 5"):
            next(rows)
        assert list(store.load("b")) == []


# -- the coordinator ------------------------------------------------------------------------------------------------------------


def make_stub(program, paths, leaves=1):
    """A task for chunks that are not run."""
    return make_task(program, 1, Stream(0), paths, leaves, stored(program), "numpy")


def stub(task, index):
    """A chunk that takes no work."""
    chunk = task.layout.chunk(index)
    sums = np.full((len(chunk.lengths), *task.shape, len(task.statistics)), float(index))
    return ChunkResult(
        sums,
        np.array([chunk.paths]),
        np.zeros(task.members, np.int64),
        np.full(task.members, NEVER),
        np.empty((0, 0, 0)),
    )


@pytest.mark.slow
def test_memory_is_bounded_by_the_window(monkeypatch):
    """Memory holds the groups, and for each chunk in flight one node a level.

    There are 10^4 chunks, 40 leaves a group, in random order. All nodes would take 26 MB.
    """
    monkeypatch.setattr(engine, "run_chunk", stub)
    program, chunks = pair(steps=17), 10_000
    bytes_each = 18 * 2 * len(PAIR) * 8
    given = dict(paths=chunks * LEAF, seed=1, leaves=1, backend="numpy")
    execute(program, executor=Shuffled(chunks), **given)  # imports happen here
    tracemalloc.start()
    run = execute(program, executor=Shuffled(chunks), **given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert run.counts.sum() == chunks * LEAF
    levels, most = (math.ceil(chunks / GROUPS) - 1).bit_length() + 1, 3 * Shuffled._max_workers
    bound = 2 * GROUPS * bytes_each + 2 * most * levels * bytes_each + (1 << 20)
    assert peak < bound < chunks * bytes_each / 4
    tracemalloc.start()  # negative control: results that are kept are detected
    kept = [stub(make_stub(program, chunks * LEAF), i) for i in range(chunks)]
    assert tracemalloc.get_traced_memory()[1] > bound and len(kept) == chunks
    tracemalloc.stop()


def test_a_slow_chunk_does_not_block_others(monkeypatch):
    """The first chunk ends last: all others continue, and one node a level waits for it."""
    monkeypatch.setattr(engine, "run_chunk", stub)
    waited, add = [], Tree.add

    def watched(self, *node):
        made = add(self, *node)
        waited.append(len(self.waiting))
        return made

    monkeypatch.setattr(Tree, "add", watched)
    chunks = 3000

    class Late(Executor):
        _max_workers = 1

        def submit(self, fn, /, task, index):
            future: Future = Future()
            if index == 0:
                self.first = future, fn(task, index)
            else:
                future.set_result(fn(task, index))
            if index == chunks - 1:
                self.first[0].set_result(self.first[1])
            return future

    execute(pair(), paths=chunks * LEAF, seed=1, leaves=1, backend="numpy", executor=Late())
    assert len(waited) == chunks and max(waited) <= 2 * (math.ceil(chunks / GROUPS) - 1).bit_length()
    assert waited[-1] == 0


def test_chunks_in_flight_are_few_and_in_order(monkeypatch):
    """Chunks are submitted in order, three for each worker at a time."""
    monkeypatch.setattr(engine, "run_chunk", stub)
    chunks, flying, most, order = 500, 0, 0, []

    class Watched(Shuffled):
        def submit(self, fn, /, task, index):
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            order.append(index)
            return super().submit(self.landing, fn, index)

        def landing(self, fn, index):
            nonlocal flying
            flying -= 1
            return fn(self.task, index)

    pool = Watched(chunks)
    pool.task = replace(make_stub(pair(), chunks * LEAF))
    execute(pair(), paths=chunks * LEAF, seed=1, leaves=1, backend="numpy", executor=pool)
    assert order == list(range(chunks)) and most == 3 * Watched._max_workers


def test_a_task_is_sent_once_and_read_once():
    """A task is unpickled once in a process."""
    task = make_stub(pair(), 1000)
    sent = pickle.dumps(task)
    first, second = pickle.loads(sent), pickle.loads(pickle.dumps(task))
    assert first is second and first is not task
    assert (first.layout, first.shape, first.statistics.names) == (task.layout, task.shape, task.statistics.names)
    other = pickle.loads(pickle.dumps(make_stub(pair(), 1001)))  # negative control
    assert other is not first and other.layout.paths == 1001
