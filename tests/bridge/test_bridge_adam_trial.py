"""The paired trial of Adam and Adam with beta_1 = 0: against equations written out here, and on losses with a known answer."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from sdetools.bridge import diagnose_adam
from sdetools.bridge.adam_trial import UNCALIBRATED

MSE = torch.nn.functional.mse_loss


def regression(samples=12, dim=3, dtype=torch.float64):
    torch.manual_seed(3)
    x = torch.randn(samples, dim, dtype=dtype)
    return x, x @ torch.arange(1.0, dim + 1, dtype=dtype)[:, None] + 0.3 * torch.randn(samples, 1, dtype=dtype)


def adam(w, state, gradient, steps, settings):
    """Adam with bias correction in NumPy, per coordinate: lr, betas, eps, decay and whether it is decoupled are arrays or numbers."""
    (m, v, k), (lr, b1, b2, eps, decay, decoupled) = state, settings
    for _ in range(steps):
        k += 1
        g = gradient(w)
        if decoupled:
            w = w * (1 - lr * decay)
        else:
            g = g + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
    return w, (m, v, k)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_the_runs_are_those_of_the_equations_from_the_state_of_the_optimiser(kind):
    """Batches of all samples are the full loss in every order, so that the runs have no noise: two groups, three steps before the trial."""
    x, y = regression()
    model = torch.nn.Linear(3, 1).double()
    groups = [{"params": [model.bias], "lr": 0.1, "weight_decay": 0.0}, {"params": [model.weight]}]
    optimizer = kind(groups, lr=0.03, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    rows = np.column_stack([x.numpy(), np.ones(len(x))])
    gradient = lambda w: 2 * rows.T @ (rows @ w - y[:, 0].numpy()) / len(rows)  # noqa: E731
    loss = lambda w: float(((rows @ w - y[:, 0].numpy()) ** 2).mean())  # noqa: E731
    point = lambda: np.concatenate([model.weight.detach().numpy().ravel(), model.bias.detach().numpy()])  # noqa: E731
    lr, decay = np.array([0.03, 0.03, 0.03, 0.1]), np.array([0.1, 0.1, 0.1, 0.0])
    settings = lambda b1: (lr, b1, 0.95, 1e-3, decay, kind is torch.optim.AdamW)  # noqa: E731
    start = point()
    for _ in range(3):
        optimizer.zero_grad()
        MSE(model(x), y).backward()
        optimizer.step()
    w, state = adam(start, (0.0, 0.0, 0), gradient, 3, settings(0.8))
    assert np.abs(point() - w).max() < 1e-12
    kept, numbers = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    torch.manual_seed(11)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    found = diagnose_adam(model, MSE, (x, y), optimizer, len(x), seeds=2, steps=25)
    assert torch.equal(torch.rand(3), drawn)  # the caller's generator
    assert all(torch.equal(part, kept[name]) for name, part in model.state_dict().items())
    assert str(optimizer.state_dict()) == str(numbers)
    assert found.trial.before == pytest.approx(loss(w), rel=1e-12)
    with_momentum, without = (loss(adam(w, state, gradient, 25, settings(b1))[0]) for b1 in (0.8, 0.0))
    assert found.trial.momentum == pytest.approx([with_momentum] * 2, rel=1e-10)
    assert found.trial.plain == pytest.approx([without] * 2, rel=1e-10)
    assert abs(with_momentum / without - 1) > 1e-3  # the two differ
    progress = found.trial.before - with_momentum
    assert found.trial.shortfall.value == pytest.approx((without - with_momentum) / progress, rel=1e-8)
    assert (found.freed, found.batch_size, found.advice) == (4 * 8, 12, "unsure")  # two pairs decide nothing
    assert kind.__name__ in found.optimiser and "lr=0.1, betas=(0.8, 0.95), weight_decay=0; lr=0.03" in found.optimiser


class Point(torch.nn.Module):
    """Parameters w alone, whose loss on samples s is |w - s|^2 / 2."""

    def __init__(self, dim, start):
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((dim,), start))

    def forward(self, s):
        return self.w - s


def noisy(lr, start, seeds=6, steps=150):
    torch.manual_seed(0)
    data = torch.randn(4096, 60)
    model = Point(60, start)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99))
    loss_of = lambda net, batch: (net(batch[0]) ** 2).sum(1).mean() / 2  # noqa: E731
    return diagnose_adam(model, None, (data,), optimizer, 1, loss_of=loss_of, seeds=seeds, steps=steps)


def test_beta_1_may_be_0_at_small_steps_and_not_at_large_ones():
    """A quadratic loss with noise of variance 1 in each coordinate; x = lr / sqrt(1 + V) is the step over the curvature, V the final variance.

    With v frozen, V = x / (2 - k x), k = (1 - beta_1)/(1 + beta_1), from V = 4. At lr = 3, beta_1 = 0: x = 1.5, V = 3; at beta_1 = 0.9: V = 1.1. So two
    thirds of the progress are lacking. At lr = .05 both reach V = .026 up to 1 %, of progress 4.
    """
    small = noisy(0.05, 2.0)
    assert small.advice == "drop" and small.works and small.trial.share.value == 0.0
    large = noisy(3.0, 2.0)
    assert large.advice == "keep" and large.trial.share.value == 1.0 and large.trial.shortfall.low > 0.1
    assert noisy(3.0, 2.0, seeds=5).advice == "unsure"  # five pairs do not decide
    text = str(large)
    assert text.endswith("beta_1: beta_1 = 0 does worse here: keep beta_1") and UNCALIBRATED in text
    read = json.loads(large.to_json())
    assert read["advice"] == "keep" and read["limits"] == UNCALIBRATED and len(read["trial"]["plain"]) == 6


def test_a_run_that_makes_no_progress_answers_nothing():
    found = noisy(0.5, 0.0, steps=20)  # from the minimiser
    assert not found.works and found.advice == "unsure" and "diverge or make no progress" in str(found)
    x, y = regression(dtype=torch.float32)
    model = torch.nn.Linear(3, 1)
    broken = diagnose_adam(model, MSE, (x, y), torch.optim.Adam(model.parameters(), lr=1e30), 4, seeds=2, steps=5)
    assert not broken.works and math.isnan(broken.trial.momentum[0]) and broken.advice == "unsure" and "inf" in str(broken)


def test_streams_pieces_and_parameters_outside_the_optimiser():
    x, y = regression(64)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    optimizer = torch.optim.AdamW(model[2].parameters(), lr=0.01)
    ticks = []
    stream = ((x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8))
    found = diagnose_adam(
        model, MSE, stream, optimizer, seeds=2, steps=6, pieces=2, progress=lambda done, total: ticks.append((done, total))
    )
    assert found.batch_size == 8 and "48 samples were read" in str(found) and found.freed == 5 * 8
    assert ticks[-1][0] == ticks[-1][1] >= 24
    whole = diagnose_adam(model, MSE, (x[:48], y[:48]), optimizer, 8, seeds=2, steps=6)
    assert found.trial.plain == pytest.approx(whole.trial.plain, rel=1e-10)


NET = torch.nn.Linear(3, 1).double()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": torch.optim.SGD(NET.parameters(), lr=0.1)}, "`optimizer` must be torch.optim.Adam or AdamW; got SGD"),
        ({"optimizer": torch.optim.NAdam(NET.parameters(), lr=0.1)}, "got NAdam"),
        ({"optimizer": None}, "got NoneType"),
        ({"optimizer": torch.optim.Adam(NET.parameters(), lr=0.1, betas=(0.0, 0.9))}, "beta_1 above 0"),
        ({"optimizer": torch.optim.Adam(torch.nn.Linear(3, 1).parameters())}, "the model's own parameters"),
        ({"seeds": 1}, "`seeds`"),
        ({"steps": 0}, "`steps`"),
        ({"pieces": 9}, "`pieces` must be at most the batch size, 4"),
        ({"batch_size": 1000}, "`batch_size`"),
        ({"model": 3}, "`model` must be a torch.nn.Module"),
        ({"loss": None}, "`loss` must be a function"),
    ],
)
def test_invalid_input_is_refused(change, words):
    given = {"model": NET, "loss": MSE, "data": regression(), "optimizer": torch.optim.Adam(NET.parameters()), "batch_size": 4}
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        diagnose_adam(**(given | change))
