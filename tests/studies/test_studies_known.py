"""Exact values, bounds and rounding errors: each rule at its threshold, on small programs and on given moments."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import sdetools as st
from sdetools.noise.base import Normal, Sign
from sdetools.simulation.engine import Sums
from sdetools.studies import known as module
from sdetools.studies.known import Known, _drawn_start, _overflown
from sdetools.studies.ranges import Range, _corners, _quotient, analytic, range_of
from sdetools.studies.statistics import PairStatistics, SingleStatistics

EPS = 2.0**-52
SDE = st.SDE(drift=["0.3*x"], diffusion=["0.2*x"], variables="x")
ETA = st.schedules.constant(0.1)
LOSS = st.losses.from_expression("x**2/2", variables="x")


def sums_of(values, counts=(5,), groups=None):
    """Return accumulated moments of one group, or of given groups."""
    values = np.array(values, dtype=float)
    return Sums(values[None] if groups is None else groups, np.array(counts), np.zeros(2), np.full(2, -1), None)


def single(means, squares, n=5):
    """Return statistics `(records, columns)` of one dynamics."""
    return SingleStatistics(sums_of(np.stack([means, squares], axis=-1), (n,)))


def pair_statistics(n=5, **given):
    """Return statistics of a pair; moments that are not given are 0."""
    names = ("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc")
    shape = np.shape(next(iter(given.values())))
    return PairStatistics(sums_of(np.stack([np.array(given.get(k, np.zeros(shape)), float) for k in names], axis=-1), (n,)))


def program_of(*members, x0=1.5, observe=("x", "x**3"), steps=6, times=None, **more):
    """Return the program of some dynamics."""
    from sdetools.studies.means import make_program

    given = make_program(members, [x0], steps * members[0].step_time, list(observe), times, (), False, True)[0]
    return replace(given, **more)


def euler(dt=0.1):
    """Return an Euler-Maruyama method."""
    return st.EulerMaruyama(SDE, dt)


# -- rounding ---------------------------------------------------------------------------------------------------------------------------


def test_rounding_is_proportional_to_the_steps_of_the_shorter_step():
    """4 eps (k + 1), k the steps of the member with the shorter step."""
    own = Known(SimpleNamespace(record=np.array([0, 6, 21]), every=(3, 5)), None)
    np.testing.assert_allclose(own._roundings, 4 * EPS * np.array([1, 3, 8]), rtol=1e-14)


def test_sizes_are_the_largest_along_the_run_and_at_the_start():
    """sqrt(m^2 + v) of either member, |h(x_0)|, and |x_0 h'(x_0)|, to include cancellation inside h. Infinite values are ignored."""
    program = SimpleNamespace(
        x0=(np.array([1.5]), np.array([1.5])), record=np.arange(2), every=(1, 1), pair=True, coupled=True,
        observables=program_of(euler(), observe=["x", "x**3", "x - 1.4", "x**2"]).observables,
    )  # fmt: skip
    x, z = np.array([[0.3, 12.0, 0.1, 1.0], [3.0, 2.0, 0.2, 0.5]]), np.array([[1.0, 1.0, 0.1, 2.0], [4.0, 2.0, np.inf, 0.1]])
    own = Known(program, pair_statistics(x=x, z=z, x2=np.full((2, 4), 8.0), z2=np.full((2, 4), 4.0) * [9, 1, 0, 3]))
    # 4^2 + 36/4; 12^2 + 8/4; |x h'| = 1.5; |x h'| = 2 x 1.5^2 beside 2^2 + 12/4.
    np.testing.assert_allclose(own._sizes, [5.0, math.sqrt(146), 1.5, 4.5], rtol=1e-13)
    np.testing.assert_allclose(own._unamplified_rounding, 4 * EPS * np.array([1, 2])[:, None] * own._sizes, rtol=1e-14)
    deterministic = Known(program, single(np.array([[9.0, 0, 0, 0]]), np.array([[76.0, 0, 0, 0]])))
    np.testing.assert_allclose(deterministic._sizes, [10.0, 3 * 1.5**3, 1.5, 4.5], rtol=1e-13)
    cubed = Known(SimpleNamespace(**vars(program) | {"x0": (np.array([0.5]),)}), single(np.zeros((1, 4)), np.zeros((1, 4))))
    np.testing.assert_allclose(cubed._sizes, [0.5, 0.375, 0.9, 0.5], rtol=1e-13)  # |0.5 - 1.4| exceeds 0.5


def test_the_amplification_of_a_linear_flow():
    """A linear x amplifies a perturbation of 1e-7 max(|x_0|, reached) by x / x_0, path by path.

    The amplification is at least 1 and does not decrease. It agrees with the moments of x over the same paths.
    """
    program = program_of(euler(), euler(), x0=0.5, observe=["x", "2*x", "3*x"], steps=7)
    own = Known(program, None)
    own.__dict__["_sizes"] = np.array([0.4, 100.0, 0.0])
    alone, seen = program_of(euler(), x0=0.5, observe=["x", "2*x"], steps=7), []
    moments = Known._reference(alone, lambda k, states: seen.append(states[0][0]))
    size = np.sqrt(moments[:, 0, 0] ** 2 + moments[:, 0, 1] / 32)
    moved = max(0.5, np.abs(seen[-1]).max()) * size / 0.5 / 0.4
    expected = np.maximum.accumulate(np.maximum(moved, 1.0))
    assert expected[0] > 1.2 and expected[-1] > 1.2 * expected[0]
    np.testing.assert_allclose(own._amplification[:, 0], expected, rtol=1e-6)
    assert (own._amplification[:, 1:] == 1).all()  # a small value, and one with a size of 0
    shrinks = Known(
        program_of(st.EulerMaruyama(st.SDE(["-x"], [["0.1"]], variables="x"), 0.1), x0=3.0, observe=["x"], steps=7), None
    )
    shrinks.__dict__["_sizes"] = np.array([0.3])
    np.testing.assert_allclose(shrinks._amplification[:, 0], np.full(8, 10.0), rtol=1e-6)  # 3 / .3 at first, smaller later


def test_the_amplification_for_unequal_steps_and_long_runs():
    """With steps of 2 h and h it is that of the first member, whose records are every second step; beyond 20,000 steps it is 1."""
    program = program_of(euler(0.2), euler(0.1), x0=0.5, observe=["x"], steps=3, times=[0.2, 0.6])
    own = Known(program, None)
    own.__dict__["_sizes"] = np.array([0.25])
    assert program.every == (2, 1) and program.steps == 6
    alone = Known(program_of(euler(0.2), euler(0.2), x0=0.5, observe=["x"], steps=3, times=[0.2, 0.6]), None)
    alone.__dict__["_sizes"] = np.array([0.25])
    reached, seen = [], []
    for one in (program, alone.program):
        Known._reference(one, lambda k, states: seen.append(states[0][0]))
        reached.append(max(0.5, np.abs(seen[-1]).max()))
    np.testing.assert_allclose(own._amplification / reached[0], alone._amplification / reached[1], rtol=1e-6)
    assert (Known(replace(program, steps=20_001), None)._amplification == 1).all()


def test_rounding_is_amplified_only_for_small_differences():
    """For coupled members with a spread above the rounding floor and below 1e-6 of the sizes (2.5e-3 in float32): 0.99e-6 and 1.01e-6."""
    program = SimpleNamespace(pair=True, coupled=True, record=np.arange(1), every=(1, 1))
    double = [("float64", *row) for row in ((0.99e-6, 3.0), (1.01e-6, 1.0), (0.9e-14, 1.0))]
    for dtype, spread, factor in [*double, ("float32", 2.49e-3, 3.0), ("float32", 2.51e-3, 1.0)]:
        own = Known(program, None)
        own.__dict__.update(
            _dtype=dtype,
            _same=False,
            _sizes=np.array([2.0]),
            _amplification=np.full((1, 1), 3.0),
            _unamplified_rounding=np.full((1, 1), 2e-14),
        )
        own.__dict__["_spread"] = np.array([[2 * spread]])
        np.testing.assert_allclose(own.rounding, [[2e-14 * factor]], rtol=1e-13)
    alone = Known(SimpleNamespace(**vars(program) | {"coupled": False}), None)
    alone.__dict__.update(_same=False, _unamplified_rounding=np.full((1, 1), 2e-14))
    assert alone.rounding[0, 0] == 2e-14
    same = Known(SimpleNamespace(**vars(program) | {"columns": 1}), None)
    same.__dict__.update(_same=True)
    assert same.rounding.tolist() == [[0.0]]


def test_the_amplification_is_that_of_the_times_at_which_a_difference_is_small(monkeypatch):
    """Test paths run to the last such time, here step 2 of 7; later values have its factor, even in a run of over 20,000 steps."""
    program, seen = program_of(euler(), euler(), x0=0.5, observe=["x"], steps=7), []
    run = Known._reference
    monkeypatch.setattr(
        Known, "_reference", staticmethod(lambda program, *more: (seen.append(program.steps), run(program, *more))[1])
    )
    spread, floor = np.array([[0.0, 1e-9, 1e-9, 0.1, 0.1, 0.1, 0.1, 0.1]]).T, np.full((8, 1), 1e-15)
    early = Known(replace(program, steps=2, record=np.arange(3)), None)
    early.__dict__["_sizes"] = np.array([0.4])
    expected = early._amplification[[0, 1, 2, 2, 2, 2, 2, 2]]
    assert expected[2, 0] > expected[1, 0] > 1
    seen.clear()
    for steps in (7, 30_000):
        own = Known(replace(program, steps=steps), None)
        own.__dict__.update(_dtype="float64", _same=False, _sizes=np.array([0.4]), _spread=spread, _unamplified_rounding=floor)
        np.testing.assert_allclose(own.rounding, 1e-15 * expected, rtol=1e-13)
    assert seen == [2, 2, 2, 2]


def test_the_reference_replaces_signs_and_gives_each_set_and_the_start_a_stream(monkeypatch):
    """Signs become normal draws; each set of draws and the start have their own stream; the program is unchanged."""
    seen = []
    run = module.run_reference
    monkeypatch.setattr(
        module, "run_reference", lambda program, keys, *more: (seen.append((program, keys, more)), run(program, keys, *more))[1]
    )
    rule = st.SGD(st.NoisyOracle(LOSS, st.noise.rademacher(dim=1)), ETA)
    program = program_of(rule, rule, coupled=False)
    Known._reference(program, None, 8.0)
    (replaced, keys, (first, paths, look, scale)) = seen[0]
    assert [d for plan in replaced.noise.sets for d in plan.draws] == [Normal(1), Normal(1)] and len(set(keys.tolist())) == len(
        keys
    ) == 3
    assert (first, paths, look, scale) == (0, 32, None, 8.0)
    assert all(isinstance(d, Sign) for plan in program.noise.sets for d in plan.draws)  # the program is unchanged


# -- exact values -----------------------------------------------------------------------------------------------------------------------


def test_two_members_are_identical_if_all_their_parts_are():
    """Dynamics, parameters, starts, coefficients and coupling."""

    def pair(first, second, **more):
        return Known(program_of(first, second, **more), None)._same

    def sgd(plan, **more):
        return st.SGD(st.NoisyOracle(LOSS, st.noise.gaussian(dim=1), **more), plan, step_time=0.1)

    assert pair(sgd(ETA), sgd(ETA)) and pair(euler(), euler())
    assert not pair(sgd(ETA), sgd(ETA), coupled=False) and not pair(sgd(ETA), sgd(st.schedules.constant(0.11)))
    assert not pair(sgd(ETA), sgd(ETA, sigma=1.01)) and not pair(euler(0.1), euler(0.2))
    program = program_of(euler(), euler())
    assert not Known(replace(program, x0=(np.array([1.0]), np.array([1.1]))), None)._same
    assert not Known(program_of(euler()), None)._same
    # Schedules that differ after the last step are equivalent; those that differ at the last step are not.
    early, late = (st.schedules.Plan([0.1] * k + [0.2] * 9, 0.0) for k in (5, 6))
    constant = st.schedules.Plan([0.1] * 15, 0.0)
    assert pair(sgd(late), sgd(constant)) and not pair(sgd(early), sgd(constant))


def momentum(covariance, mean=0.0):
    """Return a momentum with a drawn start."""
    return st.SGDM(
        st.NoisyOracle(LOSS, st.noise.gaussian(dim=1)),
        st.schedules.constant(0.1, 0.5),
        momentum=([mean], [[covariance]]),
        step_time=0.1,
    )


def test_different_initial_momenta_make_members_different():
    """Different means or covariances."""
    assert Known(program_of(momentum(1.0), momentum(1.0)), None)._same
    assert not Known(program_of(momentum(1.0), momentum(1.1)), None)._same
    assert not Known(program_of(momentum(1.0), momentum(1.0, 0.1)), None)._same


def test_draws_reach_the_point_with_the_first_step_unless_the_start_is_drawn():
    """Which records depend on draws, for several starts."""
    own = Known(program_of(euler(), times=[0.0, 0.1]), None)
    assert own.drawn.tolist() == [[False, False], [True, True]]
    quiet = st.SGD(st.NoisyOracle(LOSS, st.noise.none(dim=1)), ETA, step_time=0.1)
    assert not Known(program_of(quiet, times=[0.0, 0.1]), None).drawn.any()
    assert not _drawn_start(momentum(1.0), np.array([1.0]))
    moved = SimpleNamespace(start_draws=(Normal(2),), start=lambda x0, z: (x0 + 0.1 * z[1:], x0))
    assert _drawn_start(moved, np.array([1.0])) and not _drawn_start(SimpleNamespace(start_draws=()), np.array([1.0]))
    still = SimpleNamespace(start_draws=(Normal(2),), start=lambda x0, z: (x0 + 0 * z[1:], z))
    assert not _drawn_start(still, np.array([1.0]))


def exhaustive(paths, record, *draws, rows=0):
    """Return at which records the paths cover all outcomes."""
    program = SimpleNamespace(
        record=np.array(record), start_plan=SimpleNamespace(rows=rows), noise=SimpleNamespace(sets=[SimpleNamespace(draws=draws)])
    )
    return Known(program, SimpleNamespace(sums=SimpleNamespace(paths=paths)))._exhaustive.tolist()


def test_many_paths_cover_all_outcomes_of_signs():
    """2^s (s log 2 + 25) paths miss one of 2^s outcomes with probability exp(-25): 105.5 for s = 2, 470.9 for 4, 1,866.2 for 6."""
    for s, edge in ((0, 25), (2, 4 * (2 * math.log(2) + 25)), (4, 16 * (4 * math.log(2) + 25)), (6, 64 * (6 * math.log(2) + 25))):
        assert exhaustive(math.floor(edge) - (edge == 25), [s // 2], Sign(2)) == [False]
        assert exhaustive(math.ceil(edge), [s // 2], Sign(2)) == [True]
    assert exhaustive(1900, [0, 1, 2, 3], Sign(1), Sign(1)) == [True, True, True, True]
    assert exhaustive(1800, [0, 1, 2, 3], Sign(1), Sign(1)) == [True, True, True, False]
    assert (
        exhaustive(10**18, [100], Sign(1)) == [False]
        and exhaustive(10**6, [1], Normal(1)) == [False]
        and exhaustive(10**6, [1], Sign(1), rows=1) == [False]
    )


def flat_in(moments, scale=1.0, pair=False, record=(3,)):
    """Return where given moments are constant up to rounding."""
    program = program_of(euler(), euler(), observe=["x"]) if pair else program_of(euler(), observe=["x"])
    own = type("Own", (Known,), {"_reference": staticmethod(lambda program, points, scale=1.0: np.array(moments, float))})
    return own(replace(program, record=np.array(record)), None)._flat_in(program, scale)


def test_values_agree_up_to_the_rounding_of_their_own_size():
    """Four steps: 16 eps sqrt(m^2 + h2/32), the larger of both members; spread sqrt(h2/32). The two sides differ by 0.3 %."""
    tolerance = 16 * EPS
    for off, flat in ((0.997, True), (1.003, False)):
        assert flat_in([[[3.0, 32 * (3.0 * tolerance * off) ** 2]]]).tolist() == [[flat]]
        size = math.hypot(0.3, 0.4)
        own = [0.1, 0.3, 0.2, 32 * 0.1**2, 32 * 0.4**2, 32 * (size * tolerance * off) ** 2, 0, 0, 0]
        assert flat_in([[own]], pair=True).tolist() == [[flat]]
        other = [0.3, 0.1, 0.2, 32 * 0.4**2, 32 * 0.1**2, 32 * (size * tolerance * off) ** 2, 0, 0, 0]
        assert flat_in([[other]], pair=True).tolist() == [[flat]]
    assert flat_in([[[np.nan, np.nan]]], 8.0).tolist() == [[True]] and flat_in([[[np.nan, np.nan]]]).tolist() == [[False]]
    assert _overflown(np.array([1.0, np.inf]), 8.0).tolist() == [False, True] and not _overflown(np.array([np.inf]), 1.0).any()


def test_members_agree_up_to_the_rounding_of_their_largest_size():
    """sqrt(d^2 + dd/32) against the largest sqrt(x^2 + z^2 + (xx + zz)/32) so far and the start, for all coordinates."""
    program = program_of(euler(), euler(), x0=1.5, observe=["x"], steps=4, times=[0.3, 0.4])

    def at(rows, scale=1.0):
        own = type("Own", (Known,), {"_reference": staticmethod(lambda *_: np.array(rows, float)[:, None])})
        return own(program, None)._at_one_point(scale).tolist()

    def row(x, z, xx, zz, apart, share):
        return [x, z, apart * math.sqrt(share), 32 * xx, 32 * zz, 32 * apart**2 * (1 - share), 0, 0, 0]

    size = math.sqrt(0.25 + 0.36 + 0.3 + 0.5 + 1.5**2)
    for off, same in ((0.998, True), (1.002, False)):
        for share in (0.0, 0.3, 0.7, 1.0):
            first = row(0.5, 0.6, 0.3, 0.5, size * 16 * EPS * off, share)
            second = row(0.1, 0.2, 0.01, 0.02, size * 20 * EPS * off, share)
            assert at([first, second]) == [same, same], share
    for k in range(4):  # each of the four as the largest
        parts = [0.1, 0.2, 0.3, 0.4]
        parts[k] = 30.0
        whole = math.sqrt(sum(p * p for p in parts) + 1.5**2)
        for off, same in ((0.998, True), (1.002, False)):
            own = row(parts[0], parts[1], parts[2] ** 2, parts[3] ** 2, whole * 16 * EPS * off, 0.4)
            assert at([own, own])[0] == same
    overflown = row(np.inf, 0, 0, 0, np.nan, 0.5)
    assert at([overflown, overflown], 8.0) == [True, True] and at([overflown, overflown]) == [False, False]


def test_constant_columns():
    """With x_0 = 0, x does not depend on the draws; |x| is not analytic. Long runs, and draws without a density, are undecided."""
    program = program_of(euler(), x0=0.0, observe=["x", "x*0 + 2", "abs(x)"])
    columns = np.array([True, True, True])
    own = Known(program, None)
    assert own._constant(columns).tolist() == [[True, True, False]] * 7
    assert own._constant(np.array([False, True, True])).tolist() == [[False, True, False]] * 7
    assert not Known(replace(program, steps=20_001), None)._constant(columns).any()
    three = program_of(st.EulerMaruyama(SDE, 0.1, "three-point"), observe=["x*0"])
    assert not Known(three, None)._constant(np.array([True])).any()
    moving = Known(program_of(euler(), observe=["x", "x*0"]), None)
    assert moving._constant(np.array([True, True])).tolist() == [[True, True]] + [[False, True]] * 6


def test_members_at_one_point_agree_under_every_observable():
    """SGD and Euler-Maruyama with step eta have the same points, so that |x| agrees although it is not analytic."""
    sde = st.SDE(drift=["-x"], diffusion=["-0.31622776601683794"], variables="x")
    pair = st.SGD(st.NoisyOracle(LOSS, st.noise.gaussian(dim=1)), ETA), st.EulerMaruyama(sde, 0.1)
    assert Known(program_of(*pair, observe=["abs(x)"]), None)._constant(np.array([True])).all()
    apart = pair[0], st.EulerMaruyama(st.SDE(drift=["-x"], diffusion=["-0.3163"], variables="x"), 0.1)
    assert Known(program_of(*apart, observe=["abs(x)"]), None)._constant(np.array([True]))[:, 0].tolist() == [True] + [False] * 6


def test_a_variance_of_zero_is_random_unless_the_value_is_constant():
    """Values are random unless proven constant; standard errors are 0 where the spread is within rounding."""
    program = program_of(euler(), observe=["x*0 + 2", "abs(x)*0 + x"], steps=2)
    means, squares = np.full((3, 2), 2.0), np.zeros((3, 2))
    squares[2] = 45.0
    own = Known(program, single(means, squares))
    assert own.random.tolist() == [[False, False], [False, True], [True, True]]
    assert own.stderr == pytest.approx(np.array([[0, 0], [0, 0], [1.5, 1.5]], float))
    assert own.facts.along(1)["random"].tolist() == [False, True, True] and own.facts.of(2, 0)["random"] is True
    assert own.facts.of(1, 0) == {"random": False, "rounding": own.rounding[1, 0], "least": 2.0, "most": 2.0, "two_valued": False}


# -- bounds ------------------------------------------------------------------------------------------------------------------------------


def test_the_effective_number_of_paths():
    """The number of paths over 1 + n Var(s)/s^2, from at least four full groups: n = 9 paths in each of five, 4 in the last."""
    rng = np.random.default_rng(3)
    groups = rng.uniform(1, 2, (6, 2, 2, 9))
    for pair, index in ((True, 5), (False, 1)):
        program = SimpleNamespace(
            pair=pair,
            statistics=("x", "z", "d", "x2", "z2", "d2", "c", "c2", "dc") if pair else ("h", "h2"),
            record=np.arange(2),
            columns=2,
        )
        own = Known(program, SimpleNamespace(sums=sums_of(0, (9, 9, 9, 9, 9, 4), groups if pair else groups[..., :2])))
        s = groups[:5, ..., index]
        np.testing.assert_allclose(own._effective_paths, 49 / (1 + 9 * s.var(axis=0, ddof=1) / s.mean(axis=0) ** 2), rtol=1e-12)
        few = Known(program, SimpleNamespace(sums=sums_of(0, (9, 9, 9, 4, 4, 4), groups if pair else groups[..., :2])))
        assert (few._effective_paths == 0).all()
    unseen = Known(program, SimpleNamespace(sums=sums_of(0, (9,) * 6, np.zeros((6, 2, 2, 2)))))
    assert (unseen._effective_paths == 0).all()


def test_bounds_enter_means_and_differences_of_few_effective_paths():
    """Differences of finitely many values have bounds as well."""
    ranges = (Range(-1.0, 2.0), Range.of((0, 1)), Range(0.0, math.inf))

    def bounds(pair, coupled, carriers):
        own = Known(SimpleNamespace(pair=pair, coupled=coupled, record=np.arange(2), columns=3), None)
        own.__dict__.update(ranges=ranges, _effective_paths=np.tile(np.array(carriers, float), (2, 1)))
        least, most = own.bounds
        assert least.shape == most.shape == (2, 3)
        return least[1].tolist(), most[1].tolist()

    free = ([-1.0, 0.0, 0.0], [2.0, 1.0, math.inf])
    assert bounds(False, True, [5000] * 3) == bounds(True, False, [5000] * 3) == bounds(True, True, [999] * 3) == free
    assert bounds(True, True, [1000] * 3) == ([-math.inf, 0.0, -math.inf], [math.inf, 1.0, math.inf])


def test_ranges_of_columns_are_those_of_values_or_of_their_differences():
    """For one dynamics and for a pair."""
    member = euler()
    one = Known(program_of(member, observe=["tanh(x)", "x"]), None)
    two = Known(program_of(member, member, observe=["tanh(x)", lambda x: x[0] > 0]), pair_statistics(x=np.zeros((7, 2))))
    assert one.ranges == (Range(-1.0, 1.0), Range()) and one.two_valued == (False, False)
    assert two.ranges[0] == Range(-2.0, 2.0) and two.ranges[1].values == {-1.0, 0.0, 1.0}
    functional = Known(replace(one.program, functionals=(object(), object())), None)
    assert functional.ranges == (Range(-1.0, 1.0), Range(), Range(), Range())


@pytest.mark.parametrize("side", ["low", "high"])
def test_stated_bounds_hold_up_to_rounding(side):
    """Relative tolerance 1e-9, of the width 3 here: 2.9e-9 beyond a bound is accepted, 3.1e-9 is not."""
    observed = program_of(euler(), observe={"h": st.Bounded("x", -1, 2)}.values(), times=[0.0, 0.6])
    for beyond in (2.9e-9, 3.1e-9):
        mean = np.array([[0.5], [-1 - beyond if side == "low" else 2 + beyond]])
        own = Known(observed, single(mean, np.ones((2, 1))))
        if beyond < 3e-9:
            assert own.ranges == (Range(-1.0, 2.0),)
        else:
            with pytest.raises(ValueError, match=r"must lie in \[-1, 2\]"):
                own.ranges  # noqa: B018


# -- ranges of formulas -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("h", "low", "high"),
    [
        (lambda x, y: 1 / (2 + np.cos(x)), 1 / 3, 1), (lambda x, y: 1 / (np.cos(x) - 3), -1 / 2, -1 / 4), (lambda x, y: 1 / x**2, 0, math.inf),
        (lambda x, y: (3 + np.sin(x)) / (2 + np.cos(y)), 2 / 3, 4), (lambda x, y: 1 / -(x**2), -math.inf, 0), (lambda x, y: -1 / x**2, -math.inf, 0),
        (lambda x, y: 1 / (np.cos(x) + 0.5), -math.inf, math.inf), (lambda x, y: (2 + np.cos(x)) ** 1.5, 1, 3**1.5),
        (lambda x, y: (2 + np.cos(x)) ** -1.5, 3**-1.5, 1), (lambda x, y: (2 + np.cos(x)) ** (2 + np.cos(y)), -math.inf, math.inf),
        (lambda x, y: (x * x) ** 0.3, 0, math.inf), (lambda x, y: x**0.3, -math.inf, math.inf), (lambda x, y: np.cos(x) - 3 * np.sin(y), -4, 4),
        (lambda x, y: np.cosh(2 + np.cos(x)), math.cosh(1), math.cosh(3)), (lambda x, y: np.cosh(np.cos(x) - 2), math.cosh(1), math.cosh(3)),
        (lambda x, y: abs(3 + np.cos(x)), 2, 4), (lambda x, y: abs(np.cos(x) - 3), 2, 4), (lambda x, y: abs(3 * np.cos(x) - 1), 0, 4),
        (lambda x, y: (np.cos(x) - 3) * (2 + np.sin(y)), -12, -2), (lambda x, y: np.exp(np.cos(x)), math.exp(-1), math.e),
        (lambda x, y: x - x, 0, 0), (lambda x, y: x / x, 1, 1), (lambda x, y: np.sqrt(2 + np.cos(x)), 1, 3**0.5), (lambda x, y: np.arccos(x), 0, math.pi),
        (lambda x, y: np.log(2 + np.cos(x)), 0, math.log(3)), (lambda x, y: np.log1p(np.cos(x) / 2), math.log(0.5), math.log(1.5)),
        (lambda x, y: np.arcsin(x), -math.pi / 2, math.pi / 2),
    ],
)  # fmt: skip
def test_ranges_of_formulas(h, low, high):
    """Bounds by interval arithmetic."""
    found = range_of(lambda x: h(*x), 2)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize(
    ("text", "low", "high"), [("max(cos(x), 0.5)", 0.5, 1), ("min(cos(x), -0.5)", -1, -0.5), ("max(x, 3)", 3, math.inf)]
)
def test_the_range_of_a_maximum(text, low, high):
    """The range of a maximum or a sign excludes the branch that is never taken."""
    found = range_of(st.losses.from_expression(text, variables="x y").value, 2)
    assert (found.low, found.high) == (low, high)


def test_quotients_by_intervals_with_zero():
    """Denominators that touch, contain or equal 0."""
    inf = math.inf
    assert _quotient((1.0, 2.0), (0.0, 4.0)) == (0.25, inf) and _quotient((1.0, 2.0), (-4.0, 0.0)) == (-inf, -0.25)
    assert _quotient((1.0, 2.0), (0.0, 0.0)) == (-inf, inf) == _quotient((1.0, 2.0), (-1.0, 3.0))
    assert _corners(np.power)((2.0, 3.0), (-1.0, 2.0)) == (1 / 3, 9.0)
    with np.errstate(invalid="ignore"):
        assert _corners(np.multiply)((0.0, 1.0), (-inf, inf)) == (-inf, inf)  # 0 times infinity is 0


def test_hulls_differences_and_sets_of_values():
    """Sets of values are tracked up to 64 values."""
    assert Range(-1.0, 2.0).hull(Range(0.0, 5.0)) == Range(-1.0, 5.0) and Range(0.0, 5.0).hull(Range(-1.0, 2.0)) == Range(
        -1.0, 5.0
    )
    assert Range(1.0, 2.0).minus(Range(4.0, 8.0)) == Range(-7.0, -2.0) and Range.of((3, 5)).hull(Range.of((4,))).values == {
        3.0,
        4.0,
        5.0,
    }
    assert Range.of(range(64)) == Range(0.0, 63.0, frozenset(map(float, range(64)))) and Range.of(range(65)) == Range(0.0, 64.0)
    assert Range.of((1.0, math.nan)) == Range() and Range(0.0, 1.0).bounded and not Range(0.0, math.inf).bounded


def range_of_choice(compare, yes, no):
    """Return the range of a choice."""
    return range_of(lambda x: st.select(compare(x), yes(x), no(x)), 2)


def test_ranges_of_choices():
    """A choice has the hull of both sides, a maximum of two values and a sign a smaller range."""
    cos, sin = (lambda x: np.cos(x[0])), (lambda x: 3 + np.sin(x[1]))
    assert range_of_choice(lambda x: x[0] > 0, cos, sin) == Range(-1.0, 4.0)
    clamp = range_of(lambda x: st.select(x[0] > x[1], 7.0, st.select(x[1] > x[0], -5.0, x[0])), 2)
    assert clamp.low == -math.inf and clamp.high == math.inf  # equal sides give the first, which is unbounded
    assert range_of(lambda x: st.select(x[0] > 2, 7.0, st.select(x[0] < 2, -5.0, x[0])), 1).values == {-5.0, 2.0, 7.0}
    assert range_of(lambda x: st.select(x[0] > 2, 7.0, st.select(x[0] < 2, -5.0, 3 * x[0])), 1) == Range()
    assert range_of(lambda x: st.select(x[0] > 2, 7.0, st.select(x[0] < 1, -5.0, x[0])), 1) == Range()
    assert range_of(lambda x: x[0] > 0, 1).values == {0.0, 1.0}
    assert analytic(lambda tape: 3.0) and not analytic(lambda tape: 1 / 0)


def test_intervals_include_the_rounding_of_the_type():
    """A deterministic value is exact up to rounding: its interval in float32 contains the true value, that of float64 would not."""
    sgd = st.SGD(st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(1)), st.schedules.constant(0.1))
    given = dict(x0=[1.0], horizon=2.0, paths=1, observe=["x0"], times=[2.0])
    single, double = (st.simulate(sgd, dtype=dtype, **given).at("x0") for dtype in ("float32", "float64"))
    assert single.rounding == pytest.approx(double.rounding * np.finfo(np.float32).eps / np.finfo(float).eps, rel=1e-6)
    assert single.low < 0.9**20 < single.high
    assert double.rounding < abs(single.value - 0.9**20)


def test_a_gap_of_rounding_is_not_resolved():
    """Two formulas of one gradient differ in float32 by rounding errors."""
    plan, noise = st.schedules.constant(0.1), st.noise.gaussian(dim=1)
    gradients = (lambda x: [1.4 * x[0]], lambda x: [0.3 * x[0] + 1.1 * x[0]])
    members = [st.SGD(st.NoisyOracle(st.losses.from_function(g, 1), noise, 1.0), plan) for g in gradients]
    given = dict(x0=[1.0], horizon=2.0, paths=2000, observe=["x0"], times=[2.0], control=False)
    gap = st.weak_gap(*members, dtype="float32", **given).at("x0")
    assert 0 < abs(gap.value) < gap.rounding and not gap.resolved


def test_rounding_is_amplified_at_all_times_where_one_difference_is_small():
    """A pair that differs little in the first two of eight records only: what it differs by later may be the rounding of these, amplified."""
    program = program_of(euler(), euler(), x0=0.5, observe=["x"], steps=7)
    own, none = (Known(program, SimpleNamespace(sums=SimpleNamespace(dtype="float64"))) for _ in range(2))
    floor = np.full((8, 1), 2e-14)
    for one, least in ((own, 1e-8), (none, 1.0)):
        one.__dict__.update(_same=False, _sizes=np.array([0.4]), _unamplified_rounding=floor)
        one.__dict__["_spread"] = np.array([least, least, *np.ones(6)])[:, None]
    assert (own.rounding[2:] > 1.2 * floor[2:]).all() and (none.rounding == floor).all()
    early = own._up_to(2)
    assert early.program.steps == 1 and early.program.record.tolist() == [0, 1]
    assert own._up_to(8) is own
