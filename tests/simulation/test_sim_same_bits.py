"""Results have the same bits for any threads, processes (forked and spawned), kernels from the cache, and order of arrival."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import naive
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import sdetools as st
from sdetools.simulation.kernel import one_blas_thread
from sdetools.simulation.records import GROUPS

PATHS, ETA = 5000, 0.125


@mock.patch("sdetools.simulation.layout.LEAST_WORK", 1)
def gap(backend="auto", seed=1, paths=PATHS, **how):
    """A pair with everything that a user may write at module level: gradient, root and observable as functions.

    Each chunk is one leaf.
    """
    loss = st.losses.from_function(naive.user_gradient, 2, value=naive.user_value)
    oracle = st.NoisyOracle(loss, st.noise.gaussian(dim=2, root=naive.user_root), sigma=0.7)
    plan = st.schedules.constant(ETA, 0.8)
    return st.weak_gap(
        st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.2, 0.7], 7 * ETA, paths,
        {"f": naive.user_observable, "x1": "x1"}, seed=seed, backend=backend, keep_final=True, **how,
    )  # fmt: skip


def assert_same(a, b):
    """Asserts that two gaps have the same sums, to the bit."""
    for field in ("groups", "counts", "diverged", "first_divergence", "points"):
        np.testing.assert_array_equal(getattr(a.statistics.sums, field), getattr(b.statistics.sums, field), err_msg=field)


@pytest.fixture(scope="module")
def one_thread():
    """The gap on one thread."""
    return gap(threads=1)


def test_another_seed_gives_other_bits(one_thread):
    """Negative control."""
    other = gap(threads=1, seed=2)
    assert not np.array_equal(other.statistics.sums.groups, one_thread.statistics.sums.groups)


@pytest.mark.parametrize("threads", [2, 5, None])
def test_threads(one_thread, threads):
    """Any number of threads."""
    assert_same(gap(threads=threads), one_thread)


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_processes(one_thread, how):
    """Forked and spawned processes."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(how)) as pool:
        assert_same(gap(executor=pool), one_thread)
        if how == "spawn":  # tasks of the NumPy backend contain the program itself, which must be picklable
            assert_same(gap(executor=pool, backend="numpy", paths=600), gap(threads=1, backend="numpy", paths=600))


def test_numpy_backend_on_one_and_two_threads(one_thread):
    """The NumPy backend gives the same bits on two threads, and agrees with the kernel."""
    slow = gap(backend="numpy", threads=1)
    assert_same(gap(backend="numpy", threads=2), slow)
    np.testing.assert_allclose(slow.final, one_thread.final, rtol=1e-10)


class Backwards(Executor):
    """An executor that runs tasks in batches, the last one first: the worst order of arrival."""

    _max_workers = 2

    def __init__(self):
        self.tasks, self.order = [], []

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        self.tasks.append((future, fn, args))
        if len(self.tasks) == 6 or args[1] == 19:
            for f, run, a in reversed(self.tasks):
                f.set_running_or_notify_cancel()
                f.set_result(run(*a))
                self.order.append(a[1])
            self.tasks = []
        return future


def test_any_order_of_arrival(one_thread):
    """The worst order of arrival gives the same bits."""
    chunks = -(-PATHS // 256)
    assert chunks == 20
    backwards = Backwards()
    assert_same(gap(executor=backwards), one_thread)
    assert backwards.order[:7] == [5, 4, 3, 2, 1, 0, 11] and sorted(backwards.order) == list(range(chunks))


def test_a_users_compiled_gradient_reaches_spawned_workers():
    """A gradient compiled by Numba is sent to a spawned worker."""
    loss = st.losses.from_function(naive.user_compiled_gradient, 2)
    plan = st.schedules.constant(ETA, 0.5)
    moving = st.SGDM(st.NoisyOracle(loss, st.noise.gaussian(dim=2)), plan)
    given = dict(x0=[1.2, 0.7], horizon=4 * ETA, paths=600, observe=["x0"], keep_final=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        apart = st.simulate(moving, executor=pool, **given)
    here = st.simulate(moving, threads=1, **given)
    np.testing.assert_array_equal(apart.final, here.final)
    np.testing.assert_array_equal(apart.statistics.sums.groups, here.statistics.sums.groups)


def test_groups_are_runs_of_leaves():
    """Group g contains the g-th range of ceil(leaves / 256) leaves, as its counts show."""
    oracle = st.NoisyOracle(st.losses.linear([1.0]), st.noise.rademacher(1))
    paths = 256 * 1024 + 700  # 1,027 leaves, five a group: 205 groups and two leaves
    run = st.simulate(st.SGD(oracle, st.schedules.constant(1.0)), [0.0], 1.0, paths, ["x0**2"])
    counts = np.zeros(GROUPS, int)
    counts[:206] = [5 * 256] * 205 + [paths - 205 * 5 * 256]
    np.testing.assert_array_equal(run.statistics.sums.counts, counts)
    assert run.paths == paths


def test_an_error_in_a_worker_is_raised():
    """An error in a worker is raised in the calling process."""

    class Broken(Executor):
        _max_workers = 1

        def submit(self, fn, /, *args, **kwargs):
            future: Future = Future()
            future.set_exception(OSError("worker died"))
            return future

    with pytest.raises(OSError, match="worker died"):
        gap(executor=Broken())


SCRIPT = """
import hashlib, sys
import sdetools as st
oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=2.0)
plan = st.schedules.constant(0.125, 0.8)
gap = st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), [1.0], 1.0, 700, ["x**2", "x"], threads=1)
print(hashlib.sha256(gap.statistics.sums.groups.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_kernel_compiled_now_and_one_from_the_cache(tmp_path):
    """Two new processes: the first one compiles, the second one loads the machine code from disk."""
    env = os.environ | {"SDETOOLS_CACHE": str(tmp_path), "PYTHONPATH": str(Path(st.__file__).parents[1])}
    outputs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(outputs[0]) == 65 and outputs[0] == outputs[1]
    assert list(tmp_path.rglob("*.code"))


@pytest.mark.parametrize("backend", ["numba", "numpy", "torch"])
def test_streams_and_roles_share_no_draw(backend):
    """The draws of both partners, of pilots, and of parts, in streams 0 ... 5, are all different.

    One step of SGD from 0 on a linear loss is a draw.
    """
    from sdetools.simulation.philox import Stream

    if backend == "torch":
        pytest.importorskip("torch")
    rule = st.SGD(st.NoisyOracle(st.losses.linear([0.0]), st.noise.gaussian(1)), st.schedules.constant(1.0))
    given = dict(observe=["x0"], keep_final=True, threads=1, backend=backend)
    seen = []
    for number in range(6):
        for stream in (number, Stream(number, part=1), Stream(number, pilot=True), Stream(number, part=4, pilot=True)):
            seen += [*st.weak_gap(rule, rule, [0.0], 1.0, 64, coupled=False, stream=stream, **given).final]
    assert len(np.unique(np.concatenate(seen))) == 64 * len(seen) == 64 * 6 * 4 * 2
    alone = st.simulate(rule, [0.0], 1.0, 64, stream=0, **given).final  # negative control: the same role of the same stream
    np.testing.assert_array_equal(alone[0], seen[0])


def test_trial_paths_share_no_draw_with_a_run(monkeypatch):
    """The keys of the trial paths that determine whether draws matter differ from those of the run."""
    from sdetools.simulation import chunks
    from sdetools.studies import known

    asked: dict[str, set[int]] = {"run": set(), "known": set()}
    make = chunks.stream_key
    monkeypatch.setattr(chunks, "stream_key", lambda *which: asked["run"].add(made := make(*which)) or made)
    monkeypatch.setattr(known, "stream_key", lambda *which: asked["known"].add(made := make(*which)) or made)
    oracle = st.NoisyOracle(st.losses.linear([0.0, 0.0]), st.noise.gaussian(root=[[1.0], [0.0]]))
    plan = st.schedules.constant(0.5, 0.5)
    first, second = st.SGDM(oracle, plan, momentum=([0.0, 0.0], [1.0, 0.0])), st.SGD(oracle, plan.averaged())
    gap = st.weak_gap(
        first, second, [0.0, 0.0], 1.0, 64, ["x1"], coupled=False, threads=1
    )  # x1 is constant: this is determined by trial paths
    assert not gap.at("x1").random
    assert len(asked["run"]) == len(asked["known"]) == 3  # two sets and the starts
    assert not asked["run"] & asked["known"]
    assert make(0, 0) in asked["run"]  # negative control: with the role of a run they would coincide


def test_studies_pilots_and_levels_stay_within_their_stream(monkeypatch):
    """No key of a real run is used in two streams."""
    from sdetools.simulation import chunks

    asked: set[int] = set()
    make = chunks.stream_key
    monkeypatch.setattr(chunks, "stream_key", lambda *which: asked.add(made := make(*which)) or made)
    oracle = st.NoisyOracle(st.losses.linear([0.0]), st.noise.gaussian(1))
    ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")

    def pair(eta):
        plan = st.schedules.constant(eta, 0.5)
        return st.SGDM(oracle, plan, momentum=([0.0], [[1.0]])), st.SGD(oracle, plan.averaged())

    runs = []
    for stream in range(3):
        asked.clear()
        st.order_study(pair, [0.5, 0.25], [0.0], 1.0, observe=["x0"], precision=0.1, coupled=False, stream=stream, threads=1)
        st.multilevel(lambda dt: st.EulerMaruyama(ou, dt), [1.0], 1.0, 0.1, ["x"], stream=stream, threads=1)
        runs.append(set(asked))
    assert all(len(run) > 8 for run in runs)
    assert not (runs[0] & runs[1] or runs[0] & runs[2] or runs[1] & runs[2])


def test_matrix_products_use_one_thread():
    """Holds also if another thread has limited BLAS before and is still running."""

    def blas():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def seen(barrier):
        with one_blas_thread:
            barrier.wait()
            return blas()

    with threadpool_limits(limits=2, user_api="blas"):
        assert blas() == {2}
        with one_blas_thread:
            assert blas() == {1}
        assert blas() == {2}
        with ThreadPoolExecutor(2) as pool:
            barrier = threading.Barrier(2)
            both = [pool.submit(seen, barrier), pool.submit(seen, barrier)]
            assert [future.result(timeout=60) for future in both] == [{1}, {1}]
        assert blas() == {2}


BLAS_THAT_COMES_LATER = """
import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from sdetools._machine_code import blas
from sdetools.simulation.kernel import one_blas_thread


def threads():
    return sorted(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


with one_blas_thread:
    first = threads()
blas()
with threadpool_limits(limits=2, user_api="blas"), one_blas_thread:
    second = threads()
with threadpool_limits(limits=2, user_api="blas"):
    with one_blas_thread:
        import scipy.linalg
        import torch
        with one_blas_thread:
            third = threads()
    after = threads()
print(first == [1], second == [1, 1], set(third) == {1}, set(after) == {2})
"""


@pytest.mark.slow
def test_a_blas_that_is_loaded_later_uses_one_thread_too():
    """SciPy's and torch's libraries are not NumPy's: they are restricted as well, even if they are loaded after the first run."""
    pytest.importorskip("torch", reason="torch brings the third library")
    done = subprocess.run([sys.executable, "-c", BLAS_THAT_COMES_LATER], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
