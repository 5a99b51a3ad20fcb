"""Multilevel Monte Carlo: the requested error is met, levels decay at their theoretical rates, and uncoupled dynamics are refused."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

OU = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
MIXED = st.SDE(
    drift=["-x + 0.3*y", "-0.7*y - 0.2*x"], diffusion=[["0.4*x + 0.1", "0.5*y"], ["0.2*y", "-0.3*x + 0.2"]], variables="x y"
)
CASES = {"additive": (OU, [1.0]), "not commutative": (MIXED, [1.0, 0.5])}


def run(name, eps, seed=0, **more):
    """Run multilevel Monte Carlo on one of the SDEs."""
    sde, x0 = CASES[name]
    given = dict(x0=x0, horizon=1.0, eps=eps, observe=["x**2"], seed=seed) | more
    return st.multilevel(lambda dt: st.EulerMaruyama(sde, dt), **given)


def truth(name):
    """Return the exact value."""
    sde, x0 = CASES[name]
    exact = st.exact.solution(sde, x0, [1.0])
    return exact.mean[0, 0] ** 2 + exact.covariance[0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_requested_error_is_met(name):
    """The rms of 60 errors: a true rms of eps would exceed 1.4 eps with probability below 1e-5 (chi-square with 60 degrees)."""
    eps = 0.01
    errors = np.array([run(name, eps, seed).estimate.value - truth(name) for seed in range(60)])
    assert np.sqrt((errors**2).mean()) < 1.4 * eps
    assert (np.abs(errors) < 3 * eps).all()


@pytest.mark.parametrize(("name", "decay"), [("additive", 2.0), ("not commutative", 1.0)])
def test_the_variance_of_a_level_decays_by_the_strong_order(name, decay):
    """Twice the strong order of each method."""
    found = run(name, 0.004, seed=3)
    assert abs(found.beta - decay) < 0.4
    assert abs(found.estimate.value - truth(name)) < 4 * 0.004


def test_results_are_independent_of_threads():
    """Bitwise; another seed gives another result."""
    one, two, other = run("additive", 0.02, threads=1), run("additive", 0.02, threads=2), run("additive", 0.02, seed=1)
    assert one.estimate.value == two.estimate.value != other.estimate.value
    assert "alpha" in one.table() and len(one.plot().axes) >= 4


@pytest.mark.parametrize("h", ["3", "x - x + 3", lambda x: 3.0], ids=["number", "cancelled", "function"])
def test_a_constant_is_exact_by_its_computation(h):
    """Constant observables have no error and no bias, at a small cost."""
    found = run("additive", 0.01, observe={"h": h})
    assert tuple(found.estimate.confidence_interval(0.95)) == (3.0, 3.0) and found.rmse == found.bias == 0
    assert found.cost < 10_000 and not found.warnings


def test_a_constant_beside_another_observable_changes_nothing():
    """The other observable has the same estimate."""
    both, alone = run("additive", 0.02, observe=["x**2", "3"]), run("additive", 0.02)
    assert tuple(both.at("3").confidence_interval(0.95)) == (3.0, 3.0)
    assert both.estimate.value == alone.estimate.value and both.cost == alone.cost


def beyond(x):
    """Return an event nine standard deviations away, which 512 paths do not contain."""
    return st.select(x[0] > 7, 1.0, 0.0)


def half(x):
    """Return a function that is infinite on half of the line."""
    return st.select(x[0] > 0, 1.0 / st.select(x[0] > 0, 0 * x[0], 1.0), 0.0)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("h", "message"),
    [
        ("sqrt(x)", "finite where the paths go; sqrt"),
        ("log(x)", "finite where the paths go; log"),
        (half, "finite where the paths go; half"),
        ("1/x", "variance that the pilot can estimate; that of 1/x"),
        ("exp(2*x**2)", "variance that the pilot can estimate; that of exp"),
        ("abs(x)**-.6", "variance that the pilot can estimate; that of abs"),
        (beyond, "vary from path to path; beyond was 0"),
        (lambda x: 0 * x[0] + 3, "vary from path to path"),
    ],
)
@pytest.mark.parametrize("dt", [None, 0.25])
def test_observables_without_a_finite_error_are_refused_by_name(h, message, dt):
    """E 1/x and E exp(2 x^2) do not exist under this law; the search must end and not report a divergence at step -1."""
    with pytest.raises(ValueError, match=message) as error:
        run("additive", 0.01, observe=[h], dt=dt)
    assert "step -1" not in str(error.value)


@pytest.mark.parametrize("dt", [None, 0.25])
@pytest.mark.parametrize("h", ["abs(x)**-.6", "abs(x)**-.52"])
def test_a_law_without_variance_is_refused_after_few_paths(h, dt, monkeypatch):
    """P(|x|^-.6 > y) ~ y^-5/3: single paths have a sixth of the sample variance on average, and often less than an eighth.

    Of |x|^-.52 it is a twenty-fifth. The bound is four checks of 2^18 paths on levels of 128 and 64 steps; without a check of each batch
    the former took 30 times as many steps.
    """
    from sdetools.studies.multilevel.levels import LevelSampler

    taken = []
    sample = LevelSampler.sample
    monkeypatch.setattr(
        LevelSampler, "sample", lambda self, level, n, label: (taken.append(n * level.steps), sample(self, level, n, label))[1]
    )
    with pytest.raises(ValueError, match="may be infinite"):
        run("additive", 0.01, observe=[h], dt=dt)
    assert sum(taken) < 4 * 192 * 2**18


def test_levels_that_agree_on_all_paths_are_not_exact():
    """Euler-Maruyama is exact for Brownian motion: the differences vanish, and unobserved differences remain in the error."""
    motion = st.SDE(drift=["0"], diffusion=["1"], variables="x")
    found = st.multilevel(lambda dt: st.EulerMaruyama(motion, dt), [1.0], 1.0, 0.01, ["x**2"], seed=1)
    assert abs(found.estimate.value - 2) < 5 * 0.01  # five times the requested rms error: 6e-7 for a normal error
    assert (found.variances[1:] > 0).all() and 0 < found.bias < 0.005


def test_one_step_horizons_and_streams():
    """One step to the horizon is allowed; streams are independent."""
    one, same, other = (run("additive", 0.05, dt=1.0, stream=s) for s in (0, 0, 1))
    assert one.dts[0] == 1.0 and one.estimate.value == same.estimate.value != other.estimate.value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run("additive", 0.0), "eps"),
        (lambda: run("additive", 0.1, dt=0.3), "dt"),
        (lambda: run("additive", 0.1, refinement=1), "refinement"),
        (lambda: st.multilevel(lambda dt: st.EulerMaruyama(OU, dt, "two-point"), [1.0], 1.0, 0.1, ["x"]), "share"),
        (lambda: st.multilevel(3.0, [1.0], 1.0, 0.1, ["x"]), "make"),
    ],
)
def test_bad_input_is_refused(make, message):
    """The message names the argument or the reason."""
    with pytest.raises(ValueError, match=message):
        make()


def test_pooled_moments_of_two_parts_are_those_of_all():
    """Means and sums of squares against NumPy."""
    from sdetools.studies.multilevel.levels import LevelMoments

    sample = np.random.default_rng(3).normal(2.0, 1.0, (3, 1, 70)) * np.array([1.0, 3.0, 5.0])[:, None, None]

    def of(part):
        mean = part.mean(axis=-1)
        squares = ((part - mean[..., None]) ** 2).sum(axis=-1)
        return LevelMoments(part.shape[-1], mean, squares, np.ones((3, 1)), part.shape[-1], 0, -1)

    joined, whole = of(sample[..., :20]).pooled(of(sample[..., 20:])), of(sample)
    np.testing.assert_allclose(joined.means, whole.means, rtol=1e-13)
    np.testing.assert_allclose(joined.squares, whole.squares, rtol=1e-13)
    assert joined.n == 70


@pytest.mark.slow
def test_multilevel_in_single_precision():
    """E X_1^2 of an Ornstein-Uhlenbeck process to an eps that float32 can reach; for a smaller one there is a warning, not in float64."""
    ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    given = dict(make=lambda dt: st.Milstein(ou, dt), x0=[1.0], horizon=1.0, observe=["x**2"], threads=1)
    true = (1 + np.exp(-2)) / 2
    found = st.multilevel(eps=0.02, dtype="float32", **given)
    assert not found.warnings and abs(found.estimate.value - true) < 5 * 0.02  # five root-mean-square errors
    same = st.multilevel(eps=0.02, **given)
    assert abs(found.estimate.value - same.estimate.value) < 1e-4  # the same draws and levels
    far = given | dict(x0=[1e3], dt=1 / 4)  # X^2 near 10^5: a part in 2e7 of it is 0.05
    assert any("rounding in float32" in w for w in st.multilevel(eps=2.0, dtype="float32", pilot=200, **far).warnings)
    assert not any("rounding" in w for w in st.multilevel(eps=2.0, pilot=200, **far).warnings)


def test_the_deprecated_keyword_and_field_give_the_same_result():
    """`weak=` and `.weak`."""
    with pytest.warns(DeprecationWarning, match="`weak=` is now `weak_order=`") as caught:
        old = run("additive", 0.05, weak=1.5, backend="numpy")
    assert caught[0].filename == __file__
    assert old.estimate == run("additive", 0.05, weak_order=1.5, backend="numpy").estimate and "weak_order=1.5" in old.origin.call
    with pytest.warns(DeprecationWarning, match="`weak` is now `weak_order`"):
        assert old.weak == old.weak_order == 1.5
    with pytest.raises(ValueError, match="`weak_order` must be given once"):
        run("additive", 0.05, weak=1, weak_order=1)
