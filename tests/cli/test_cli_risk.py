"""`sdetools risk`: exact numbers on the command line, against closed forms of one mode that are written out here."""

from __future__ import annotations

import csv
import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

import sdetools as st
from sdetools.cli import main
from sdetools.dynamics.catalogue import optimisers

ONE = ["--spectrum", "1", "--batch", "2", "--eta", "0.5"]


def call(*arguments):
    return CliRunner().invoke(main, ["risk", *map(str, arguments)])


def table(text, first):
    """Return the lines of a table whose heading begins with `first`, without it, each split at two spaces or more."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(first))
    rest = lines[start + 1 :]
    end = next((i for i, line in enumerate(rest) if not line.strip() or ": modes in groups" in line), len(rest))
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in rest[:end]]


def factor(h, batch):
    """E rho'^2 / rho^2 of one step of SGD on one mode of eigenvalue 1 without label noise."""
    return (1 - h) ** 2 + 2 * h * h / batch


def test_one_mode_has_its_closed_form_and_its_exponents():
    done = call(*ONE, "--methods", "sgd,sgdm:0.9", "--steps", 16, "--rows", 6)
    assert done.exit_code == 0, done.output
    rows = table(done.stdout, "step")
    assert [int(row[0]) for row in rows] == [0, 1, 2, 4, 8, 16]
    assert factor(0.5, 2) == 0.5
    for row in rows:
        assert float(row[1].split()[0]) == pytest.approx(0.5 * 0.5 ** int(row[0]), rel=1e-5)
    # log 0.5^(16 - 8) / log 2
    assert rows[-1][1].endswith("(-8.000)")
    assert "1 modes, trace 1, largest 1, smallest 1; batch 2, label noise 0; excess risk 0.5 at the start" in done.stdout


def test_the_methods_have_the_rate_of_one_equivalent_sgd_or_their_own():
    methods = "sgd,sgdm:0.9,heavy-ball:0.9,nesterov:0.8,sgd:eta=0.25,heavy-ball:beta=0.5:eta=0.1,qhm:0.9:nu=0.5,schedule-free"
    done = call(*ONE, "--methods", methods, "--steps", 8)
    assert done.exit_code == 0, done.output
    rates = {row[0]: (float(row[2]), row[3]) for row in table(done.stdout, "method")}
    assert rates["sgdm:0.9"] == rates["sgd"] == (0.5, "0.5")
    assert rates["heavy-ball:0.9"] == (pytest.approx(0.05), "0.5") and rates["nesterov:0.8"] == (pytest.approx(0.1), "0.5")
    assert rates["sgd:eta=0.25"] == (0.25, "0.25") and rates["heavy-ball:beta=0.5:eta=0.1"] == (0.1, "0.2")
    assert rates["schedule-free"] == (0.5, "-")
    rows = table(done.stdout, "step")
    # heavy ball and its EMA form take the same steps; a smaller rate does not
    assert all(row[2] == row[3] for row in rows) and rows[1][2] != rows[1][4]
    assert float(rows[1][5]) == pytest.approx(0.5 * factor(0.25, 2))
    # QHM moves by h ((1 - nu) + nu (1 - beta)) g in its first step
    assert float(rows[1][7]) == pytest.approx(0.5 * factor(0.5 * (0.5 + 0.5 * 0.1), 2), rel=1e-5)


@pytest.mark.parametrize("entry", [entry for entry in optimisers() if entry.exact], ids=lambda entry: entry.name)
def test_every_linear_rule_of_the_catalogue_is_a_method(entry):
    """With its default numbers, at the rate of its equivalent SGD."""
    name = re.sub("(?<=[a-z])(?=[A-Z][a-z])", "-", entry.name).lower()
    done = call("--spectrum", "1,0.5", "--batch", 4, "--eta", 0.01, "--methods", name, "--steps", 5)
    assert done.exit_code == 0, done.output
    (row,) = table(done.stdout, "method")
    assert row[:2] == [name, entry.name] and (row[3] == "0.01") == (entry.gain and name != "mass")
    assert float(table(done.stdout, "step")[-1][1].split()[0]) < 0.75


def test_dana_and_mass_have_their_own_numbers():
    done = call(
        "--spectrum", "1,0.25", "--batch", 1, "--eta", 0.1, "--methods", "dana,dana:0.3:delta=4,dana:ratio=0.2,mass", "--steps", 4
    )
    assert done.exit_code == 0, done.output
    rows = {row[0]: row for row in table(done.stdout, "method")}
    assert rows["dana"][-1] == "delta=8, share=0.25" and rows["dana:0.3:delta=4"][-1] == "delta=4, share=0.3"
    assert rows["dana:ratio=0.2"][-1] == "delta=8, ratio=0.2, power=0"
    # the authors' 1 / (tr K + 2 lam_max)
    assert float(rows["mass"][2]) == pytest.approx(1 / 3.25, rel=1e-5)
    oracle = st.streaming_least_squares([1.0, 0.25], batch=1)
    expected = st.exact.risk(st.DANA(oracle, st.schedules.constant(0.1), ratio=0.2), [1.0, 1.0], 4).risk[-1]
    assert float(table(done.stdout, "step")[-1][3].split()[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "modes", "start"),
    [
        (["--spectrum", "1,0.5", "--targets", "2"], 2, (4 + 0.5 * 4) / 2),
        (["--spectrum", "1,0.5", "--targets", "2,4"], 2, (4 + 0.5 * 16) / 2),
        (["--spectrum", "power:1,3", "--targets", "0.5"], 3, (1 + 1 / 8 + 1 / 27) / 2),
        (["--spectrum", "bulks:2,3,10", "--targets", "1,2"], 5, (2 + 3 * 4 / 10) / 2),
    ],
)
def test_spectra(arguments, modes, start):
    done = call(*arguments, "--eta", 0.01, "--methods", "sgd", "--steps", 2)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{modes} modes, ") and f"excess risk {start:.5g} at the start" in done.stdout


def test_random_features_have_a_seed():
    heads = [
        call(
            "--spectrum", "features:1,4,40", "--targets", "0.3", "--eta", 0.01, "--steps", 2, "--seed", seed
        ).stdout.splitlines()[0]
        for seed in (0, 0, 1)
    ]
    law = st.exact.random_features(4, 40, 1.0, 0.3, seed=0)
    assert heads[0] == heads[1] != heads[2]
    assert (
        heads[0].endswith(f"label noise {law.label_noise:.5g}; excess risk {law.risk:.5g} at the start") and law.label_noise > 0
    )


@pytest.mark.parametrize("name", ["data.csv", "named.csv", "data.txt", "data.npy"])
def test_data_are_read_from_files(tmp_path, name):
    """Two rows (2, 0 | 2) and (0, 1 | 3): eigenvalues 2 and 1/2, minimiser (1, 3), no residual."""
    rows, path = np.array([[2.0, 0.0, 2.0], [0.0, 1.0, 3.0]]), tmp_path / name
    if path.suffix == ".npy":
        np.save(path, rows)
    else:
        np.savetxt(
            path, rows, delimiter="," if path.suffix == ".csv" else " ", header="a,b,y" if "named" in name else "", comments=""
        )
    done = call("--spectrum", path, "--eta", 0.01, "--steps", 2)
    assert done.exit_code == 0, done.output
    head = re.fullmatch(
        r"2 modes, trace 2.5, largest 2, smallest 0.5; batch 1, label noise (.+); excess risk 3.25 at the start",
        done.stdout.splitlines()[0],
    )
    assert float(head[1]) < 1e-14  # rounding of the residual
    loud = call("--spectrum", path, "--eta", 0.01, "--steps", 2, "--label-noise", 0.5)
    assert "label noise 0.5;" in loud.stdout


def test_a_file_of_one_column_holds_eigenvalues(tmp_path):
    np.save(tmp_path / "values.npy", [1.0, 0.5])
    done = call("--spectrum", tmp_path / "values.npy", "--targets", "2,4", "--eta", 0.01, "--steps", 2)
    assert done.exit_code == 0 and "excess risk 6 at the start" in done.stdout


def dropping(done):
    """Return the cells of the first line on dropping momentum."""
    rest = done.stdout[done.stdout.index("May momentum") :]
    return table(rest, "method")[0]


def test_may_momentum_be_dropped():
    """The first step of SGDM is one of SGD at h (1 - beta): the exact log ratio after one step."""
    done = call(*ONE, "--methods", "sgd,sgdm:0.9", "--steps", 1)
    cells = dropping(done)
    expected = math.log(factor(0.05, 2) / factor(0.5, 2))
    assert cells[0] == "sgdm:0.9" and cells[-3] == f"{expected:.4g} at step 1" and cells[-2] == "no" and cells[5] == "no answer"
    assert float(cells[-1]) == pytest.approx(expected, rel=1e-3)
    small = [
        "--spectrum",
        "power:1,100",
        "--targets",
        0.5,
        "--label-noise",
        0.5,
        "--batch",
        8,
        "--methods",
        "sgdm:0.9",
        "--eta",
        0.001,
    ]
    assert dropping(call(*small, "--steps", 1000))[5] == "yes"
    assert dropping(call(*small, "--steps", 1000, "--delta", 1e-4))[5] == "no answer"
    assert "May momentum" not in call(*ONE, "--methods", "sgd,sgdm:0", "--steps", 2).stdout


def test_best_rates_of_one_mode():
    """1 - 2 h + h^2 (1 + 2/B) is least, 1 - B/(B + 2), at h = B/(B + 2)."""
    done = call(*ONE, "--methods", "sgd", "--steps", 2, "--best")
    assert done.exit_code == 0, done.output
    plain = next(line.split() for line in done.stdout.splitlines() if line.startswith("sgd   ") and len(line.split()) == 5)
    assert float(plain[1]) == pytest.approx(0.5, rel=1e-3) and float(plain[3]) == pytest.approx(0.5, rel=1e-3)
    assert float(plain[4]) == pytest.approx(math.log(10) / math.log(2), rel=1e-3)


def test_divergence_names_the_stability_limit():
    """Of one mode: eta = 2 B / (B + 2), 1 at B = 2."""
    done = call("--spectrum", "1", "--batch", 2, "--methods", "sgd,sgd:eta=0.5,dana:ratio=5", "--eta", 3)
    assert done.exit_code == 0
    assert (
        "sgd diverges: it is stable up to the learning rate 1, --eta 1.\n" in done.stderr
        and "sgd:eta=0.5 diverges" not in done.stderr
    )
    assert "dana:ratio=5 diverges: its coefficients move" in done.stderr
    assert table(done.stdout, "step")[-1][1].startswith("inf")


def test_modes_in_groups_state_the_error():
    """Curves of grouped modes, against every mode by itself; a bound for constant coefficients, an estimate for moving ones."""
    given = ["--spectrum", "power:1,2000", "--targets", 0.3, "--eta", 0.1, "--steps", 50, "--batch", 4]
    done = call(*given, "--methods", "sgd,dana")
    law = st.exact.power_law(2000, 1.0, 0.3)
    oracle = st.streaming_least_squares(law.values, 0.0, 4)
    alone = st.exact.risk(st.SGD(oracle, st.schedules.constant(0.1)), law.distance, 50, nodes=0).risk[50]
    found = float(table(done.stdout, "step")[-1][1].split()[0])
    bound = float(
        re.search(r"^sgd: modes in groups, \d+ nodes; error of the risk at most (.+), proved$", done.stdout, re.MULTILINE)[1]
    )
    assert 0 < bound < 1e-3 * alone and abs(found - alone) <= bound + 5e-6 * alone  # the table has six digits
    assert re.search(r"^dana: modes in groups, \d+ nodes; error of the risk about .+, an estimate$", done.stdout, re.MULTILINE)


def test_files(tmp_path):
    out = tmp_path / "out"
    given = [*ONE, "--methods", "sgd,sgdm:0.9", "--steps", 100]
    quiet = call(*given)
    done = call(*given, "--out", out, "--plot", tmp_path / "risk.png", "--json", tmp_path / "risk.json")
    assert done.exit_code == 0, done.output
    assert done.stdout == quiet.stdout
    assert sorted(file.name for file in out.iterdir()) == ["risk.csv", "risk.json", "risk.svg", "sgd.nc", "sgdm-0.9.nc"]
    assert (tmp_path / "risk.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "risk.json").read_text() == (out / "risk.json").read_text()
    found = json.loads((out / "risk.json").read_text())
    rows = list(csv.DictReader((out / "risk.csv").read_text().splitlines()))
    risks = {int(row["step"]): float(row["risk"]) for row in rows if row["method"] == "sgd"}
    assert risks == dict(zip(found["steps"], found["methods"]["sgd"]["risk"]))
    assert risks[100] == pytest.approx(0.5 * 0.5**100, rel=1e-12) and found["dropping"][0]["method"] == "sgdm:0.9"
    loaded = st.load(out / "sgdm-0.9.nc")
    assert isinstance(loaded, st.exact.Risk) and loaded.at(100) == found["methods"]["sgdm:0.9"]["risk"][-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--eta", "0"], "sdetools: `eta` must be a positive number"),
        (["--delta", "-1"], "sdetools: `delta` must be a positive number"),
        (["--spectrum", "1,x"], "sdetools: `spectrum` must be numbers separated by commas"),
        (["--spectrum", "1,-1"], "sdetools: `spectrum` must be a vector of positive numbers"),
        (["--spectrum", "power:1"], "sdetools: `spectrum` must be numbers '1,0.5,0.1', power:A,MODES"),
        (["--spectrum", "cubic:1,2"], "sdetools: `spectrum` must be numbers"),
        (["--spectrum", "power:1,2.5"], "sdetools: `modes` must"),
        (["--spectrum", "power:-1,2"], "sdetools: `a` must be a positive number"),
        (["--spectrum", "bulks:1,2,0.5"], "sdetools: `ratio` must be at least 1"),
        (["--spectrum", "features:1,9,4"], "sdetools: `inputs` must"),
        (["--spectrum", "nowhere.npy"], "sdetools: `spectrum` must be a file that exists"),
        (["--spectrum", "WORDS"], "sdetools: `spectrum` must be a file of finite numbers"),
        (["--spectrum", "EMPTY"], "sdetools: `spectrum` must be a file of finite numbers"),
        (["--targets", "1,2,3"], "sdetools: `targets` must be one distance or 1"),
        (["--spectrum", "power:1,3", "--targets", "1,2"], "sdetools: `targets` of power must be one exponent"),
        (["--label-noise", "-0.1"], "sdetools: `label_noise` must"),
        (["--methods", "momentum"], "sdetools: a method must be one of "),
        (["--methods", "momentum"], "; got 'momentum'"),
        (["--methods", "sngm"], "Others are not linear"),
        (["--methods", ","], "sdetools: `methods` must be names"),
        (["--methods", "sgd,sgd"], "sdetools: `methods` must differ; got 'sgd' twice"),
        (["--methods", "sgd:0.9"], "sdetools: the method 'sgd:0.9' must have at most no numbers, and eta"),
        (["--methods", "sgdm:0.9:beta=0.8"], "each once; got 'beta=0.8'"),
        (["--methods", "sgdm:nu=0.8"], "must have at most beta, and eta"),
        (["--methods", "sgdm:fast"], "sdetools: `beta` must be numbers"),
        (["--methods", "sgdm:1"], "sdetools: `beta` must lie in [0, 1)"),
        (["--methods", "sgd:eta=-1"], "sdetools: `eta`"),
        (["--spectrum", "power:1,20001", "--best"], "sdetools: `best` must have at most 20,000 modes"),
        (["--batch", "0"], "Invalid value for '--batch'"),
        (["--steps", "0"], "Invalid value for '--steps'"),
        (["--plot", "risk.doc"], "sdetools: `plot` must end in .png, .svg or .pdf"),
        (["--json", "nowhere/risk.json"], "sdetools: `json` must lie in a folder that exists"),
    ],
)
def test_invalid_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "empty.csv").write_text("")
    before = sorted(tmp_path.iterdir())
    given = [{"WORDS": "words.csv", "EMPTY": "empty.csv"}.get(argument, argument) for argument in arguments]
    done = call(*ONE, "--steps", "4", "--out", "out", *given)
    assert done.exit_code == 2 and words in done.stderr, done.output
    assert done.stdout == "" and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_help_has_examples():
    done = call("--help")
    assert done.exit_code == 0 and "Example:" in done.stdout and "sdetools risk --spectrum power:1,1000" in done.stdout
