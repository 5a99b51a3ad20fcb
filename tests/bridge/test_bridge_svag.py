"""SVAG on a real network: the mean gradient stays, its covariance is multiplied by l; at l = 1 nothing changes."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sdetools as st
from sdetools.bridge import SGDM, SVAG, loss_of_module
from sdetools.noise.oracle import svag_weights


def digits(n=60):
    sklearn = pytest.importorskip("sklearn.datasets")
    data = sklearn.load_digits()
    return torch.as_tensor(data.data[:n] / 16.0), torch.as_tensor(data.target[:n])


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.Tanh(), torch.nn.Linear(4, 10)).double()


def flat(module):
    return torch.cat([p.grad.ravel() for p in module.parameters()])


@pytest.mark.parametrize("l", [1, 2, 7])
def test_weights(l):
    r = svag_weights(l)
    assert sum(r) == pytest.approx(1) and sum(x * x for x in r) == pytest.approx(l)


def test_mean_is_kept_and_covariance_multiplied_on_a_real_network():
    """All pairs of batches of one: both moments are exact, nothing is drawn."""
    x, y = digits(30)
    module = network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    svag = SVAG(optimizer, l=4)

    def loss_of(batch):
        return F.cross_entropy(module(batch[0]), batch[1])

    single, pairs = [], []
    for i in range(len(x)):
        optimizer.zero_grad()
        loss_of((x[i : i + 1], y[i : i + 1])).backward()
        single.append(flat(module).clone())
        for j in range(len(x)):
            optimizer.zero_grad()
            svag.backward(loss_of, (x[i : i + 1], y[i : i + 1]), (x[j : j + 1], y[j : j + 1]))
            pairs.append(flat(module).clone())
    a, b = torch.stack(single), torch.stack(pairs)
    assert (a.mean(0) - b.mean(0)).abs().max() < 1e-12
    cov = [torch.cov(z.T, correction=0) for z in (a, b)]
    assert (4 * cov[0] - cov[1]).abs().max() < 1e-12 * len(b)
    assert (cov[0] - cov[1]).abs().max() > 0.1 * cov[0].abs().max()  # control: without the factor it is another


def test_at_one_it_is_the_optimiser_itself():
    x, y = digits()
    ends = []
    for wrapped in (False, True):
        module = network()
        norm = torch.nn.BatchNorm1d(64).double()
        optimizer = SGDM([*module.parameters(), *norm.parameters()], lr=0.3, momentum=0.5)
        svag = SVAG(optimizer, l=1)
        for k in range(5):
            optimizer.zero_grad()
            batch = x[8 * k : 8 * k + 8], y[8 * k : 8 * k + 8]

            def loss_of(b):
                return F.cross_entropy(module(norm(b[0])), b[1])

            if wrapped:
                svag.backward(loss_of, (torch.full_like(batch[0], 99.0), batch[1]), batch)
            else:
                loss_of(batch).backward()
            optimizer.step()
        ends.append(torch.cat([p.data.ravel() for p in (*module.parameters(), norm.running_mean)]))
    assert torch.equal(*ends)


def test_learning_rate_and_schedule_are_stretched():
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=0.8)
    svag = SVAG(optimizer, l=4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, svag.stretched(lambda k: 0.5 ** (k // 2)))
    p.grad = torch.zeros(1)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2] * 8 + [0.1] * 4)
    with pytest.raises(ValueError, match="Make SVAG first"):
        SVAG(optimizer, l=2)
    with pytest.raises(ValueError, match="`l`"):
        SVAG(torch.optim.SGD([p], lr=0.1), l=0)


def test_a_module_is_a_loss_with_the_noise_of_its_batches():
    x, y = digits(40)
    module = network()
    loss = loss_of_module(module, F.cross_entropy, x, y)
    module.zero_grad()
    F.cross_entropy(module(x), y).backward()
    assert np.abs(loss.gradient(loss.start) - flat(module).numpy()).max() < 1e-12
    assert loss.identity == loss_of_module(network(), F.cross_entropy, x, y).identity
    changed = copy.deepcopy(x)
    changed[0, 0] += 1
    assert loss.identity != loss_of_module(network(), F.cross_entropy, changed, y).identity
    other = loss.load(loss.start * 2)
    assert torch.equal(next(other.parameters()).data, 2 * next(loss.module.parameters()).data)

    oracle = st.NoisyOracle(loss, st.noise.minibatch(loss, size=4))
    plan = st.schedules.constant(eta=0.05, beta=0.8)
    gap = st.weak_gap(
        st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged()), x0=loss.start, horizon=0.5, paths=16, observe=["x0", "x1**2"]
    )
    assert np.isfinite(gap.sup("x0").value)


@pytest.mark.parametrize(
    ("part", "told"),
    [(torch.nn.BatchNorm1d(64), "mixes the samples"), (torch.nn.Dropout(0.1), "draws at random")],
)
def test_modules_whose_loss_is_no_mean_are_refused(part, told):
    x, y = digits()
    module = torch.nn.Sequential(part, torch.nn.Linear(64, 10))
    with pytest.raises(ValueError, match=told):
        loss_of_module(module, F.cross_entropy, x, y)
    assert loss_of_module(module.eval(), F.cross_entropy, x, y).samples == 60
    with pytest.raises(ValueError, match=r"nn\.Module"):
        loss_of_module(lambda z: z, F.cross_entropy, x, y)


IDENTITY = """
import torch
from sdetools.bridge import loss_of_module

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(2))
    def forward(self, x):
        return x * self.a{more}

def criterion(answer, y):
    return ((answer - y) ** 2).mean(){less}

x = torch.arange(8.0).reshape(4, 2)
print(loss_of_module(Own(), criterion, x, x).identity)
"""


def test_a_networks_identity_is_the_same_in_every_process(tmp_path):
    """So that a store goes on in another one; another forward or criterion is another loss."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    def told(more="", less=""):
        file = tmp_path / "program.py"
        file.write_text(IDENTITY.format(more=more, less=less))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        }
        return subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, check=True).stdout

    one = told()
    assert one.startswith("module(2; ") and told() == one
    assert len({one, told(more=" + 1"), told(less=" / 2")}) == 3
