"""Initial conditions: moments of every law, agreement of the backends path by path, coupled starts, arrays of points."""

from __future__ import annotations

import pickle
from statistics import NormalDist

import numpy as np
import pytest

import sdetools as st
from sdetools.noise import Normal, Sign, Uniform
from sdetools.simulation.engine import execute
from sdetools.simulation.philox import stream_key
from sdetools.simulation.reference import run_reference
from sdetools.studies.means import make_program

FALSE_ALARM = 1e-6
"""False-alarm rate of each test of moments; its comparisons share it by Bonferroni's inequality."""
PATHS = 40_000
BOWL = "x**2/2 + y**2"


def two_modes(z):
    """The mixture of N(-1, 1/4) with weight 1/4 and N(1, 1) as a function of draws, and an independent sign."""
    return [np.where(z[2] < 0.25, -1 + 0.5 * z[0], 1 + z[0]), z[1]]


def ring(z):
    return [np.cos(2 * np.pi * z[0]), np.sin(2 * np.pi * z[0])]


SPREAD = np.array([[2.0, 0.6], [0.6, 0.5]])
LAWS = {
    "gaussian": (st.starts.gaussian([1.0, -2.0], SPREAD), [1.0, -2.0], SPREAD),
    "diagonal": (st.starts.gaussian([0.0, 3.0], [4.0, 0.25]), [0.0, 3.0], np.diag([4.0, 0.25])),
    "on a line": (st.starts.gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 4.0]]), [0.0, 0.0], np.array([[1.0, 2.0], [2.0, 4.0]])),
    "uniform": (st.starts.uniform([0.0, -3.0], [6.0, 3.0]), [3.0, 0.0], np.diag([3.0, 3.0])),
    # E = .25 (-1, 0) + .75 (1, 2); Cov = .75 I + .25 .75 (2, 2)(2, 2)^T
    "mixture": (
        st.starts.mixture([0.25, 0.75], [[-1.0, 0.0], st.starts.gaussian([1.0, 2.0], 1.0)]),
        [0.5, 1.5],
        0.75 * np.eye(2) + 0.75,
    ),
    # x: E = .5, Var = .25/4 + .75 + .25 .75 4 = 1.5625
    "two modes": (
        st.starts.from_function(
            two_modes, 2, (Normal(1), Sign(1), Uniform(1)), mean=[0.5, 0.0], covariance=np.diag([1.5625, 1.0])
        ),
        [0.5, 0.0],
        np.diag([1.5625, 1.0]),
    ),
    "ring": (st.starts.from_function(ring, 2, Uniform(1)), [0.0, 0.0], np.diag([0.5, 0.5])),
}
RULES = {
    "SGD": lambda o, p: st.SGD(o, p.averaged()),
    "SGDM": lambda o, p: st.SGDM(o, p, momentum=([0.5, 0.0], SPREAD)),
    "SGDM, momentum given": lambda o, p: st.SGDM(o, p, momentum=[0.5, 0.1]),
    "Auxiliary": lambda o, p: st.Auxiliary(o, p, momentum=([0.5, 0.0], SPREAD)),
    "PrimalAveraging": lambda o, p: st.PrimalAveraging(o, p.averaged()),
    "AccSGD": lambda o, p: st.AccSGD(o, p.averaged(), step_time=p.eta),
    "STORM": lambda o, p: st.STORM(o, p.averaged()),
    "IGT": lambda o, p: st.IGT(o, p.averaged()),
    "EulerMaruyama": lambda o, p: st.EulerMaruyama(st.LimitSDE(o, p.averaged()), dt=0.125),
    "UBU": lambda o, p: st.UBU(st.KineticSDE(o, p, momentum=[0.5, 0.1]), dt=0.125),
}


def oracle(sigma: float = 0.7) -> st.NoisyOracle:
    return st.NoisyOracle(st.losses.from_expression(BOWL, variables="x y"), st.noise.gaussian(dim=2), sigma=sigma)


PLAN = st.schedules.constant(eta=0.125, beta=0.75)


def ends(member, x0, backend="auto", paths=600, **options):
    return st.simulate(
        member, x0=x0, horizon=0.25, paths=paths, observe=["x"], times=[0.0, 0.25], keep_final=True, backend=backend, **options
    )


def z_scores(run, mean, covariance) -> np.ndarray:
    """Deviations of first and second moments at time 0, in standard errors."""
    second = covariance + np.outer(mean, mean)
    wanted = {"x": mean[0], "y": mean[1], "x*x": second[0, 0], "x*y": second[0, 1], "y*y": second[1, 1]}
    found = {name: run.at(name, 0.0) for name in wanted}
    return np.array([(found[name].value - wanted[name]) / max(found[name].stderr, 1e-12) for name in wanted])


LIMIT = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * 5))


@pytest.mark.parametrize("name", LAWS)
def test_a_law_has_its_moments(name):
    law, mean, covariance = LAWS[name]
    if law.mean is not None:
        np.testing.assert_allclose(law.mean, mean, atol=1e-15)
        np.testing.assert_allclose(law.covariance, covariance, atol=1e-14)
    run = st.simulate(
        st.SGD(oracle(), PLAN.averaged()), law, 0.125, PATHS, ["x", "y", "x*x", "x*y", "y*y"], times=[0.0, 0.125], seed=11
    )
    assert np.abs(z_scores(run, mean, covariance)).max() < LIMIT
    moved = np.array(mean) + 10 * np.sqrt(np.diag(covariance) / PATHS)
    assert np.abs(z_scores(run, moved, covariance)).max() > LIMIT  # the negative control


def test_a_mixture_written_as_a_function_equals_the_mixture():
    """P(x < 0) at time 0 against its closed form, for both laws: z-tests with a false-alarm rate of 1e-6 each."""
    normal = NormalDist()
    wanted = 0.25 * normal.cdf(2.0) + 0.75 * normal.cdf(-1.0)
    mixed = st.starts.mixture([0.25, 0.75], [st.starts.gaussian([-1.0], 0.25), st.starts.gaussian([1.0], 1.0)])
    own = st.starts.from_function(lambda z: two_modes(np.stack([z[0], z[0], z[1]]))[:1], 1, (Normal(1), Uniform(1)))
    flow = st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1)), st.schedules.constant(eta=0.5))
    for law in (mixed, own, st.starts.gaussian([0.5], 1.5625)):
        run = st.simulate(flow, law, 0.5, PATHS, [st.Indicator(lambda x: x[0] < 0)], times=[0.0, 0.5])
        z = (run.at(0, 0.0).value - wanted) / (wanted * (1 - wanted) / PATHS) ** 0.5
        assert (abs(z) < 4.9) == (law.draws != (Normal(1),))  # negative control: a Gaussian law with the same moments is rejected


def test_components_of_a_mixture_share_draws_of_the_same_kind():
    """Components with draws of several kinds in different orders."""
    first = st.starts.from_function(lambda z: [z[0] + 10 * z[1]], 1, (Sign(1), Uniform(1)))
    second = st.starts.from_function(lambda z: [z[0] + 10 * z[1] + 100 * z[2]], 1, (Uniform(1), Normal(2)))
    law = st.starts.mixture([0.5, 0.5], [first, second])
    assert law.draws == (Uniform(1), Normal(2), Sign(1), Uniform(1))
    z = np.array([[0.1, 0.9], [2.0, 2.0], [3.0, 3.0], [-1.0, -1.0], [0.25, 0.25]])
    np.testing.assert_allclose(law.points(z), [[-1 + 2.5, 0.25 + 20 + 300]])
    np.testing.assert_allclose(law.points(z[:, 1]), [0.25 + 20 + 300])


# ---- the same path on every backend


@pytest.mark.sample(9)
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_backends_agree_path_by_path(law, backend):
    member = RULES["SGDM"](oracle(), PLAN)
    slow, fast = (ends(member, LAWS[law][0], name).final for name in ("numpy", backend))
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.sample(2)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_starts_from_laws_and_arrays(rule):
    member = RULES[rule](oracle(), PLAN)
    for x0 in (LAWS["mixture"][0], np.linspace(-1, 1, 14).reshape(2, 7)):
        slow = ends(member, x0, "numpy").final
        np.testing.assert_allclose(ends(member, x0, "numba").final, slow, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(ends(member, x0, "torch").final, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [3, 64])
def test_dense_laws_are_matrix_products(dim):
    factor = np.random.default_rng(3).standard_normal((dim, dim)) / dim**0.5
    law = st.starts.gaussian(np.linspace(0, 1, dim), factor @ factor.T)
    member = st.SGD(st.NoisyOracle(st.losses.quadratic(np.ones(dim)), st.noise.gaussian(dim=dim)), PLAN.averaged())
    slow, fast = (st.simulate(member, law, 0.25, 300, ["x0"], keep_final=True, backend=name).final for name in ("numpy", "numba"))
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_the_start_of_a_path_is_a_function_of_its_address():
    """Path 300 of the reference loop is path 300 of the run; the draws of the law precede those of the momentum."""
    law, member = LAWS["gaussian"][0], RULES["SGDM"](oracle(0.0), PLAN)
    program, *_ = make_program((member,), law, 0.25, ["x"], None, (), False, True)
    seen = []
    keys = np.array([stream_key(5, 0, 0), stream_key(5, 0, None)], np.uint64)
    run_reference(program, keys, 300, 1, lambda k, states: seen.append(states[0][0]))
    np.testing.assert_allclose(ends(member, law, seed=5).final[:, 300], seen[-1][:, 0], rtol=1e-12)
    assert program.start_plan.draws == (Normal(2), Normal(2))
    assert program.start_rows(0) == (slice(0, 2), slice(2, 4))


def test_results_are_bitwise_independent_of_the_number_of_threads():
    for x0 in (LAWS["two modes"][0], np.linspace(0, 1, 2 * 300).reshape(2, 300)):
        one, two = (ends(RULES["SGDM"](oracle(), PLAN), x0, "numba", 5000, threads=n) for n in (1, 2))
        np.testing.assert_array_equal(one.final, two.final)
        np.testing.assert_array_equal(one.statistics.mean, two.statistics.mean)


# ---- pairs


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
def test_coupled_members_start_at_the_same_points(backend):
    """Also where only one of them has a random initial momentum."""
    pair = RULES["SGDM"](oracle(), PLAN), RULES["SGD"](oracle(), PLAN)
    options = dict(x0=LAWS["mixture"][0], horizon=0.25, paths=2000, observe=["x", "y"], times=[0.0, 0.25], backend=backend)
    together = st.weak_gap(*pair, **options).data
    assert (together["gap"].sel(time=0.0) == 0).all() and (together["stderr"].sel(time=0.0) == 0).all()
    apart = st.weak_gap(*pair, coupled=False, **options).data
    # Var (x - x') = 2 Var x. With a kurtosis k the standard error has a relative error of sqrt((k - 1) / 8000), below 2 % for k <= 4: a
    # fifth is ten of them, a false alarm below 1e-20; one draw for both would give 0.
    wanted = np.sqrt(2 * np.diag(LAWS["mixture"][2]) / 2000)
    np.testing.assert_allclose(apart["stderr"].sel(time=0.0), wanted, rtol=0.2)


def test_independent_members_use_different_draws():
    pair = RULES["SGDM"](oracle(), PLAN), RULES["SGDM"](oracle(), PLAN)
    law = LAWS["two modes"][0]
    program, *_ = make_program(pair, law, 0.25, ["x"], None, (), False, False)
    assert program.start_plan.draws == (*law.draws, *law.draws, Normal(4))
    rows = [range(10)[s] for i in (0, 1) for s in program.start_rows(i)]
    assert [list(r) for r in rows] == [[0, 1, 2], [6, 7], [3, 4, 5], [8, 9]]
    program, *_ = make_program(pair, law, 0.25, ["x"], None, (), False, True)
    assert program.start_rows(0) == program.start_rows(1) == (slice(0, 3), slice(3, 5))


# ---- arrays of points


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch"])
@pytest.mark.parametrize("n", [1, 7, 256, 300])
def test_path_p_starts_at_column_p_mod_n(backend, n):
    """Across leaves of 256 paths, in chunks of one leaf, on two threads."""
    points = np.random.default_rng(n).standard_normal((2, n))
    member = st.SGD(oracle(0.0), st.schedules.constant(eta=0.0625))
    program, *_ = make_program((member,), points, 0.0625, ["x"], [0.0, 0.0625], (), False, True)
    found = execute(program, 1000, 0, threads=2, keep=True, backend=backend, leaves=1).points
    here = points[:, np.arange(1000) % n]
    np.testing.assert_allclose(found, here - 0.0625 * here * [[1.0], [2.0]], rtol=1e-15)


def test_an_array_of_points_is_a_finite_population():
    """The mean over its columns is exact at time 0, and random after noisy steps."""
    points = np.array([[0.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
    at_rest = ends(st.SGD(oracle(), PLAN.averaged()), points, paths=300)
    assert at_rest.at("x", 0.0).value == 2.0 and not at_rest.at("x", 0.0).random
    assert at_rest.at("x").random and at_rest.at("x").stderr > 0
    silent = st.NoisyOracle(st.losses.from_expression(BOWL, variables="x y"), st.noise.none(dim=2))
    assert not ends(st.SGD(silent, PLAN.averaged()), points, paths=300).at("x").random


def test_constant_coordinates_of_a_law_are_exact():
    member = st.SGD(oracle(), PLAN.averaged())
    assert ends(member, LAWS["ring"][0]).at("x", 0.0).random
    still = ends(member, st.starts.gaussian([1.0, 2.0], 0.0)).at("x", 0.0)
    assert still.value == 1.0 and not still.random and still.stderr == 0
    half = st.starts.from_function(lambda z: [np.where(z[0] < 1e-9, 1.0, 0.0), 0.0 * z[0]], 2, Uniform(1))
    assert ends(member, half).at("x", 0.0).random  # the rare value occurs on no path, which proves nothing


@pytest.mark.slow
def test_the_slow_sde_starts_from_points_only():
    valley = st.NoisyOracle(st.losses.from_expression("(x*y - 1)**2/2", variables="x y"), st.noise.gaussian(dim=2))
    slow = st.SlowSDE(valley, st.schedules.constant(eta=0.125), at=[1.0, 1.0])
    member = st.EulerMaruyama(slow, dt=0.015625)
    points = np.array([[1.0, 2.0, 1.0], [1.5, 0.25, 1.0]])
    phi = np.stack([slow.start(p)[0] for p in points.T], axis=1)
    np.testing.assert_array_equal(slow.start(points)[0], phi)
    with pytest.raises(ValueError, match=r"x0.*Phi.*law\.sample"):
        ends(member, LAWS["uniform"][0])
    here = [
        st.simulate(member, points, 0.015625, 300, ["x"], times=[0.0, 0.015625], keep_final=True, backend=name)
        for name in ("numpy", "numba")
    ]
    assert here[0].at("x", 0.0).value == pytest.approx(phi[0].mean(), rel=1e-12)
    np.testing.assert_allclose(here[1].final, here[0].final, rtol=1e-12, atol=1e-12)


# ---- exact answers


EXACT = {
    "SGDM": RULES["SGDM"],
    "Auxiliary": RULES["Auxiliary"],
    "AccSGD": RULES["AccSGD"],
    "EulerMaruyama": RULES["EulerMaruyama"],
    "UBU": RULES["UBU"],
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("rule", EXACT)
def test_exact_moments_from_a_law_agree_with_simulation(rule):
    """z-tests of first and second moments at two times for a Gaussian and a mixture start, with a false-alarm rate of 1e-6 per run."""
    quadratic = st.NoisyOracle(st.losses.quadratic(np.diag([1.0, 2.0])), st.noise.gaussian(dim=2), sigma=0.7)
    member = EXACT[rule](quadratic, PLAN)
    for name in ("gaussian", "mixture"):
        law = LAWS[name][0]
        steps = round(0.5 / member.step_time)
        m = st.exact.moments(member, law, steps)
        assert m.gaussian == (name == "gaussian")
        if rule != "Auxiliary":
            np.testing.assert_allclose(m.covariance[0], law.covariance, rtol=1e-12, atol=1e-15)
        run = st.simulate(member, law, 0.5, PATHS, ["x0", "x0*x1"], times=[0.0, 0.5], seed=3)
        scores = []
        for t, k in ((0.0, 0), (0.5, steps)):
            wanted = {"x0": m.mean[k, 0], "x0*x1": m.covariance[k, 0, 1] + m.mean[k, 0] * m.mean[k, 1]}
            scores += [(run.at(h, t).value - value) / run.at(h, t).stderr for h, value in wanted.items()]
        assert np.abs(scores).max() < NormalDist().inv_cdf(1 - FALSE_ALARM / 8)
        point = st.exact.moments(member, law.mean, steps)
        assert (
            abs(point.covariance[-1, 0, 0] - m.covariance[-1, 0, 0]) > 0.05
        )  # negative control: without the variance of the start


@pytest.mark.parametrize("rule", EXACT)
def test_a_law_of_variance_zero_is_a_point(rule):
    quadratic = st.NoisyOracle(st.losses.quadratic(np.diag([1.0, 2.0])), st.noise.gaussian(dim=2), sigma=0.7)
    member = EXACT[rule](quadratic, PLAN)
    point, law = (st.exact.moments(member, x0, 4) for x0 in ([1.0, -2.0], st.starts.gaussian([1.0, -2.0], 0.0)))
    np.testing.assert_array_equal(point.state_mean, law.state_mean)
    np.testing.assert_array_equal(point.state_covariance, law.state_covariance)
    assert point.gaussian and law.gaussian


def test_ornstein_uhlenbeck_from_a_law():
    """Var = v e^{-2t} + (1 - e^{-2t})/2."""
    ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    found = st.exact.solution(ou, st.starts.uniform([0.0], [6.0]), times=[0.0, 0.5])
    np.testing.assert_allclose(found.mean.ravel(), 3 * np.exp([0.0, -0.5]), rtol=1e-12)
    np.testing.assert_allclose(found.covariance.ravel(), [3.0, 3 * np.exp(-1) + (1 - np.exp(-1)) / 2], rtol=1e-12)
    assert not found.gaussian


# ---- identity and errors


def test_the_fingerprint_of_a_program_depends_on_all_numbers_of_its_law():
    member = st.SGD(oracle(), PLAN.averaged())

    def fingerprint(x0):
        return make_program((member,), x0, 0.25, ["x"], None, (), False, True)[0].fingerprint()

    laws = [law for law, *_ in LAWS.values()] + [st.starts.gaussian([1.0, -2.0], SPREAD * (1 + 1e-15)), [1.0, -2.0]]
    assert len({fingerprint(x0) for x0 in [*laws, np.array([[1.0], [-2.0]])]}) == len(laws) + 1
    assert fingerprint(st.starts.gaussian([1.0, -2.0], SPREAD)) == fingerprint(LAWS["gaussian"][0])
    for name, (law, *_) in LAWS.items():
        again = pickle.loads(pickle.dumps(law))
        assert again.identity == law.identity, name


def test_later_changes_of_the_arguments_have_no_effect():
    mean, points = np.array([1.0, 2.0]), np.zeros((2, 3))
    law = st.starts.gaussian(mean, 1.0)
    program, *_ = make_program((st.SGD(oracle(), PLAN.averaged()),), points, 0.25, ["x"], None, (), False, True)
    mean[0] = points[0, 0] = 7.0
    assert law.mean[0] == 1.0 and program.x0[0][0, 0] == 0.0


BAD = {
    "columns of another dimension": (lambda: ends(RULES["SGD"](oracle(), PLAN), np.zeros((3, 5))), r"\(2,\).*\(2, n\).*\(3, 5\)"),
    "no column": (lambda: ends(RULES["SGD"](oracle(), PLAN), np.zeros((2, 0))), r"\(2, 0\)"),
    "three axes": (lambda: ends(RULES["SGD"](oracle(), PLAN), np.zeros((2, 1, 1))), "x0"),
    "law of another dimension": (
        lambda: ends(RULES["SGD"](oracle(), PLAN), st.starts.gaussian([0.0], 1.0)),
        "2 coordinates.*dim=1",
    ),
    "a bare function": (lambda: ends(RULES["SGD"](oracle(), PLAN), ring), "from_function"),
    "a constructor of laws": (lambda: ends(RULES["SGD"](oracle(), PLAN), st.starts.gaussian), "law"),
    "covariance": (lambda: st.starts.gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive semidefinite"),
    "shape of a covariance": (lambda: st.starts.gaussian([0.0], np.eye(2)), r"\(1, 1\)"),
    "mean": (lambda: st.starts.gaussian(0.0, 1.0), r"`mean`.*\(dim,\)"),
    "bounds": (lambda: st.starts.uniform([0.0, 1.0], [1.0, 0.0]), "low"),
    "weights": (lambda: st.starts.mixture([0.5, 0.6], [[0.0], [1.0]]), "sum to 1"),
    "negative weight": (lambda: st.starts.mixture([-0.5, 1.5], [[0.0], [1.0]]), "sum to 1"),
    "weights without starts": (lambda: st.starts.mixture([1.0], [[0.0], [1.0]]), "2 probabilities"),
    "mixed dimensions": (lambda: st.starts.mixture([0.5, 0.5], [[0.0], [1.0, 2.0]]), "same dimension"),
    "draws": (lambda: st.starts.from_function(ring, 2, 3), "Normal"),
    "components": (lambda: st.starts.from_function(ring, 3, Uniform(1)), "3 components.*returned 2"),
    "one number": (lambda: st.starts.from_function(lambda z: 1.0, 2, Uniform(1)), "2 components.*returned 1.0"),
    "not finite": (lambda: st.starts.from_function(lambda z: [np.inf * z[0]], 1, Uniform(1)), "finite"),
    "stated mean": (lambda: st.starts.from_function(ring, 2, Uniform(1), mean=[0.1, 0.0]), "`mean`.*0.1"),
    "stated covariance": (
        lambda: st.starts.from_function(ring, 2, Uniform(1), covariance=np.diag([0.5, 0.4])),
        r"`covariance`.*0.4 in entry \(1, 1\)",
    ),
    "unknown moments": (lambda: st.exact.moments(RULES["SGD"](oracle(), PLAN), LAWS["ring"][0], 2), "mean and covariance"),
    "exact columns": (lambda: st.exact.moments(RULES["SGD"](oracle(), PLAN), np.zeros((2, 3)), 2), r"\(2, 3\).*column"),
    "one step's law": (lambda: st.exact.step_law(RULES["EulerMaruyama"](oracle(), PLAN), LAWS["uniform"][0]), "one point"),
    "quadrature": (lambda: st.exact.transfer(RULES["SGD"](oracle(), PLAN), np.zeros((2, 3)), 2, "x"), "one point"),
    "slow study": (lambda: st.slow_study(oracle(), PLAN, LAWS["uniform"][0], 0.5, 2), "one point"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_starts_raise_value_error(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_an_error_in_a_users_function_is_raised_unchanged():
    with pytest.raises(AttributeError, match="nothing"):
        st.starts.from_function(lambda z: [z.nothing], 1, Normal(1))


def branching(z):
    return [z[0] if z[0] > 0 else -z[0], z[1]] if z.ndim == 1 and not isinstance(z, np.ndarray) else [abs(z[0]), z[1]]


def test_a_law_that_cannot_be_traced_warns():
    law = st.starts.from_function(branching, 2, Normal(2))
    with pytest.warns(RuntimeWarning, match="law branching cannot be traced.*np.where"):
        slow = ends(RULES["SGD"](oracle(), PLAN), law)
    same = st.starts.from_function(lambda z: [abs(z[0]), z[1]], 2, Normal(2))
    np.testing.assert_allclose(ends(RULES["SGD"](oracle(), PLAN), same).final, slow.final, rtol=1e-12, atol=1e-12)
