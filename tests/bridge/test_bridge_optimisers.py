"""Torch optimisers agree with their update rules in `dynamics`, and with torch's own, to 1e-12 in double precision over 1,000 steps."""

import copy
import math

import numpy as np
import pytest
import torch

import sdetools as st
from sdetools.bridge import PlanScheduler, torch_optimisers as ours
from sdetools.dynamics import rules

STEPS, DIM = 1000, 12
LOSS = torch.tensor(np.linspace(0.2, 1.5, DIM))

CASES = {
    "SGD": (ours.SGD, st.SGD, {}),
    "SGDM": (ours.SGDM, st.SGDM, {}),
    "HeavyBall": (ours.HeavyBall, st.HeavyBall, {}),
    "Nesterov": (ours.Nesterov, rules.Nesterov, {}),
    "QHM": (ours.QHM, rules.QHM, {"nu": 0.6}),
    "PNM": (ours.PNM, rules.PNM, {"b0": 0.8}),
    "SNGM": (ours.SNGM, rules.SNGM, {}),
    "RandomScaling": (ours.RandomScaling, rules.RandomScaling, {}),
    "SGDF": (ours.SGDF, rules.SGDF, {"b2": 0.99, "eps": 1e-6}),
}


def rates(k):
    """Return learning rate and momentum of step k, for two groups."""
    return [
        (0.02 * (1 + 0.5 * math.sin(k / 7)), 0.6 + 0.3 * math.cos(k / 31)),
        (0.05 * (1 - k / 2 / STEPS), 0.9 - 0.5 * (k % 5) / 5),
    ]


class GivenGradient:
    """An oracle that returns a given gradient."""

    def __init__(self, extra=(0.0,)):
        self.value, self.extra = None, extra

    def __call__(self, x):
        return self.value


def coefficients(cls, options, series):
    """Return the coefficients of an update rule in all steps, from (lr, momentum) of all steps."""
    lr, mu = np.array(series).T
    if cls is st.HeavyBall or cls in (st.SGDM, rules.Nesterov, rules.SNGM, rules.RandomScaling):
        return np.column_stack([lr, mu])
    if cls is st.SGD:
        return lr[:, None]
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.none(1))
    return cls(oracle, st.schedules.from_arrays(lr, mu), **options).coefficient_values(len(lr))


@pytest.mark.sample(5)
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("decay", ["none", "coupled", "decoupled"])
@pytest.mark.parametrize("name", CASES)
def test_every_optimiser_takes_the_steps_of_its_update_rule(name, decay, foreach):
    cls, rule, options = CASES[name]
    rng = np.random.default_rng(5)
    shapes = [[(3,), (2, 2)], [(5,)]]
    params = [[torch.nn.Parameter(torch.as_tensor(rng.normal(size=shape))) for shape in group] for group in shapes]
    wd = [0.0, 0.0] if decay == "none" else [0.03, 0.1]
    groups = [{"params": p, "weight_decay": w} for p, w in zip(params, wd)]
    extra = {"generator": torch.Generator().manual_seed(3)} if name == "RandomScaling" else {}
    optimizer = cls(groups, lr=0.1, decoupled=decay == "decoupled", foreach=foreach, **options, **extra)
    scales = np.zeros(STEPS)
    if name == "RandomScaling":
        own = torch.Generator().manual_seed(3)
        scales = np.array([float(torch.empty((), dtype=torch.float64).exponential_(generator=own)) for _ in range(STEPS)])

    flat = [np.concatenate([p.detach().numpy().ravel() for p in group]) for group in params]
    states = [[x[:, None], *(np.zeros((len(x), 1)) for _ in rule.parts[1:])] for x in flat]
    tables = [coefficients(rule, options, [rates(k)[i] for k in range(STEPS)]) for i in (0, 1)]
    oracle = GivenGradient()
    max_error = 0.0
    for k in range(STEPS):
        noise = [rng.normal(size=len(x)) for x in flat]
        positions = [state[0][:, 0] for state in states]
        grads = [x * np.linspace(0.3, 2, len(x)) + v for x, v in zip(positions, noise)]
        for group, settings, p, g in zip(optimizer.param_groups, rates(k), params, grads):
            group["lr"] = settings[0]
            if "momentum" in group:
                group["momentum"] = settings[1]
            for one, part in zip(p, np.split(g, np.cumsum([q.numel() for q in p])[:-1])):
                one.grad = torch.as_tensor(part.reshape(one.shape).copy())
        optimizer.step()
        full = [g + w * x if decay == "coupled" else g for g, w, x in zip(grads, wd, positions)]
        norm = math.sqrt(sum(float((g * g).sum()) for g in full))
        for i in (0, 1):
            g = full[i]
            if name == "SNGM":  # the rule divides by the norm of its argument, so extend that to the norm over all groups
                rest = math.sqrt(max(norm**2 - float((g * g).sum()), 0.0))
                g = np.append(g, rest)
                states[i] = [np.append(part, [[0.0]], axis=0) for part in states[i]]
            oracle.value, oracle.extra = g[:, None], (math.exp(-scales[k]),)
            if decay == "decoupled":
                states[i][0] = states[i][0] * (1 - rates(k)[i][0] * wd[i])
            states[i] = [np.asarray(part) for part in rule.rule(tuple(states[i]), oracle, *tables[i][k].tolist())]
            if name == "SNGM":
                states[i] = [part[:-1] for part in states[i]]
            mine = np.concatenate([p.detach().numpy().ravel() for p in params[i]])
            max_error = max(max_error, np.abs(mine - states[i][0][:, 0]).max())
    assert max_error < 1e-12


def train(optimizer, params, steps=STEPS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for k in range(steps):
        for group, (lr, mu) in zip(optimizer.param_groups, rates(k)):
            group["lr"] = lr
            if group.get("momentum"):
                group["momentum"] = mu
            if group.get("dampening"):
                group["dampening"] = mu
        optimizer.zero_grad()
        loss = sum((p * p * (i + 1)).sum() / 4 for i, p in enumerate(params))
        loss.backward()
        for p in params:
            p.grad += torch.randn(p.shape, dtype=p.dtype, generator=generator)
        optimizer.step()


def two_groups(weight_decay=(0.0, 0.01)):
    torch.manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in ((3, 2), (4,), (5,))]
    groups = [{"params": params[:2], "weight_decay": weight_decay[0]}, {"params": params[2:], "weight_decay": weight_decay[1]}]
    return params, groups


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("cls", "theirs"),
    [
        (ours.SGD, {}),
        (ours.HeavyBall, {"momentum": 0.9}),
        (ours.Nesterov, {"momentum": 0.9, "nesterov": True}),
        (ours.SGDM, {"momentum": 0.9, "dampening": 0.9}),
    ],
)
def test_torch_takes_the_same_steps(cls, theirs):
    (a, ga), (b, gb) = two_groups(), two_groups()
    reference = torch.optim.SGD(gb, lr=0.1, **theirs)
    if "dampening" in theirs:
        for p in b:
            reference.state[p]["momentum_buffer"] = torch.zeros_like(p)
    train(cls(ga, lr=0.1), a)
    train(reference, b)
    assert max(float((x - y).detach().abs().max()) for x, y in zip(a, b)) < 1e-12


def test_torchs_first_buffer_gives_other_steps():
    """Negative control: with dampening, torch's first buffer is g, and not (1 - mu) g."""
    (a, ga), (b, gb) = two_groups(), two_groups()
    train(ours.SGDM(ga, lr=0.1), a, 50)
    train(torch.optim.SGD(gb, lr=0.1, momentum=0.9, dampening=0.9), b, 50)
    assert max(float((x - y).detach().abs().max()) for x, y in zip(a, b)) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_state_dict_round_trip_is_exact(name, tmp_path):
    cls, _, options = CASES[name]
    a, groups = two_groups()
    one = cls(groups, lr=0.1, **options)
    train(one, a, 20)
    b, groups = two_groups()
    for x, y in zip(a, b):
        y.data.copy_(x.data)
    other = cls(groups, lr=0.3, **options)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for params, optimizer in ((a, one), (b, other)):
        torch.manual_seed(9)
        train(optimizer, params, 20, seed=4)
    assert all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("name", CASES)
def test_a_late_parameter_and_a_missing_gradient(name):
    cls, _, options = CASES[name]
    p, q = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = cls([p, q], lr=0.1, **options)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(q.data, torch.ones(2, dtype=torch.float64)) and not torch.equal(p.data, q.data)
    late = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [late], "lr": 0.2})
    late.grad = torch.ones_like(late)
    optimizer.step()
    assert not torch.equal(late.data, torch.ones(2, dtype=torch.float64))


def test_closure_maximize_and_schedulers():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = ours.SGDM([p], lr=0.5, momentum=0.0, maximize=True)

    def closure():
        optimizer.zero_grad()
        loss = (p * 2).sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 2.0 and float(p.detach()) == 2.0
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    optimizer.step(closure)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert copy.deepcopy(optimizer).param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("source", ["sgdm", "heavy-ball", "nesterov"])
def test_convert_keeps_the_steps(source):
    target = {"sgdm": "heavy-ball", "heavy-ball": "sgdm", "nesterov": "qhm"}[source]
    settings = {"lr": 0.02, "momentum": 0.8}
    other = ours.convert(**settings, source=source, target=target)
    ends = []
    for name, own in ((source, settings), (target, other)):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
        optimizer = ours.named(name)([p], **own)
        for _ in range(200):
            p.grad = p.data * torch.arange(1, 5) + torch.randn(4, dtype=torch.float64)
            optimizer.step()
        ends.append(p.data)
    assert (ends[0] - ends[1]).abs().max() < 1e-12
    assert ours.convert(**settings, source=source, target="sgd")["lr"] == pytest.approx(0.02 if source == "sgdm" else 0.1)
    back = ours.convert(**settings, source=source, target=source)
    assert back == pytest.approx(settings)


def test_convert_agrees_with_the_gain_of_the_rule():
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.none(1))
    gain = rules.Nesterov(oracle, st.schedules.constant(eta=0.1, beta=0.8)).gain
    assert ours.convert(0.1, 0.8, source="nesterov", target="sgd")["lr"] == pytest.approx(0.1 * gain)


def test_plan_scheduler_follows_a_plan():
    plan = st.schedules.from_arrays(np.linspace(0.1, 0.01, 6), np.linspace(0.9, 0.5, 6))
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = ours.SGDM([p], lr=1.0)
    scheduler = PlanScheduler(optimizer, plan)
    x, m = np.ones(3), np.zeros(3)
    for k in range(8):
        p.grad = p.data.clone()
        optimizer.step()
        scheduler.step()
        x, m = st.SGDM.rule((x, m), lambda y: y, plan.etas(8)[k], plan.betas(8)[k])
    assert np.abs(p.detach().numpy() - x).max() < 1e-14
    other = PlanScheduler(ours.SGDM([p], lr=1.0), plan)
    other.load_state_dict(scheduler.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.01
    with pytest.raises(ValueError, match="averaged"):
        PlanScheduler(ours.SGD([p], lr=1.0), plan)


def test_plan_scheduler_examines_all_groups():
    plan = st.schedules.from_arrays([0.2, 0.1], 0.5)

    def groups():
        return [{"params": [torch.nn.Parameter(torch.zeros(1))], **more} for more in ({}, {"lr": 0.3}, {"lr": 0.3})]

    with pytest.raises(ValueError, match="`optimizer` must have one lr in all groups, because a plan sets it; got 0.1, 0.3"):
        PlanScheduler(ours.SGDM(groups(), lr=0.1), plan)
    optimizer = ours.SGDM(groups(), lr=0.3)
    scheduler = PlanScheduler(optimizer, plan)
    scheduler.step()
    assert [(group["lr"], group["momentum"]) for group in optimizer.param_groups] == [(0.1, 0.5)] * 3
    del optimizer.param_groups[1]["momentum"]  # a group such as that of an optimiser in which only some have momentum
    with pytest.raises(ValueError, match="averaged"):
        PlanScheduler(optimizer, plan)


P = [torch.nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours.SGD(P, lr=-1.0), "`lr` must be at least 0"),
        (lambda: ours.SGDM(P, lr=0.1, momentum=1.0), "momentum"),
        (lambda: ours.SGDM([{"params": P, "momentum": -0.1}], lr=0.1), "momentum"),
        (lambda: ours.SGDF(P, lr=0.1, eps=0.0), "eps"),
        (lambda: ours.QHM(P, lr=0.1, nu=math.nan), "nu"),
        (lambda: ours.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.complex64))], lr=0.1), "real"),
        (lambda: ours.convert(0.1, 0.9, source="nesterov", target="sgdm"), "cannot take"),
        (lambda: ours.convert(0.1, 0.9, source="sgd", target="sgdm"), "must be 0"),
        (lambda: ours.convert(0.1, 0.9, source="adam", target="sgd"), "one of"),
        (lambda: ours.named("adam"), "one of"),
    ],
)
def test_invalid_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="dense"):
        ours.SGD(table.parameters(), lr=0.1).step()


def test_buffers_are_counted():
    p = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    for cls, tensors in ((ours.SGD, 0), (ours.SGDM, 1), (ours.PNM, 2), (ours.SGDF, 2)):
        optimizer = cls([p], lr=0.1)
        optimizer.step()
        assert ours.buffer_bytes(optimizer) == 80 * tensors
