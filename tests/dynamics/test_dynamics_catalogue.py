"""The tables of optimisers and integrators: every entry is correct, and the tables contain all public classes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import sdetools as st
from sdetools.dynamics.catalogue import integrator_table, integrators, optimiser_table, optimisers, updated
from sdetools.dynamics.sdes.classes import CLASSES

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
STEPS = 24
RNG = np.random.default_rng(5)
PLAN = st.schedules.from_arrays(RNG.uniform(0.002, 0.02, STEPS), RNG.uniform(0.1, 0.95, STEPS))
CURVED = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x**2/9", "0"], ["y", "1"]], variables="x y"), sigma=2.0
)
QUADRATIC = st.NoisyOracle(st.losses.quadratic([[2.0, 0.5], [0.5, 1.0]]), st.noise.gaussian(dim=2), sigma=0.5)
X0 = np.array([2.0, 1.5])
VALID = [(entry, i) for entry in optimisers() for i in range(len(entry.valid))]
REFUSED = [(entry, i) for entry in optimisers() for i in range(len(entry.refused))]


def name(value):
    return getattr(value, "name", getattr(value, "__name__", str(value)))


def public(base):
    return {n for n in st.__all__ if inspect.isclass(thing := getattr(st, n)) and issubclass(thing, base)}


def test_the_tables_contain_exactly_the_public_classes():
    rules = public(st.Dynamics) - {"Dynamics", "Auxiliary"}  # the auxiliary process is not an optimiser
    assert [e.name for e in optimisers()] == sorted(rules)
    assert [c.__name__ for c in integrators()] == sorted(public(st.Integrator) - {"Integrator"})


def test_the_readme_shows_the_tables():
    """The README contains the output of `python -m sdetools.dynamics.catalogue`."""
    assert optimiser_table() in README and integrator_table() in README, "run python -m sdetools.dynamics.catalogue README.md"
    assert updated(README) == README
    rows = [line for line in README.splitlines() if not line.startswith(("| `SGD` |", "| `RI1` |"))]
    assert len(rows) == len(README.splitlines()) - 2 and updated("\n".join(rows) + "\n") == README
    with pytest.raises(ValueError, match="must have a table"):
        updated("nothing")


# -- optimisers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.sample(6)
@pytest.mark.parametrize(("entry", "i"), VALID, ids=name)
def test_valid_arguments_run_and_the_kernel_agrees_with_the_reference_path_by_path(entry, i):
    one = entry.build(CURVED, PLAN, entry.valid[i])
    given = dict(horizon=STEPS * one.step_time, paths=300, observe=["x"], keep_final=True, threads=1, seed=3)
    kernel, reference = (st.simulate(one, X0, backend=backend, **given).final for backend in ("numba", "numpy"))
    np.testing.assert_allclose(kernel, reference, rtol=1e-11, atol=1e-12)
    assert reference.std(axis=1).min() > 1e-4 and np.abs(reference.mean(axis=1) - X0).max() > 1e-2


@pytest.mark.parametrize(("entry", "i"), REFUSED, ids=name)
def test_invalid_arguments_raise_value_error(entry, i):
    arguments, words = entry.refused[i]
    with pytest.raises(ValueError) as error:
        entry.build(CURVED, PLAN, arguments)
    assert words in str(error.value) and str(error.value)[0] in "`abcdefghijklmnopqrstuvwxyz"


def test_every_argument_is_tested():
    """Each argument except oracle, plan, momentum and step time occurs among the valid and among the invalid arguments."""
    for entry in optimisers():
        own = {*inspect.signature(entry.make).parameters} - {"oracle", "plan", "step_time", "momentum"}
        assert own <= {n for arguments in entry.valid for n in arguments}, entry.name
        assert own <= {n for arguments, _ in entry.refused for n in arguments}, entry.name
        assert entry.refused and entry.reference


@pytest.mark.sample(7)
@pytest.mark.parametrize("entry", optimisers(), ids=name)
def test_exact_moments_exist_where_a_step_is_linear(entry):
    """On a quadratic loss without noise, the end point from (a + b) / 2 is the mean of those from a and b exactly for linear methods."""
    quiet = st.NoisyOracle(QUADRATIC.loss, st.noise.none(2))
    one = entry.build(quiet, PLAN, entry.valid[0])

    def end(x0):
        return st.simulate(one, x0, STEPS * one.step_time, 1, ["x0"], keep_final=True, backend="numpy").final[:, 0]

    a, b = np.array([2.0, 1.5]), np.array([-0.3, 0.9])
    off = np.abs(end((a + b) / 2) - (end(a) + end(b)) / 2).max()
    assert off < 1e-13 if entry.exact or one.extra_draws else off > 1e-6
    noisy = entry.build(QUADRATIC, PLAN, entry.valid[0])
    if entry.exact:
        law = st.exact.moments(noisy, X0, STEPS, record=[STEPS])
        run = st.simulate(noisy, X0, STEPS * noisy.step_time, 40_000, ["x0", "x1"], seed=11)
        # Two z-tests at 4.5 sigma for each optimiser: a false alarm once in 5,000 runs of this file.
        assert all(abs(run.at(h).z(law.mean[0, j])) < 4.5 for j, h in enumerate(("x0", "x1")))
        assert abs(run.at("x0").z(law.mean[0, 0] + 0.05)) > 10  # negative control: a mean with an error of 0.05
    else:
        with pytest.raises(ValueError, match="linear|extra draws"):
            st.exact.moments(noisy, X0, STEPS)


@pytest.mark.parametrize(
    "entry", [e for e in optimisers() if isinstance(getattr(e.make, "gain", None), property) or not e.gain], ids=name
)
def test_a_method_without_an_equivalent_sgd_has_no_gain(entry):
    one = entry.build(CURVED, PLAN, entry.valid[0])
    with pytest.raises(ValueError, match="`gain`"):
        one.gain  # noqa: B018


@pytest.mark.sample(8)
@pytest.mark.parametrize("entry", [e for e in optimisers() if e.gain], ids=name)
def test_the_equivalent_sgd_has_the_same_speed_under_a_constant_gradient(entry):
    """On a linear loss the method eventually has the speed of its SGD on their common clock."""
    slope = st.NoisyOracle(st.losses.linear([1.0, -2.0]), st.noise.none(2))
    eta, steps = 0.01, 600
    one = entry.build(slope, st.schedules.constant(eta, 0.8), entry.valid[0])
    paths = 400 if one.extra_draws else 2
    ends = [
        st.simulate(one, [0.0, 0.0], k * one.step_time, paths, ["x0"], keep_final=True, backend="numpy").final
        for k in (steps, 2 * steps)
    ]
    speed = (ends[1] - ends[0]) / (steps * one.step_time)
    # Steps of random length: two z-tests at 4.5 sigma, a false alarm once in 70,000 runs.
    reach = 4.5 * speed.std(axis=1, ddof=1) / np.sqrt(paths) + 1e-10
    assert np.all(np.abs(speed.mean(axis=1) - [-1.0, 2.0]) < reach) and reach.max() < 0.1


def test_the_torch_optimisers_are_those_of_the_bridge():
    bridge = pytest.importorskip("sdetools.bridge", reason="the bridge must have torch")
    pytest.importorskip("torch", reason="the bridge must have torch")
    import torch

    there = {n for n in dir(bridge) if inspect.isclass(c := getattr(bridge, n)) and issubclass(c, torch.optim.Optimizer)}
    assert {e.name for e in optimisers() if e.torch} == there - {"Optimizer"}


# -- integrators --------------------------------------------------------------------------------------------------------------

SPECIMENS = {
    "additive": (["-x + 0.3*y", "-0.7*y"], [["0.5", "0.1"], ["0", "0.3"]]),
    "scalar": (["-x + 0.3*y", "-0.7*y - 0.2*x"], [["0.4*x + 0.1"], ["0.3*y - 0.2*x"]]),
    "diagonal": (["-x + 0.3*y", "-0.7*y"], ["0.5*x", "0.4*y + 0.1"]),
    # b_1 = 0.4 (x, y) and b_2 = 0.3 (-y, x): a multiple of the identity and a rotation commute
    "commutative": (["-x + 0.3*y", "-0.7*y"], [["0.4*x", "-0.3*y"], ["0.4*y", "0.3*x"]]),
    "general": (["-x + 0.3*y", "-0.7*y - 0.2*x"], [["0.4*x + 0.1", "0.5*y"], ["0.2*y", "-0.3*x + 0.2"]]),
}
START = [1.0, 0.5]


def specimen(noise, calculus="ito"):
    drift, diffusion = SPECIMENS[noise]
    return st.SDE(drift=drift, diffusion=diffusion, variables="x y", calculus=calculus)


def kinetic():
    eta = 0.01
    oracle = st.NoisyOracle(st.losses.quadratic([1.7, 0.6]), st.noise.gaussian(dim=2), sigma=eta**-0.5)
    return st.KineticSDE(oracle, st.schedules.constant(eta=eta, beta=1 - 1.4 * eta), momentum=[0.3, -0.2])


def calculus_of(cls):
    return "ito" if cls.calculus == "either" else cls.calculus


def test_specimens_have_exactly_their_class():
    for noise in SPECIMENS:
        assert specimen(noise).noise_class == noise


@pytest.mark.parametrize("noise", SPECIMENS)
@pytest.mark.parametrize("cls", integrators(), ids=name)
def test_an_integrator_accepts_exactly_its_classes_of_noise(cls, noise):
    one = specimen(noise, calculus_of(cls))
    if noise in cls.classes and not cls.kinetic:
        assert (cls(one, 0.1).weak_order, cls(one, 0.1).strong_order) == cls.orders(noise)
    else:
        with pytest.raises(ValueError, match="kinetic" if cls.kinetic else "noise"):
            cls(one, 0.1)


@pytest.mark.parametrize("cls", integrators(), ids=name)
def test_an_integrator_accepts_exactly_its_laws_and_its_calculus(cls):
    one = kinetic() if cls.kinetic else specimen("scalar" if "scalar" in cls.classes else "additive", calculus_of(cls))
    for law in ("normal", "three-point", "two-point"):
        if law in cls.laws:
            assert cls(one, 0.1, law).law == law
        else:
            with pytest.raises(ValueError, match="`law`"):
                cls(one, 0.1, law)
    if cls.calculus != "either":
        other = "ito" if cls.calculus == "stratonovich" else "stratonovich"
        with pytest.raises(ValueError, match="calculus"):
            cls(specimen("scalar", other), 0.1)
    assert cls.reference and {*cls.strong_orders} <= {*cls.classes} <= {*CLASSES}


WEAK = [
    (cls, noise, law)
    for cls in integrators()
    for noise in (["kinetic"] if cls.kinetic else [n for n in SPECIMENS if n in cls.classes])
    for law in cls.laws
]


def weak_error(cls, one, dt, law, steps):
    """The largest error of the first and second moments after `steps` steps, by exact moments, or by the law of one step."""
    x0 = START[: one.dim]
    true = st.exact.solution(one, x0, [steps * dt])
    if steps > 1:
        got = st.exact.moments(cls(one, dt, law), x0, steps, record=[steps])
        mean, second = got.state_mean[-1], got.state_covariance[-1] + np.outer(got.state_mean[-1], got.state_mean[-1])
    else:
        points, weights = st.exact.step_law(cls(one, dt, law), x0)
        mean, second = points @ weights, (points * weights) @ points.T
    exact = true.state_covariance[-1] + np.outer(true.state_mean[-1], true.state_mean[-1])
    return max(np.abs(second - exact).max(), np.abs(mean - true.state_mean[-1]).max())


def weak_slope(cls, one, law):
    """The weak order: that of the moments at t = 1, or, for a step that is not linear in its state, that of one step less 1.

    For an error c dt^p (1 + O(dt)) the slope between dt and dt/2 has an error O(dt), which extrapolation removes.
    """
    try:
        errors, local = [weak_error(cls, one, 2.0**-k, law, 2**k) for k in (6, 7, 8, 9)], 0
    except ValueError as error:
        assert "not" in str(error) and "linear" in str(error)
        errors, local = [weak_error(cls, one, 2.0**-k, law, 1) for k in (5, 6, 7, 8)], 1
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    return 2 * slopes[-1] - slopes[-2] - local


@pytest.mark.sample(35)
@pytest.mark.parametrize(("cls", "noise", "law"), WEAK, ids=name)
def test_the_declared_weak_order_agrees_with_the_exact_moments(cls, noise, law):
    """To 0.02, after extrapolation.

    With additive noise a scheme may have a larger order on a linear drift, as the midpoint rule has: then the order that is derived on another drift decides.
    """
    one = kinetic() if cls.kinetic else specimen(noise, calculus_of(cls))
    beyond = weak_slope(cls, one, law) - cls(one, 0.1).weak_order
    if noise == "additive" and beyond > 0.02:
        bent = st.SDE(drift=["-x**3"], diffusion=["0.5"], variables="x", calculus=calculus_of(cls))
        beyond = st.exact.generator_gap(cls(bent, 0.1, law), bent).weak_order - cls(one, 0.1).weak_order
    assert abs(beyond) < 0.02


class Midpoint(st.Integrator):
    """The midpoint rule, whose weak order for additive noise is 1, and 2 where the drift is linear."""

    calculus, weak_orders = "stratonovich", {"additive": 1.0}

    def step(self, eq, y, h):
        root = np.sqrt(h)
        middle = y + 0.5 * h * eq.drift(y) + 0.5 * eq.increment(y, root)
        return y + h * eq.drift(middle) + eq.increment(middle, root)


class TooHigh(Midpoint):
    """The same with the order that it has on a linear drift alone."""

    weak_orders: ClassVar = {"additive": 2.0}


def test_a_larger_order_on_a_linear_drift_is_not_the_order():
    """The derived order refuses it, as negative control, and accepts the true one."""
    test_the_declared_weak_order_agrees_with_the_exact_moments(Midpoint, "additive", "normal")
    bent = st.SDE(drift=["-x**3"], diffusion=["0.5"], variables="x", calculus="stratonovich")
    assert st.exact.generator_gap(TooHigh(bent, 0.1), bent).weak_order == 1 != TooHigh(bent, 0.1).weak_order


class Tamed(st.Integrator):
    """The tamed Euler scheme, whose step is not linear in its state: weak order 1."""

    def step(self, eq, y, h):
        a = eq.drift(y)
        return y + h * a / (1 + h * h * np.sum(a * a, axis=0)) + eq.increment(y, np.sqrt(h))


class Biased(Tamed):
    """The same with noise that is 2 % too large, which is of no positive order."""

    def step(self, eq, y, h):
        return y + h * eq.drift(y) / (1 + h * h * np.sum(eq.drift(y) ** 2, axis=0)) + 1.02 * eq.increment(y, np.sqrt(h))


@pytest.mark.parametrize("noise", SPECIMENS)
def test_a_step_that_is_not_linear_is_measured_by_the_law_of_one_step(noise):
    """A scheme of one's own, and a biased one as negative control."""
    assert abs(weak_slope(Tamed, specimen(noise), "normal") - 1) < 0.05
    assert weak_slope(Biased, specimen(noise), "normal") < 0.2


STRONG = [
    (cls, noise, cls.orders(noise)[1])
    for cls in integrators()
    if cls.strong_order is not None and not cls.areas  # schemes with random signs share no Brownian path
    for noise in SPECIMENS
    if noise in cls.strong_orders or noise == [n for n in SPECIMENS if n in cls.classes][-1]
]
NONLINEAR = SPECIMENS | {
    "additive": (["-x**3 + y", "-sin(y)"], [["0.5", "0.1"], ["0", "0.3"]]),
    "diagonal": (["-x**3", "-y"], ["0.5*x", "0.3 + 0.1*sin(y)"]),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize(("cls", "noise", "order"), STRONG, ids=name)
def test_the_declared_strong_order_agrees_with_coupled_steps(cls, noise, order):
    """The rms distance of dt and dt/2 on one Brownian path has the declared order; negative control: independent paths."""
    drift, diffusion = NONLINEAR[noise]
    one = st.SDE(drift=drift, diffusion=diffusion, variables="x y", calculus=calculus_of(cls))

    def distance(dt, coupled=True):
        pair = cls(one, dt), cls(one, dt / 2)
        final = st.weak_gap(*pair, START, 1.0, 20_000, ["x"], times=[1.0], keep_final=True, coupled=coupled).final
        return float(np.sqrt(((final[:2] - final[2:]) ** 2).sum(axis=0).mean()))

    near = [distance(2.0**-k) for k in (7, 8, 9)]
    assert np.all(np.abs(np.log2(np.array(near[:-1]) / near[1:]) - order) < 0.1)
    assert distance(2.0**-9, coupled=False) > 10 * near[-1]


def test_extrapolation_takes_the_order_for_the_class_of_noise():
    """Heun on additive noise: with p = 2 the error of E x at dt = 1/2 and 1/4 is of order 3, and with p = 1 it stays of order 2."""
    one = specimen("additive", "stratonovich")
    found = st.extrapolate(lambda dt: st.Heun(one, dt), 0.5, START, 1.0, 100, ["x"], backend="numpy")
    assert found.weak_order == 2.0
    general = specimen("general", "stratonovich")
    assert st.extrapolate(lambda dt: st.Heun(general, dt), 0.5, START, 1.0, 100, ["x"], backend="numpy").weak_order == 1.0

    def mean(dt):
        return st.exact.moments(st.Heun(one, dt), START, round(1 / dt), record=[round(1 / dt)]).mean[0, 0]

    true = st.exact.solution(one, START, [1.0]).mean[0, 0]
    errors = {p: [abs((2**p * mean(h / 2) - mean(h)) / (2**p - 1) - true) for h in (2.0**-4, 2.0**-5)] for p in (1, 2)}
    orders = {p: np.log2(e[0] / e[1]) for p, e in errors.items()}
    assert abs(orders[2] - 3) < 0.1 and abs(orders[1] - 2) < 0.1
