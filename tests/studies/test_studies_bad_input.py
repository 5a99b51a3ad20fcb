"""Input validation of the Python interface: errors are ValueErrors of one or two sentences that name the argument, before any run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sdetools as st

LOSS = st.losses.quadratic([1.0, 2.0])
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=2), sigma=2.0)
PLAN = st.schedules.constant(0.125, 0.5)
FLAT = PLAN.averaged()
GIVEN = dict(x0=[1.0, 2.0], horizon=1.0, paths=100, observe=["x0"], threads=1, backend="numpy")
NAN = float("nan")


def run(**change):
    """Simulate with valid arguments, some of them changed."""
    return st.simulate(st.SGD(ORACLE, FLAT), **(GIVEN | change))


def gap(first=None, second=None, **change):
    """Compute a gap with valid arguments, some of them changed."""
    return st.weak_gap(first or st.SGDM(ORACLE, PLAN), second or st.SGD(ORACLE, FLAT), **(GIVEN | change))


def study(pair=None, etas=(0.25, 0.125), **change):
    """Compute an order study with valid arguments, some of them changed."""

    def usual(eta):
        plan = st.schedules.constant(eta, 0.5)
        return st.SGDM(ORACLE, plan), st.SGD(ORACLE, plan.averaged())

    return st.order_study(pair or usual, etas=etas, **(GIVEN | change))


def other_dimension():
    """Return a dynamics with one coordinate."""
    return st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(1)), FLAT)


def other_draws():
    """Return a dynamics with other draws."""
    return st.SGD(st.NoisyOracle(LOSS, st.noise.rademacher(2)), FLAT)


def swapped_names():
    """Compute a gap between losses whose coordinates are exchanged."""
    first = st.NoisyOracle(st.losses.from_expression("x**2 + 3*y**2", variables="x y"), st.noise.gaussian(2))
    second = st.NoisyOracle(st.losses.from_expression("x**2 + 3*y**2", variables="y x"), st.noise.gaussian(2))
    return gap(st.SGDM(first, PLAN), st.SGD(second, FLAT), observe=["x"])


BAD = {
    # schedules
    "eta = 0": (lambda: st.schedules.constant(0.0), "eta"),
    "eta < 0": (lambda: st.schedules.constant(-0.1), "eta"),
    "eta NaN": (lambda: st.schedules.constant(NAN), "eta"),
    "eta a word": (lambda: st.schedules.constant("fast"), "eta"),
    "beta = 1": (lambda: st.schedules.constant(0.1, 1.0), "beta"),
    "beta < 0": (lambda: st.schedules.constant(0.1, -0.1), "beta"),
    "beta NaN": (lambda: st.schedules.constant(0.1, NAN), "beta"),
    # dynamics
    "SGD with beta": (lambda: st.SGD(ORACLE, PLAN), "averaged"),
    "SGD with a number": (lambda: st.SGD(ORACLE, 0.1), "plan"),
    "SGD without oracle": (lambda: st.SGD(LOSS, FLAT), "oracle"),
    "momentum shape": (lambda: st.SGDM(ORACLE, PLAN, momentum=[1.0]), "momentum"),
    "momentum NaN": (lambda: st.SGDM(ORACLE, PLAN, momentum=[1.0, NAN]), "momentum"),
    "momentum covariance": (lambda: st.SGDM(ORACLE, PLAN, momentum=([0, 0], [[1, 2], [2, 1]])), "semidefinite"),
    "step_time = 0": (lambda: st.SGDM(ORACLE, PLAN, step_time=0.0), "step_time"),
    "gamma = 0": (lambda: st.HeavyBall(ORACLE, gamma=0.0, beta=0.5), "gamma"),
    "gamma starts at 0": (lambda: st.HeavyBall(ORACLE, gamma=[0.0, 0.1], beta=0.5), "step_time"),
    "heavy beta = 1": (lambda: st.HeavyBall(ORACLE, gamma=0.1, beta=1.0), "beta"),
    "heavy beta < 0": (lambda: st.HeavyBall(ORACLE, gamma=0.1, beta=-0.5), "beta"),
    # oracles
    "covariance not PSD": (lambda: st.noise.gaussian(covariance=[[1, 2], [2, 1]]), "semidefinite"),
    "covariance not symmetric": (lambda: st.noise.gaussian(covariance=[[1, 2], [0, 1]]), "symmetric"),
    "sigma < 0": (lambda: st.NoisyOracle(LOSS, st.noise.gaussian(2), sigma=-1.0), "sigma"),
    "dimensions of loss and noise": (lambda: st.NoisyOracle(LOSS, st.noise.gaussian(3)), "dim"),
    "wrong gradient": (lambda: st.losses.from_function(lambda x: [x[0]], 1, value=lambda x: x[0] ** 2), "gradient"),
    "code in a loss": (lambda: st.losses.from_expression("__import__('os').getcwd()"), "__import__"),
    "attribute in a loss": (lambda: st.losses.from_expression("x.real"), "x.real"),
    "caret": (lambda: st.losses.from_expression("x^2"), r"\*\*"),
    # runs
    "x0 shape": (lambda: run(x0=[1.0]), "x0"),
    "x0 paths before coordinates": (lambda: run(x0=np.ones((3, 2))), r"x0.*\(2, n\)"),
    "x0 an array of three axes": (lambda: run(x0=np.ones((2, 3, 4))), "x0"),
    "x0 NaN": (lambda: run(x0=[1.0, NAN]), "x0"),
    "x0 a word": (lambda: run(x0="origin"), "x0"),
    "horizon not whole": (lambda: run(horizon=1.01), r"horizon=1\.0"),
    "horizon 0": (lambda: run(horizon=0), "horizon"),
    "horizon < 0": (lambda: run(horizon=-1.0), "horizon"),
    "horizon NaN": (lambda: run(horizon=NAN), "horizon"),
    "horizon inf": (lambda: run(horizon=math.inf), "horizon"),
    "horizon below a step": (lambda: run(horizon=0.01), "horizon"),
    "horizon too far": (lambda: run(horizon=1e12), "100,000,000 steps"),
    "paths = 0": (lambda: run(paths=0), "paths"),
    "paths < 0": (lambda: run(paths=-5), "paths"),
    "paths a fraction": (lambda: run(paths=10.5), "paths"),
    "neither paths nor precision": (lambda: run(paths=None), "precision"),
    "both paths and precision": (lambda: run(precision=0.1), "precision"),
    "precision < 0": (lambda: run(paths=None, precision=-0.1), "precision"),
    "precision NaN": (lambda: run(paths=None, precision=NAN), "precision"),
    "unknown name": (lambda: run(observe=["y"]), "y"),
    "code in an observable": (lambda: run(observe=["open('/etc/passwd')"]), "open"),
    "nothing to observe": (lambda: run(observe=[]), "observe"),
    "observe a number": (lambda: run(observe=3), "observe"),
    "observed twice": (lambda: run(observe=["x0", "x0"]), "once"),
    "a vector observable": (lambda: run(observe=[lambda x: x]), "one real number a path"),
    "a complex observable": (lambda: run(observe=[lambda x: x[0] * 1j]), "one real number a path"),
    "a word as observable": (lambda: run(observe=[lambda x: "a"], backend="numpy"), "one real number a path"),
    "a complex drift": (lambda: st.SDE(lambda x: x * 1j, dim=1), "`drift` must return numbers"),
    "functional a number": (lambda: run(functionals=[3]), "functional"),
    "functional a word": (lambda: run(functionals="path length"), "functional"),
    "functional's coordinate": (lambda: run(functionals=[st.SquaredIncrements(5)]), "coordinate"),
    "seed < 0": (lambda: run(seed=-1), "seed"),
    "seed 2**64": (lambda: run(seed=2**64), "seed"),
    "seed a fraction": (lambda: run(seed=0.5), "seed"),
    "times a word": (lambda: run(times="some"), "times"),
    "times empty": (lambda: run(times=[]), "times"),
    "times between steps": (lambda: run(times=[0.3]), "times"),
    "times beyond": (lambda: run(times=[2.0]), "times"),
    "times < 0": (lambda: run(times=[-0.125]), "times"),
    "times NaN": (lambda: run(times=[NAN]), "times"),
    "threads = 0": (lambda: run(threads=0), "threads"),
    "threads a word": (lambda: run(threads="two"), "threads"),
    "backend": (lambda: run(backend="jax"), "backend"),
    "executor": (lambda: run(executor=3), "executor"),
    "store": (lambda: run(store=3), "store"),
    "progress": (lambda: run(progress=3), "progress"),
    "confidence": (lambda: run(confidence=95), "confidence"),
    "not a dynamics": (lambda: st.simulate(ORACLE, **GIVEN), "dynamics"),
    # pairs
    "clocks": (lambda: gap(second=st.SGD(ORACLE, st.schedules.constant(0.3))), "step_time"),
    "draws": (lambda: gap(second=other_draws()), "coupled=False"),
    "dimensions": (lambda: gap(second=other_dimension()), "dimension"),
    "coordinates in another order": (swapped_names, "order"),
    "stream < 0": (lambda: gap(stream=-4), "stream"),
    "stream 2**64": (lambda: gap(stream=2**64), "stream"),
    "stream True": (lambda: gap(stream=True), "stream"),
    "paths 10**20": (lambda: run(paths=10**20), r"paths` must be at most 2\*\*42"),
    "paths 1e18": (lambda: run(paths=1e18), r"2\*\*42"),
    "paths of 5000 digits": (lambda: run(paths=10**5000), r"2\*\*42; got paths=an integer of 16610 bits"),
    "every time of 2e7 steps": (lambda: gap(times="all", horizon=2e7 * 0.125), r"`times` must fit into memory"),
    "rate with a gradient": (
        lambda: st.schedules.constant(torch.tensor(0.1, requires_grad=True)),
        r"`eta` .* Pass its value: \.item",
    ),
    "paths of 4000 digits": (lambda: run(paths=10**4000), r"2\*\*42; got paths=10000"),
    "paths True": (lambda: run(paths=True), "whole number"),
    "threads 10**9": (lambda: run(threads=10**9), "4,096"),
    "kept points beyond memory": (lambda: run(paths=10**12, keep_final=True), "keep_final"),
    "paths beyond what rows can do": (lambda: run(paths=1 << 42), "compiles"),
    "dim 10**20": (lambda: st.noise.gaussian(dim=10**20), "dim"),
    "x0 masked": (lambda: run(x0=np.ma.array([1.0, 2.0], mask=[0, 1])), "masked"),
    "x0 complex": (lambda: run(x0=np.array([1.0, 2j])), "real numbers"),
    "x0 numerals": (lambda: run(x0=["1", "2"]), "real numbers"),
    "x0 objects": (lambda: run(x0=np.array([1, "2"], object)), "real numbers"),
    "x0 dates": (lambda: run(x0=np.array(["2020", "2021"], "M8[Y]")), "real numbers"),
    "x0 too large": (lambda: run(x0=[10**400, 1]), "real numbers"),
    "x0 a set": (lambda: run(x0={1.0, 2.0}), "real numbers"),
    "stream a word": (lambda: gap(stream="a"), "stream"),
    # studies
    "no etas": (lambda: study(etas=[]), "etas"),
    "one number for etas": (lambda: study(etas=0.1), "etas"),
    "equal etas": (lambda: study(etas=[0.1, 0.1]), "etas"),
    "etas < 0": (lambda: study(etas=[0.1, -0.1]), "etas"),
    "etas NaN": (lambda: study(etas=[0.1, NAN]), "etas"),
    "pair no function": (lambda: study(pair=3), "pair"),
    "pair returns one": (lambda: study(pair=lambda eta: st.SGD(ORACLE, FLAT)), "pair"),
    # results
    "unknown observable": (lambda: run().at("x1"), "x0"),
    "observable's number": (lambda: run().at(7), "observable"),
    "time not recorded": (lambda: run().at("x0", 0.3), "recorded"),
    "time NaN": (lambda: run().at("x0", NAN), "time"),
    "gap's observable": (lambda: gap().sup("x1"), "x0"),
    "confidence of an interval": (lambda: run().at("x0").confidence_interval(1.5), "level"),
    "eta not studied": (lambda: study().sup("x0", 0.3), "eta"),
    "order's observable": (lambda: study().order("x1"), "x0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    """The message is short and has no trace or address."""
    call, word = BAD[name]
    with pytest.raises(ValueError, match=word) as error:
        call()
    text = str(error.value)
    assert len(text) < 400 and text.rstrip().endswith((".", "]", ")", "`")) and "\n" not in text
    assert "Traceback" not in text and "object at 0x" not in text


def test_misspelt_options_are_refused():
    """Unknown keyword arguments raise a TypeError."""
    for call in (run, gap, study):
        with pytest.raises(TypeError, match="unexpected keyword"):
            call(pahts=3)


@pytest.mark.parametrize(
    "change",
    [{"x0": [1.0]}, {"horizon": 1.01}, {"observe": ["y"]}, {"seed": -1}, {"threads": 0}, {"backend": "jax"}, {"paths": 0}],
)
def test_nothing_is_written_for_bad_input(tmp_path, change):
    """No store is created."""
    store = tmp_path / "run.db"
    with pytest.raises(ValueError):
        run(store=store, **change)
    assert not store.exists()


def test_good_input_is_accepted():
    """Negative control: the arguments that the bad cases change are valid by default."""
    assert run().paths == gap().paths == study().gaps[0].paths == 100


def test_unsupported_tensors_are_refused_with_a_remedy():
    """Tensors with a gradient, without data, or of a type that NumPy lacks."""
    torch = pytest.importorskip("torch")
    for x0 in (torch.ones(2, requires_grad=True), torch.ones(2, device="meta"), torch.ones(2).bfloat16()):
        with pytest.raises(ValueError, match=r"x0.*\.detach\(\)\.cpu\(\)"):
            run(x0=x0)
    np.testing.assert_array_equal(
        run(x0=torch.tensor([1.0, 2.0], requires_grad=True).detach()).statistics.mean, run().statistics.mean
    )


@pytest.mark.parametrize("x0", [(1, 2), np.array([1, 2], object), np.ma.array([1.0, 2.0], mask=False), np.array([1, 2], np.int8)])
def test_other_types_of_starts_are_accepted(x0):
    """Tuples, object arrays, masked arrays and integers."""
    np.testing.assert_array_equal(run(x0=x0).statistics.mean, run().statistics.mean)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threads": 0}, "`threads` must be at least 1"),
        ({"executor": 3}, "`executor` must be"),
        ({"backend": "jax"}, "`backend` must be"),
        ({"dtype": "float16"}, "`dtype` must be"),
        ({"store": 3}, "`store` must be"),
        ({"resume": 1, "store": "run.db"}, "`resume` must be True or False"),
        ({"resume": True}, "`resume` must go with `store`"),
        ({"progress": "yes"}, "`progress` must be"),
    ],
)
def test_options_are_checked_when_they_are_made(options, text):
    """As fields of `Execution`, before anything is run, and as arguments of a function."""
    for call in (st.Execution, run):
        with pytest.raises(ValueError, match=text):
            call(**options)


@pytest.mark.parametrize("name", [None, 3, "a\0b", "\ud800"])
def test_names_of_observables_are_text(name):
    """That a file can contain; other characters are allowed (control)."""
    with pytest.raises(ValueError, match="`observe` must name observables by text"):
        run(observe={name: "x0"})
    assert run(observe={"é\n/$": "x0"}).at("é\n/$").n == 100
