"""SVAG on a real network: the mean gradient is unchanged and its covariance multiplied by l; l = 1 is the optimiser itself."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

import sdetools as st
from sdetools.bridge import SGDM, SVAG, HeavyBall, PlanScheduler, loss_of_module
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
def test_weights_sum_to_one_and_their_squares_to_l(l):
    r = svag_weights(l)
    assert sum(r) == pytest.approx(1) and sum(x * x for x in r) == pytest.approx(l)


def test_mean_is_kept_and_covariance_multiplied_on_a_real_network():
    """Over all pairs of batches of one sample, so that both moments are exact."""
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
    assert (cov[0] - cov[1]).abs().max() > 0.1 * cov[0].abs().max()  # negative control: without the factor they differ


def test_with_l_one_it_equals_the_optimiser():
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


def constant(k):
    """Return a gradient that is a function of the step."""
    return torch.tensor([1.0 + 0.1 * k, -0.5 + 0.03 * k * k], dtype=torch.float64)


class PlanFollower:
    """A user-defined scheduler that follows a plan."""

    def __init__(self, optimizer):
        self.inner = PlanScheduler(optimizer, st.schedules.from_arrays(np.linspace(0.4, 0.05, 9), np.linspace(0.8, 0.3, 9)))

    def step(self):
        self.inner.step()


SCHEDULERS = {
    "LambdaLR": lambda o: lrs.LambdaLR(o, lambda k: 1 / (1 + k)),
    "MultiplicativeLR": lambda o: lrs.MultiplicativeLR(o, lambda k: 0.9),
    "StepLR": lambda o: lrs.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lrs.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: lrs.ConstantLR(o, 0.3, 3),
    "LinearLR": lambda o: lrs.LinearLR(o, 0.2, 1.0, 6),
    "ExponentialLR": lambda o: lrs.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lrs.PolynomialLR(o, 10, 2),
    "CosineAnnealingLR": lambda o: lrs.CosineAnnealingLR(o, 6, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3),
    "SequentialLR": lambda o: lrs.SequentialLR(o, [lrs.ConstantLR(o, 0.2, 9), lrs.ExponentialLR(o, 0.8)], [3]),
    "ChainedScheduler": lambda o: lrs.ChainedScheduler([lrs.ConstantLR(o, 0.2, 4), lrs.ExponentialLR(o, 0.8)]),
    "ReduceLROnPlateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "CyclicLR": lambda o: lrs.CyclicLR(o, 0.05, 0.4, 3, cycle_momentum="momentum" in o.defaults or "betas" in o.defaults),
    "OneCycleLR": lambda o: lrs.OneCycleLR(o, 0.4, 20, cycle_momentum="momentum" in o.defaults or "betas" in o.defaults),
    "LRScheduler": None,
    "PlanScheduler": PlanFollower,
    "swa_utils.SWALR": lambda o: SWALR(o, 0.05, 4),
}
OPTIMISERS = {
    "torch SGD": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8, weight_decay=0.1),
    "torch SGD, lr a tensor": lambda p: torch.optim.SGD(
        p, lr=torch.tensor(0.3, dtype=torch.float64), momentum=0.8, foreach=False
    ),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.3, weight_decay=0.2),
    "SGDM": lambda p: SGDM(p, lr=0.3, momentum=0.8, weight_decay=0.2, decoupled=True),
    "HeavyBall": lambda p: HeavyBall(p, lr=0.3, momentum=0.8),
}


def test_all_schedulers_of_torch_are_tested():
    known = {
        name for name, one in vars(lrs).items() if isinstance(one, type) and issubclass(one, lrs.LRScheduler) and name[0] != "_"
    }
    assert known <= SCHEDULERS.keys()


def scaled(optimizer, group, l):
    """The numbers of a group in a step with SVAG, written again: Def. 5.1, and Malladi et al. 2022 with their l**2 = l for Adam."""
    if not isinstance(optimizer, torch.optim.Adam):
        return {"lr": group["lr"] / l}
    root = math.sqrt(l)
    betas = tuple(b + (1 - 1 / l) * (1 - b) for b in group["betas"])
    decay = group["weight_decay"] / (root if isinstance(optimizer, torch.optim.AdamW) else 1)
    return {"lr": group["lr"] / root, "betas": betas, "eps": group["eps"] * root, "weight_decay": decay}


def steps_of(optimizer, scheduler, l=None, begin=0):
    """Take ten steps; with l, scale the numbers of the groups around each of them: the reference implementation of SVAG."""
    (p,) = optimizer.param_groups[0]["params"]
    seen = []
    for k in range(begin, begin + 10):
        p.grad = constant(k)
        seen.append(float(optimizer.param_groups[0]["lr"]))
        if l is not None:
            original = [dict(group) for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group.update(scaled(optimizer, group, l))
        optimizer.step()
        if l is not None:
            for group, before in zip(optimizer.param_groups, original):
                group.update(before)
        if scheduler is not None:
            scheduler.step(*([1.0] if isinstance(scheduler, lrs.ReduceLROnPlateau) else []))
    return p.detach().clone(), seen


def parameter():
    return torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))


@pytest.mark.parametrize("order", ["before", "after", "both", "in the middle"])
@pytest.mark.parametrize("name", [name for name in SCHEDULERS if SCHEDULERS[name]])
def test_no_scheduler_undoes_the_division(name, order):
    """Whenever the scheduler is made, steps equal those of the reference implementation bitwise, and `lr` is that without SVAG."""
    for kind, make in OPTIMISERS.items():
        if name == "PlanScheduler" and "SGD" not in kind and kind != "HeavyBall":
            continue
        ends = []
        for wrapped in (True, False):
            optimizer = make([parameter()])
            early = SCHEDULERS[name](optimizer) if order in ("before", "both") else None
            if order == "in the middle" and "Adam" not in kind:
                steps_of(optimizer, None, begin=3)
            if wrapped:
                SVAG(optimizer, l=4)
            scheduler = early if order == "before" else SCHEDULERS[name](optimizer)
            with warnings.catch_warnings():
                if order == "both":
                    warnings.filterwarnings("ignore", "Detected call")
                    early.step(*([1.0] if name == "ReduceLROnPlateau" else []))
                ends.append(steps_of(optimizer, scheduler, None if wrapped else 4))
        assert torch.equal(ends[0][0], ends[1][0]), kind
        assert ends[0][1] == ends[1][1]


def test_without_the_division_steps_differ():
    """Negative control of the reference implementation."""
    ends = [steps_of(OPTIMISERS["SGDM"]([parameter()]), None, l)[0] for l in (1, 4)]
    assert float((ends[0] - ends[1]).abs().min()) > 0.1


def test_a_loaded_checkpoint_and_an_added_group_do_not_undo_the_division():
    ends = []
    for wrapped in (True, False):
        other = OPTIMISERS["torch SGD"]([parameter()])
        steps_of(other, None)
        optimizer = SGDM([parameter()], lr=9.0)
        if wrapped:
            SVAG(optimizer, l=4)
        optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
        late = parameter()
        late.grad = constant(1)
        optimizer.add_param_group({"params": [late], "lr": 0.7})
        ends.append([*steps_of(optimizer, None, None if wrapped else 4), late.detach().clone(), optimizer.param_groups[1]["lr"]])
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][2], ends[1][2])
    assert ends[0][1] == ends[1][1] == pytest.approx([0.3 / (1 - 0.8)] * 10) and ends[0][3] == 0.7


def test_lr_is_undivided_in_a_closure_and_after_an_error():
    p = parameter()
    optimizer = SGDM([p], lr=0.8)
    SVAG(optimizer, l=4)
    seen = []

    def closure():
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.param_groups[0]["lr"] = 0.4
        p.grad = torch.ones_like(p)
        if len(seen) > 1:
            raise KeyError("mine")

    before = p.detach().clone()
    optimizer.step(closure)
    assert float((before - p.detach() - 0.4 / 4 * (1 - 0.9)).abs().max()) < 1e-15
    with pytest.raises(KeyError):
        optimizer.step(closure=closure)
    assert seen == [0.8, 0.4] and optimizer.param_groups[0]["lr"] == 0.4
    p.grad = torch.sparse_coo_tensor([[0]], [1.0], (2,), dtype=torch.float64, check_invariants=False)
    with pytest.raises(ValueError, match="dense"):
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.4


def test_an_optimiser_that_sets_its_lr_is_supported():
    class Halving(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.param_groups[0]["lr"] /= 2

    optimizer = Halving([parameter()], lr=0.8)
    SVAG(optimizer, l=4)
    assert steps_of(optimizer, None)[1][:4] == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_stretched_schedules():
    optimizer = torch.optim.SGD([parameter()], lr=0.8)
    svag = SVAG(optimizer, l=4)
    scheduler = lrs.LambdaLR(optimizer, svag.stretched(lambda k: 0.5 ** (k // 2)))
    assert steps_of(optimizer, scheduler)[1] == pytest.approx([0.8] * 8 + [0.4] * 2)


def test_a_second_svag_and_invalid_arguments_are_refused():
    optimizer = torch.optim.SGD([parameter()], lr=0.8)
    svag = SVAG(optimizer, l=4)
    for l in (4, 2, 1):
        with pytest.raises(ValueError, match="`optimizer` must be without SVAG; got one that has it with l=4"):
            SVAG(optimizer, l)
    for wrong in (svag, torch.nn.Linear(1, 1), None):
        with pytest.raises(ValueError, match="`optimizer` must be one of torch"):
            SVAG(wrong, 4)
    for l in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match="`l`"):
            SVAG(torch.optim.SGD([parameter()], lr=0.1), l)


def test_adam_under_svag_is_the_method_of_the_library():
    """torch's AdamW with SVAG on the drawn gradients of `st.svag(st.AdamW(...), 4)` takes its steps, coordinate by coordinate."""
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.rademacher(dim=2), sigma=3.0)
    plan = st.schedules.constant(0.05, beta=0.75)
    method = st.svag(st.AdamW(oracle, plan, beta2=0.9, eps=0.1, weight_decay=0.2), 4)
    p = torch.nn.Parameter(torch.tensor([2.0, 0.5], dtype=torch.float64))
    optimizer = torch.optim.AdamW([p], lr=0.05, betas=(0.75, 0.9), eps=0.1, weight_decay=0.2)
    SVAG(optimizer, 4)
    state, draws = method.start(p.detach().numpy().copy()), np.random.default_rng(1).choice([-1.0, 1.0], (40, 4))
    for z, row in zip(draws, method.coefficient_values(40)):
        p.grad = torch.tensor(method.oracle(p.detach().numpy(), z))
        state = method.rule(state, method.bind(z), *row)
        optimizer.step()
        assert p.detach().numpy() == pytest.approx(state[0], rel=1e-12)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.05, (0.75, 0.9), 0.1, 0.2)


def test_rmsprop_under_svag_is_the_method_of_the_library():
    oracle = st.NoisyOracle(st.losses.hyperbola(), st.noise.rademacher(dim=2), sigma=3.0)
    method = st.svag(st.RMSProp(oracle, st.schedules.constant(0.05), beta2=0.9, eps=0.1), 9)
    p = torch.nn.Parameter(torch.tensor([2.0, 0.5], dtype=torch.float64))
    optimizer = torch.optim.RMSprop([p], lr=0.05, alpha=0.9, eps=0.1)
    SVAG(optimizer, 9)
    state, draws = method.start(p.detach().numpy().copy()), np.random.default_rng(1).choice([-1.0, 1.0], (40, 4))
    for z, row in zip(draws, method.coefficient_values(40)):
        p.grad = torch.tensor(method.oracle(p.detach().numpy(), z))
        state = method.rule(state, method.bind(z), *row)
        optimizer.step()
    assert p.detach().numpy() == pytest.approx(state[0], rel=1e-12)


def test_adaptive_methods_that_svag_refuses():
    cases = {
        "no scaling is known": torch.optim.NAdam([parameter()]),
        "without momentum; got momentum=0.5": torch.optim.RMSprop([parameter()], momentum=0.5),
        "size of the gradients; got Lion": st.bridge.Lion([parameter()], lr=0.1),
    }
    for text, optimizer in cases.items():
        with pytest.raises(ValueError, match=text):
            SVAG(optimizer, 4)
    used = torch.optim.Adam([parameter()])
    steps_of(used, None)
    with pytest.raises(ValueError, match="must be new"):
        SVAG(used, 4)
    SVAG(torch.optim.Adam([parameter()]), 4).optimizer.load_state_dict(used.state_dict())


def test_steps_without_the_division_are_refused():
    optimizer = torch.optim.SGD([parameter()], lr=0.8)
    old = optimizer.step
    SVAG(optimizer, l=4)
    for step in (old, lambda: torch.optim.SGD.step(optimizer)):
        with pytest.raises(ValueError, match="a step under SVAG must be taken by `optimizer.step` as it is now"):
            step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_optimiser_and_svag_has_svag(copied):
    for kind in ("SGDM", "Adam"):
        optimizer = OPTIMISERS[kind]([parameter()])
        pair = optimizer, SVAG(optimizer, l=4)
        steps_of(optimizer, None)
        other, svag = copied(pair)
        assert svag.optimizer is other and svag.l == 4
        assert torch.equal(steps_of(optimizer, None)[0], steps_of(other, None)[0])


def test_steps_keep_the_signature_of_the_optimisers():
    import inspect

    for made_before in (False, True):
        optimizer = torch.optim.SGD([parameter()], lr=0.8)
        if made_before:
            lrs.StepLR(optimizer, 1)
        SVAG(optimizer, l=4)
        assert "closure" in inspect.signature(optimizer.step).parameters


def test_a_module_as_a_loss_with_minibatch_noise():
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
    ("part", "message"),
    [(torch.nn.BatchNorm1d(64), "mixes the samples"), (torch.nn.Dropout(0.1), "draws at random")],
)
def test_modules_whose_loss_is_not_a_mean_are_refused(part, message):
    x, y = digits()
    module = torch.nn.Sequential(part, torch.nn.Linear(64, 10))
    with pytest.raises(ValueError, match=message):
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


@pytest.mark.slow
def test_a_networks_identity_is_the_same_in_every_process(tmp_path):
    """So that another process can use a store; the identity depends on the forward function and the criterion."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    def identity(more="", less=""):
        file = tmp_path / "program.py"
        file.write_text(IDENTITY.format(more=more, less=less))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        }
        return subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True, check=True).stdout

    one = identity()
    assert one.startswith("module(2; ") and identity() == one
    assert len({one, identity(more=" + 1"), identity(less=" / 2")}) == 3
