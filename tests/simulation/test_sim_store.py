"""Interrupted runs: finished chunks are kept, a resumed run gives the same bits, and files of another kind are not modified."""

from __future__ import annotations

import functools
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest import mock

import pytest

import sdetools as st
from sdetools.simulation.store import Store, StoreError

ROOT = Path(st.__file__).parents[1]
ETA = 0.25
ORACLE = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1), sigma=2.0)
PLAN = st.schedules.constant(ETA, 0.5)
GIVEN = dict(x0=[1.0], horizon=2.0, paths=5000, observe=["x**2", "x"], seed=3)
CHUNKS = 20


leaf_a_chunk = mock.patch("sdetools.simulation.layout.LEAST_WORK", 1)
"""Chunks of one leaf, however little work it is."""


@leaf_a_chunk
def gap(**how):
    """A gap of SGDM and SGD in 20 chunks."""
    how = {"threads": 1} | how
    return st.weak_gap(st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged()), **(GIVEN | how))


def bits(result):
    """The bytes of a result."""
    return result.statistics.sums.groups.tobytes(), result.statistics.sums.counts.tobytes()


@pytest.fixture(scope="module")
def whole():
    """The result of an uninterrupted run."""
    return bits(gap())


class Stop(Exception):
    """Interrupts a run."""

    pass


class Counter:
    """A progress callback that raises after a given number of calls."""

    def __init__(self, after=None):
        self.calls, self.after = [], after

    def __call__(self, done, total):
        self.calls.append(done)
        if len(self.calls) == self.after:
            raise Stop


def stored(path):
    """The number of chunks in a store."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM chunks").fetchone()[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", [1, 7, CHUNKS - 1])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, whole, after, threads):
    """Runs interrupted early, midway and late, on one and two threads."""
    store = tmp_path / "run.db"
    with pytest.raises(Stop):
        gap(store=store, progress=Counter(after), threads=threads)
    kept = stored(store)
    assert after <= kept < CHUNKS
    resumed = Counter()
    assert bits(gap(store=store, resume=True, progress=resumed)) == whole
    assert len(resumed.calls) == CHUNKS and resumed.calls[-1] == GIVEN["paths"] and stored(store) == CHUNKS


def test_finished_chunks_are_not_run_again(tmp_path, whole, monkeypatch):
    """Only missing chunks are run."""
    from sdetools.simulation import engine

    store, ran, true_run = tmp_path / "run.db", [], engine.run_chunk
    with pytest.raises(Stop):
        gap(store=store, progress=Counter(7))
    monkeypatch.setattr(engine, "run_chunk", lambda task, index: ran.append(index) or true_run(task, index))
    assert bits(gap(store=store, resume=True)) == whole
    assert ran == list(range(7, CHUNKS))
    ran.clear()
    assert bits(gap(store=store, resume=True)) == whole
    assert ran == []


def test_without_resume_all_chunks_are_run(tmp_path, whole, monkeypatch):
    """Without resuming all chunks are run."""
    from sdetools.simulation import engine

    store, ran, true_run = tmp_path / "run.db", [], engine.run_chunk
    gap(store=store)
    monkeypatch.setattr(engine, "run_chunk", lambda task, index: ran.append(index) or true_run(task, index))
    assert bits(gap(store=store)) == whole
    assert len(ran) == CHUNKS


SCRIPT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_sim_store import gap

    def slowly(done, total):
        time.sleep(0.06)
        print(done, flush=True)

    gap(store={store!r}, progress=slowly, resume=True)
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_killed_process_resumes_to_the_same_bits(tmp_path, whole, when):
    """SIGKILL: nothing is flushed; what was committed (twice a second) is intact."""
    store = tmp_path / "run.db"
    text = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), store=str(store))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=env)
    for _ in range(1 if when == "early" else 14):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    kept = stored(store)
    assert kept < CHUNKS and (when == "early" or kept >= 4)
    assert bits(gap(store=store, resume=True)) == whole
    assert stored(store) == CHUNKS


# -- refusals -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"paths": 6000}, {"x0": [1.5]}, {"horizon": 1.0}, {"observe": ["x**2"]}, {"times": [1.0]}], ids=str
)
def test_a_store_of_another_experiment_is_refused(tmp_path, change):
    """Any changed argument makes another experiment, and the store is not modified."""
    store = tmp_path / "run.db"
    gap(store=store)
    before = store.read_bytes()
    with pytest.raises(StoreError, match="belongs to another experiment"):
        gap(store=store, resume=True, **change)
    assert store.read_bytes() == before


@pytest.mark.parametrize("other", ["sigma", "beta", "loss", "noise", "control", "coupled"])
def test_every_part_of_an_experiment_is_in_its_identity(tmp_path, other):
    """Every part of the dynamics is part of the identity."""
    store, oracle, plan = tmp_path / "run.db", ORACLE, PLAN
    gap(store=store)
    more = {}
    match other:
        case "sigma":
            oracle = ORACLE.with_sigma(2.0000001)
        case "beta":
            plan = st.schedules.constant(ETA, 0.5000001)
        case "loss":
            oracle = st.NoisyOracle(st.losses.from_expression("x**2/2 + 0.0000001*x"), ORACLE.noise, sigma=2.0)
        case "noise":
            oracle = st.NoisyOracle(ORACLE.loss, st.noise.gaussian(root=[[1.0000001]]), sigma=2.0)
        case _:
            more = {other: False}
    with pytest.raises(StoreError, match="another experiment"):
        st.weak_gap(st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), threads=1, store=store, resume=True, **GIVEN, **more)


@pytest.mark.parametrize("keep", [100, 5000, 0.5, 0.9])
def test_a_truncated_store_is_refused(tmp_path, keep):
    """A truncated file is not modified."""
    store = tmp_path / "run.db"
    gap(store=store)
    whole = store.read_bytes()
    cut = whole[: keep if keep > 1 else int(keep * len(whole))]
    store.write_bytes(cut)
    with pytest.raises(StoreError, match="damaged or truncated"):
        gap(store=store, resume=True)
    assert store.read_bytes() == cut


def test_a_flipped_bit_in_a_chunk_is_detected(tmp_path):
    """The CRC of a chunk detects a flipped bit."""
    store = tmp_path / "run.db"
    gap(store=store)
    with sqlite3.connect(store) as connection:
        (payload,) = connection.execute("SELECT payload FROM chunks WHERE chunk = 3").fetchone()
        payload = payload[:200] + bytes([payload[200] ^ 1]) + payload[201:]
        connection.execute("UPDATE chunks SET payload = ? WHERE chunk = 3", (payload,))
    connection.close()
    with pytest.raises(StoreError, match="chunk 3"):
        gap(store=store, resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", ["text", "sqlite", "binary"])
def test_a_file_of_another_kind_is_refused_and_not_modified(tmp_path, kind, resume):
    """The file is not modified, and the message does not advise to remove it."""
    file = tmp_path / "thesis.db"
    if kind == "sqlite":
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE precious (x)")
            connection.execute("INSERT INTO precious VALUES (42)")
        connection.close()
    else:
        file.write_bytes(b"My only copy.\n" * 400 if kind == "text" else bytes(range(256)) * 20)
    before, stamp = file.read_bytes(), file.stat().st_mtime_ns
    with pytest.raises(StoreError) as error:
        gap(store=file, resume=resume)
    assert file.read_bytes() == before and file.stat().st_mtime_ns == stamp
    assert list(tmp_path.iterdir()) == [file]
    assert "emove it" not in str(error.value)  # never advise to remove a file of another program


def test_a_folder_is_refused(tmp_path):
    """A folder is not a store."""
    with pytest.raises(StoreError) as error:
        gap(store=tmp_path)
    assert tmp_path.is_dir() and "emove it" not in str(error.value)


# -- everything that runs several programs must share one store -----------------------------------------------------------------


@leaf_a_chunk
def test_a_study_resumes_from_its_store(tmp_path):
    """An order study has one store for all its programs."""

    def study(**how):
        def pair(eta):
            plan = st.schedules.constant(eta, 0.5)
            return st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())

        return st.order_study(pair, etas=[0.5, 0.25], threads=1, **GIVEN, **how)

    plain, store = study(), tmp_path / "study.db"
    assert study(store=store).to_json() == plain.to_json()
    calls = Counter()
    assert study(store=store, resume=True, progress=calls).to_json() == plain.to_json()
    assert stored(store) == 2 * CHUNKS


@leaf_a_chunk
def test_a_run_to_a_precision_resumes_from_its_store(tmp_path):
    """A run that chooses its number of paths is resumed."""
    given = {k: v for k, v in GIVEN.items() if k != "paths"} | {"precision": 0.05, "threads": 1}
    pair = st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged())
    store = tmp_path / "run.db"
    first = st.weak_gap(*pair, store=store, **given)
    assert bits(st.weak_gap(*pair, store=store, resume=True, **given)) == bits(first)


# -- one run at a time ----------------------------------------------------------------------------------------------------------

KEEP_OPEN = """
    import sys
    from sdetools.simulation.store import Store

    store = Store({store!r}, "mine", resume={resume})
    print("open", flush=True)
    sys.stdin.readline()
    store.close()
"""


def kept_open(store, resume=False):
    """Another process that keeps the store open until it receives a line."""
    text = textwrap.dedent(KEEP_OPEN).format(store=str(store), resume=resume)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "open\n"
    return process


def ended(process):
    """Ends such a process and returns its exit status."""
    process.communicate("\n", timeout=30)
    return process.returncode


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_store_of_a_running_process_is_refused_and_not_modified(tmp_path, whole, there, resume):
    """The message names the process; after its end the store can be used."""
    store = tmp_path / "below" / "run.db"
    if there:
        gap(store=store)
    before = store.read_bytes() if there else None
    process = kept_open(store)
    with pytest.raises(StoreError, match=rf"is in use by another process \({process.pid}\).*name another folder"):
        gap(store=store, resume=resume)
    assert (store.read_bytes() if store.exists() else None) == before
    assert ended(process) == 0
    assert bits(gap(store=store)) == whole
    assert [path.name for path in store.parent.iterdir()] == ["run.db"]


def test_the_lock_of_a_killed_process_is_released(tmp_path, whole):
    """A lock file that is left behind does not block a run."""
    store = tmp_path / "run.db"
    process = kept_open(store)
    process.kill()
    process.communicate(timeout=30)
    assert (tmp_path / "run.db.lock").exists()
    assert bits(gap(store=store, resume=True)) == whole
    assert not (tmp_path / "run.db.lock").exists()


def test_a_forked_copy_does_not_own_the_lock(tmp_path):
    """Forked copies, such as workers of a pool that outlive a killed run, do not keep the lock.

    A copy that ends does not release it either.
    """
    store = tmp_path / "run.db"
    text = textwrap.dedent(KEEP_OPEN).format(store=str(store), resume=False)
    text = text.replace(
        'print("open", flush=True)',
        "import os, time\nread, write = os.pipe()\nif os.fork() == 0:\n    os.close(write)\n    os.read(read, 1)\n    os._exit(0)\n"
        "if os.fork() == 0:\n    sys.exit()\nos.wait()\nprint('open', flush=True)",
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreError, match="in use by another process"):
        Store(store, "mine")
    process.kill()
    process.wait(30)
    Store(store, "mine").close()
    process.stdin.close()
    process.stdout.close()


def test_within_a_process_a_store_is_opened_once(tmp_path, monkeypatch):
    """A second object, also under another name, is refused until the first one is closed or freed."""
    store, link = tmp_path / "run.db", tmp_path / "link"
    link.symlink_to(tmp_path)
    with Store(store, "one"):
        for name in (store, link / "run.db"):
            with pytest.raises(StoreError, match="in use by this process already"):
                Store(name, "two")
    with Store(link / "run.db", "two"):
        pass
    freed = Store(store, "three")
    del freed
    Store(store, "four").close()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_store_that_is_not_used_leaves_nothing(tmp_path):
    """An unused store leaves no file or folder."""
    Store(tmp_path / "a" / "b" / "run.db", "mine").close()
    Store(tmp_path / "a" / "b" / "run.db", "mine").discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_store_locked_by_another_program_is_not_reported_as_damaged(tmp_path, resume, monkeypatch):
    """The message says that the file is locked."""
    store = tmp_path / "run.db"
    gap(store=store)
    before = store.read_bytes()
    monkeypatch.setattr(sqlite3, "connect", impatient(sqlite3.connect))
    other = sqlite3.connect(store)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="is in use by another program .*locked.*Wait until"):
        gap(store=store, resume=resume)
    other.close()
    assert store.read_bytes() == before


def impatient(connect, pages=None):
    """`sqlite3.connect` with a short timeout for locks, and files of at most `pages` pages."""

    def connected(*args, **options):
        connection = connect(*args, timeout=0.01, **options)
        if pages is not None:
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    return connected


def test_a_temporary_lock_discards_nothing(tmp_path, whole, monkeypatch):
    """Another program reads the store while it is written: chunks that could not be committed are committed later."""
    store = tmp_path / "run.db"
    monkeypatch.setattr("sdetools.simulation.store._COMMIT_EVERY", 0.0)
    monkeypatch.setattr(sqlite3, "connect", impatient(sqlite3.connect))
    readers = []

    def progress(done, total):
        if len(readers) == 0 and done > 1000:
            reader = sqlite3.connect(store)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM chunks").fetchone()
            readers.append(reader)

    with pytest.raises(StoreError, match="in use by another program"):
        gap(store=store, progress=progress)
    readers[0].close()
    assert stored(store) >= 4
    assert bits(gap(store=store, resume=True)) == whole


# -- full disks --------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_reported_and_keeps_committed_chunks(tmp_path, whole, monkeypatch):
    """The message names the remedy, and the run can be resumed."""
    store, connect = tmp_path / "run.db", sqlite3.connect
    monkeypatch.setattr("sdetools.simulation.store._COMMIT_EVERY", 0.0)
    monkeypatch.setattr(sqlite3, "connect", impatient(connect, pages=10))
    with pytest.raises(StoreError, match=r"run.db cannot be written: the disk is full .*make room, then resume"):
        gap(store=store)
    assert not (tmp_path / "run.db.lock").exists()
    monkeypatch.setattr(sqlite3, "connect", connect)
    kept = stored(store)
    assert 0 < kept < CHUNKS
    assert bits(gap(store=store, resume=True)) == whole
    assert stored(store) == CHUNKS


def test_emptying_a_store_may_fail(tmp_path, monkeypatch):
    """The results are written by then, so a store that cannot be emptied is not an error."""
    with Store(tmp_path / "run.db", "mine") as store:
        gap(store=store)
        store.commit()
        with sqlite3.connect(tmp_path / "run.db", timeout=0.01) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM chunks").fetchone()
            store._connection.execute("PRAGMA busy_timeout = 10")
            store.finish()
        reader.close()
    assert stored(tmp_path / "run.db") in (0, CHUNKS)


def test_a_closed_store_is_not_used(tmp_path):
    """Another store may hold the lock; a second `close` does nothing."""
    rule = st.SGD(st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1)), st.schedules.constant(0.1))
    store = st.Store(tmp_path / "run.db", "mine")
    run = functools.partial(st.simulate, rule, [1.0], 1.0, 50, ["x0"], backend="numpy")
    run(store=store)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="is closed"):
        run(store=store)
