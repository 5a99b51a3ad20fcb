"""Interrupted runs: what was finished is kept, resuming ends with the same bits, and no file of another kind is touched."""

from __future__ import annotations

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
"""However short a leaf is."""


@leaf_a_chunk
def gap(**how):
    how = {"threads": 1} | how
    return st.weak_gap(st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged()), **(GIVEN | how))


def bits(result):
    return result.statistics.sums.groups.tobytes(), result.statistics.sums.counts.tobytes()


@pytest.fixture(scope="module")
def whole():
    return bits(gap())


class Stop(Exception):
    pass


class Counter:
    """A progress callback that raises after so many calls."""

    def __init__(self, after=None):
        self.calls, self.after = [], after

    def __call__(self, done, total):
        self.calls.append(done)
        if len(self.calls) == self.after:
            raise Stop


def stored(path):
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM chunks").fetchone()[0]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", [1, 7, CHUNKS - 1])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, whole, after, threads):
    store = tmp_path / "run.db"
    with pytest.raises(Stop):
        gap(store=store, progress=Counter(after), threads=threads)
    kept = stored(store)
    assert after <= kept < CHUNKS
    resumed = Counter()
    assert bits(gap(store=store, resume=True, progress=resumed)) == whole
    assert len(resumed.calls) == CHUNKS and resumed.calls[-1] == GIVEN["paths"] and stored(store) == CHUNKS


def test_finished_chunks_are_taken_up_and_not_run_again(tmp_path, whole, monkeypatch):
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


def test_without_resume_a_store_starts_afresh(tmp_path, whole, monkeypatch):
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
    """SIGKILL: nothing is flushed; what was committed (twice a second) is whole."""
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
    store = tmp_path / "run.db"
    gap(store=store)
    before = store.read_bytes()
    with pytest.raises(StoreError, match="belongs to another experiment"):
        gap(store=store, resume=True, **change)
    assert store.read_bytes() == before


@pytest.mark.parametrize("other", ["sigma", "beta", "loss", "noise", "control", "coupled"])
def test_every_part_of_an_experiment_is_in_its_identity(tmp_path, other):
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
    store = tmp_path / "run.db"
    gap(store=store)
    whole = store.read_bytes()
    cut = whole[: keep if keep > 1 else int(keep * len(whole))]
    store.write_bytes(cut)
    with pytest.raises(StoreError, match="damaged or truncated"):
        gap(store=store, resume=True)
    assert store.read_bytes() == cut


def test_a_flipped_bit_in_a_chunk_is_noticed(tmp_path):
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
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, kind, resume):
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
    assert "emove it" not in str(error.value)  # never advise to remove what is not ours


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(StoreError) as error:
        gap(store=tmp_path)
    assert tmp_path.is_dir() and "emove it" not in str(error.value)


# -- everything that runs several programs must share one store -----------------------------------------------------------------


@leaf_a_chunk
def test_a_study_resumes_from_its_store(tmp_path):
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
    given = {k: v for k, v in GIVEN.items() if k != "paths"} | {"precision": 0.05, "threads": 1}
    pair = st.SGDM(ORACLE, PLAN), st.SGD(ORACLE, PLAN.averaged())
    store = tmp_path / "run.db"
    first = st.weak_gap(*pair, store=store, **given)
    assert bits(st.weak_gap(*pair, store=store, resume=True, **given)) == bits(first)


# -- one run at a time ----------------------------------------------------------------------------------------------------------

HOLD = """
    import sys
    from sdetools.simulation.store import Store

    store = Store({store!r}, "mine", resume={resume})
    print("held", flush=True)
    sys.stdin.readline()
    store.close()
"""


def holding(store, resume=False):
    """Another process that has the store open until it gets a line."""
    text = textwrap.dedent(HOLD).format(store=str(store), resume=resume)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "held\n"
    return process


def ended(process):
    process.communicate("\n", timeout=30)
    return process.returncode


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_store_of_a_running_process_is_refused_and_left_as_it_is(tmp_path, whole, there, resume):
    store = tmp_path / "below" / "run.db"
    if there:
        gap(store=store)
    before = store.read_bytes() if there else None
    process = holding(store)
    with pytest.raises(StoreError, match=rf"is in use by another process \({process.pid}\).*name another folder"):
        gap(store=store, resume=resume)
    assert (store.read_bytes() if store.exists() else None) == before
    assert ended(process) == 0
    assert bits(gap(store=store)) == whole
    assert [path.name for path in store.parent.iterdir()] == ["run.db"]


def test_the_lock_of_a_killed_process_locks_nothing(tmp_path, whole):
    store = tmp_path / "run.db"
    process = holding(store)
    process.kill()
    process.communicate(timeout=30)
    assert (tmp_path / "run.db.lock").exists()
    assert bits(gap(store=store, resume=True)) == whole
    assert not (tmp_path / "run.db.lock").exists()


def test_a_forked_copy_does_not_hold_the_lock(tmp_path):
    """As the workers of a pool are, of which a killed run leaves some behind; and a copy that ends takes no lock away."""
    store = tmp_path / "run.db"
    text = textwrap.dedent(HOLD).format(store=str(store), resume=False)
    text = text.replace(
        'print("held", flush=True)',
        "import os, time\nread, write = os.pipe()\nif os.fork() == 0:\n    os.close(write)\n    os.read(read, 1)\n    os._exit(0)\n"
        "if os.fork() == 0:\n    sys.exit()\nos.wait()\nprint('held', flush=True)",
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match="in use by another process"):
        Store(store, "mine")
    process.kill()
    process.wait(30)
    Store(store, "mine").close()
    process.stdin.close()
    process.stdout.close()


def test_within_a_process_a_store_is_opened_once(tmp_path, monkeypatch):
    store, link = tmp_path / "run.db", tmp_path / "link"
    link.symlink_to(tmp_path)
    with Store(store, "one"):
        for name in (store, link / "run.db"):
            with pytest.raises(StoreError, match="in use by this process already"):
                Store(name, "two")
    with Store(link / "run.db", "two"):
        pass
    lost = Store(store, "three")
    del lost
    Store(store, "four").close()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_store_that_is_not_used_leaves_nothing(tmp_path):
    Store(tmp_path / "a" / "b" / "run.db", "mine").close()
    Store(tmp_path / "a" / "b" / "run.db", "mine").discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_store_that_another_program_locks_is_not_called_damaged(tmp_path, resume, monkeypatch):
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
    """`sqlite3.connect` that does not wait five seconds for a lock, and whose files have at most so many pages."""

    def connected(*args, **options):
        connection = connect(*args, timeout=0.01, **options)
        if pages is not None:
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    return connected


def test_a_lock_that_comes_between_loses_nothing(tmp_path, whole, monkeypatch):
    """Somebody looks into the store while it is written: what could not be committed is committed later."""
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


# -- no room --------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_in_a_sentence_and_keeps_what_was_committed(tmp_path, whole, monkeypatch):
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


def test_tidying_up_needs_no_room(tmp_path, monkeypatch):
    """The results are written by then: a store that cannot be emptied is no reason to fail."""
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
