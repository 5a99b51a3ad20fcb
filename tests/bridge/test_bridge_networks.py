"""Diagnosis of what people bring: attention, embeddings, recurrent and compiled networks, mixed precision, pieces of batches, streams, shared weights."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdetools.bridge import diagnose
from sdetools.bridge.modules import Objective, plain_copy

SETTINGS = {"lr": 1e-3, "batch_size": 8, "batches": 16, "seeds": 2, "trial": True}


def numbers():
    torch.manual_seed(0)
    x = torch.randn(32, 6)
    return x, x.sum(1, keepdim=True)


def sequences():
    torch.manual_seed(0)
    x = torch.randn(32, 4, 3)
    return x, x.sum((1, 2))[:, None]


def words():
    torch.manual_seed(0)
    x = torch.randint(0, 7, (32, 4))
    return x, (x < 3).float().sum(1, keepdim=True)


class Last(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0][:, -1]


class Shared(nn.Module):
    """A weight that is used twice under two names, and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.frozen = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False), nn.Linear(6, 1)
        self.other.weight = self.one.weight
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.frozen(self.other(torch.tanh(self.one(x))))


def small():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


def autocast(model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(batch[0])
    return F.mse_loss(out.float(), batch[1])


def dense(model, data):
    """Return the largest eigenvalue of the Hessian of the squared loss, from all its columns in double precision."""
    net = copy.deepcopy(model).double()
    for part in net.modules():
        part.sparse = False
    x, y = (part.double() if part.is_floating_point() else part for part in data)
    params = [p for p in net.parameters() if p.requires_grad]
    with sdpa_kernel(SDPBackend.MATH):
        flat = torch.cat([g.ravel() for g in torch.autograd.grad(F.mse_loss(net(x), y), params, create_graph=True)])
    h = torch.stack(
        [
            torch.cat([g.ravel() for g in torch.autograd.grad(one, params, retain_graph=True, materialize_grads=True)])
            for one in flat
        ]
    )
    return float(torch.linalg.eigvalsh(h)[-1])


KINDS = {
    "attention": (lambda: nn.Sequential(nn.TransformerEncoderLayer(3, 1, 4, 0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 1)), sequences),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 1)), words),
    "sparse gradients": (lambda: nn.Sequential(nn.Embedding(7, 3, sparse=True), nn.Flatten(), nn.Linear(12, 1)), words),
    "long short-term memory": (lambda: nn.Sequential(Last(nn.LSTM(3, 3, batch_first=True)), nn.Linear(3, 1)), sequences),
    "gated recurrent": (lambda: nn.Sequential(Last(nn.GRU(3, 3, batch_first=True)), nn.Linear(3, 1)), sequences),
    "shared and frozen": (Shared, numbers),
}  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_each_kind_has_its_sharpness_and_its_trial(kind):
    """The sharpness agrees with the dense Hessian in double precision to 2e-3, the relative width at which the Lanczos method stops."""
    make, data = KINDS[kind]
    torch.manual_seed(1)
    model, data = make(), data()
    found = diagnose(model, F.mse_loss, data, **SETTINGS)
    assert abs(found.sharpness.value / dense(model, data) - 1) < 2e-3
    assert found.stage == "trial" and np.isfinite([found.trial.plain, found.trial.momentum]).all()
    assert found.freed == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["autocast", "bfloat16", "float16"])
def test_mixed_and_half_precision(kind):
    """To 1 %: bfloat16 rounds to 2^-9. Parameters in half precision are measured in float32, and trained as they are."""
    torch.manual_seed(1)
    model, (x, y) = small(), numbers()
    if kind == "autocast":
        found = diagnose(model, None, (x, y), loss_of=autocast, **SETTINGS)
    else:
        model = model.to(getattr(torch, kind))
        found = diagnose(model, F.mse_loss, (x.to(getattr(torch, kind)), y.to(getattr(torch, kind))), **SETTINGS)
        assert found.freed == 2 * sum(p.numel() for p in model.parameters())
    assert abs(found.sharpness.value / dense(model, (x, y)) - 1) < 1e-2
    assert np.isfinite([found.trial.plain, found.trial.momentum]).all()


@pytest.mark.slow
def test_compiled_and_wrapped_networks_are_measured_without_their_wrapper():
    """Bits as without, and no compiler runs: the wrapper's backend raises an error if it is called."""
    torch.manual_seed(1)
    model, data = small(), numbers()

    def backend(graph, inputs):
        raise AssertionError("compiled")

    plain = diagnose(model, F.mse_loss, data, **SETTINGS)
    nested = nn.Sequential(torch.compile(copy.deepcopy(model), backend=backend))
    placed = copy.deepcopy(model)
    placed.compile(backend=backend)
    for wrapped in (torch.compile(copy.deepcopy(model), backend=backend), nn.DataParallel(copy.deepcopy(model)), nested, placed):
        assert diagnose(wrapped, F.mse_loss, data, **SETTINGS).to_json() == plain.to_json()
    assert not isinstance(plain_copy(nested)[0], torch._dynamo.eval_frame.OptimizedModule)


@pytest.mark.sample(1)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_batches_in_pieces_give_the_same_answer(reduction):
    """To 1e-6 in double precision, with pieces of 3, 3 and 2 samples; no pass is larger than a piece, where a batch has 8."""
    torch.manual_seed(1)
    x, y = (part.double() for part in numbers())
    model, loss = small().double(), nn.MSELoss(reduction=reduction)
    sizes = []

    def counted(net, batch):
        sizes.append(len(batch[0]) if torch.is_grad_enabled() else 0)
        return loss(net(batch[0]), batch[1])

    settings = SETTINGS | {"lr": 1e-3 if reduction == "mean" else 1e-4}
    whole = diagnose(model, loss, (x, y), **settings)
    split = diagnose(model, None, (x, y), loss_of=counted, pieces=3, **settings)
    for name in ("descent", "curvature", "noise", "variance", "sharpness"):
        assert getattr(split, name).value == pytest.approx(getattr(whole, name).value, rel=1e-6)
    np.testing.assert_allclose(split.trial.plain, whole.trial.plain, rtol=1e-6)
    np.testing.assert_allclose(split.trial.momentum, whole.trial.momentum, rtol=1e-6)
    assert split.evidence.reduction == pytest.approx(whole.evidence.reduction, rel=1e-6)
    assert 2 in sizes and 3 in sizes and 8 not in sizes


def test_pieces_with_batch_normalisation_and_batches_that_cannot_be_split():
    """Each piece is normalised alone; the loss is the mean of the pieces' losses, weighted by their samples."""
    torch.manual_seed(1)
    x, y = numbers()
    net = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 1))
    split = Objective(F.mse_loss, rows=5)
    expected = float((5 * F.mse_loss(net(x[:5]), y[:5]) + 3 * F.mse_loss(net(x[5:8]), y[5:8])).detach()) / 8
    assert split(net, (x[:8], y[:8])).item() == pytest.approx(expected, rel=1e-6)
    assert split.backward(net, (x[:8], y[:8])) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"`pieces` must split batches .* got a tensor of shape \(3, 6\)"):
        split(net, (x[:8], x[:3]))


def test_a_stream_of_dictionaries():
    x, y = sequences()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    rows = ({"x": x[i : i + 8], "y": y[i : i + 8]} for i in range(0, 32, 8))
    found = diagnose(model, None, rows, loss_of=lambda m, b: F.mse_loss(m(b["x"]), b["y"]), **SETTINGS | {"batch_size": None})
    assert found.batch_size == 8 and "32 samples were read" in found.notes[0] and np.isfinite(found.trial.plain).all()


class Opaque(torch.autograd.Function):
    """The identity, without a derivative."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("backward can only be called in training mode")


def test_targets_that_torch_broadcasts_are_refused():
    """The mean of (output_i - target_j)^2 over all pairs is another problem; targets of the output's shape are not refused."""
    x, net = torch.randn(64, 3), torch.nn.Linear(3, 1)
    for loss in (torch.nn.functional.mse_loss, torch.nn.SmoothL1Loss()):
        with pytest.raises(ValueError, match=r"unequal shapes, which torch broadcasts. Reshape the target, such as y\[:, None\]"):
            diagnose(net, loss, (x, x[:, 0]), lr=0.01, batch_size=8, batches=16, seeds=0)
        assert diagnose(net, loss, (x, x[:, :1]), lr=0.01, batch_size=8, batches=16, seeds=0).sharpness.value > 0


def test_a_network_without_gradient_is_refused_with_the_way_out():
    class Blocked(nn.Linear):
        def forward(self, x):
            return Opaque.apply(super().forward(x))

    with pytest.raises(ValueError, match=r"must have a gradient; torch raised: backward can only be .*call model\.train\(\)"):
        diagnose(Blocked(6, 1), F.mse_loss, numbers(), **SETTINGS)
