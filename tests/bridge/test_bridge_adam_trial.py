"""The paired trial of Adam and Adam with beta_1 = 0: against equations written out here, and on losses with a known answer."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch

from sdetools.bridge import SVAG, diagnose_adam
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


def decayed(model):
    """Groups as people make them: no decay of biases and norms."""
    own = list(model.parameters())
    return [{"params": [p for p in own if p.ndim > 1]}, {"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0}]


def network(*parts):
    torch.manual_seed(5)
    return torch.nn.Sequential(*(parts or (torch.nn.Linear(3, 8), torch.nn.LayerNorm(8), torch.nn.GELU(), torch.nn.Linear(8, 1))))


class Mixed(torch.nn.Module):
    """A first layer in bfloat16 below one in float32."""

    def __init__(self):
        super().__init__()
        self.low, self.top = torch.nn.Linear(3, 8).bfloat16(), torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.top(torch.tanh(self.low(x.bfloat16())).float())


class Dicts(torch.utils.data.Dataset):
    """Samples as dicts, as tokenisers make them."""

    x, y = regression(64, dtype=torch.float32)

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


def autocast(net, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return MSE(net(batch[0]).float(), batch[1])


def frozen():
    model = network()
    model[0].requires_grad_(False)
    return model


BROUGHT = {
    "groups": (network, {}),
    "frozen parameters in the optimiser": (frozen, {}),
    "bfloat16": (lambda: network().bfloat16(), {"loss_of": lambda net, b: MSE(net(b[0].bfloat16()).float(), b[1])}),
    "mixed precision": (Mixed, {}),
    "autocast": (network, {"loss_of": autocast}),
    "batch normalisation and dropout": (
        lambda: network(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1)),
        {},
    ),
    "dicts": (
        network,
        {"data": torch.utils.data.DataLoader(Dicts(), 8, shuffle=True), "loss_of": lambda net, b: MSE(net(b["x"]), b["y"])},
    ),
    "fused": (network, {"fused": True}),
    "a tensor as learning rate": (network, {"lr": torch.tensor(0.01)}),
    "amsgrad": (network, {"amsgrad": True}),
}


@pytest.mark.parametrize("name", BROUGHT)
def test_what_people_bring(name):
    """A loader, AdamW in two groups after three steps of a run with a scheduler: the trial runs, and leaves model, optimiser and scheduler alone."""
    make, more = BROUGHT[name]
    more = dict(more)
    model, data = make(), torch.utils.data.TensorDataset(Dicts.x, Dicts.y)
    loader = more.pop("data", torch.utils.data.DataLoader(data, 8, shuffle=True, drop_last=True))
    loss_of = more.pop("loss_of", None)
    optimizer = torch.optim.AdamW(decayed(model), lr=more.pop("lr", 0.01), **more)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for batch in itertools.islice(iter(loader), 3):
        optimizer.zero_grad()
        (loss_of(model, batch) if loss_of else MSE(model(batch[0]), batch[1])).backward()
        optimizer.step()
        scheduler.step()
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), scheduler.state_dict()))
    found = diagnose_adam(model, None if loss_of else MSE, loader, optimizer, loss_of=loss_of, seeds=2, steps=25)
    assert found.works and found.trial.momentum.mean() < 0.9 * found.trial.before and found.batch_size == 8
    assert "the scheduler is not followed" in str(found) and f"lr={float(optimizer.param_groups[0]['lr']):g}" in str(found)
    assert found.freed == sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    for before, after in zip(kept, (model.state_dict(), optimizer.state_dict(), scheduler.state_dict())):
        assert str(before) == str(after)


def test_clipping_is_that_of_the_users_loop():
    """Batches of all samples, so that the runs have no noise: they end where torch's clipped loop ends."""
    x, y = regression()
    model = torch.nn.Linear(3, 1).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    found = diagnose_adam(model, MSE, (x, y), optimizer, len(x), seeds=2, steps=20, clip_norm=0.5)
    own = copy.deepcopy(model)
    other = torch.optim.AdamW(own.parameters(), lr=0.05)
    for _ in range(20):
        other.zero_grad()
        MSE(own(x), y).backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), 0.5)
        other.step()
    assert found.trial.momentum == pytest.approx([MSE(own(x), y).item()] * 2, rel=1e-12)
    assert "gradients clipped to the norm 0.5" in str(found)
    free = diagnose_adam(model, MSE, (x, y), optimizer, len(x), seeds=2, steps=20)
    assert abs(free.trial.momentum[0] / found.trial.momentum[0] - 1) > 1e-3
    optimizer.register_step_pre_hook(lambda *_: None)
    assert "for clipping pass clip_norm=" in str(diagnose_adam(model, MSE, (x, y), optimizer, len(x), seeds=2, steps=2))


NET = torch.nn.Linear(3, 1).double()
UNDER_SVAG = torch.optim.AdamW(NET.parameters())
SVAG(UNDER_SVAG, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": torch.optim.SGD(NET.parameters(), lr=0.1)}, "`optimizer` must be torch.optim.Adam or AdamW; got SGD"),
        ({"optimizer": torch.optim.NAdam(NET.parameters(), lr=0.1)}, "got NAdam"),
        ({"optimizer": None}, "got NoneType"),
        ({"optimizer": torch.optim.Adam(NET.parameters(), lr=0.1, betas=(0.0, 0.9))}, "beta_1 above 0"),
        ({"optimizer": torch.optim.Adam(torch.nn.Linear(3, 1).parameters())}, "the model's own parameters"),
        ({"optimizer": torch.optim.Adam(NET.parameters(), lr=0.0)}, "learning rate above 0 in some group; got 0"),
        (
            {"optimizer": torch.optim.lr_scheduler.StepLR(torch.optim.Adam(NET.parameters()), 3)},
            "got StepLR. Pass its attribute `optimizer`.",
        ),
        ({"optimizer": UNDER_SVAG}, "without SVAG, which the runs of the trial have not; got one with l=3"),
        ({"clip_norm": 0}, "`clip_norm` must be a positive number"),
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
