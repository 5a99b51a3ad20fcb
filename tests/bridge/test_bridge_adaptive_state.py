"""States of Adam, AdamW and RMSProp to torch and back: 1,000 further steps agree to rounding; what is on one side only is refused."""

import numpy as np
import pytest
import torch

import sdetools as st
from sdetools.bridge import method_from_torch, state_from_torch, state_to_torch

LOSS = st.losses.from_expression("(x*y - 1)**2/2 + (y - z)**2/8 + (w - x*z)**2/4", variables="x y z w")
ORACLE = st.NoisyOracle(LOSS, st.noise.gaussian(dim=4), sigma=0.5)
"""With noise, because without it Adam comes to rest, where it amplifies rounding errors."""
DRAWS = np.random.default_rng(4).standard_normal((2_000, 4))
X0, M0, V0 = np.array([1.5, 0.5, -1.0, 0.3]), np.array([0.1, -0.2, 0.0, 0.3]), np.array([0.5, 2.0, 1.0, 0.1])
BEFORE, AFTER = 37, 1_000
CASES = {
    "Adam": (st.Adam, 0.9, {}),
    "Adam, other numbers": (st.Adam, 0.5, {"beta2": 0.9, "eps": 1e-3, "momentum": M0, "second_moment": V0}),
    "Adam without beta_1": (st.Adam, 0.0, {"beta2": 0.95}),
    "AdamW": (st.AdamW, 0.9, {"weight_decay": 0.3}),
    "RMSProp": (st.RMSProp, 0.0, {"beta2": 0.9}),
    "RMSProp with momentum": (st.RMSProp, 0.8, {"beta2": 0.95, "eps": 0.1, "momentum": M0}),
}
KINDS = {st.Adam: torch.optim.Adam, st.AdamW: torch.optim.AdamW, st.RMSProp: torch.optim.RMSprop}


def method_of(name):
    kind, beta, more = CASES[name]
    return kind(ORACLE, st.schedules.constant(2e-3, beta), **more)


def walk(method, state, rows, first=0):
    """The state after further steps, from step `first` on, whose draws are those of its number."""
    for k, row in enumerate(rows, start=first):
        state = method.rule(state, method.bind(DRAWS[k]), *row)
    return state


def parameters(x, shapes=((2,), (1, 2))):
    flat, out = torch.tensor(x), []
    for shape in shapes:
        n = int(np.prod(shape))
        out.append(torch.nn.Parameter(flat[:n].reshape(shape).clone()))
        flat = flat[n:]
    return out


def step(optimizer, params, steps, first=0):
    for k in range(first, first + steps):
        g = torch.tensor(ORACLE(np.concatenate([p.detach().numpy().ravel() for p in params]), DRAWS[k]))
        for p in params:
            p.grad, g = g[: p.numel()].reshape(p.shape).clone(), g[p.numel() :]
        optimizer.step()


def agree(method, found, right):
    """Whether states agree to 1e-12; torch's RMSprop without momentum has no buffer, and none is needed."""
    for i, (a, b) in enumerate(zip(found, right, strict=True)):
        if i != 1 or method.plan.has_momentum or not isinstance(method, st.RMSProp):
            assert np.abs(a - b).max() <= 1e-12 * max(1.0, np.abs(b).max())


@pytest.mark.sample(5)
@pytest.mark.parametrize("shapes", [((4,),), ((2,), (1, 2))])
@pytest.mark.parametrize("name", CASES)
def test_torch_continues_a_run_of_the_library(name, shapes):
    method = method_of(name)
    rows = method.coefficient_values(BEFORE + AFTER)
    middle = walk(method, method.start(X0), rows[:BEFORE])
    expected = walk(method, middle, rows[BEFORE:], BEFORE)
    params = parameters(middle[0], shapes)
    optimizer = KINDS[type(method)](params)
    optimizer.load_state_dict(state_to_torch(method, middle, BEFORE, params if len(shapes) > 1 else None))
    step(optimizer, params, AFTER, BEFORE)
    state, steps = state_from_torch(optimizer)
    assert steps == BEFORE + AFTER
    agree(method, state, expected)
    assert np.abs(state[0] - middle[0]).max() > 0.1  # the steps do move


@pytest.mark.parametrize("name", CASES)
def test_the_library_continues_a_run_of_torch(name):
    kind, beta, more = CASES[name]
    numbers = {"lr": 2e-3, "eps": more.get("eps", 1e-8), "weight_decay": more.get("weight_decay", 0.0)}
    beta2 = more.get("beta2", 0.99 if kind is st.RMSProp else 0.999)
    numbers |= {"alpha": beta2, "momentum": beta} if kind is st.RMSProp else {"betas": (beta, beta2)}
    params = parameters(X0)
    optimizer = KINDS[kind](params, **numbers)
    step(optimizer, params, BEFORE)
    method = method_from_torch(optimizer, ORACLE)
    (x, *_), steps = state_from_torch(optimizer)
    assert type(method) is kind and method.steps_taken == steps == BEFORE
    end = walk(method, method.start(x), method.coefficient_values(AFTER), BEFORE)
    step(optimizer, params, AFTER, BEFORE)
    agree(method, end, state_from_torch(optimizer)[0])


def test_a_simulation_continues_a_run():
    """A simulation in two parts, the second by its state and `steps_taken`, is the whole one; without the number of steps it is another."""
    oracle, plan = st.NoisyOracle(LOSS, st.noise.none(dim=4)), st.schedules.constant(2e-3, 0.9)

    def run(method, x, steps):
        times = [steps * method.step_time]
        return st.simulate(method, x, times[0], 2, ["x"], times=times, trajectories=[0], backend="numpy").trajectories.values[
            0, -1
        ]

    whole = run(st.Adam(oracle, plan), X0, 137)
    x, m, v = run(st.Adam(oracle, plan), X0, 37)
    rest = {"momentum": m, "second_moment": v}
    assert run(st.Adam(oracle, plan, **rest, steps_taken=37), x, 100) == pytest.approx(whole, rel=1e-12)
    assert np.abs(run(st.Adam(oracle, plan, **rest), x, 100) - whole).max() > 1e-3


def test_steps_taken_is_the_tail_of_the_whole_run():
    plan = st.schedules.from_arrays(np.linspace(0.1, 0.01, 30), np.linspace(0.5, 0.9, 30))
    for kind in (st.Adam, st.AdamW, st.RMSProp):
        whole = kind(ORACLE, plan, bias_correction=True).coefficient_values(50)
        assert (kind(ORACLE, plan, bias_correction=True, steps_taken=12).coefficient_values(38) == whole[12:]).all()


def test_the_rate_of_a_schedule_is_that_of_the_next_step():
    method = st.Adam(ORACLE, st.schedules.step_decay(0.1, at=[3], factor=0.5, beta=0.9))
    for steps, lr in ((2, 0.1), (3, 0.05)):
        assert state_to_torch(method, (X0, M0, V0), steps)["param_groups"][0]["lr"] == lr


PLAN = st.schedules.constant(0.1, 0.9)


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (st.Adam(ORACLE, PLAN, lagged=True), "got lagged=True"),
        (st.Adam(ORACLE, PLAN, bias_correction=False), "Adam with bias correction"),
        (st.RMSProp(ORACLE, PLAN, bias_correction=True), "At beta = 0 `Adam` is RMSProp with it"),
        (st.Adam(ORACLE, st.schedules.from_arrays([0.1, 0.1], [0.5, 0.9])), "constant beta"),
        (st.SGDM(ORACLE, PLAN), "must be Adam, AdamW or RMSProp"),
    ],
)
def test_methods_that_torch_has_not(method, text):
    with pytest.raises(ValueError, match=text):
        state_to_torch(method, (X0, M0, V0), 5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: torch.optim.Adam(p, amsgrad=True), "without amsgrad; got amsgrad=True"),
        (lambda p: torch.optim.RMSprop(p, centered=True), "without centered"),
        (lambda p: torch.optim.AdamW(p, maximize=True), "without maximize"),
        (lambda p: torch.optim.Adam(p, weight_decay=0.1), "coupled weight decay; got weight_decay=0.1"),
        (lambda p: torch.optim.NAdam(p), "got NAdam, which the library has not"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "got SGD"),
        (lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:], "lr": 0.5}]), "groups of equal numbers"),
    ],
)
def test_optimisers_that_the_library_has_not(make, text):
    for read in (state_from_torch, lambda optimizer: method_from_torch(optimizer, ORACLE)):
        with pytest.raises(ValueError, match=text):
            read(make(parameters(X0)))


def test_wrong_states_and_parameters():
    method, params = method_of("Adam"), parameters(X0)
    for state, given, text in (
        ((X0, M0), None, "three parts"),
        ((X0, M0, V0[:2]), None, "`v`"),
        ((X0, M0, V0), params[:1], "must have 4 numbers in all; got 2"),
    ):
        with pytest.raises(ValueError, match=text):
            state_to_torch(method, state, 5, given)
    optimizer = torch.optim.Adam(params)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    with pytest.raises(ValueError, match="the same steps for all parameters; got"):
        state_from_torch(optimizer)
