"""Claims under pytest: collected by the plugin, with the verdicts and numbers of `sdetools verify`, alone, together and in two processes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import pytest

from sdetools.claims import collect, verify
from sdetools.claims.definition import has_claims

CLAIMS = '''
"""Claims with every verdict, and an example that doctest would run: >>> 1 + 1."""
import warnings

import _beside
import sdetools as st

ORACLE = st.NoisyOracle(st.losses.quadratic([[1.0]]), st.noise.gaussian(dim=1))


def mean(run, **more):
    rule = st.SGD(ORACLE, st.schedules.constant(0.1))
    return st.simulate(rule, [1.0], 1.0, observe=["x0"], backend="numpy", **run.options(paths=2000, **more)).at("x0")


@st.claim("good", statement="The mean is $0.9^{10}$.")
def good(run):
    warnings.warn("a warning is no error here")
    run.measure("mean", mean(run), expected=_beside.MEAN, tolerance=0.1)
    with run.control("another mean"):
        run.measure("mean", mean(run), expected=1.0, tolerance=0.1)


@st.claim("wrong", statement="The mean is 1.")
def wrong(run):
    run.measure("mean", mean(run), expected=1.0, tolerance=0.1)


@st.claim("open", statement="The mean is known well.")
def unsure(run):
    run.measure("mean", mean(run), expected=_beside.MEAN, tolerance=1e-4)


@st.claim("broken", statement="Nothing.")
def broken(run):
    run.measure("before", 1.0, at_most=2.0)
    1 / 0


@st.claim("absent", statement="Nothing.")
def absent(run):
    run.missing("the data set", "python fetch.py")


@st.claim("files", statement="A folder is empty.")
def files(run):
    with run.folder() as place:
        run.measure("files", float(len(list(place.iterdir()))), at_most=0.5)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a file of claims, a module beside it, and a file that only looks like one."""
    place = tmp_path_factory.mktemp("claims")
    (place / "some_claims.py").write_text(CLAIMS)
    (place / "_beside.py").write_text('MEAN = 0.9**10\n"""The mean of the tenth step."""\n')
    (place / "text.py").write_text('TEXT = """\n@st.claim("never", statement="s")\ndef f(run): ...\n"""\n')
    (place / "pytest.ini").write_text("[pytest]\naddopts = --doctest-modules --import-mode=importlib\nfilterwarnings = error\n")
    return place


def run_pytest(folder, *arguments):
    """Run pytest in a process of its own; return its exit code and its output."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "-c",
        str(folder / "pytest.ini"),
    ]
    run = subprocess.run([*command, str(folder), *arguments], capture_output=True, text=True, cwd=folder)
    return run.returncode, run.stdout + run.stderr


def entries(text):
    """Return the entries of a file of results by id, without the seconds."""
    found = {item["id"]: item for item in json.loads(text)["claims"]}
    for item in found.values():
        assert item.pop("seconds") >= 0
        item.pop("traceback", None)
    return found


@pytest.fixture(scope="module")
def verified(folder):
    """Return the entries of `sdetools verify` at seed 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return entries(verify(folder, seed=3).to_json())


@pytest.mark.slow
def test_every_verdict_is_an_outcome(folder, verified, tmp_path):
    """Failures with a description, expected failures and skips with their reasons, JUnit's file, and the results of `verify`."""
    code, out = run_pytest(
        folder, "-ra", "--claims-seed", "3", "--claims-results", str(tmp_path / "r.json"), "--junit-xml", str(tmp_path / "j.xml")
    )
    assert code == 1 and "2 failed, 2 passed, 1 skipped, 1 xfailed" in out, out
    assert "contradicted: mean lies in [" in out and "and again in [" in out and "The mean is 1." in out
    assert "error: ZeroDivisionError: division by zero (some_claims.py, line 3" in out and "before = 1 in [1, 1]: inside" in out
    assert "inconclusive: mean lies in" in out and "the data set is missing: python fetch.py" in out
    assert entries((tmp_path / "r.json").read_text()) == verified
    cases = ElementTree.parse(tmp_path / "j.xml").getroot().findall(".//testcase")
    assert sorted(case.get("name") for case in cases) == sorted(["good", "wrong", "open", "broken", "absent", "files"])


@pytest.mark.slow
@pytest.mark.parametrize("more", [["-k", "good or open"], ["-n", "2"]])
def test_an_entry_is_the_same_alone_and_beside_others(folder, verified, tmp_path, more):
    """In one process and in two."""
    run_pytest(folder, "--claims-seed", "3", "--claims-results", str(tmp_path / "r.json"), *more)
    found = entries((tmp_path / "r.json").read_text())
    assert set(found) == ({"good", "open"} if "-k" in more else set(verified))
    assert all(found[id] == verified[id] for id in found)


@pytest.mark.slow
def test_another_seed_is_another_run(folder, verified, tmp_path):
    """Negative control."""
    assert run_pytest(folder, "-k", "good", "--claims-seed", "4", "--claims-results", str(tmp_path / "r.json"))[0] == 0
    assert entries((tmp_path / "r.json").read_text())["good"] != verified["good"]


def test_a_file_that_cannot_be_imported_is_an_error_of_collection(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "a.py").write_text(
        "import sdetools as st\n\n@st.claim('a', statement='s')\ndef a(run):\n    pass\n\nraise KeyError('here')\n"
    )
    code, out = run_pytest(tmp_path)
    assert code == 2 and "could not be imported: line 7: KeyError" in out


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@claim('a', statement='s')\ndef a(run): ...", True),
        ("@st.claim('a', statement='s')\ndef a(run): ...", True),
        ("for i in range(2):\n    @x.y.claim(f'a-{i}', statement='s')\n    def a(run): ...", True),
        ('"""\n@st.claim(1)\n"""', False),
        ("# @claim(1)", False),
        ("def claim(x): ...\nclaim(3)", False),
        ("@st.claim('a', statement='s')\ndef a(run:", True),
        ("@disclaim()\ndef a(run): ...", False),
    ],
)
def test_a_file_with_claims_is_known_without_importing_it(tmp_path, text, found):
    """By decorators, not by text."""
    file = tmp_path / "a.py"
    file.write_text(text)
    assert has_claims(file) is found
    (tmp_path / "test_a.py").write_text(text)
    assert not has_claims(tmp_path / "test_a.py") and not has_claims(tmp_path / "none.py")


def test_other_sessions_import_nothing(tmp_path, monkeypatch):
    """A session without claims does not import the toolkit's packages; other plugins, which may, are not loaded."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_a.py").write_text(
        "import sys\n\ndef test_a():\n    assert 'sdetools.pytest_plugin' in sys.modules\n"
        "    assert not {'sdetools.claims', 'numpy', 'numba'} & sys.modules.keys()\n"
    )
    code, out = run_pytest(tmp_path, "-p", "sdetools.pytest_plugin")
    assert code == 0, out


@pytest.mark.slow
def test_the_claims_of_the_paper_are_collected():
    """All of them, as by `sdetools verify`."""
    from pathlib import Path

    claims = Path(__file__).parents[2] / "paper_checks"
    run = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", str(claims)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert sum("::" in line for line in run.stdout.splitlines()) == len(collect(claims))


def test_pytest_imports_the_package_as_python_does(tmp_path):
    """Pytest rewrites the assertions of a plugin's package where it is imported, which takes as long as the import; those of test files it must."""
    (tmp_path / "test_loaders.py").write_text(
        "import sys, sdetools.estimates.interval as inner\n\n\n"
        "def test_loaders():\n"
        "    names = [type(sys.modules[name].__spec__.loader).__name__ for name in (__name__, inner.__name__)]\n"
        "    assert names == ['AssertionRewritingHook', 'SourceFileLoader'], names\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
