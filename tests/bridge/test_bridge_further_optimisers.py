"""DANA, MaSS, Signum and Lion in torch: DANA and MaSS against their rules, Signum and Lion against their equations, written out here."""

import math

import numpy as np
import pytest
import torch

import sdetools as st
from sdetools import bridge
from sdetools.bridge import PlanScheduler, torch_optimisers

STEPS = 1000
SPECTRUM = [1.0, 0.3, 0.05, 0.01, 0.002]
CASES = {
    "DANA": (bridge.DANA, {"delta": 4.0, "ratio": 0.3, "power": 0.5}),
    "DANA-constant": (bridge.DANA, {"ratio": 0.05}),
    "noise budget": (bridge.DANA, {"share": 0.25, "batch": 4, "spectrum": SPECTRUM}),
    "MaSS": (bridge.MaSS, {"c": 0.2}),
    "Signum": (bridge.Signum, {}),
    "Lion": (bridge.Lion, {"b2": 0.97}),
}


def rates(k):
    """Return learning rate and momentum of step k, for two groups."""
    return [
        (0.02 * (1 + 0.5 * math.sin(k / 7)), 0.6 + 0.3 * math.cos(k / 31)),
        (0.05 * (1 - k / 2 / STEPS), 0.9 - 0.5 * (k % 5) / 5),
    ]


def budget(lr, k, delta=8.0, share=0.25, batch=4):
    """min(1, 2 s B / N(D / lr)), D = delta / (delta + k)."""
    mu = delta / (delta + k) / lr
    return min(1.0, 2 * share * batch / sum(lam / (lam + mu) for lam in SPECTRUM))


class Given:
    """An oracle that returns a given gradient."""

    value = None

    def __call__(self, x):
        return self.value


def expected(name, state, g, lr, mu, k):
    """Return the state after step k: that of the library's rule, and for sign descent of its equations. `state` is the position, then the rest."""
    given, options = Given(), CASES[name][1]
    given.value = g
    if name in ("DANA", "DANA-constant", "noise budget"):
        delta = options.get("delta", 8.0)
        g3 = budget(lr, k) if name == "noise budget" else options["ratio"] * (1 + k) ** -options.get("power", 0.0)
        return st.DANA.rule(state, given, lr, delta / (delta + k), 1.0, 1.0, g3)
    if name == "MaSS":
        return st.MaSS.rule(state, given, lr, mu, 0.2)
    x, m = state
    if name == "Signum":
        m = mu * m + (1 - mu) * g
        return x - lr * np.sign(m), m
    return x - lr * np.sign(mu * m + (1 - mu) * g), 0.97 * m + 0.03 * g


@pytest.mark.sample(5)
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("decay", ["none", "coupled", "decoupled"])
@pytest.mark.parametrize("name", CASES)
def test_every_optimiser_takes_the_steps_of_its_equations(name, decay, foreach):
    """Two groups with learning rates, momenta and decays of their own, which move: equal to 1e-12 over 1,000 steps."""
    cls, options = CASES[name]
    rng = np.random.default_rng(5)
    shapes = [[(3,), (2, 2)], [(5,)]]
    params = [[torch.nn.Parameter(torch.as_tensor(rng.normal(size=shape))) for shape in group] for group in shapes]
    wd = [0.0, 0.0] if decay == "none" else [0.03, 0.1]
    groups = [{"params": p, "weight_decay": w} for p, w in zip(params, wd)]
    optimizer = cls(groups, lr=0.1, decoupled=decay == "decoupled", foreach=foreach, **options)
    flat = [np.concatenate([p.detach().numpy().ravel() for p in group]) for group in params]
    states = [(x, x.copy() if name == "MaSS" else np.zeros_like(x)) for x in flat]
    worst = 0.0
    for k in range(STEPS):
        grads = [state[0] * np.linspace(0.3, 2, len(state[0])) + rng.normal(size=len(state[0])) for state in states]
        for group, settings, p, g in zip(optimizer.param_groups, rates(k), params, grads):
            group["lr"] = settings[0]
            if "momentum" in group:
                group["momentum"] = settings[1]
            for one, part in zip(p, np.split(g, np.cumsum([q.numel() for q in p])[:-1])):
                one.grad = torch.as_tensor(part.reshape(one.shape).copy())
        optimizer.step()
        for i, (lr, mu) in enumerate(rates(k)):
            x, other = states[i]
            g = grads[i] + wd[i] * x if decay == "coupled" else grads[i]
            if decay == "decoupled":
                # the decay moves the position and not the momentum, which of MaSS is x - w
                other = other - lr * wd[i] * x if name == "MaSS" else other
                x = x - lr * wd[i] * x
            states[i] = expected(name, (x, other), g, lr, mu, k)
            mine = np.concatenate([p.detach().numpy().ravel() for p in params[i]])
            worst = max(worst, float(np.abs(mine - states[i][0]).max()))
    assert worst < 1e-12


def test_the_schedule_of_dana_is_that_of_the_rule():
    """g3 of each step: exact for a power, and for the budget up to the rule's interpolation of log N over log mu, linear on 512 points.

    With q_i = mu / (lam_i + mu) weighted by 1 - q_i, the second derivative of log N is 2 Var q + (E q)^2 - E q, which lies in [-1/4, 1/4].
    """
    lr = 0.05
    oracle, plan = st.streaming_least_squares(SPECTRUM, batch=4), st.schedules.constant(lr)
    p = [torch.nn.Parameter(torch.zeros(1))]
    power = bridge.DANA(p, lr=lr, delta=4.0, ratio=0.3, power=0.5).param_groups[0]
    table = st.DANA(oracle, plan, delta=4.0, ratio=0.3, power=0.5).coefficient_values(STEPS)[:, 4]
    assert np.allclose([bridge.DANA.weight(power, k) for k in range(STEPS)], table, rtol=1e-14, atol=0)
    share = bridge.DANA(p, lr=lr, share=0.05, batch=4, spectrum=torch.tensor(SPECTRUM, dtype=torch.float64)).param_groups[0]
    found = np.array([bridge.DANA.weight(share, k) for k in range(STEPS)])
    table = st.DANA(oracle, plan, share=0.05).coefficient_values(STEPS)[:, 4]
    spacing = math.log((8 + STEPS - 1) / 8) / 511
    assert np.abs(np.log(found / table)).max() < spacing**2 / 8 / 4 + 1e-14
    assert found[0] == 1.0 and found[-1] < 0.5  # from Nesterov's weight on down
    share["lr"] = 0.0
    assert bridge.DANA.weight(share, 3) == 1.0


def test_mass_takes_the_parameters_of_least_squares():
    """Without noise on one mode: x and the rule's x for the authors' parameters, and c = 0 is torch's Nesterov at a constant rate."""
    law = st.exact.mass_parameters([1.0], batch=2)
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = bridge.MaSS([p], lr=law.eta, momentum=law.gamma, c=law.c)
    x = w = 1.0
    for _ in range(30):
        p.grad = p.data.clone()
        optimizer.step()
        x, w = (1 + law.gamma) * (x - law.eta * x) - law.gamma * w + law.c * law.eta * x, x - law.eta * x
        assert float(p.detach()) == pytest.approx(x, abs=1e-14)
    ends = []
    for make in (
        lambda q: bridge.MaSS(q, lr=0.1, momentum=0.8, c=0.0),
        lambda q: torch.optim.SGD(q, lr=0.1, momentum=0.8, nesterov=True),
    ):
        q = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        own = make([q])
        for _ in range(50):
            q.grad = q.data * torch.tensor([0.5, 1.0, 2.0])
            own.step()
        ends.append(q.data)
    assert (ends[0] - ends[1]).abs().max() < 1e-14


def train(optimizer, params, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        for i, p in enumerate(params):
            p.grad = p.data * (i + 1) + torch.randn(p.shape, dtype=p.dtype, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", CASES)
def test_state_dict_round_trip_is_exact(name, tmp_path):
    cls, options = CASES[name]
    a, b = ([torch.nn.Parameter(torch.ones(s, dtype=torch.float64)) for s in (3, 4)] for _ in range(2))
    one = cls([{"params": a[:1]}, {"params": a[1:], "lr": 0.02}], lr=0.05, weight_decay=0.1, **options)
    train(one, a, 20)
    other = cls([{"params": b[:1]}, {"params": b[1:]}], lr=0.3)
    for x, y in zip(a, b):
        y.data.copy_(x.data)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(one, a, 20, seed=4)
    train(other, b, 20, seed=4)
    assert all(torch.equal(x, y) for x, y in zip(a, b)) and other.param_groups[1]["lr"] == 0.02


def test_each_parameter_of_dana_counts_its_own_steps():
    """A parameter that comes later, or has no gradient, begins at k = 0: there D = 1, and y = g."""
    p, q = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    optimizer = bridge.DANA([p, q], lr=0.5, ratio=0.5, power=1.0)
    for k in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert torch.equal(q.data, torch.ones(2, dtype=torch.float64))
    p.grad, q.grad = torch.zeros_like(p), torch.ones_like(q)
    optimizer.step()
    assert q.data.tolist() == [1 - 0.5 * 1.5] * 2
    late = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [late], "lr": 1.0, "ratio": 1.0})
    late.grad = torch.ones_like(late)
    optimizer.step()
    assert late.data.tolist() == [1 - 2.0] * 2
    assert [optimizer.state[one]["step"] for one in (p, q, late)] == [5, 2, 1]


@pytest.mark.parametrize("cls", [bridge.Signum, bridge.Lion])
def test_the_decay_of_sign_descent_is_decoupled_by_default(cls):
    """At g = 0 the sign is 0: p shrinks by 1 - lr wd, or with a coupled decay by the sign of wd p."""
    p, q = (torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64)) for _ in range(2))
    for one, optimizer in ((p, cls([p], lr=0.25, weight_decay=0.5)), (q, cls([q], lr=0.25, weight_decay=0.5, decoupled=False))):
        one.grad = torch.zeros_like(one)
        optimizer.step()
    assert (float(p.detach()), float(q.detach())) == (2.0 * (1 - 0.125), 2.0 - 0.25)
    for one, optimizer in ((p, cls([p], lr=0.5, weight_decay=0.5)), (q, cls([q], lr=0.5, weight_decay=0.5, decoupled=False))):
        one.data.fill_(1.0)
        optimizer.step()
    assert (float(p.detach()), float(q.detach())) == (0.75, 0.5)  # where the two differ


@pytest.mark.parametrize("name", CASES)
def test_closures_maximize_and_a_frozen_parameter(name):
    cls, options = CASES[name]
    p, q, frozen = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    up, down = cls([p, frozen], lr=0.01, maximize=True, **options), cls([q], lr=0.01, **options)

    def closure(optimizer, one, sign):
        def value():
            optimizer.zero_grad()
            loss = sign * (one * torch.tensor([1.0, -3.0])).sum()
            loss.backward()
            return loss

        return value

    for _ in range(4):
        assert float(up.step(closure(up, p, -1)).detach()) == -float(down.step(closure(down, q, 1)).detach())
    assert torch.equal(p.data, q.data) and not torch.equal(p.data, torch.ones(2)) and torch.equal(frozen.data, torch.ones(2))


def test_a_plan_sets_rate_and_momentum_of_sign_descent():
    plan = st.schedules.from_arrays(np.linspace(0.1, 0.01, 6), np.linspace(0.9, 0.5, 6))
    for make in (bridge.Signum, bridge.Lion, bridge.MaSS):
        p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = make([p], lr=1.0)
        PlanScheduler(optimizer, plan).step()
        assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]) == (plan.etas(2)[1], plan.betas(2)[1])
    with pytest.raises(ValueError, match="averaged"):
        PlanScheduler(bridge.DANA([p], lr=1.0), plan)


P = [torch.nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bridge.DANA(P, lr=-1.0), "`lr` must be at least 0"),
        (lambda: bridge.DANA(P, lr=0.1, delta=0.0), "`delta` must be a positive number"),
        (lambda: bridge.DANA(P, lr=0.1, ratio=-0.1), "`ratio` must be 0 or above"),
        (lambda: bridge.DANA(P, lr=0.1, power=-0.1), "`power` must be 0 or above"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2), "`share` must come with `batch` and `spectrum`"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2, batch=4), "`share` must come with `batch` and `spectrum`"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.0, batch=4, spectrum=[1.0]), "`share` must be a positive number"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2, batch=0, spectrum=[1.0]), "`batch`"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2, batch=4, spectrum=[1.0, 0.0]), "`spectrum` must be positive numbers"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2, batch=4, spectrum=[]), "`spectrum` must be positive numbers"),
        (lambda: bridge.DANA(P, lr=0.1, share=0.2, batch=4, spectrum="flat"), "`spectrum`"),
        (lambda: bridge.DANA([{"params": P, "share": 0.2, "batch": 4, "spectrum": [-1.0]}], lr=0.1), "`spectrum`"),
        (lambda: bridge.MaSS(P, lr=0.1, momentum=1.0), "momentum"),
        (lambda: bridge.MaSS(P, lr=0.1, c=1.0), "`c` must lie in"),
        (lambda: bridge.Signum(P, lr=0.1, momentum=-0.1), "momentum"),
        (lambda: bridge.Lion(P, lr=0.1, b2=1.0), "`b2` must lie in"),
        (lambda: bridge.Lion([{"params": P, "momentum": 1.5}], lr=0.1), "momentum"),
    ],
)
def test_invalid_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", CASES)
def test_the_state_of_another_method_is_refused_and_nothing_changes(name):
    """No linear filter with one buffer takes their steps, so that neither they nor others load each other's state."""
    cls, options = CASES[name]
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    own, other = cls([p], lr=0.1, **options), torch_optimisers.SGDM([p], lr=0.2)
    train(other, [p], 2)
    for loading, saved in ((own, other), (other, own)):
        before = dict(loading.param_groups[0])
        with pytest.raises(ValueError, match=f"`state_dict` must be of a method whose steps {type(loading).__name__} can take"):
            loading.load_state_dict(saved.state_dict())
        assert loading.param_groups[0] == before
    with pytest.raises(ValueError, match="can take"):
        own.load_state_dict(torch.optim.SGD([p], lr=0.1, momentum=0.9).state_dict())


def test_buffers_are_counted():
    p = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    for cls in (bridge.DANA, bridge.MaSS, bridge.Signum, bridge.Lion):
        optimizer = cls([p], lr=0.1)
        optimizer.step()
        assert bridge.buffer_bytes(optimizer) == 80
