"""Adam, AdamW and RMSProp against `torch.optim`, over 1,000 steps on the same noisy gradients, in double precision."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import sdetools as st

torch = pytest.importorskip("torch")

STEPS = 1000
NORMALS = np.random.default_rng(21).standard_normal((STEPS, 2))
ORACLE = st.NoisyOracle(
    st.losses.hyperbola(), st.noise.gaussian(root=[["1 + x**2/9", "0"], ["y", "1"]], variables="x y"), sigma=0.5
)
X0, V0, M0 = np.array([2.0, 1.5]), np.array([0.5, 2.0]), np.array([0.3, -0.2])
ETA = 0.01
FAR = 10.0**9
"""A step count at which torch's bias corrections are 1."""


def walk(method):
    """The positions of a rule and the noisy gradients that it saw, each `(STEPS, 2)`."""
    state, path, gradients = method.start(X0), [], []
    for k, row in enumerate(method.coefficient_values(STEPS)):
        gradients.append(ORACLE(state[0], NORMALS[k]))
        state = method.rule(state, method.bind(NORMALS[k]), *row)
        path.append(state[0])
    return np.array(path), np.array(gradients)


def torch_walk(make, gradients, state=None):
    """The positions of a torch optimiser on given gradients, with an initial state if one is given."""
    p = torch.nn.Parameter(torch.tensor(X0))
    optimiser = make([p])
    if state is not None:
        optimiser.state[p] = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
    path = []
    for g in gradients:
        p.grad = torch.tensor(g)
        optimiser.step()
        path.append(p.detach().numpy().copy())
    return np.array(path)


def off(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(ours).max()


def agree(method, make, state=None):
    """The relative distance of the two, which is below 1e-12, while a rate that is 1e-6 larger is seen."""
    path, gradients = walk(method)
    assert np.abs(path - X0).max() > 0.1
    assert off(path, torch_walk(lambda p: make(p, ETA), gradients, state)) < 1e-12
    assert off(path, torch_walk(lambda p: make(p, ETA * (1 + 1e-6)), gradients, state)) > 1e-8  # negative control


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("beta", "beta2", "eps", "corrected", "started"),
    list(itertools.product([0.0, 0.9], [0.0, 0.99, 0.999], [1e-8, 0.1], [True, False], [True, False])),
)
def test_adam_is_torchs(beta, beta2, eps, corrected, started):
    plan = st.schedules.constant(ETA, beta)
    given = {"second_moment": V0, "momentum": M0} if started else {}
    method = st.Adam(ORACLE, plan, beta2=beta2, eps=eps, bias_correction=corrected, **given)
    state = {
        "step": 0.0 if corrected else FAR, "exp_avg": M0 if started else [0.0, 0.0], "exp_avg_sq": V0 if started else [0.0, 0.0]
    }  # fmt: skip
    agree(method, lambda p, lr: torch.optim.Adam(p, lr=lr, betas=(beta, beta2), eps=eps), state)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("decay", "beta", "eps", "corrected"), list(itertools.product([0.0, 0.01, 3.0], [0.0, 0.9], [1e-8, 0.1], [True, False]))
)
def test_adamw_is_torchs(decay, beta, eps, corrected):
    method = st.AdamW(ORACLE, st.schedules.constant(ETA, beta), eps=eps, weight_decay=decay, bias_correction=corrected)
    state = {"step": 0.0 if corrected else FAR, "exp_avg": [0.0, 0.0], "exp_avg_sq": [0.0, 0.0]}
    agree(method, lambda p, lr: torch.optim.AdamW(p, lr=lr, betas=(beta, 0.999), eps=eps, weight_decay=decay), state)


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("momentum", "alpha", "eps", "started"), list(itertools.product([0.0, 0.9], [0.0, 0.9, 0.99], [1e-8, 0.1], [True, False]))
)
def test_rmsprop_is_torchs(momentum, alpha, eps, started):
    given = {"second_moment": V0, "momentum": M0} if started else {}
    method = st.RMSProp(ORACLE, st.schedules.constant(ETA, momentum), beta2=alpha, eps=eps, **given)
    state = {
        "step": 0.0, "square_avg": V0 if started else [0.0, 0.0], "momentum_buffer": M0 if started else [0.0, 0.0]
    }  # fmt: skip
    agree(method, lambda p, lr: torch.optim.RMSprop(p, lr=lr, alpha=alpha, eps=eps, momentum=momentum), state)


def test_defaults_are_torchs():
    """The same without any argument but the rate, and betas (.9, .999)."""
    plan, bare = st.schedules.constant(ETA, 0.9), st.schedules.constant(ETA)
    agree(st.Adam(ORACLE, plan), lambda p, lr: torch.optim.Adam(p, lr=lr))
    agree(st.AdamW(ORACLE, plan), lambda p, lr: torch.optim.AdamW(p, lr=lr))
    agree(st.RMSProp(ORACLE, bare), lambda p, lr: torch.optim.RMSprop(p, lr=lr))


@pytest.mark.parametrize("cls", [st.Adam, st.RMSProp])
@pytest.mark.parametrize("corrected", [True, False])
def test_the_lagged_denominator_is_torchs_of_the_step_before(cls, corrected):
    """A lagged step on torch's own second moments, read before each of its steps: its v_k, with the bias correction of this step."""
    beta2, eps = 0.95, 0.1
    plan = st.schedules.constant(ETA, 0.9)
    method = cls(ORACLE, plan, beta2=beta2, eps=eps, lagged=True, bias_correction=corrected, second_moment=V0)
    path, gradients = walk(method)
    p = torch.nn.Parameter(torch.tensor(X0))
    theirs = torch.optim.Adam([p], lr=0.0, betas=(0.9, beta2), eps=eps)
    theirs.state[p] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros(2).double(), "exp_avg_sq": torch.tensor(V0)}
    x, b, worst = X0, np.zeros(2), 0.0
    for k, g in enumerate(gradients):
        v = theirs.state[p]["exp_avg_sq"].numpy().copy()
        p.grad = torch.tensor(g)
        theirs.step()
        size = np.sqrt(v / (1 - beta2 ** (k + 1) if corrected else 1.0)) + eps
        b = 0.9 * b + g / size
        m = theirs.state[p]["exp_avg"].numpy() / (1 - 0.9 ** (k + 1) if corrected else 1.0)
        x = x - ETA * (b if cls is st.RMSProp else m / size)
        worst = max(worst, np.abs(x - path[k]).max())
    assert worst < 1e-12 * np.abs(path).max()
