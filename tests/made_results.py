"""One result of each class, and their comparison to the bit, for the tests of results and of their files."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import xarray

import sdetools as st
from sdetools.benchmarking.dimension_table import Cell, Comparison, DimensionTable, LeftOut
from sdetools.results.described import Described

LOSS = st.losses.from_expression("(x*y - 1)**2 / 2", variables="x y")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=2), sigma=1.0)
PLAN = st.schedules.constant(eta=0.0625, beta=0.5)
FAST = dict(backend="numpy", threads=1, seed=3)


def pair(eta=0.0625):
    """Return SGDM and SGD."""
    plan = st.schedules.constant(eta=eta, beta=0.5)
    return st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())


def simulation(**more):
    """Return a simulation with trajectories."""
    return st.simulate(pair()[0], [2.0, 0.5], 0.5, 600, ["x**2", "y"], trajectories=3, keep_final=True, **FAST, **more)


def gap():
    """Return a gap with slices."""
    return st.weak_gap(*pair(), [2.0, 0.5], 0.5, 600, ["x**2", "y"], slices=[0.25], **FAST)


def orders():
    """Return an order study."""
    given = dict(expected={"x**2": lambda eta: 0.1 * eta}, **FAST)
    return st.order_study(pair, [0.125, 0.0625], [2.0, 0.5], 0.5, 600, ["x**2", "y"], **given)


def law():
    """Return a distance in law."""
    return st.distance(*(simulation(stream=s).final for s in (0, 1)), "energy", resamples=40)


def levels():
    """Return a multilevel estimate."""
    sde = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    return st.multilevel(lambda dt: st.Milstein(sde, dt), [1.0], 1.0, 0.05, ["x**2", "3"], **FAST)


def extrapolated():
    """Return an extrapolation."""
    sde = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    return st.extrapolate(lambda dt: st.EulerMaruyama(sde, dt), 0.25, [1.0], 1.0, 600, ["x**2"], **FAST)


def slow():
    """Return a study of the slow SDE."""
    oracle = st.NoisyOracle(st.losses.exponential_valley(), st.noise.rademacher(dim=2))
    return st.slow_study(oracle, st.schedules.constant(eta=0.25, beta=0.5), [0.0, 0.0], 0.5, 300, dt=0.125, **FAST)


def stationary():
    """Return stationary averages."""
    return st.stationary(pair()[0], [1.0, 1.0], 20.0, 5, ["x**2", "y"], burn_in=4.0, **FAST)


def exits():
    """Return exit times, of which some are censored."""
    return st.exit_time(pair()[1], [1.0, 1.0], "x**2 + y**2 - 3", 3.0, 300, ["x*y"], **FAST)


def diagram():
    """Return a work-precision diagram; some of its errors are not resolved."""
    sde = st.SDE(drift=["-x"], diffusion=["0.2*x"], variables="x")
    methods = {"Euler": lambda dt: st.EulerMaruyama(sde, dt), "Milstein": lambda dt: st.Milstein(sde, dt)}
    return st.work_precision(methods, [0.5, 0.25], [1.0], 1.0, 600, ["x", "x**2"], reference=st.Milstein(sde, 0.0625), **FAST)


def diverging():
    """Return a simulation with diverged paths."""
    with np.errstate(all="ignore"):
        return st.simulate(st.SGD(ORACLE, st.schedules.constant(eta=2.0)), [5.0, 5.0], 40.0, 50, ["x"], **FAST)


def diagnosis():
    """Return a diagnosis of a small network, with all of its stages."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(64, 3)
    data = x, x.sum(1, keepdim=True)
    return st.bridge.diagnose(
        torch.nn.Linear(3, 1),
        torch.nn.functional.mse_loss,
        data,
        0.01,
        batch_size=4,
        batches=16,
        seeds=2,
        trial=True,
        seed=3,
    )


def adam():
    """Return a paired trial of Adam on a small network."""
    import torch

    torch.manual_seed(0)
    net, x = torch.nn.Linear(3, 1), torch.randn(64, 3)
    own = torch.optim.Adam(net.parameters(), lr=0.01)
    data = x, x.sum(1, keepdim=True)
    return st.bridge.diagnose_adam(net, torch.nn.functional.mse_loss, data, own, batch_size=8, seeds=2, steps=20, seed=3)


def claims():
    """Three claims: supported, contradicted, and one without a measurement; with a figure, a table, a note and a control."""
    folder = Path(tempfile.mkdtemp())
    (folder / "claims.py").write_text(CLAIMS, encoding="utf-8")
    return st.verify(folder / "claims.py", out=folder / "out", seed=3)


def risk():
    """Return an exact risk with its moments."""
    oracle = st.streaming_least_squares(spectrum=[1.0, 0.5, 0.25], label_noise=0.3, batch=4)
    return st.exact.risk(st.SGDM(oracle, PLAN), [1.0, 2.0, 3.0], 40, [0, 10, 40], moments=True)


def speeds():
    """A table of two measured cells of `sdetools bench --dimension`, one of them without times to the first result."""
    cells = (
        Cell("dense quadratic", 2, 256, 1024, 100, 1.5, 1.25, 0.9, 40.0, 30.0, 1.15, 0.75, 0.25),
        Cell("double well", 64, 128, 1024, 100, 3.0, 1.25, 0.9, 0.0, 0.0, 1.3, None, None),
    )
    compared = (Comparison("both threads", 1.5, 1.4, "at most"), Comparison("seconds", 2.0, None, "at most", "a remark"))
    return DimensionTable(
        {"processor": "p", "cores": 2}, 2, cells, compared, (LeftOut("dense quadratic", 10_000, "is too large"),)
    )


def swept():
    """A sweep with seeds, of which one point failed, and one has no error."""
    return st.sweep(one_point, eta=[0.1, 0.05], rule=["a/b", "c"], seeds=[3, 4], errors="record", units={"eta": "steps"})


def one_point(eta, rule, seed):
    """Return an estimate and a number; fail at one of the points."""
    if rule == "c" and eta == 0.05:
        raise ValueError("the rule c must have a larger eta.")
    return {"gap": st.Estimate(eta + seed, 0.01, 100), "square": eta**2}


CLAIMS = """
import sdetools as st


@st.claim("one", statement="one is one")
def one(run):
    run.measure("one", st.Estimate(1.0, 0.01, 1000), expected=1.0, tolerance=0.2)
    run.measure("at most", st.Estimate(1.0, 0.01, 1000), at_most=2.0)
    run.table("numbers", [{"a": 1, "b": 0.5}])
    run.figure("curve", lambda: st.plots.gap_curve([0.0, 1.0], [0.0, 1.0]))
    with run.control("two"):
        run.measure("two", 2.0, expected=1.0, tolerance=0.1)


@st.claim("two", statement="two is one")
def two(run):
    run.measure("two", 2.0, expected=1.0, tolerance=0.01)
    run.measure("at least", 2.0, at_least=1.0)


@st.claim("nothing", statement="nothing")
def nothing(run):
    pass
"""

MAKERS = {
    f.__name__: f
    for f in (
        simulation,
        gap,
        orders,
        law,
        levels,
        extrapolated,
        slow,
        stationary,
        exits,
        diagram,
        diverging,
        diagnosis,
        adam,
        claims,
        risk,
        speeds,
        swept,
    )
}
CLASSES = {
    "simulation": "Simulation", "gap": "WeakGap", "orders": "OrderStudy", "law": "Distance", "levels": "Multilevel", "extrapolated": "Extrapolation",
    "slow": "SlowStudy", "stationary": "StationaryStudy", "exits": "ExitStudy", "diagram": "WorkPrecision", "diverging": "Simulation",
    "diagnosis": "Diagnosis", "adam": "AdamTrial", "claims": "Results", "risk": "Risk", "speeds": "DimensionTable", "swept": "Sweep",
}  # fmt: skip
"""The class of each result, by the name of its maker."""
AXES = {"levels": 4, "slow": 2, "speeds": 2}


def same(a, b, where="result"):
    """Assert that two results contain the same numbers bitwise; dynamics and other code are compared by their names."""
    if dataclasses.is_dataclass(a) and type(a) is type(b) and not isinstance(a, Described):
        for field in dataclasses.fields(a):
            same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    elif isinstance(a, xarray.DataArray):
        xarray.testing.assert_identical(a, b)
        assert a.values.tobytes() == b.values.tobytes(), where
    elif isinstance(a, dict) or hasattr(a, "keys"):
        assert list(a) == list(b), where
        for key in a:
            same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f"{where}[{i}]")
    elif isinstance(b, Described):
        assert b == (a if isinstance(a, Described) else Described.of(a)), where
    elif type(b).__name__ == "Facts":
        same(a.facts, b, where)
    else:
        assert a == b or (a != a and b != b), (where, a, b)
