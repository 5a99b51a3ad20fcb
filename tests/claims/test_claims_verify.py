"""Tests of `verify`: budgets, seeds, verdicts of claims that raise errors, and the files that are written."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

import sdetools.studies.sampler  # noqa: F401  it imports the Store before a fixture below replaces it
from sdetools._install import install_command
from sdetools.claims import BUDGETS, ClaimContext, verification, verify
from sdetools.claims.context import Missing, claim_seed
from sdetools.claims.side_by_side import run_side_by_side
from sdetools.simulation.store import Store, StoreError

CLAIMS = '''
import math
import random
from sdetools.claims import claim
from sdetools.estimates import ConfidenceInterval

class Estimate:
    """A mean of drawn numbers."""
    diverged, first_divergence = 0, None

    def __init__(self, seed, n, mean=1.0):
        draws = random.Random(seed)
        values = [draws.gauss(mean, 1.0) for _ in range(n)]
        self.n, self.value, self.stderr = n, sum(values) / n, 1 / math.sqrt(n)
        self.low, self.high = self.confidence_interval(0.95)

    def confidence_interval(self, level):
        from statistics import NormalDist
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.stderr
        return ConfidenceInterval(self.value - half, self.value + half, level)

@claim("mean", statement=r"The mean is $\\mu = 1$.", source="Lemma 1")
def mean(run):
    run.measure("mean", Estimate(run.seed, 4000), expected=1.0, tolerance=0.2)
    with run.control("wrong mean"):
        run.measure("mean", Estimate(run.seed, 4000, mean=2.0), expected=1.0, tolerance=0.2)
    def draw():
        from matplotlib.figure import Figure
        figure = Figure()
        figure.add_subplot().plot([1, 2], [3, 4])
        return figure
    run.figure("A plot", draw, "with a caption")
    run.table("some numbers", [{"a": 1, "b": 2.5}])
    run.note("a note on $x$")

@claim("false", statement="The mean is three.")
def false(run):
    run.measure("mean", Estimate(run.seed, 4000), expected=3.0, tolerance=0.2)

@claim("open", statement="The mean is one, nearly.")
def open_(run):
    run.measure("mean", Estimate(run.seed, 100), expected=1.0, tolerance=0.3)

@claim("broken", statement="This divides by zero.")
def broken(run):
    run.measure("before", 1.0, at_most=2.0)
    1 / 0

@claim("absent", statement="This needs a package.")
def absent(run):
    raise ModuleNotFoundError("No module named 'torch'", name="torch")

@claim("no-data", statement="This needs data.")
def no_data(run):
    run.missing("the data set CIFAR-10", "python fetch.py")
'''


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Record every store that is opened: its path, identity, whether to resume, and whether it existed."""
    seen = []

    class Watched(Store):
        def __init__(self, path, identity, resume=False):
            seen.append((Path(path), json.loads(identity), resume, Path(path).exists()))
            super().__init__(path, identity, resume)

    monkeypatch.setattr("sdetools.simulation.store.Store", Watched)
    return seen


@pytest.fixture
def claims(tmp_path):
    path = tmp_path / "claims.py"
    path.write_text(CLAIMS)
    return path


def test_all_verdicts(claims):
    results = verify(claims)
    assert {item.id: item.verdict for item in results.claims} == {
        "mean": "supported",
        "false": "contradicted",
        "open": "inconclusive",
        "broken": "error",
        "absent": "not run",
        "no-data": "not run",
    }
    reasons = {item.id: item.reason for item in results.claims}
    assert reasons["absent"] == f"torch is not installed: {install_command('torch')}"
    assert reasons["no-data"] == "the data set CIFAR-10 is missing: python fetch.py"
    line = CLAIMS[: CLAIMS.index("1 / 0")].count("\n") + 1
    assert reasons["broken"] == f"ZeroDivisionError: division by zero (claims.py, line {line})"
    assert results.counts == {"supported": 1, "contradicted": 1, "inconclusive": 1, "not run": 2, "error": 1}
    assert results.exit_code == 1


@pytest.mark.parametrize(("only", "code"), [("mean", 0), ("open", 0), ("absent", 0), ("no-data", 0), ("false", 1), ("broken", 1)])
def test_exit_codes(claims, only, code):
    assert verify(claims, only=only).exit_code == code


def test_a_claim_that_raises_an_error_keeps_its_measurements_and_traceback(claims):
    (result,) = verify(claims, only="broken").claims
    assert [item.name for item in result.measurements] == ["before"]
    assert "ZeroDivisionError" in result.traceback


def test_a_user_error_inside_a_claim_is_an_error_of_that_claim(tmp_path):
    (tmp_path / "a.py").write_text(
        "from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n    run.measure('q', 1.0)\n"
        "@claim('b', statement='s')\ndef b(run):\n    run.measure('q', 1.0, at_most=2.0)\n"
    )
    results = verify(tmp_path)
    result = results.claims[0]
    assert (result.verdict, results.claims[1].verdict, results.exit_code) == ("error", "supported", 2)
    assert "exactly one criterion" in result.reason
    assert "(a.py, line 4)" in result.reason


def test_a_store_error_ends_the_run(tmp_path):
    (tmp_path / "a.py").write_text(
        "from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n"
        "    from sdetools.simulation.store import StoreError\n    raise StoreError('another run uses the folder')\n"
    )
    with pytest.raises(StoreError, match="another run"):
        verify(tmp_path)


def test_results_are_reproducible_to_the_bit_except_for_the_seconds(claims, tmp_path):
    texts = []
    for name in ("one", "two"):
        verify(claims, out=tmp_path / name, seed=3)
        record = json.loads((tmp_path / name / "results.json").read_text())
        for item in record["claims"]:
            assert item.pop("seconds") >= 0
        texts.append((json.dumps(record), (tmp_path / name / "figures" / "mean" / "a-plot.svg").read_bytes()))
    assert texts[0] == texts[1]


def test_the_schema_of_results(claims, tmp_path):
    verify(claims, out=tmp_path / "out", seed=3)
    text = (tmp_path / "out" / "results.json").read_text()
    assert "NaN" not in text
    record = json.loads(text)
    assert list(record) == ["version", "seed", "budget", "claims"]
    assert (record["seed"], record["budget"]) == (3, "quick")
    first = record["claims"][0]
    assert {"id", "statement", "source", "verdict", "measurements", "controls", "seconds", "diverged_paths"} <= set(first)
    assert (first["id"], first["source"], first["statement"]) == ("mean", "Lemma 1", r"The mean is $\mu = 1$.")
    measured = first["measurements"][0]
    assert {"name", "value", "stderr", "low", "high", "level", "outer", "again", "expected", "paths"} <= set(measured)
    assert measured["low"] < measured["value"] < measured["high"] and measured["level"] == 0.999
    assert measured["outer"]["level"] == 1 - 1e-5**0.5 and measured["again"] is None
    assert (measured["expected"], measured["paths"], measured["state"]) == (1.0, 4000, "inside")
    assert first["controls"][0]["failed_as_it_must"] is True


def test_adding_a_claim_changes_no_other_value(claims):
    alone, together = verify(claims, only="mean").claims[0], verify(claims).claims[0]
    assert alone.seed == together.seed
    assert alone.to_dict() | {"seconds": 0} == together.to_dict() | {"seconds": 0}


def test_seeds_differ_between_claims_and_runs():
    seeds = {claim_seed(seed, id) for seed in range(20) for id in ("a", "b", "theorem-3.5")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert ClaimContext("a", seed=1).seed == claim_seed(1, "a")


@pytest.mark.parametrize(("name", "paths"), [("quick", 20_000), ("standard", 1_000_000), ("full", 10_000_000)])
def test_budgets(name, paths):
    run = ClaimContext("a", budget=name, threads=3, executor="pool", store="store", resume=True, progress=print)
    assert run.paths == BUDGETS[name].paths == paths
    assert run.budget == name
    assert run.scale(quick="quick", standard="standard", full="full") == name
    assert run.options() == {
        "paths": paths,
        "seed": run.seed,
        "executor": "pool",
        "threads": 3,
        "retries": 2,
        "store": "store",
        "resume": True,
        "progress": print,
    }
    assert run.options(paths=10, times=[1.0])["paths"] == 10
    assert run.options(paths=10, times=[1.0])["times"] == [1.0]


def test_the_store_is_replaced_unless_the_run_resumes(claims, tmp_path, opened):
    out = tmp_path / "out"
    for resume in (False, False, True):
        verify(claims, out=out, only="mean", resume=resume)
    assert [resume for _, _, resume, _ in opened] == [False, False, True]
    path, identity, _, _ = opened[0]
    assert path == out / "store.sqlite"
    assert (identity["seed"], identity["budget"]) == (0, "quick")
    assert "version" in identity


def test_invalid_input_writes_nothing(claims, tmp_path, opened):
    out = tmp_path / "out"
    blocked = tmp_path / "file"
    blocked.write_text("")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    cases = [
        (claims, {"budget": "huge"}, "`budget` must be one of quick, standard, full; got 'huge'"),
        (claims, {"seed": -1}, "`seed` must be at least 0"),
        (claims, {"threads": 0}, "`threads` must be at least 1"),
        (claims, {"only": "nothing"}, "`only` must match"),
        (tmp_path / "bad.py", {}, "could not be imported"),
        (tmp_path / "nowhere.py", {}, "must exist"),
        (claims, {"out": blocked}, "`out` must be a folder; got .* is a file"),
        (claims, {"out": blocked / "below"}, "`out` must be a folder; got .* is a file"),
        (claims, {"out": None, "resume": True}, "`resume` must go with `out`"),
    ]
    for path, options, words in cases:
        with pytest.raises(ValueError, match=words):
            verify(path, **({"out": out} | options))
    assert not out.exists()
    assert not opened


def test_an_interrupt_closes_the_store_and_propagates(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(
        "from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n    run.store.users = 1\n    raise KeyboardInterrupt\n"
    )
    closed = []
    monkeypatch.setattr(Store, "close", lambda self: closed.append(True))
    with pytest.raises(KeyboardInterrupt):
        verify(tmp_path, out=tmp_path / "out")
    assert closed == [True]
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_claim_may_import_modules_of_its_folder(tmp_path):
    (tmp_path / "helper_of_claims.py").write_text("limit = 2.0\n")
    (tmp_path / "a.py").write_text(
        "from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n"
        "    from helper_of_claims import limit\n    run.measure('q', 1.0, at_most=limit)\n"
    )
    assert verify(tmp_path).claims[0].verdict == "supported"
    sys.modules.pop("helper_of_claims", None)


def test_watch_is_called_for_every_claim(claims):
    seen = []
    verify(claims, watch=lambda position, total, item: seen.append((position, total, item.id)))
    assert seen[0] == (1, 6, "mean")
    assert len(seen) == 6


def test_a_claims_folder_is_empty_unless_the_run_resumes(tmp_path):
    (tmp_path / "a.py").write_text(
        "from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n"
        "    with run.folder() as place:\n        found = len(list(place.iterdir()))\n        (place / str(found)).touch()\n"
        "    run.measure('files found', float(found), at_most=9.0)\n"
    )
    out = tmp_path / "out"
    found = [verify(tmp_path, out=out, resume=resume).claims[0].measurements[0].value for resume in (False, True, True, False)]
    assert found == [0, 1, 2, 0] and [path.name for path in (out / "work" / "a").iterdir()] == ["0"]
    assert verify(tmp_path).claims[0].measurements[0].value == 0
    with pytest.raises(Missing), ClaimContext("a").folder():
        pass


# -- one run at a time, and a full disk -----------------------------------------------------------------------------------------

SLOW = """
from pathlib import Path
import sdetools as st

ORACLE = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.gaussian(dim=1))

@st.claim("drawn", statement="Paths are simulated.")
def drawn(run):
    plan = st.schedules.constant(0.5)
    found = st.simulate(st.SGD(ORACLE, plan), x0=[0.0], horizon=4.0, observe=["x"], times="all", **run.options(paths=2_000_000))
    run.measure("mean", found.at("x"), expected=0.0, tolerance=0.1)

@st.claim("waits", statement="This waits for input.")
def waits(run):
    with run.folder() as place:
        (place / "here").touch()
        print("waiting", flush=True)
        if Path({gate!r}).exists():
            input()
    run.measure("q", 1.0, at_most=2.0)
"""


def verify_in_a_process(path, out, before="", **options):
    text = f"import sys\n{before}\nfrom sdetools.cli import main\nmain(sys.argv[1:])"
    arguments = [sys.executable, "-c", text, "verify", str(path), "--out", str(out), "--threads", "1", *options.pop("more", [])]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options
    )


def record_of(out):
    record = json.loads((out / "results.json").read_text())
    for item in record["claims"]:
        item.pop("seconds")
    return record


@pytest.mark.slow
def test_a_second_run_in_one_folder_is_refused_and_the_first_is_untouched(tmp_path):
    gate, claims, out = tmp_path / "gate", tmp_path / "claims.py", tmp_path / "out"
    claims.write_text(SLOW.replace("{gate!r}", repr(str(gate))))
    gate.touch()
    first = verify_in_a_process(claims, out)
    while "waiting" not in (line := first.stderr.readline()):
        assert line, "the first run ended"
    for resume in (False, True):
        with pytest.raises(StoreError, match=rf"in use by another process \({first.pid}\)"):
            verify(claims, out=out, resume=resume, seed=7)
    second = verify_in_a_process(claims, out)
    message = second.communicate("\n", timeout=60)[1]
    assert second.returncode == 2 and len(message.strip().splitlines()) == 1 and "in use by another process" in message
    assert (out / "work" / "waits" / "here").exists()  # a new run would have emptied the folder
    gate.unlink()
    first.communicate("\n", timeout=60)
    assert first.returncode == 0
    found = record_of(out)
    verify(claims, out=tmp_path / "alone", threads=1)
    assert found == record_of(tmp_path / "alone")
    assert not list(out.glob("*.lock"))


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


@pytest.mark.parametrize("kind", ["results.json", "a-plot.svg", "errors in a chain", "quota", "largest size"])
def test_a_full_disk_ends_the_run_and_it_can_be_resumed(claims, tmp_path, monkeypatch, kind):
    """A full disk is not an error of the claim: that verdict would be wrong, and freeing space could not correct it."""
    out, later = tmp_path / "out", claims
    text = {
        "errors in a chain": "    try:\n        raise OSError(28, 'No space left on device')\n    except OSError as e:\n        raise RuntimeError('cannot save') from e\n",
        "quota": "    import errno\n    raise OSError(errno.EDQUOT, 'Disk quota exceeded')\n",
        "largest size": "    import errno\n    raise OSError(errno.EFBIG, 'File too large')\n",
    }.get(kind)
    verify(claims, out=out, only="mean")
    old = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    if text is None:
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: full() if Path(b).name == kind else replace(a, b))
    else:
        later = tmp_path / "later.py"
        later.write_text(CLAIMS + "\n@claim('writes', statement='It writes.')\ndef writes(run):\n" + text)
    with pytest.raises(OSError, match=rf"for lack of disk space.*kept in {out}: free some space, then resume"):
        verify(later, out=out, only=None if text else "mean")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == old
    monkeypatch.undo()
    assert verify(claims, out=out, only="mean", resume=True).claims[0].verdict == "supported"


def test_other_system_errors_are_errors_of_the_claim(claims, tmp_path):
    claims.write_text("from sdetools.claims import claim\n@claim('a', statement='s')\ndef a(run):\n    open('/nowhere/at/all')\n")
    assert verify(claims, out=tmp_path / "out").claims[0].verdict == "error"


@pytest.mark.slow
def test_a_file_size_limit_ends_the_command_with_code_2_and_resuming_gives_the_same_bits(tmp_path):
    """A file size limit simulates the full disk; SQLite reports it as an input or output error."""
    claims, out = tmp_path / "claims.py", tmp_path / "out"
    claims.write_text(SLOW.replace("{gate!r}", repr(str(tmp_path / "gate"))))
    before = textwrap.dedent("""
        import resource, sdetools.simulation.store as store
        store._COMMIT_EVERY = 0.0
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    """)
    verify(claims, out=tmp_path / "alone", threads=1)  # compiles and writes the kernel before the limit is set
    ended = verify_in_a_process(claims, out, before)
    message = ended.communicate("\n", timeout=60)[1]
    assert ended.returncode == 2 and "then resume" in message and "Traceback" not in message
    assert not (out / "results.json").exists() and (out / "store.sqlite").stat().st_size > 8_000
    again = verify_in_a_process(claims, out, more=["--resume"])
    again.communicate("\n", timeout=60)
    assert again.returncode == 0 and record_of(out) == record_of(tmp_path / "alone")


def test_claims_that_were_not_supported_run_first(claims, tmp_path):
    """The order of running changes, that of the results does not; without an earlier run nothing changes."""
    orders = []
    for failed_first in (True, True, False):
        ran = []
        found = verify(
            claims,
            out=tmp_path / "out",
            failed_first=failed_first,
            watch=lambda position, total, item, ran=ran: ran.append(item.id),
        )
        orders.append((ran, [item.id for item in found.claims]))
    (first, a), (second, b), (third, c) = orders
    assert a == b == c == first == third and second[-1] == "mean" and sorted(second) == sorted(first) and second != first


def test_claims_side_by_side_have_the_same_results(claims, tmp_path):
    """In two processes: the same entries and figures; what claims print does not mix with the table; the stores of claims are removed."""
    alone = verify(claims, seed=3, out=tmp_path / "alone")
    seen = []
    both = verify(
        claims, seed=3, out=tmp_path / "both", jobs=2, watch=lambda position, total, item: seen.append((position, total, item.id))
    )
    assert record_of(tmp_path / "alone") == record_of(tmp_path / "both")
    assert [item.figures for item in alone.claims] == [item.figures for item in both.claims]
    assert [position for position, _, _ in seen] == list(range(1, len(both.claims) + 1)) and {t for _, t, _ in seen} == {
        len(both.claims)
    }
    assert sorted(id for *_, id in seen) == sorted(item.id for item in both.claims)
    assert not (tmp_path / "both" / "jobs").exists()


def test_the_longest_claims_begin_first_side_by_side(claims, tmp_path, monkeypatch):
    """By the seconds of the last run, and a claim without them first of all; the results have the order of the files. One process changes nothing."""
    out, orders = tmp_path / "out", []

    def record(order, *rest):
        orders.append([item.id for item in order])
        return run_side_by_side(order, *rest)

    monkeypatch.setattr(verification, "run_side_by_side", record)
    names = [item.id for item in verify(claims, out=out).claims]
    results = json.loads((out / "results.json").read_text())
    seconds = {name: float(5 * i % 7) for i, name in enumerate(names)}
    for item in results["claims"]:
        item["seconds"] = seconds[item["id"]]
    results["claims"] = [item for item in results["claims"] if item["id"] != names[-1]]
    (out / "results.json").write_text(json.dumps(results))
    assert len(names) >= 4 and [item.id for item in verify(claims, out=out, jobs=2).claims] == names
    expected = [names[-1], *sorted(names[:-1], key=seconds.get, reverse=True)]
    assert orders == [expected] and expected != names and len({*seconds.values()}) == len(names)


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_run_resumes(tmp_path):
    """A claim whose process ends: one sentence, then the same entries as without the accident."""
    file = tmp_path / "claims.py"
    file.write_text(
        "import os\nfrom pathlib import Path\nimport sdetools as st\n"
        "@st.claim('dies', statement='s')\ndef dies(run):\n"
        "    oracle = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))\n"
        "    r = st.simulate(st.SGD(oracle, st.schedules.constant(0.1)), [1.0], 1.0, observe=['x0'], backend='numpy', **run.options(paths=500))\n"
        f"    if not Path({str(tmp_path / 'gate')!r}).exists():\n        os._exit(9)\n"
        "    run.measure('m', r.at('x0'), expected=0.35, tolerance=0.1)\n"
        "@st.claim('lives', statement='s')\ndef lives(run):\n    run.measure('m', 1.0, at_most=2.0)\n"
    )
    with pytest.raises(ChildProcessError, match=r"was killed.*dies.* did not finish.*resume"):
        verify(file, out=tmp_path / "out", jobs=2)
    assert (tmp_path / "out" / "jobs" / "dies.sqlite").exists()
    (tmp_path / "gate").touch()
    verify(file, out=tmp_path / "out", jobs=2, resume=True)
    verify(file, out=tmp_path / "alone")
    assert record_of(tmp_path / "out") == record_of(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_claim_that_never_ends_is_an_error_of_that_claim_alone(jobs, tmp_path):
    """The claims before and after it have the entries that they have without it; a limit that no claim exceeds changes nothing."""
    file = tmp_path / "claims.py"
    measured = "@st.claim({0!r}, statement='s')\ndef f{1}(run):\n    run.measure('m', run.seed % 2, at_most=2.0)\n"
    file.write_text(
        "import sdetools as st\n"
        + measured.format("first", 1)
        + "@st.claim('never', statement='s')\ndef f2(run):\n    while True:\n        pass\n"
        + measured.format("last", 3)
    )
    ended = verify(file, out=tmp_path / "out", jobs=jobs, limit=4.0)
    never = ended.claims[1]
    assert (never.id, never.verdict, never.seconds, never.measurements) == ("never", "error", 4.0, ())
    assert "did not end within 4 s" in never.reason and ended.exit_code == 1
    alone = verify(file, only="not never", limit=600)
    assert [replace(c, seconds=0.0) for c in ended.claims[::2]] == [replace(c, seconds=0.0) for c in alone.claims]
    assert [c.verdict for c in alone.claims] == ["supported"] * 2


@pytest.mark.parametrize("limit", [0, -1.0, math.inf, math.nan, "60"])
def test_a_limit_is_a_positive_number_of_seconds(claims, limit):
    with pytest.raises(ValueError, match="`limit` must be"):
        verify(claims, limit=limit)
    with pytest.raises(ValueError, match="`limit` must be None with an `executor`"):
        verify(claims, limit=1.0, executor=object())


def test_jobs_and_an_executor_exclude_each_other(claims):
    with pytest.raises(ValueError, match="`jobs` must be 1 with an `executor`"):
        verify(claims, jobs=2, executor=object())
    with pytest.raises(ValueError, match="`jobs` must be at least 1"):
        verify(claims, jobs=0)


THREADS = """
import numpy as np
from threadpoolctl import threadpool_info
from sdetools.claims import claim

@claim("threads", statement="One thread.")
def threads(run):
    import scipy.linalg, torch  # loaded during the claim, with libraries of their own
    np.ones((2, 2)) @ np.ones((2, 2))
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    run.measure("largest number of threads of BLAS", max(pools), 1, tolerance=0.1)
    run.measure("threads of torch", torch.get_num_threads(), 1, tolerance=0.1)
    run.measure("libraries", len(pools), at_least=2)
    with run.control("what was set before"):
        run.measure("threads", 3, 1, tolerance=0.1)
"""

AROUND = """
import os, sys
from threadpoolctl import threadpool_info
import numpy
from sdetools.claims import verify

def pools():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

before = pools()
for order in ("loaded in the claim", "loaded before it"):
    found = verify([sys.argv[1]], threads=1).claims[0]
    assert found.verdict == "supported", found.reason
    assert before.items() <= pools().items() and before, (before, pools())
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ
    import torch
    torch.set_num_threads(2)
assert torch.get_num_threads() == 2
"""


def test_libraries_use_one_thread_during_a_claim(tmp_path):
    """Of BLAS and of torch, loaded before or in the claim; afterwards they have as many as before."""
    (tmp_path / "claims.py").write_text(THREADS)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment["OPENBLAS_NUM_THREADS"] = "3"
    command = [sys.executable, "-c", AROUND, str(tmp_path / "claims.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
