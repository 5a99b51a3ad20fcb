"""Work-precision diagrams: errors against exact moments, evaluations of every integrator, strong orders, and refused arguments."""

import math

import numpy as np
import pytest

import sdetools as st
from sdetools.dynamics.catalogue import integrators
from sdetools.studies import order

LINEAR = st.SDE(drift=["-x"], diffusion=["0.5*x"], variables="x")
ADDITIVE = st.SDE(drift=["-x"], diffusion=["0.5"], variables="x")
STRATONOVICH = st.SDE(drift=["-x"], diffusion=["0.5*x"], variables="x", calculus="stratonovich")
KINETIC = st.KineticSDE(
    st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), sigma=0.05**-0.5), st.schedules.scaled(0.05, alpha=1.0)
)
CASES = {
    "EulerMaruyama": (LINEAR, 2),  # a(y), b(y) dW
    "Milstein": (LINEAR, 5),  # and b at the shifted point, twice; b(y) twice more
    "Heun": (STRATONOVICH, 4),  # a and b at both ends
    "SRA1": (ADDITIVE, None),
    "Platen": (LINEAR, None),
    "RI1": (LINEAR, None),
    "OBABO": (KINETIC, 4),  # two kicks, two draws
    "BAOAB": (KINETIC, 3),  # two kicks, one draw
    "UBU": (KINETIC, None),
}
"""For each integrator an equation, and the evaluations of one step counted by hand where that is short."""


def test_every_integrator_has_a_case():
    assert {cls.__name__ for cls in integrators()} == {*CASES}


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CASES)
def test_evaluations_are_counted_and_the_measured_error_is_the_exact_one(name):
    """The exact error from moment maps lies in the interval of level 1 - 1e-5, of E x^2 with 20,000 paths; twice the error does not, if resolved."""
    sde, evaluations = CASES[name]
    make, dts = (lambda dt: getattr(st, name)(sde, dt)), [0.5, 0.25]
    h, solution = f"{sde.names[0]}**2", st.exact.solution(sde, [1.0], [1.0])
    truth = float(solution.mean[-1, 0] ** 2 + solution.covariance[-1, 0, 0])
    found = st.work_precision({name: make}, dts, [1.0], 1.0, 20_000, [h], expected=truth, confidence=1 - 1e-5)
    for d, dt in enumerate(dts):
        moments = st.exact.moments(make(dt), [1.0], steps=round(1 / dt), record=[round(1 / dt)])
        error = abs(float(moments.mean[-1, 0] ** 2 + moments.covariance[-1, 0, 0]) - truth)
        assert found.lows[0, d, 0] <= error <= found.highs[0, d, 0]
        if found.lows[0, d, 0] > 0.5 * found.highs[0, d, 0]:
            assert not found.lows[0, d, 0] <= 2.1 * error <= found.highs[0, d, 0]
    assert found.evaluations[0, 1] == 2 * found.evaluations[0, 0] > 0
    if evaluations is not None:
        assert found.evaluations[0, 0] == 2 * evaluations


def test_gradients_of_an_optimiser_are_counted():
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
    methods = {
        "SGD": lambda eta: st.SGD(oracle, st.schedules.constant(eta)),
        "STORM": lambda eta: st.STORM(oracle, st.schedules.constant(eta), 0.5),
    }
    found = st.work_precision(methods, [0.25], [1.0], 1.0, 300, ["x0"], expected=math.exp(-1), backend="numpy")
    assert found.evaluations.tolist() == [[4], [8]]


@pytest.mark.slow
def test_strong_errors_have_the_declared_orders():
    """Euler 1/2, Milstein 1, within 0.12 of the slope over four halvings; the intervals of the errors are a few per cent wide."""
    dts = [2.0**-k for k in range(3, 8)]
    sde = st.SDE(drift=["-x"], diffusion=["x"], variables="x")
    methods = [lambda dt: st.EulerMaruyama(sde, dt), lambda dt: st.Milstein(sde, dt)]
    found = st.work_precision(methods, dts, [1.0], 1.0, 20_000, reference=st.Milstein(sde, 2.0**-12), strong=True, seed=1)
    assert found.methods == ("EulerMaruyama", "Milstein") and found.strong and (found.lows > 0.5 * found.highs).all()
    slopes = [order.slope(found.dts, found.errors[m, :, 0]) for m in (0, 1)]
    assert slopes == pytest.approx([0.5, 1.0], abs=0.12)


def test_the_strong_error_of_two_steps_is_exact():
    """dX = dW: the error is 0. dX = X dW, one Euler step against two: x - z = dW_1 dW_2, of variance 1/4."""
    noise = st.SDE(drift=["0"], diffusion=["x"], variables="x")
    found = st.work_precision(
        [lambda dt: st.EulerMaruyama(noise, dt)], [1.0], [1.0], 1.0, 100_000, reference=st.EulerMaruyama(noise, 0.5), strong=True,
        confidence=1 - 1e-5,
    )  # fmt: skip
    assert found.lows[0, 0, 0] < 0.5 < found.highs[0, 0, 0] < 0.55 and found.lows[0, 0, 0] > 0.45


def test_intervals_are_those_of_stored_paths():
    """The strong error from |x - z|^2 of 1,024 paths in groups of 256, and Student's t with 3 degrees of freedom; the weak one as `simulate` has it."""
    make, fine = (lambda dt: st.EulerMaruyama(LINEAR, dt)), st.EulerMaruyama(LINEAR, 0.125)
    found = st.work_precision([make], [0.5], [1.0], 1.0, 1024, reference=fine, strong=True, seed=3)
    kept = st.weak_gap(make(0.5), fine, [1.0], 1.0, 1024, ["x"], slices=[1.0], times=[1.0], control=False, seed=3).slices
    x, z = kept.isel(time=0, part=0, coordinate=0).transpose("member", "path").values
    groups = ((x - z) ** 2).reshape(4, 256).mean(axis=1)
    half = 3.182446305284263 * groups.std(ddof=1) / 2
    want = np.sqrt([groups.mean(), groups.mean() - half, groups.mean() + half])
    np.testing.assert_allclose([found.errors[0, 0, 0], found.lows[0, 0, 0], found.highs[0, 0, 0]], want, rtol=1e-9)
    weak = st.work_precision([make], [0.5], [1.0], 1.0, 1024, ["x"], expected=0.1, seed=3)
    e = st.simulate(make(0.5), [1.0], 1.0, 1024, ["x"], times=[1.0], seed=3).at("x")
    seen = [weak.errors[0, 0, 0], weak.lows[0, 0, 0], weak.highs[0, 0, 0]]
    np.testing.assert_allclose(seen, [e.value - 0.1, e.low - 0.1, e.high - 0.1], rtol=1e-9)


def test_errors_against_a_reference_share_its_path():
    """The interval is far narrower than with the exact mean, from independent paths."""
    dts = [0.5, 0.25]
    make = {"Euler": lambda dt: st.EulerMaruyama(LINEAR, dt)}
    shared = st.work_precision(make, dts, [1.0], 1.0, 4000, ["x"], reference=st.EulerMaruyama(LINEAR, 2.0**-8))
    alone = st.work_precision(make, dts, [1.0], 1.0, 4000, ["x"], expected={"x": (1 - 2.0**-8) ** 256})
    assert ((shared.highs - shared.lows) < 0.6 * (alone.highs - alone.lows)).all()
    for d, dt in enumerate(dts):
        exact = abs((1 - dt) ** (1 / dt) - (1 - 2.0**-8) ** 256)
        assert abs(shared.errors[0, d, 0] - exact) < 2.5 * (shared.highs[0, d, 0] - shared.errors[0, d, 0])


def test_errors_below_the_noise_are_not_resolved_and_seconds_are_measured():
    found = st.work_precision([lambda dt: st.RI1(LINEAR, dt)], [0.0625], [1.0], 1.0, 300, ["x"], expected=math.exp(-1))
    assert found.lows[0, 0, 0] == 0 and not found.data["resolved"].values.any() and np.isfinite(found.highs).all()
    assert (found.seconds > 0).all() and "us a path" in found.table() and "us a path" not in found.table(seconds=False)


def test_diverged_paths_leave_no_error():
    cubic = st.SDE(drift=["x**3"], diffusion=["1"], variables="x")
    found = st.work_precision(
        [lambda dt: st.EulerMaruyama(cubic, dt)], [1.0], [5.0], 20.0, 300, ["x"], expected=0.0, backend="numpy"
    )
    assert found.diverged == 300 and np.isnan(found.errors).all() and np.isinf(found.highs).all() and "diverged" in found.table()


EULER = {"Euler": lambda dt: st.EulerMaruyama(LINEAR, dt)}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (dict(), "`expected` or `reference` must be given"),
        (dict(expected=1.0, reference=st.EulerMaruyama(LINEAR, 0.125)), "`expected` or `reference` must be given"),
        (dict(expected={"y": 1.0}), "`expected` must have a number for each of x"),
        (dict(expected="no"), "`expected` must"),
        (dict(expected=1.0, methods={}), "`methods` must contain at least one"),
        (dict(expected=1.0, methods=[*EULER.values()] * 2), "`methods` must have different names"),
        (dict(expected=1.0, methods={"Euler": lambda dt: st.EulerMaruyama(LINEAR, 0.1)}), "dynamics of step dt"),
        (dict(expected=1.0, methods={"Euler": lambda dt: None}), "dynamics of step dt"),
        (dict(expected=1.0, dts=[0.3]), "`horizon` must be a whole number of steps"),
        (dict(expected=1.0, dts=[-0.5]), "`dts` must be a positive number"),
        (dict(expected=1.0, strong=True), "`strong` must go with `reference`"),
        (dict(reference=st.EulerMaruyama(LINEAR, 0.125), strong=True, paths=100), "at least 512 paths"),
        (dict(reference=st.EulerMaruyama(LINEAR, 0.125, "two-point")), "can share only Brownian increments"),
        (dict(reference=st.EulerMaruyama(LINEAR, 0.3)), "must nest"),
    ],
)
def test_bad_arguments_are_refused(given, text):
    with pytest.raises(ValueError, match=text):
        st.work_precision(
            **(dict(methods=EULER, dts=[0.5], x0=[1.0], horizon=1.0, paths=8, observe=["x"], backend="numpy") | given)
        )
