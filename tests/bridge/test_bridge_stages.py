"""Stages of a diagnosis: where it stops, the numbers of each stage against plain loops, the cost, and the share of pairs."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sdetools.bridge import Batches, diagnose, stages
from sdetools.bridge.curvature import Quantity
from sdetools.bridge.keep_probability import Evidence
from sdetools.bridge.trial import Trial, progress_shortfall

STREAM = 1000
"""The seed of the first shuffle of a diagnosis with seed 0."""


def linear(n=64, dim=4):
    torch.manual_seed(0)
    x = torch.randn(n, dim).double()
    return torch.nn.Linear(dim, 1, bias=False).double(), (x, x.sum(1, keepdim=True) + 0.1 * torch.randn(n, 1).double())


def answered(monkeypatch, answers, **change):
    """Return a diagnosis in which P(keep) of each stage is given, whatever the evidence."""
    monkeypatch.setattr(stages, "keep_probability", lambda e: answers[stages.STAGES.index(stages_of(e))])
    model, data = linear()
    settings = {"lr": 0.05, "batch_size": 8, "batches": 16, "seeds": 2, "steps": 220}
    return diagnose(model, F.mse_loss, data, **settings | change)


def stages_of(e):
    return "sharpness" if e.reduction is None else "first steps" if e.trial_gap is None else "trial"


@pytest.mark.parametrize(
    ("answers", "change", "names", "advice"),
    [
        ((0.04, 0.5, 0.5), {}, 1, "drop"),
        ((0.96, 0.5, 0.5), {}, 1, "keep"),
        ((0.06, 0.01, 0.5), {}, 2, "drop"),
        ((0.5, 0.99, 0.5), {}, 2, "keep"),
        ((0.5, 0.5, 0.01), {}, 3, "drop"),
        ((0.5, 0.5, 0.5), {}, 3, "unsure"),
        ((0.04, 0.04, 0.97), {"trial": True}, 3, "keep"),
        ((0.5, 0.5, 0.01), {"trial": False}, 2, "unsure"),
        ((0.5, 0.01, 0.01), {"seeds": 0}, 1, "unsure"),
    ],
)
def test_it_stops_at_the_first_stage_that_is_clear(monkeypatch, answers, change, names, advice):
    found = answered(monkeypatch, answers, **change)
    assert [one.name for one in found.stages] == list(stages.STAGES[:names])
    assert found.advice == advice and found.keep_probability == answers[names - 1] and found.stage == stages.STAGES[names - 1]
    assert (found.trial is not None) == (names == 3) == (found.later_sharpness is not None)
    assert len([one for one in found.reasons if one.startswith(stages.STAGES)]) == names
    assert found.advice in found.summary() and f"{100 * answers[names - 1]:.1f} %" in found.summary()


def test_the_cost_counts_every_gradient_of_the_runs(monkeypatch):
    """Counted by the calls of backward: the first steps and the trial; an evaluation of 64 samples is a third of 8 batches."""
    counted = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda *given, **more: counted.append(1) or backward(*given, **more))
    found = answered(monkeypatch, (0.5, 0.5, 0.5))
    assert len(counted) == 2 * 220 + 2 * 220  # the trial continues the first hundred steps
    assert found.cost.runs == pytest.approx(len(counted) + 11 * 8 / 3)  # start, first steps, both looks
    assert found.cost.paired_run == 1600 and found.cost.total == found.cost.terms + found.cost.sharpness + found.cost.runs
    assert "little more here" not in str(answered(monkeypatch, (0.5, 0.5, 0.5), planned_steps=50_000).cost)
    assert "Measuring pays only" in answered(monkeypatch, (0.5, 0.5, 0.5), planned_steps=300).reasons[-1]


@pytest.mark.parametrize("steps", [200, 260])
def test_first_steps_and_trial_equal_plain_loops(steps):
    """R, the losses of the trial and its gaps beside loops in NumPy over the same batches, to 1e-9."""
    model, (x, y) = linear()
    w0 = model.weight.detach().numpy()[0].copy()
    found = diagnose(model, F.mse_loss, (x, y), lr=0.01, momentum=0.9, batch_size=8, batches=16, seeds=3, steps=steps, trial=True)
    source, mse = Batches((x, y), 8), lambda w: float(((x.numpy() @ w - y.numpy()[:, 0]) ** 2).mean())

    def ends(i, lr, beta, count):
        w, m = w0.copy(), np.zeros(4)
        for k in range(count):
            a, b = (part.numpy() for part in source.at(STREAM + 10 + i, k))
            m = beta * m + 2 * a.T @ (a @ w - b[:, 0]) / 8
            w = w - lr * m
        return mse(w)

    plain, momentum = ([ends(i, *rates, steps) for i in range(3)] for rates in ((0.1, 0.0), (0.01, 0.9)))
    np.testing.assert_allclose(found.trial.plain, plain, rtol=1e-9)
    np.testing.assert_allclose(found.trial.momentum, momentum, rtol=1e-9)
    start = mse(w0)
    reduction = np.mean([min(ends(i, 0.1, 0.0, 100), start) / start for i in range(3)])
    assert found.evidence.reduction == pytest.approx(reduction, rel=1e-9)
    gap = np.mean([(p - m) / (start - m) for p, m in zip(plain, momentum)])
    assert found.evidence.trial_gap == pytest.approx(gap, rel=1e-9) and found.evidence.trial_steps == steps


def test_losses_that_grow_or_diverge_count_as_the_initial_one():
    """lambda_max is about 3: plain SGD at lr = 10 diverges, so that R = 1 exactly."""
    model, data = linear()
    found = diagnose(model, F.mse_loss, data, lr=0.5, momentum=0.95, batch_size=8, batches=16, seeds=2, trial=True)
    assert found.evidence.reduction == 1.0 and not np.isfinite(found.trial.plain).any()


def test_a_run_that_was_continued_has_the_bits_of_one_that_was_not():
    """With dropout, whose draws are seeded by run and step."""
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1))
    settings = {"lr": 0.005, "batch_size": 8, "batches": 16, "seeds": 2, "trial": True}
    stopped, straight = (diagnose(model, F.mse_loss, (x, x[:, :1]), steps=steps, **settings) for steps in (230, 200))
    again = diagnose(model, F.mse_loss, (x, x[:, :1]), steps=230, **settings)
    assert stopped.to_json() == again.to_json()
    assert stopped.evidence.reduction == straight.evidence.reduction != stopped.trial.plain.mean() / stopped.trial.before


def test_the_share_of_pairs_has_clopper_and_pearsons_interval():
    """One run in seven diverges: 1/7 with [0.36 %, 57.9 %], from published tables; Student's interval of the mean reaches below zero."""
    momentum, plain = np.full(7, 1.0), np.array([1.0] * 6 + [math.nan])
    mixed = Trial(200, 3.0, momentum, plain, progress_shortfall(3.0, momentum, plain))
    assert mixed.share.value == 1 / 7
    assert (round(mixed.share.low, 4), round(mixed.share.high, 4)) == (0.0036, 0.5787)
    assert mixed.shortfall.low < 0 and mixed.advice == "unsure"
    for pairs, advice in ((5, "unsure"), (6, "drop")):
        same = Trial(200, 3.0, momentum[:pairs], momentum[:pairs], progress_shortfall(3.0, momentum[:pairs], momentum[:pairs]))
        worse = Trial(200, 3.0, momentum[:pairs], 2 * momentum[:pairs], same.shortfall)
        assert (same.advice, worse.advice) == (advice, "keep" if pairs == 6 else "unsure")


def test_ends_of_the_interval_and_what_is_unknown_leave_doubt(monkeypatch):
    """P = x0/(1 + x0) here: the range is that over the interval of x0; without a trial it begins at 0 where momentum or slowness is in question."""
    monkeypatch.setattr(stages, "keep_probability", lambda e: e.x0 / (1 + e.x0))
    early = Evidence(0.9, 32, None, x0=2.0)
    keep = stages.probability(early, Quantity.of(2.0, 1.0, 3.0))
    assert (keep.value, keep.low, keep.high) == (2 / 3, 1 / 2, 3 / 4)
    assert stages.probability(early, Quantity.of(0.4, 0.4, 0.4)).low == 0
    measured = Evidence(0.9, 32, None, x0=2.0, reduction=0.5, trial_gap=0.5, trial_steps=200)
    later = stages.probability(measured, Quantity.of(2.0, -5.0, 900.0))
    assert (later.low, later.high) == (pytest.approx(1 / 6), 20 / 21)  # at most a factor of ten from the value
    beyond = Quantity.of(39.0, 39.0, 39.0)  # momentum 0.9 is unstable above 38 on a quadratic loss
    assert stages.probability(Evidence(0.9, 32, None, x0=39.0), beyond).low == 0
    tried = Evidence(0.9, 32, None, x0=39.0, reduction=1.0, trial_gap=1.0, trial_steps=200)
    assert stages.probability(tried, beyond).low == 39 / 40


def test_losses_below_zero_and_no_momentum():
    model, (x, y) = linear()
    shifted = diagnose(model, lambda out, y: F.mse_loss(out, y) - 100, (x, y), lr=0.3, batch_size=8, batches=16)
    assert shifted.stage == "sharpness" and "need a positive one" in shifted.stages[0].reason and shifted.trial is None
    still = diagnose(model, F.mse_loss, (x, y), lr=0.1, momentum=0.0, batch_size=8, batches=16)
    assert (still.advice, still.keep_probability, still.evidence, still.freed) == ("drop", 0.0, None, 0)
    assert "both methods are the same" in still.reasons[0]


def test_theorem_rule_and_heuristic_are_kept_apart():
    model, data = linear()
    small = diagnose(model, F.mse_loss, data, lr=1e-4, batch_size=8, batches=16)
    large = diagnose(model, F.mse_loss, data, lr=0.3, batch_size=8, batches=16, seeds=0)
    assert small.reasons[0].startswith("theorem, for least squares alone: plain SGD is stable below")
    assert "= 1.6 at batch size 8" in small.reasons[0] and small.reasons[1].startswith("safe rule: applies")
    assert "is unstable above" in large.reasons[0] and large.reasons[1].startswith("safe rule: does not apply")
    assert large.least_squares == "keep" and small.least_squares == "drop"
    with pytest.warns(DeprecationWarning, match="`prediction` is now `least_squares`"):
        assert small.prediction == "drop"


def test_the_safe_rule_answers_where_p_is_not_clear_and_gives_way_where_it_is(monkeypatch):
    """x0 is about 0.003, a sixteenth of the edge is 0.1."""
    found = answered(monkeypatch, (0.5, 0.5, 0.5), lr=1e-4)
    assert (found.advice, found.stage, found.keep_probability, found.cost.runs) == ("drop", "sharpness", 0.5, 0.0)
    assert answered(monkeypatch, (0.5, 0.99, 0.5), lr=1e-4, trial=True).advice == "drop"
    assert answered(monkeypatch, (0.5, 0.5, 0.97), lr=1e-4, trial=True).advice == "keep"


def test_the_figure_shows_each_stage(monkeypatch):
    found = answered(monkeypatch, (0.5, 0.4, 0.01))
    axes = found.plot().axes[0]
    assert axes.get_xlabel() == "P(keep)" and [text.get_text() for text in axes.get_yticklabels()] == list(stages.STAGES)


def test_progress_reaches_its_total():
    seen = []
    model, data = linear()
    diagnose(model, F.mse_loss, data, lr=1e-4, batch_size=8, batches=16, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] and all(a[0] <= b[0] for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize(
    "change", [{"steps": 199}, {"trial": 1.5}, {"trial": True, "seeds": 0}, {"planned_steps": 0}, {"pieces": 0}, {"pieces": 9}]
)
def test_invalid_settings_of_the_stages_are_refused(change):
    model, data = linear()
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must"):
        diagnose(model, F.mse_loss, data, lr=0.1, batch_size=8, **change)
