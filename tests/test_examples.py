"""The examples run, and their output has the promised values."""

import itertools
import math
import re
import runpy
from pathlib import Path

import pytest

from sdetools.dynamics.catalogue import integrators

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _output(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_here():
    """The list of examples is complete."""
    assert {f.stem for f in EXAMPLES.glob("*.py")} == {
        "adaptive",
        "first_gap",
        "least_squares",
        "own_loss",
        "own_noise",
        "own_dynamics",
        "own_claims",
        "own_sde",
        "own_torch_manifold",
        "diagnose_your_run",
        "svag_around_your_loop",
        "own_network_gap",
        "slow_motion",
        "which_sde",
        "work_precision",
    }


def test_first_gap(capsys):
    """The order of the gap and the variance reduction."""
    printed = _output("first_gap", capsys)
    order = float(re.search(r"order of x\*\*2 \+ y\*\*2: ([\d.]+)", printed).group(1))
    assert 0.4 < order < 1.0  # local slopes rise from 0.45 to 1 as eta falls
    assert "save a factor" in printed


@pytest.mark.slow
def test_least_squares(capsys, tmp_path, monkeypatch):
    """The exponents of theory, speed-ups between 1 and sqrt(kappa), and three figures."""
    monkeypatch.chdir(tmp_path)
    printed = _output("least_squares", capsys)
    exponents = [float(found) for found in re.findall(r"falling as t\^(\S+)", printed)]
    # a = 1, b = 0.3: (2 a + 2 b - 1) / 2 a = 0.8 with a fixed memory, 0.8 (2 - 1 / 2 a) = 1.2 in the end with a growing one
    assert exponents[:2] == [pytest.approx(-0.8, abs=0.01)] * 2 and exponents[2] == pytest.approx(-1.2, abs=0.1)
    speed = [tuple(map(float, pair)) for pair in re.findall(r"speed-up (\S+) at B = \d+ and (\S+) at", printed)]
    assert len(speed) == 3 and all(1 < first < 1.5 and 10 < last < 20 for first, last in speed)
    rates = [float(found) for found in re.findall(r"up to h = (\S+)", printed)]
    assert rates[0] >= rates[1] > 0
    for name in ("risk", "batches", "dropping"):
        assert (tmp_path / f"least_squares_{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_adaptive(capsys, tmp_path, monkeypatch):
    """Momentum's part vanishes with h at fixed beta_1 only, near its law; SGD and Adam end near their own rest points."""
    monkeypatch.chdir(tmp_path)
    printed = _output("adaptive", capsys)
    orders = [float(found) for found in re.findall(r"order ([\d.]+) in h", printed)]
    assert len(orders) == 3 and all(0.8 < found < 1.5 for found in orders)  # beta_1 = 0.9 has the longest memory, 20 of 160 steps
    ratios = [[float(one) for one in line.split(", ")] for line in re.findall(r": ([\d., ]+)$", printed, re.MULTILINE)][:3]
    assert all(abs(one[-1] - 1) < 0.3 for one in ratios)
    kept = [float(one) for one in re.search(r"= 2h: (.*) does", printed).group(1).split(", ")]
    assert all(-0.13 < one < -0.09 for one in kept)
    ends = {name: float(x) for name, x in re.findall(r"(SGD|Adam): x\(6\) = ([\d.]+)", printed)}
    assert ends == {"SGD": pytest.approx(2 ** (1 / 6), abs=0.015), "Adam": pytest.approx(1.0, abs=0.015)}
    for name in ("momentum", "manifold"):
        assert (tmp_path / f"adaptive_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_own_loss(capsys):
    """Three input forms of a loss give the same means."""
    lines = [re.findall(r"= ([\d.]+)", line) for line in _output("own_loss", capsys).splitlines()[:3]]
    # The same draws in three input forms: equal to rounding, which 50 steps of a contraction do not amplify.
    values = [[float(v) for v in line] for line in lines]
    assert values[1] == pytest.approx(values[0], rel=1e-11) and values[2] == pytest.approx(values[0], rel=1e-11)


def test_own_noise(capsys):
    """The gap has order 1/2 and the sign and size of the skewness term."""
    ratios = [float(line.split()[-3]) for line in _output("own_noise", capsys).splitlines()[1:]]
    # Leading order: -skewness * (root at most 3/2)^3 * int_0^1 exp(-3 (1 - s)) ds.
    skewness = (1 - 2 * 0.05) / (0.05 * 0.95) ** 0.5
    assert all(-skewness * 1.5**3 * (1 - math.exp(-3)) / 3 < ratio < 0 for ratio in ratios)
    # Over a factor of 4 in eta, order 1/2 keeps this at 1 where order 0 gives 1/2 and order 1 gives 2.
    assert 2**-0.5 < ratios[0] / ratios[-1] < 2**0.5


def test_own_dynamics(capsys):
    """Gaps decrease with eta; a wrong learning rate gives a larger one."""
    gaps = [float(g) for g in re.findall(r"sup gap of x0?\*\*2 = ([\d.]+)", _output("own_dynamics", capsys))]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[3] > 2 * gaps[2]


def test_own_sde(capsys):
    """Measured weak orders agree with the declared ones."""
    printed = _output("own_sde", capsys)
    orders = [(float(a), float(b)) for a, b in re.findall(r"weak order ([\d.]+) \(declared ([\d.]+)\)", printed)]
    assert len(orders) == 3 and all(abs(found - declared) < 0.1 for found, declared in orders)
    assert float(re.search(r"factor of (\d+)", printed).group(1)) > 50


def test_own_claims(capsys):
    """Both claims are supported."""
    assert [line.split()[0] for line in _output("own_claims", capsys).splitlines()] == ["supported", "supported"]


@pytest.mark.slow
def test_slow_motion(capsys, tmp_path, monkeypatch):
    """The projected point, the distances in law and the figure."""
    monkeypatch.chdir(tmp_path)
    printed = _output("slow_motion", capsys)
    end = [float(v) for v in re.search(r"ends at \[\s*([\d.]+)\s+([\d.]+)\]", printed).groups()]
    assert abs(end[1] - math.sin(end[0])) < 2e-6 and end[0] > 1.0
    distances = {line.split()[0]: float(line.split()[-3]) for line in printed.splitlines() if re.match(r"SGDM? +x", line)}
    assert all(w < 0.06 for w in distances.values()) and len(distances) == 2
    assert (tmp_path / "slow_motion.svg").read_text().startswith("<?xml")


def test_own_torch_manifold(capsys):
    """The rank of the Hessian, and a decreasing trace along the slow flow."""
    pytest.importorskip("torch")
    printed = _output("own_torch_manifold", capsys)
    assert "rank 40 of 2400" in printed
    first, last = (float(v) for v in re.search(r"flow: ([\d.]+) at first, ([\d.]+) at", printed).groups())
    assert last < 0.9 * first


def test_diagnose_your_run(capsys):
    """Opposite advice for a small and a large learning rate."""
    pytest.importorskip("torch"), pytest.importorskip("sklearn")
    small, large = _output("diagnose_your_run", capsys).strip().split("\n\n")
    assert "momentum: drop it: plain SGD at lr=0.03" in small and "momentum: keep it" in large


@pytest.mark.slow
def test_svag_around_your_loop(capsys):
    """SVAG reduces the difference between SGD and SGDM."""
    pytest.importorskip("torch"), pytest.importorskip("sklearn")
    apart = [float(line.split()[-1]) for line in _output("svag_around_your_loop", capsys).strip().splitlines()]
    assert len(apart) == 3 and apart[-1] < apart[0] / 4


def test_own_network_gap(capsys):
    """The study of the network reports an order."""
    pytest.importorskip("torch"), pytest.importorskip("sklearn")
    assert "order of x12**2" in _output("own_network_gap", capsys)


def test_which_sde(capsys):
    """A rule's own equation has order 2 and that of SGD order 1; the errors tend to the derived constant like eta."""
    printed = _output("which_sde", capsys)
    assert "as good as derived: weak order 2" in printed and "the equation of SGD: weak order 1, leading error tau^2 [" in printed
    seen = [(float(a), float(b)) for a, b in re.findall(r"over eta: ([-\d.]+) \(derived limit ([-\d.]+)\)", printed)]
    errors = [abs(a - b) for a, b in seen]
    # eta falls by factors of 4; the six printed digits allow for 1e-6
    assert len(seen) == 3 and abs(seen[0][1]) > 0.1 and all(b < a / 3 + 2e-6 for a, b in itertools.pairwise(errors))


@pytest.mark.slow
def test_work_precision(capsys, tmp_path, monkeypatch):
    """Every integrator; higher orders have the smaller errors at the shortest step, and those of the splittings fall by four."""
    monkeypatch.chdir(tmp_path)
    printed = _output("work_precision", capsys)
    missing = [cls.__name__ for cls in integrators() if f"\n{cls.__name__} " not in printed]
    assert not missing, f"integrators that lack an equation in examples/work_precision.py: {', '.join(missing)}"
    problem, errors = "", {}
    for line in printed.splitlines():
        problem = line if line in ("diagonal noise", "Stratonovich", "additive noise", "kinetic equation") else problem
        if "root mean square" in line and "0.0625" in line:
            errors[problem, line.split()[0]] = float(line.split()[5])
    assert errors["diagonal noise", "Milstein"] < 0.75 * errors["diagonal noise", "EulerMaruyama"]
    assert errors["additive noise", "SRA1"] < 0.05 * errors["additive noise", "EulerMaruyama"]
    assert errors["Stratonovich", "Heun"] > 0
    for name in ("OBABO", "BAOAB", "UBU"):
        coarse, fine = (
            float(line.split()[3])
            for line in printed.splitlines()
            if line.startswith(name) and line.split()[2] in ("0.5", "0.25")
        )
        assert 3 < coarse / fine < 5.5
    assert (tmp_path / "work_precision.svg").read_text().startswith("<?xml")
