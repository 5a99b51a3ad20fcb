"""Talay-Tubaro extrapolation: its order by exact moment maps, its estimate and error by z-tests, input validation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import sdetools as st

OU = st.SDE(drift=["-1.3*x + 0.4"], diffusion=["0.8"], variables="x")
GBM = st.SDE(drift=["0.3*x"], diffusion=["0.5*x"], variables="x")
GENERAL = st.SDE(
    drift=["-x + 0.3*y", "-0.7*y - 0.2*x"], diffusion=[["0.4*x + 0.1", "0.5*y"], ["0.2*y", "-0.3*x + 0.2"]], variables="x y"
)
START = [1.0, 0.5]


def second_moment(cls, sde, dt, law):
    """Return E X_T^2 of an integrator by its exact moment map."""
    steps = round(1 / dt)
    got = st.exact.moments(cls(sde, dt, law), START[: sde.dim], steps, record=[steps])
    return float(got.covariance[0, 0, 0] + got.mean[0, 0] ** 2)


def extrapolated(cls, sde, dt, law="normal"):
    """Return the extrapolated second moment."""
    a = 2**cls.weak_order / (2**cls.weak_order - 1)
    return a * second_moment(cls, sde, dt / 2, law) - (a - 1) * second_moment(cls, sde, dt, law)


def truth(sde):
    """Return the exact second moment."""
    solved = st.exact.solution(sde, START[: sde.dim], [1.0])
    return float(solved.covariance[0, 0, 0] + solved.mean[0, 0] ** 2)


CASES = [(st.EulerMaruyama, OU), (st.EulerMaruyama, GBM), (st.EulerMaruyama, GENERAL), (st.Milstein, GBM), (st.Platen, GBM)]


@pytest.mark.parametrize(("cls", "sde"), CASES)
def test_the_order_increases_by_one_for_exact_moments(cls, sde):
    """Six steps; within 0.05 between the two finest ones that are not dominated by rounding."""
    errors = np.array([extrapolated(cls, sde, 2.0**-k) - truth(sde) for k in range(2, 8)])
    assert abs(math.log2(errors[-2] / errors[-1]) - (cls.weak_order + 1)) < 0.05


@pytest.mark.parametrize("law", ["normal", "three-point"])
@pytest.mark.parametrize("sde", [OU, GENERAL])
def test_the_estimate_agrees_with_exact_moments(sde, law):
    """|z| < 4.5 in eight tests (false alarm 6e-5); without extrapolation the same paths are 5 standard errors off."""
    dt, name = 0.5, f"{sde.names[0]}**2"
    run = st.extrapolate(lambda h: st.EulerMaruyama(sde, h, law), dt, START[: sde.dim], 1.0, 1_000_000, [name], times=[1.0])
    exact, fine = extrapolated(st.EulerMaruyama, sde, dt, law), second_moment(st.EulerMaruyama, sde, dt / 2, law)
    assert abs(run.at(name).z(exact)) < 4.5 and abs(run.bias(name).z(fine - exact)) < 4.5
    assert abs(run.at(name).z(fine)) > 5
    assert run.pair.coupled == (law == "normal") and run.weak_order == 1 and run.factor == 2


def test_the_standard_error_is_that_of_the_combination():
    """Path by path from the last points, coupled or not, up to rounding; a diverged run has none."""
    for coupled in (True, False):
        run = st.extrapolate(
            lambda h: st.Platen(GBM, h), 0.25, [1.0], 1.0, 4_000, ["x"], coupled=coupled, keep_final=True, backend="numpy"
        )
        x, z = run.pair.final
        w = (4 * x - z) / 3
        e = run.at("x")
        assert e.value == pytest.approx(w.mean(), rel=1e-12)
        if coupled:
            assert e.stderr == pytest.approx(w.std(ddof=1) / math.sqrt(4_000), rel=1e-9)
        else:  # independent members: the accumulated moments contain their sample covariance as well
            assert e.stderr == pytest.approx(w.std(ddof=1) / math.sqrt(4_000), rel=0.05)
    np.testing.assert_allclose(run.data["mean"][-1, 0], w.mean(), rtol=1e-12)
    assert "order 2" in repr(run) and "away" in repr(run)


@pytest.mark.parametrize(("weak_order", "a"), [(1, 2.0), (2, 4 / 3), (0.5, 2**0.5 / (2**0.5 - 1))])
def test_value_bias_and_errors_path_by_path(weak_order, a):
    """From the last points: z + a (x - z), and (a - 1) (z - x) for the bias of the shorter step; at two times, for two observables."""
    kept = {}
    for horizon in (0.5, 1.0):
        run = st.extrapolate(
            lambda h: st.EulerMaruyama(GBM, h), 0.25, [1.0], horizon, 300, ["x", "x**2"], weak_order=weak_order, keep_final=True, backend="numpy", times=[0.5, 1.0][: round(2 * horizon)]
        )  # fmt: skip
        kept[horizon] = run.pair.final
    assert run.factor == pytest.approx(a, rel=1e-14) and run.times.tolist() == [0.5, 1.0] and run.names == ("x", "x**2")
    assert [m.step_time for m in (run.pair.first, run.pair.second)] == [0.125, 0.25]
    for t, time in enumerate((0.5, 1.0)):
        for o, power in enumerate((1, 2)):
            x, z = kept[time] ** power
            e, bias, gap = run.at(o, time), run.bias(o, time), run.pair.at(o, time)
            both = z + a * (x - z)
            assert e.value == pytest.approx(both.mean(), rel=1e-12) and e.stderr == pytest.approx(
                both.std(ddof=1) / 300**0.5, rel=1e-9
            )
            off = (a - 1) * (z - x)
            assert bias.value == pytest.approx(off.mean(), rel=1e-9) and bias.stderr == pytest.approx(
                off.std(ddof=1) / 300**0.5, rel=1e-9
            )
            assert gap.rounding > 0 and e.rounding == bias.rounding == pytest.approx((2 * a - 1) * gap.rounding, rel=1e-12, abs=0)
            assert (e.n, e.random, bias.random) == (300, True, True)
            row = run.data.isel(time=t, observable=o)
            assert float(row["mean"]) == e.value and float(row["stderr"]) == e.stderr
            assert float(row["bias"]) == pytest.approx(bias.value, rel=1e-12) and float(row["bias_stderr"]) == pytest.approx(
                bias.stderr, rel=1e-12
            )
            assert float(row["fine_mean"]) == pytest.approx(x.mean(), rel=1e-12) and float(row["coarse_mean"]) == pytest.approx(
                z.mean(), rel=1e-12
            )


def test_the_deprecated_keyword_and_field_give_the_same_result():
    """The keyword `weak=` and the attribute `.weak`."""

    def run(**order):
        return st.extrapolate(lambda h: st.EulerMaruyama(OU, h), 0.25, [1.0], 1.0, 100, ["x"], backend="numpy", **order)

    with pytest.warns(DeprecationWarning, match="`weak=` is now `weak_order=`") as caught:
        old = run(weak=2)
    assert caught[0].filename == __file__
    assert old.at() == run(weak_order=2).at() and "weak_order=2" in old.origin.call and "weak=" not in old.origin.call
    with pytest.warns(DeprecationWarning, match="`weak` is now `weak_order`"):
        assert old.weak == old.weak_order == 2
    with pytest.raises(ValueError, match="`weak_order` must be given once"):
        run(weak=2, weak_order=2)


def test_an_optimiser_towards_learning_rate_zero():
    """SGD is Euler's method: with the order given, its extrapolation agrees with the SDE to second order."""

    def sgd(eta):
        return st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1), eta**-0.5), st.schedules.constant(eta))

    def second(eta):
        got = st.exact.moments(sgd(eta), [1.0], round(1 / eta), record=[round(1 / eta)])
        return float(got.covariance[0, 0, 0] + got.mean[0, 0] ** 2)

    run = st.extrapolate(sgd, 1 / 4, [1.0], 1.0, 1_000_000, ["x0**2"], weak_order=1)
    limit, better = math.exp(-2) + (1 - math.exp(-2)) / 2, 2 * second(1 / 8) - second(1 / 4)
    assert abs(run.at().z(better)) < 4.5 and abs(run.at().z(second(1 / 8))) > 10
    assert abs(better - limit) < abs(second(1 / 8) - limit) / 3


def test_diverged_paths_are_reported():
    """A diverged run has NaN estimates and counts its diverged paths."""
    explosive = st.SDE(drift=["x**3"], diffusion=["1"], variables="x")
    run = st.extrapolate(lambda h: st.EulerMaruyama(explosive, h), 0.5, [5.0], 5.0, 50, ["x"])
    assert math.isnan(run.at().value) and run.at().diverged and math.isnan(run.bias().value)


def test_interrupted_and_resumed_to_the_same_bits(tmp_path):
    """A resumed run agrees bitwise with an uninterrupted one."""

    def go(**more):
        return st.extrapolate(lambda h: st.EulerMaruyama(OU, h), 0.25, [1.0], 1.0, 300_000, ["x"], **more).at()

    whole = go()
    assert go(store=tmp_path / "s") == whole and go(store=tmp_path / "s", resume=True) == whole


BAD = {
    "no function": (lambda: st.extrapolate(OU, 0.1, [1.0], 1.0, 10, ["x"]), "function of dt"),
    "no dynamics": (lambda: st.extrapolate(lambda h: OU, 0.1, [1.0], 1.0, 10, ["x"]), "must return a dynamics"),
    "dt not used": (lambda: st.extrapolate(lambda h: st.EulerMaruyama(OU, 0.1), 0.1, [1.0], 1.0, 10, ["x"]), "step dt"),
    "no order": (
        lambda: st.extrapolate(
            lambda h: st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1)), st.schedules.constant(h)),
            0.1, [1.0], 1.0, 10, ["x0"],
        ),
        "`weak_order` must be given",
    ),
    "dt": (lambda: st.extrapolate(lambda h: st.EulerMaruyama(OU, h), -0.1, [1.0], 1.0, 10, ["x"]), "dt"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    """Each message is a sentence that names the argument."""
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
