"""Tests of the command line: exit codes, output streams, and that invalid input writes nothing.

Fakes replace the simulation where only the command line is tested.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

import sdetools
from sdetools._install import install_command
from sdetools.cli import main

CLAIMS = """
from sdetools.claims import claim

@claim("good", statement="One is at most two.", source="Arithmetic [1]")
def good(run):
    print("chatter")
    run.measure("one", 1.0, at_most=2.0)

@claim("bad", statement="Three is at most two.")
def bad(run):
    run.measure("three", 3.0, at_most=2.0)

@claim("stopped", statement="The user presses Ctrl-C.")
def stopped(run):
    raise KeyboardInterrupt

@claim("foreign-store", statement="The store belongs to another run.")
def foreign(run):
    from sdetools.simulation.store import StoreError
    raise StoreError("the store belongs to another run")

@claim("crash", statement="This raises an error.")
def crash(run):
    1 / 0
"""


@pytest.fixture
def claims(tmp_path):
    path = tmp_path / "claims.py"
    path.write_text(CLAIMS)
    return path


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_verify_writes_its_files_and_prints_only_the_table(claims, tmp_path):
    out = tmp_path / "out"
    result = call("verify", claims, "--only", "good", "--out", out)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "verdict    claim  source          reason",
        "supported  good   Arithmetic [1]  Its interval lies inside its tolerance.",
    ]
    assert "chatter" in result.stderr
    assert sorted(item.name for item in out.iterdir()) == [
        "report.html",
        "results.json",
    ]  # nothing was simulated, so there is no store
    assert json.loads((out / "results.json").read_text())["claims"][0]["verdict"] == "supported"
    assert "One is at most two." in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("only", "code", "words"), [("good", 0, "supported"), ("bad", 1, "contradicted"), ("crash", 1, "ZeroDivisionError")]
)
def test_exit_codes_of_verdicts(claims, tmp_path, only, code, words):
    result = call("verify", claims, "--only", only, "--out", tmp_path / "out")
    assert result.exit_code == code
    assert words in result.stdout
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "nowhere.py"], "sdetools: the path of a claim file or folder must exist"),
        (["verify", "CLAIMS", "--only", "zzz"], "sdetools: `only` must match the id of a claim"),
        (["verify", "CLAIMS", "--budget", "huge"], "Invalid value for '--budget'"),
        (["verify", "CLAIMS", "--seed", "-1"], "Invalid value for '--seed'"),
        (["verify", "CLAIMS", "--threads", "0"], "Invalid value for '--threads'"),
        (["verify", "CLAIMS", "--nonsense"], "No such option"),
        (["verify", "BROKEN"], "line 1: ZeroDivisionError"),
        (["verify", "CLAIMS", "--out", "CLAIMS"], "sdetools: `out` must be a folder"),
        (["nonsense"], "No such command"),
    ],
)
def test_invalid_input_gives_one_line_and_exit_code_2_and_writes_nothing(claims, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    before = sorted(tmp_path.iterdir())
    names = {"CLAIMS": str(claims), "BROKEN": str(tmp_path / "broken.py")}
    result = call(*(names.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if words.startswith("sdetools: "):
        assert result.stderr.count("\n") == 1
    assert [item for item in sorted(tmp_path.iterdir()) if item.name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["verify", "CLAIMS", "--budget", "quik"], "Did you mean `quick`?"),
        (["verify", "CLAIMS", "--only", "god"], "Did you mean `good`?"),
        (["verify", "CLAIMS", "--only", "zzz"], "`sdetools verify --list` lists them."),
        (["verify", "claim.py"], "Did you mean `claims.py`?"),
        (["verify", "elsewhere"], "Check its spelling, and the current folder."),
        (["verify", "notes.txt"], "must be a Python file named *.py; got 'notes.txt'. Name such a file, or a folder of them."),
        (["verify", "empty"], "the folder empty must contain at least one file with claims; got none."),
        (["verify", "unclosed.py"], "line 3: SyntaxError: '(' was never closed. Correct it, or name the other files."),
        (["verify", "import.py"], "No module named 'not_there'. Check the name, or install it: pip install not_there"),
        (["verify", "CLAIMS", "--summary", "empty"], "`summary` must be a file; got 'empty', which is a folder."),
        (["verify", "CLAIMS", "--executor", "procesess"], "Did you mean `processes`?"),
        (["gap", "--noise", "gausian"], "Did you mean `gaussian`?"),
        (["verfy"], "Did you mean 'verify'?"),
    ],
)
def test_a_wrong_word_or_place_has_a_remedy(claims, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no claims\n")
    (tmp_path / "unclosed.py").write_text(
        "from sdetools.claims import claim\n\n@claim('a', statement='s'\ndef a(run):\n    pass\n"
    )
    (tmp_path / "import.py").write_text("import not_there\n")
    before = sorted(tmp_path.iterdir())
    result = call(*(str(claims) if word == "CLAIMS" else word for word in arguments))
    assert result.exit_code == 2
    assert words in result.stderr and result.stderr.count("\n") == 1 and result.stdout == ""
    assert [item for item in sorted(tmp_path.iterdir()) if item.name != "__pycache__"] == before


def test_several_claims_show_progress_and_failures_come_last_in_the_table(claims, tmp_path):
    result = call("verify", claims, "--only", "good or bad or crash", "--out", tmp_path / "out", "--failed-first")
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["verdict", "claim"],
        ["supported", "good"],
        ["error", "crash"],
        ["contradicted", "bad"],
    ]
    lines = result.stderr.splitlines()
    assert lines[0] == f"no earlier results in {tmp_path / 'out'}: the claims run in their own order"
    assert [re.sub(r"^\[[\d.]+ s\] ", "", line) for line in lines if line.startswith("[")] == [
        "1 of 3: good",
        "2 of 3: bad",
        "3 of 3: crash",
    ]
    assert re.fullmatch(r"1 supported, 1 contradicted, 1 error in [\d.]+ s", lines[-2])
    again = call("verify", claims, "--only", "good or bad or crash", "--out", tmp_path / "out", "--failed-first")
    assert re.findall(r"of 3: (\w+)", again.stderr) == ["bad", "crash", "good"] and "no earlier" not in again.stderr


def test_a_summary_in_markdown_is_written_and_appended_only_to_the_page_of_a_job(claims, tmp_path, monkeypatch):
    shared, own = tmp_path / "step.md", tmp_path / "own.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(shared))
    for file in (own, own, shared, shared):
        result = call("verify", claims, "--only", "good or bad or crash", "--out", tmp_path / "out", "--summary", file)
        assert result.exit_code == 1 and f"summary: {file}" in result.stderr
    assert own.read_text().count("# Claims: ") == 1 and shared.read_text().count("# Claims: ") == 2
    text = own.read_text()
    order = [
        "# Claims: 1 contradicted, 1 error, 1 supported",
        "## Contradicted",
        "`bad`",
        "## Errors",
        "`crash`",
        "## The rest",
        "| ✓ supported | `good` |",
    ]
    assert sorted(order, key=text.index) == order
    assert "ZeroDivisionError" in text and "`sdetools verify " in text and r"Arithmetic \[1\]" in text


def test_a_store_error_is_invalid_input(claims, tmp_path):
    result = call("verify", claims, "--only", "foreign-store", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.strip() == "sdetools: the store belongs to another run"


def test_a_store_is_resumed_only_by_the_same_run(tmp_path):
    file, out = tmp_path / "walk.py", tmp_path / "out"
    file.write_text(SIMULATED)
    assert call("verify", file, "--out", out).exit_code == 0
    record = (out / "results.json").read_bytes()
    assert call("verify", file, "--out", out, "--resume").exit_code == 0
    result = call("verify", file, "--out", out, "--resume", "--seed", 1)
    assert result.exit_code == 2
    assert "belongs to another experiment" in result.stderr
    assert strip_seconds(out) == strip_seconds(record)
    assert call("verify", file, "--out", out, "--seed", 1).exit_code == 0


SIMULATED = """
import sdetools as st
@st.claim("walk", statement="A walk.", source="Nothing")
def walk(run):
    oracle = st.NoisyOracle(st.losses.from_expression("x**2/2"), st.noise.rademacher(1))
    made = st.simulate(st.SGD(oracle, st.schedules.constant(0.5)), [1.0], 1.0, observe="x", **run.options(paths=1000))
    run.measure("mean", made.at("x"), expected=0.25, tolerance=0.2)
"""


def strip_seconds(record):
    text = record if isinstance(record, bytes) else (record / "results.json").read_bytes()
    found = json.loads(text)
    for claim in found["claims"]:
        del claim["seconds"]
    return found


def test_a_claim_with_invalid_input_gives_one_line_and_writes_nothing(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(SIMULATED.replace("[1.0], 1.0", "[1.0], 1.3"))
    result = call("verify", file, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.startswith("sdetools: `horizon` must be a whole number of steps") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_a_store_is_not_overwritten(claims, tmp_path):
    (tmp_path / "store.sqlite").write_text("a text, not a database")
    result = call("verify", claims, "--only", "good", "--out", tmp_path)
    assert result.exit_code == 2
    assert (tmp_path / "store.sqlite").read_text() == "a text, not a database"


def test_an_interrupt_prints_the_command_that_resumes(claims, tmp_path):
    out = tmp_path / "my out"
    result = call("verify", claims, "--only", "stopped", "--out", out)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert f"sdetools verify {claims} --only stopped --out '{out}' --resume" in result.stderr
    again = call("verify", claims, "--only", "stopped", "--out", out, "--resume")
    assert again.stderr.count("--resume") == 1


def test_list_writes_nothing(claims, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("verify", ".", "--list", "--only", "*d")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        "good     Arithmetic [1]  One is at most two.",
        "bad                      Three is at most two.",
        "stopped                  The user presses Ctrl-C.",
    ]
    assert not (tmp_path / "sdetools-report").exists()


def test_processes_option_creates_an_executor(claims, tmp_path):
    (tmp_path / "pool.py").write_text(
        "from sdetools.claims import claim\n@claim('pool', statement='s')\ndef pool(run):\n"
        "    run.measure('workers', float(run.executor._max_workers), expected=2.0, tolerance=0.1)\n"
        "    run.measure('threads', float(run.threads is None), at_least=1.0)\n"
    )
    result = call("verify", tmp_path / "pool.py", "--executor", "processes", "--threads", 2, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", [[], ["verify"], ["gap"], ["slow"], ["sweep"]])
def test_help_has_an_example(command):
    for flag in ("--help", "-h"):
        result = call(*command, flag)
        assert result.exit_code == 0
        assert "Example:" in result.stdout
        assert "sdetools " + " ".join(command) in result.stdout


def test_version():
    assert call("--version").stdout == f"sdetools {sdetools.__version__}\n"


def test_bench_forwards_its_arguments(monkeypatch):
    seen = []
    module = types.ModuleType("sdetools.cli.bench_command")
    module.main = lambda arguments: seen.append(arguments) or 3
    monkeypatch.setitem(sys.modules, "sdetools.cli.bench_command", module)
    assert call("bench", "--help", "x", "--n=3").exit_code == 3
    assert seen == [["--help", "x", "--n=3"]]


class Study:
    """The part of an `OrderStudy` that the command line uses."""

    def __init__(self, etas):
        self.data = SimpleNamespace(to_dataframe=self._frame)
        self.etas = etas

    def _frame(self):
        import pandas as pd

        return pd.DataFrame({"mean": [0.1] * len(self.etas)}, index=pd.Index(self.etas, name="eta"))

    def table(self):
        return "a table"

    def order(self, observable):
        return SimpleNamespace(value=0.9, low=0.8, high=1.0)

    def plot(self):
        from sdetools.plots import loglog_orders

        return loglog_orders(self.etas, [0.1] * len(self.etas)).figure

    def to_json(self):
        return "{}"


@pytest.fixture
def fakes(monkeypatch):
    """Replace public functions of the library by fakes that record their calls."""
    calls = []

    def record(name, **attributes):
        def made(*arguments, **options):
            calls.append((name, arguments, options))
            return SimpleNamespace(name=name, arguments=arguments, options=options, **attributes)

        return made

    def from_expression(text, variables=None, parameters=None):
        if "^" in text:
            raise ValueError(f"a formula must use ** for powers; got {text!r}.")
        names = tuple((variables or "x").split())
        return SimpleNamespace(dim=len(names), names=names)

    def order_study(
        pair, etas, x0, horizon, observe, seed, executor, threads, retries, store, resume, progress, paths=None, precision=None
    ):
        calls.append(("order_study", (), {"paths": paths, "precision": precision, "x0": x0, "observe": observe, "seed": seed}))
        calls.append(("store", (), {"store": store, "resume": resume, "threads": threads, "horizon": horizon}))
        pair(etas[0])
        return Study(etas)

    def plan(name):
        def make(*arguments, **options):
            calls.append((name, arguments, options))
            return SimpleNamespace(
                name=name,
                longest_memory=10.0,
                betas=lambda steps: np.full(steps, 0.9),
                eta_values=np.array([0.1]),
                eta=0.1,
                averaged=lambda: SimpleNamespace(name=f"averaged {name}"),
            )

        return make

    noises = (
        "gaussian",
        "rademacher",
        "uniform",
        "three_point",
        "centred_exponential",
        "two_point",
        "student_t",
        "alpha_stable",
        "none",
    )
    schedules = ("constant", "scaled", "from_functions", "from_arrays")
    replaced = {
        "losses": SimpleNamespace(from_expression=from_expression),
        "noise": SimpleNamespace(**{name: record(name) for name in noises}),
        "schedules": SimpleNamespace(**{name: plan(name) for name in schedules}),
        "order_study": order_study,
        **{name: record(name) for name in ("NoisyOracle", "SGD", "SGDM", "LimitSDE", "EulerMaruyama")},
    }
    for name, value in replaced.items():
        monkeypatch.setattr(sdetools, name, value, raising=False)
    # `from sdetools.losses.expression import parse` must find the fake, not the real module.
    expression = types.ModuleType("sdetools.losses.expression")
    expression.parse = lambda text, names, parameters: from_expression(text)
    package = types.ModuleType("sdetools.losses")
    package.expression, package.__path__ = expression, []
    monkeypatch.setitem(sys.modules, "sdetools.losses", package)
    monkeypatch.setitem(sys.modules, "sdetools.losses.expression", expression)
    monkeypatch.setattr(sdetools, "losses", replaced["losses"], raising=False)
    return calls


GAP = ["gap", "--loss", "(x*y - 1)**2 / 2", "--variables", "x y", "--x0", "2,0.5", "--eta", "0.1,0.05"]


def named(calls, name):
    return [(arguments, options) for found, arguments, options in calls if found == name]


def test_gap_prints_the_study_and_writes_only_with_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*GAP[: GAP.index("--eta")], "--eta", "0.1,0.05", "--sigma", 1, "--paths", 2000, "--observe", "x**2"]
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 4 and lines[1].startswith("x**2 ") and lines[-1].startswith("order of x**2: ")
    assert list(tmp_path.iterdir()) == []
    out = tmp_path / "out"
    assert call(*arguments, "--out", out).stdout == result.stdout
    assert sorted(item.name for item in out.iterdir()) == ["gap.csv", "gap.json", "gap.svg", "store.sqlite"]
    rows = (out / "gap.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[0].startswith("eta,observable,gap")


def test_gap_passes_defaults_and_choices_to_the_library(fakes):
    assert call(*GAP).exit_code == 0
    assert named(fakes, "constant")[0] == ((0.1,), {"beta": 0.9})
    assert named(fakes, "NoisyOracle")[0][1] == {"sigma": 0.1**-0.5}
    assert named(fakes, "order_study")[0][1]["observe"] == ["(x*y - 1)**2 / 2"]
    assert named(fakes, "SGD")[0][0][1].name == "averaged constant"
    fakes.clear()
    assert (
        call(*GAP, "--alpha", 0.5, "--damping", 0.4, "--sigma", 2, "--precision", 1e-3, "--against", "sgd-unaveraged").exit_code
        == 0
    )
    assert named(fakes, "scaled")[0] == ((0.1,), {"alpha": 0.5, "damping": 0.4})
    assert named(fakes, "NoisyOracle")[0][1] == {"sigma": 2.0}
    assert named(fakes, "order_study")[0][1] | {"x0": 0} == {
        "paths": None,
        "precision": 1e-3,
        "x0": 0,
        "observe": ["(x*y - 1)**2 / 2"],
        "seed": 0,
    }
    fakes.clear()
    assert call(*GAP, "--ripple", 0.5, "--against", "sgd-unaveraged").exit_code == 0
    (eta, beta, steps), options = named(fakes, "from_functions")[0]
    assert (eta(0), eta(1), beta, steps, options) == (pytest.approx(0.15), pytest.approx(0.05), 0.9, 410, {"base": 0.1})
    assert named(fakes, "SGD")[0][0][1].name == "from_arrays"


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        ([], "gaussian", {"covariance": None}),
        (["--noise", "rademacher", "--covariance", "1,2"], "rademacher", {"covariance": [1.0, 2.0]}),
        (["--noise", "uniform", "--covariance", "1,0.5;0.5,2"], "uniform", {"covariance": [[1.0, 0.5], [0.5, 2.0]]}),
        (["--noise", "three-point"], "three_point", {"covariance": None}),
        (["--noise", "exponential"], "centred_exponential", {"covariance": None}),
        (["--noise", "two-point", "--probability", "0.2"], "two_point", {"probability": 0.2, "covariance": None}),
        (["--noise", "student-t", "--degrees", "4"], "student_t", {"degrees": 4.0, "covariance": None}),
        (["--noise", "none"], "none", {}),
        (["--noise", "alpha-stable", "--index", "2"], "alpha_stable", {}),
    ],
)
def test_gap_noises(fakes, arguments, name, options):
    assert call(*GAP, *arguments).exit_code == 0
    assert named(fakes, name) == [((2.0, 2) if name == "alpha_stable" else (2,), options)]


STABLE = ["gap", "--loss", "x**2/2", "--x0", "1", "--noise", "alpha-stable", "--eta", "0.2,0.1", "--paths", "2000"]


@pytest.mark.slow
def test_a_gap_of_heavy_tailed_noise():
    """The scale that "auto" means, eta^(1/index - 1), and bounded steps, whose iterates have moments."""
    both = [call(*STABLE, "--index", "1.5", "--observe", "cos(x)", *more) for more in ([], ["--eta", "0.125", "--sigma", "2"])]
    assert [one.exit_code for one in both] == [0, 0], both
    again = call(*STABLE, "--observe", "cos(x)", "--eta", "0.125")  # 1/8 ** (2/3 - 1) = 2
    assert again.exit_code == 0 and again.stdout == both[1].stdout
    signs = call(*STABLE, "--dynamics", "signum", "--against", "signsgd", "--observe", "x**2")
    assert signs.exit_code == 0, signs.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "`observe` must be bounded for alpha-stable noise of index 1.5, which has no variance; got 'x**2/2'. Write for"),
        (["--index", "1", "--observe", "x"], "no variance and no mean; got 'x'"),
        (["--against", "sde", "--observe", "cos(x)"], "`against` sde must be the limit of noise with a variance"),
        (["--index", "2.5", "--observe", "cos(x)"], "`alpha` must lie in (0, 2]"),
        (["--covariance", "2", "--observe", "cos(x)"], "--sigma is its scale"),
        (["--noise", "gaussian", "--index", "1.5"], "--index is an option of --noise alpha-stable"),
    ],
)
def test_what_heavy_tailed_noise_refuses(arguments, words):
    result = call(*STABLE, *arguments)
    assert result.exit_code == 2 and words in result.stderr and not result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--beta", "0.9", "--alpha", "0.5"], "--beta and --alpha are mutually exclusive"),
        (["--paths", "10", "--precision", "0.1"], "--paths and --precision are mutually exclusive"),
        (["--damping", "0.4"], "--damping needs --alpha"),
        (["--resume"], "--resume needs --out"),
        (["--eta", "0.1,zero"], "sdetools: `eta` must be numbers separated by commas; got '0.1,zero'. Write"),
        (["--eta", "-0.1"], "sdetools: `eta` must be a positive number"),
        (["--eta", ""], "sdetools: `eta` must be numbers separated by commas"),
        (["--x0", "1"], "sdetools: `x0` must have shape (2,)"),
        (["--sigma", "loud"], "sdetools: `sigma` must be a number or auto"),
        (["--horizon", "0"], "sdetools: `horizon` must be a positive number"),
        (["--ripple", "2"], "sdetools: `ripple` must lie in [0, 1]"),
        (["--precision", "-1"], "sdetools: `precision` must be a positive number"),
        (["--observe", "x^2"], "sdetools: a formula must use ** for powers"),
        (["--noise", "pink"], "Invalid value for '--noise'"),
    ],
)
def test_gap_validates_before_it_writes(fakes, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    out = [] if arguments == ["--resume"] else ["--out", "out"]
    result = call(*GAP, *arguments, *out)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_reported_with_its_install_command(fakes, monkeypatch):
    def absent(*_, **__):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(sdetools, "order_study", absent)
    result = call(*GAP)
    assert result.exit_code == 2
    assert f"sdetools: torch is not installed; install it with {install_command('torch')}" in result.stderr


def run_python(*arguments, cwd):
    root = Path(sdetools.__path__[0]).parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_in_a_process(tmp_path):
    done = run_python("-m", "sdetools.cli", "verify", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sdetools: ")
    done = run_python("-m", "sdetools.cli", "verify", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_imports_no_heavy_dependency(tmp_path):
    text = (
        "import sys\nfrom sdetools.cli import main\ntry:\n    main(['verify', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'sympy', 'numba', 'xarray', 'matplotlib', 'pandas', 'scipy.stats', 'rich', 'jinja2', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = run_python("-c", text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "order", "near"),
    [
        (["--dynamics", "sgd", "--against", "sde"], 1.0, 0.4),
        (["--dynamics", "sgd", "--against", "modified", "--sigma", "1", "--substeps", "4"], 2.0, 0.4),
    ],
)
def test_gap_against_a_limit(arguments, order, near):
    """The fitted order of a simulation; the half-width of its 95 % interval is below 0.2."""
    import re

    given = ["gap", "--loss", "x**4/4 - x**2/2", "--x0", "1", "--eta", "0.1,0.05", "--observe", "x**2", "--paths", "20000"]
    result = call(*given, *arguments)
    assert result.exit_code == 0
    assert abs(float(re.search(r"order of x\*\*2: ([\d.]+)", result.output)[1]) - order) < near


def test_gap_against_the_wrong_limit_is_refused():
    result = call("gap", "--loss", "x**2/2", "--x0", "1", "--eta", "0.1", "--against", "modified")
    assert result.exit_code == 2 and "--dynamics sgd" in result.output


SLOW = ["slow", "--loss", "exp(x)*y**2/2", "--x0", "0,1", "--eta", "0.1", "--horizon", "0.5", "--paths", "2000"]


@pytest.mark.slow
def test_slow_prints_the_study_and_writes_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*SLOW)
    assert result.exit_code == 0 and not list(tmp_path.iterdir())
    rows = [line.split() for line in result.output.splitlines()[1:]]
    assert [row[0] for row in rows] == ["slow", "slow", "SGD", "SGD", "SGDM", "SGDM"]
    # exponential valley: Phi has x = -1/4, and the drift of x is -1/4
    assert abs(float(rows[0][3]) - (-0.25 - 0.125)) < 4.5 * 0.71 / 2000**0.5
    out = tmp_path / "out"
    assert call(*SLOW, "--observe", "x", "--out", str(out)).exit_code == 0
    assert sorted(item.name for item in out.iterdir()) == ["manifold.svg", "slow.json", "slow.svg", "store.sqlite"]
    found = json.loads((out / "slow.json").read_text())
    assert found["rank"] == 1 and abs(found["start"][0] + 0.25) < 1e-8 and list(found["runs"]) == ["slow SDE", "SGD", "SGDM"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loss", "x**2 + y**2"], "minimum is isolated"),
        (["--loss", "exp(x)*y**2/2", "--x0", "1"], "`x0`"),
        (["--loss", "x**2 - y**2", "--x0", "0,0"], "saddle"),
        (["--horizon", "0.505"], "whole number of steps"),
        (["--eta", "-1"], "`eta`"),
        (["--beta", "0.9", "--alpha", "0.5"], "give one"),
        (["--label-noise", "x*q"], "q"),
        (["--covariance", "1,2,3"], "covariance"),
        (["--noise", "alpha-stable"], "`noise` must have a variance, which drives the slow SDE"),
    ],
)
def test_slow_validates_before_it_writes(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = call(*SLOW, *arguments, "--out", str(tmp_path / "out"))  # the last of two options counts
    assert result.exit_code == 2 and words in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "slow.json").exists()


RUN = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
x = torch.randn(128, 4)
data = x, x.sum(1, keepdim=True) + torch.randn(128, 1)
loss = torch.nn.functional.mse_loss
"""


def test_diagnose_runs_a_file_and_writes_json(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    command = [
        "diagnose",
        str(tmp_path / "run.py"),
        "--lr",
        "0.001",
        "--batch-size",
        "8",
        "--steps",
        "200",
        "--trial",
        "--pieces",
        "2",
        "--planned-steps",
        "5000",
        "--out",
        str(tmp_path / "d"),
    ]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "momentum: drop it: plain SGD at lr=0.01, which frees 20 bytes" in done.stdout
    diagnosis = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert diagnosis["advice"] == "drop" and diagnosis["freed"] == 20 and len(diagnosis["trial"]["plain"]) == 2
    assert diagnosis["stage"] == "trial" and diagnosis["keep_probability"] < 0.5 and diagnosis["cost"]["paired_run"] == 10_000


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (None, [], "FILE must exist"),
        ("model = 1", [], "FILE must define `data`"),
        (RUN.replace("loss =", "other ="), [], "`loss` or `loss_of`"),
        (RUN + "1 / 0", [], "raised ZeroDivisionError"),
        (RUN, ["--lr", "0"], "`lr` must be positive"),
        (RUN, ["--batch-size", "1000"], "at most the number of samples, 128"),
    ],
)
def test_diagnose_reports_invalid_input_on_one_line(tmp_path, text, more, words):
    if text is not None:
        (tmp_path / "run.py").write_text(text)
    done = CliRunner().invoke(main, ["diagnose", str(tmp_path / "run.py"), "--lr", "0.1", "--batch-size", "8", *more])
    assert done.exit_code == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1


RULES_GAP = ["gap", "--loss", "x**2/2", "--x0", "1", "--sigma", "1", "--eta", "0.1", "--horizon", "0.5", "--paths", "500"]


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("sgdm", []),
        ("sgd", []),
        ("adam", ["--beta2", "0.9", "--eps", "0.1", "--lagged", "--no-bias-correction", "--second-moment", "1"]),
        ("adamw", ["--weight-decay", "0.5", "--eps", "0.1", "--current", "--bias-correction"]),
        ("rmsprop", ["--beta2", "0.9", "--lagged", "--second-moment", "1"]),
        ("signsgd", []),
        ("signum", []),
        ("lion", ["--beta2", "0.9", "--weight-decay", "0.5"]),
        ("clippedsgd", ["--clip-value", "0.5"]),
        ("clippedsgd", ["--clip-norm", "0.5"]),
        ("normalisedsgd", []),
        ("localsgd", ["--workers", "2", "--local-steps", "3"]),
        ("sam", ["--rho", "0.2"]),
        ("acsgd", ["--ratio", "0.5"]),
    ],
)
def test_gap_runs_every_optimiser_with_its_switches(monkeypatch, name, switches):
    """The constructor gets exactly the given switches, with the schedule that it uses."""
    from sdetools.cli.rule_options import RULES

    made = []

    class Spy(getattr(sdetools, RULES[name].name)):
        def __init__(self, oracle, plan, **given):
            made.append((plan.has_momentum, given))
            super().__init__(oracle, plan, **given)

    Spy.__signature__ = inspect.signature(getattr(sdetools, RULES[name].name))
    monkeypatch.setattr(sdetools, RULES[name].name, Spy)
    result = call(*RULES_GAP, "--dynamics", name, "--against", "signsgd" if name == "sgd" else "sgd", *switches)
    assert result.exit_code == 0, result.output
    momentum, given = made[0]
    assert momentum == (name in ("sgdm", "adam", "adamw", "signum", "lion"))
    renamed = {"clip-value": "value", "clip-norm": "norm"}
    for option, value in zip(switches, [*switches[1:], "--"]):
        if option.startswith("--"):
            expected = float(value) if not value.startswith("--") else not option.startswith(("--no-", "--current"))
            argument = option.removeprefix("--").removeprefix("no-").replace("current", "lagged")
            assert given[renamed.get(argument, argument.replace("-", "_"))] == expected
    assert ("independently" in result.stderr) == (name == "localsgd")


def test_gap_switches_apply_to_both_and_default_to_those_of_the_first(monkeypatch):
    """At beta = 0 Adam and RMSProp are one rule if their switches agree, so that the gap is 0."""
    lone = [*RULES_GAP, "--beta", "0", "--eps", "0.1"]
    for first, second in (("adam", "rmsprop"), ("rmsprop", "adam")):
        result = call(*lone, "--dynamics", first, "--against", second)
        assert result.exit_code == 0 and re.search(r" 0\.?0* ", result.stdout.splitlines()[1]), result.stdout
    other = call(*[*RULES_GAP, "--beta", "0.5", "--eps", "0.1"], "--dynamics", "adam", "--against", "rmsprop")
    assert not re.search(r" 0\.?0* ", other.stdout.splitlines()[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rho", "0.1"], "--rho is an option of sam; got it for sgdm and sgd."),
        (["--dynamics", "adam", "--clip-norm", "1"], "--clip-norm is an option of clippedsgd; got it for adam and sgd."),
        (
            ["--beta2", "0.9", "--dynamics", "signum"],
            "--beta2 is an option of adam, adamw, rmsprop, lion; got it for signum and sgd.",
        ),
        (["--dynamics", "adam", "--beta2", "1"], "sdetools: `beta2` must lie in [0, 1); got beta2=1.0."),
        (["--dynamics", "clippedsgd"], "sdetools: `value` or `norm` must be given, one of them; got neither."),
        (["--dynamics", "adam", "--against", "sde"], "sdetools: `against` sde is a limit of sgdm and sgd; got it for adam."),
        (["--dynamics", "adagrad"], "Invalid value for '--dynamics'"),
    ],
)
def test_gap_refuses_switches_that_do_not_apply(arguments, words):
    result = call(*RULES_GAP, *arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split()) and result.stdout == ""
