"""The probability of "keep": its shape, its coefficients from the table of labels, and the evaluation on examples worked by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sdetools.bridge import keep_probability as model  # noqa: E402
from sdetools.bridge.keep_probability import Evidence, capped_gap, keep_probability, safe, stage_of  # noqa: E402
from sdetools.exact.least_squares.momentum_budget import mode_edge  # noqa: E402

HOME = Path(__file__).resolve().parents[2] / "benchmarks" / "dropping_momentum"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(HOME.parent)
    from dropping_momentum import fit, labels, run, scores, settings, tasks, training

GRID = [(momentum, batch, x0) for momentum in (0.5, 0.9, 0.99) for batch in (4, 64, 512) for x0 in (0.5, 3.0, 40.0)]


def rising(values):
    """Return whether values never decrease."""
    return all(before <= after for before, after in itertools.pairwise(values))


def test_the_probability_never_decreases_in_what_the_theory_orders():
    steps = np.linspace(0, 1, 6)
    for momentum, batch, x0 in GRID:
        own = {"momentum": momentum, "batch_size": batch, "steps": None}
        assert rising([keep_probability(Evidence(**own, x0=x)) for x in (0.1, 1.0, 2.0, 8.0, 60.0)])
        assert rising([keep_probability(Evidence(**own, x0=x0, reduction=float(r))) for r in steps])
        for length in (200, 400):
            trials = [Evidence(**own, x0=x0, reduction=1.0, trial_gap=float(g), trial_steps=length) for g in (-1.0, *steps)]
            assert rising([keep_probability(each) for each in trials])


def test_the_stage_is_the_latest_with_evidence():
    first = Evidence(0.9, 32, None, x0=3.0)
    second = Evidence(0.9, 32, 800, x0=3.0, reduction=0.5)
    third = Evidence(0.9, 32, 800, x0=3.0, reduction=0.5, trial_gap=0.2, trial_steps=200)
    assert [stage_of(each) for each in (first, second, third)] == list(model.STAGES)
    for each, stage in zip((first, second, third), model.STAGES):
        own = model.coefficients()["stages"][stage]
        z = own["intercept"] + sum(weight * model.FEATURES[name](each) for name, weight in own["weights"].items())
        assert keep_probability(each) == pytest.approx(1 / (1 + math.exp(-z)))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"momentum": 0.0}, "nothing to drop"),
        ({"momentum": 1.0}, "momentum"),
        ({"batch_size": 0}, "batch_size"),
        ({"x0": math.nan}, "x0"),
        ({"reduction": 1.5}, r"\[0, 1\]"),
        ({"reduction": math.nan}, "reduction"),
        ({"trial_gap": 0.1}, "together"),
        ({"reduction": 0.5, "trial_gap": -2.0, "trial_steps": 200}, "trial_gap"),
        ({"reduction": 0.5, "trial_gap": 0.1, "trial_steps": 100}, "trial_steps"),
        ({"trial_gap": 0.1, "trial_steps": 200}, "together"),
    ],
)
def test_evidence_outside_its_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Evidence(**{"momentum": 0.9, "batch_size": 32, "steps": None, "x0": 3.0, **wrong})


def test_infinite_and_negative_sharpness_have_a_probability():
    assert 0 <= keep_probability(Evidence(0.9, 32, None, x0=-1.0)) <= keep_probability(Evidence(0.9, 32, None, x0=math.inf)) <= 1


def test_a_gap_counts_losses_above_the_start_as_the_start():
    assert capped_gap(4.0, 2.0, 3.0) == 0.5
    assert capped_gap(4.0, 2.0, 1e9) == capped_gap(4.0, 2.0, math.nan) == 1.0
    assert capped_gap(4.0, 5.0, 1.0) == 0.0  # momentum itself makes no progress
    assert capped_gap(4.0, 3.9, 0.0) == -1.0


@pytest.mark.parametrize("batch", [2, 16])
def test_the_stability_edge_is_that_of_a_gaussian_coordinate(batch):
    """E rho'^2/E rho^2 = E (1 - h s)^2 for s the mean of `batch` squared normals: by quadrature of the chi-squared law."""
    from scipy import integrate, stats

    def growth(step):
        law = stats.chi2(batch)
        return integrate.quad(lambda s: (1 - step * s / batch) ** 2 * law.pdf(s), 0, 40 * batch, limit=200)[0]

    edge = mode_edge(batch)
    assert growth(edge) == pytest.approx(1, abs=1e-6)
    assert growth(0.98 * edge) < 1 < growth(1.02 * edge)
    assert safe(Evidence(0.9, batch, None, x0=0.98 * edge)) and not safe(Evidence(0.9, batch, None, x0=1.02 * edge))


def test_the_coefficients_are_those_of_the_table():
    """The frozen file equals the fit to the fitted networks of labels.csv."""
    stored, again = model.coefficients(), fit.coefficients(labels.read())
    assert stored["provenance"] == again["provenance"]
    assert stored["stages"].keys() == again["stages"].keys() == set(fit.STAGES)
    for stage, own in again["stages"].items():
        assert stored["stages"][stage]["intercept"] == pytest.approx(own["intercept"], abs=1e-6)
        assert stored["stages"][stage]["weights"] == pytest.approx(own["weights"], abs=1e-6)
    assert json.loads(fit.COEFFICIENTS.read_text()) == stored


def test_the_regression_maximises_its_penalised_likelihood():
    """The gradient of the stated objective, written out, is zero at the fit; a falling weight that may not fall is zero."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 2)) * [3.0, 0.2] + 1.0
    share = 1 / (1 + np.exp(-(0.5 + x @ [1.0, -4.0])))
    w = fit.logistic(x, share, [True, False])
    p, scale = 1 / (1 + np.exp(-(w[0] + x @ w[1:]))), x.std(axis=0)
    slope = ((share - p)[:, None] * (x - x.mean(axis=0)) / scale).sum(axis=0)
    np.testing.assert_allclose(slope, fit.RIDGE * w[1:] * scale, atol=1e-6)
    assert abs((share - p).sum()) < 1e-4
    assert fit.logistic(x, share, [True, True])[2] == 0.0


def test_scores_worked_by_hand():
    p, y = np.array([0.0, 0.5, 1.0, 0.9]), np.array([0.0, 1.0, 1.0, 0.0])
    assert scores.brier(p, y) == pytest.approx((0 + 0.25 + 0 + 0.81) / 4)
    assert scores.skill(scores.brier, p, y) == pytest.approx(1 - 0.265 / 0.25)
    assert scores.log_loss(np.array([0.5, 0.25]), np.array([1.0, 0.0])) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert scores.wrong(p, y) == 2  # 0.5 counts as "drop"
    assert scores.clear(np.array([0.05, 0.06, 0.94, 0.95]), 0.05).tolist() == [True, False, False, True]
    table = scores.reliability(np.array([0.02, 0.03, 0.3, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert [row[2] for row in table] == [2, 0, 1, 0, 0, 1]
    assert table[0][3:] == pytest.approx((0.025, 0.5)) and math.isnan(table[1][3])


def test_the_bootstrap_draws_whole_networks():
    """Of two networks, one with skill 1 and one with skill -3, samples have both ends; with one network there is no spread."""
    y = np.array([0.0, 1.0, 0.0, 1.0])
    p = np.array([0.0, 1.0, 1.0, 0.0])
    low, high = scores.over_networks(scores.brier, p, y, ["a", "a", "b", "b"])
    assert (low, high) == (-3.0, 1.0)
    low, high = scores.over_networks(scores.brier, p, y, ["a"] * 4)
    assert low == high == -1.0


def test_verdicts_need_an_interval_beside_one_half():
    """By binomial tails: 11 of 12 (P = 13/4096) and 19 of 24 decide at 5 %/3 two-sided, 10 of 12 (79/4096) and 18 of 24 do not."""
    cases = ((11, 12), (10, 12), (1, 12), (2, 12), (19, 24), (18, 24), (24, 48))
    assert [labels.decided(*case) for case in cases] == ["keep", "open", "drop", "open", "keep", "open", "open"]
    low, high = labels.binomial_interval(0, 12, 0.95)
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 12))


def row_of(sgd, sgdm):
    """Return a row with these final losses of all seeds, the feature seeds first."""
    runs = {name: np.ones(len(sgd)) for name in labels.LISTS}
    first = np.array([0.5, math.nan] + [0.0] * (len(sgd) - 2))
    runs |= {"sgd_end": np.array(sgd), "sgdm_end": np.array(sgdm), "sgd_100": first, "sgd_200": first, "sgdm_200": first / 2}
    setting = settings.Setting("relu", 0, 0.9, 32, 0.5, 1000)
    return labels.Row(setting, 10.0, 3.0, 0.1, 3.0, 20, 2.0, 2.0, runs)


def test_labels_worked_by_hand():
    row = row_of([9.0, 9.0] + [0.25] * 10 + [math.nan, 0.3], [0.0, 0.0] + [0.2] * 12)
    assert row.progress == pytest.approx(0.8)
    np.testing.assert_allclose(row.gaps, [0.0625] * 10 + [1.0, 0.125])
    assert row.share == pytest.approx(2 / 12) and row.verdict == "open"
    part = row_of([0.5] * 14, [0.25] * 12 + [0.96, math.nan])  # two runs of SGDM are dead and have no gap
    assert part.share == 1.0 and len(part.gaps) == 10 and part.progress == pytest.approx((10 * 0.75 + 0.04) / 12)
    assert row.log_ratio == pytest.approx(math.log(0.25 / 0.2))
    assert row.evidence("first steps").reduction == pytest.approx(0.75)  # of the two feature seeds, one not finite
    assert row.evidence("trial").trial_gap == pytest.approx((0.25 / 0.75 + 0.0) / 2)
    assert row_of([0.5] * 14, [0.97] * 14).verdict == "dead"
    assert row_of([1.0] * 14, [0.1] * 14).verdict == "keep"


def test_the_staged_diagnosis_stops_once_it_is_clear():
    found = {"sharpness": [0.01, 0.5, 0.5], "first steps": [0.9, 0.97, 0.5], "trial": [0.9, 0.9, 0.2]}
    costs = {"sharpness": [10, 20, 30], "first steps": [100] * 3, "trial": [1000] * 3}
    p, last, cost = fit.staged(*({k: np.array(v, dtype=float) for k, v in each.items()} for each in (found, costs)))
    assert p.tolist() == [0.01, 0.97, 0.2] and last.tolist() == [0, 1, 2] and cost.tolist() == [10, 120, 1130]


def test_the_table_is_read_and_written_without_loss(tmp_path):
    rows = labels.read()
    labels.write(rows[:5], tmp_path / "t.csv")
    again = labels.read(tmp_path / "t.csv")
    assert labels.digest(again) == labels.digest(rows[:5]) != labels.digest(rows[1:6])
    stored = (HOME / "labels.csv").read_text().splitlines()
    assert len(stored) == len(rows) + 1 and len({row.setting.name for row in rows}) == len(rows)
    planned = {own.name: own for part in ("fitted", "unseen") for own in settings.settings(part)}
    assert all(planned[row.setting.name] == row.setting for row in rows)


def test_shuffled_labels_have_no_skill():
    """Negative control: after shuffles over all networks the skill is about 0, and it is far above 0 without.

    Shuffles within networks leave the difference between networks, which the evidence shows as well: a small skill remains. The skill within networks
    has none of it: it is at most 0 for shuffled labels, up to the noise of four shuffles of 174 outcomes (a standard error below 1 / sqrt(4 174) = .04).
    """
    rows = fit.alive(fit.of_part(labels.read(), "fitted"))
    for within, most in ((False, 0.05), (True, 0.2)):
        shuffled = [fit.shuffled_skill(rows, seed, lambda share: fit.left_out(rows, share), within) for seed in range(4)]
        everywhere, inside = np.mean(shuffled, axis=0)
        assert abs(everywhere) < most and inside < 3 * 0.04
    p, y, networks, _ = fit.scored(rows, fit.staged(fit.left_out(rows), fit.costs(rows))[0])
    assert scores.skill(scores.brier, p, y) > 0.5 and scores.skill_within(p, y, networks) > 0.5


def test_the_skill_within_networks_of_exchangeable_outcomes():
    """Over all orders of the outcomes within networks it is -sum p~^2 / sum y~^2 on average: 0 for what only tells networks apart."""
    p, y = np.array([0.1, 0.4, 0.3, 0.8, 0.9, 0.6]), np.array([0.0, 1, 0, 1, 1, 0])
    networks = ["a"] * 3 + ["b"] * 3
    orders = [
        [*first, *(3 + i for i in last)]
        for first in itertools.permutations(range(3))
        for last in itertools.permutations(range(3))
    ]
    own = np.concatenate([p[:3] - p[:3].mean(), p[3:] - p[3:].mean()])
    expected = -np.sum(own**2) / (2 / 3 + 2 / 3)
    assert np.isclose(np.mean([scores.skill_within(p, y[order], networks) for order in orders]), expected, rtol=0, atol=1e-14)
    assert (
        scores.skill_within(np.repeat([0.2, 0.9], 3), y, networks)
        == 0
        < scores.skill(scores.brier, np.repeat([0.33, 0.67], 3), y)
    )


def test_many_runs_at_once_are_the_runs_of_torch():
    """The stack of runs equals loops of torch.optim.SGD with the same batches, with and without momentum."""
    own = tasks.task("relu regression", 3)
    orders = np.stack([training.order([1, seed], 6, 16, 1024) for seed in range(2)])
    losses, tests = training.train(own, torch.tensor([0.02, 0.01]), torch.tensor([0.0, 0.9]), orders, (3, 6))
    for i, (lr, momentum) in enumerate(((0.02, 0.0), (0.01, 0.9))):
        for seed in range(2):
            net = tasks.task("relu regression", 3).net
            optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
            for index in orders[seed]:
                optimiser.zero_grad()
                own.loss(net(own.train[0][index]), own.train[1][index]).backward()
                optimiser.step()
            with torch.no_grad():
                ends = [float(own.loss(net(x), y)) for x, y in (own.train, own.test)]
            assert [losses[i, seed, 1], tests[i, seed]] == pytest.approx(ends, rel=1e-4)


def test_convolutions_and_normalisation_are_those_of_torch():
    x = torch.randn(7, 3, 16)
    own, norm = tasks.Convolution(3, 5, 4, 2), tasks.Normalised(3)
    expected = torch.nn.functional.conv2d(x.view(7, 3, 4, 4), own.weight, own.bias, 2, 1).flatten(2)
    torch.testing.assert_close(own(x), expected)
    torch.testing.assert_close(norm(x), torch.nn.BatchNorm1d(3)(x))


@pytest.mark.sample(9)
@pytest.mark.parametrize("name", sorted(tasks.TASKS))
def test_each_network_learns(name):
    """A few steps of all runs of a network at a small learning rate reduce its loss, and its sharpness is positive."""
    own = tasks.task(name, 1)
    top, _ = training.sharpness(own)
    orders = training.order([0], 10, 64, 1024)[None]
    (losses,), _ = training.train(own, torch.tensor([0.1 / top]), torch.tensor([0.0]), orders, (1, 10))
    assert top > 0 and losses[0, 1] < losses[0, 0]


def test_a_setting_runs_from_end_to_end():
    """A short run of a setting: its row is complete, alike when made again, and its seeds for evidence are not those for labels."""
    setting = settings.settings("fitted")[0]
    row, again = (run.run_setting(setting, seeds=(3,), steps=16) for _ in range(2))
    assert labels.cells(row) == labels.cells(again) and len(labels.cells(row)) == len(labels.HEADER)
    assert {len(values) for values in row.runs.values()} == {labels.FEATURE_SEEDS + 3}
    assert row.lr == pytest.approx(row.x0 / row.sharpness * (1 - setting.momentum)) and row.x0 <= row.edge
    assert len(set(row.runs["sgdm_end"])) == labels.FEATURE_SEEDS + 3
