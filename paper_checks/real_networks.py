r"""The same optimisers on real networks: torch's classes take the steps of the rules, SVAG keeps the mean, SGDM stays near SGD.

The networks are small and their data real (diabetes and digits of scikit-learn), so that whole laws can be compared and not single runs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import sdetools as st

STEPS = 1000


def parts():
    """torch and the two data sets; a claim that cannot have them is not run."""
    import torch
    from sklearn.datasets import load_diabetes, load_digits

    return torch, load_diabetes(), load_digits()


def network() -> tuple[Any, Any]:
    """A tanh network with 16 parameters on 64 patients, as a loss, and the oracle of its batches of 4."""
    torch, raw, _ = parts()
    x = torch.as_tensor(raw.data[:64, :3] * 20)
    y = torch.as_tensor((raw.target[:64, None] - 150) / 80)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # one network: a run's seed is that of its batches
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    loss = st.bridge.loss_of_module(model, torch.nn.functional.mse_loss, x, y)
    return loss, st.NoisyOracle(loss, st.noise.minibatch(loss, size=4))


def displacement(loss: Any) -> str:
    """|x - x_0|^2 over all parameters, as a formula."""
    return " + ".join(f"(x{i} - ({v!r}))**2" for i, v in enumerate(loss.start.tolist()))


class Shown:
    """An oracle that answers with what it was given."""

    def __init__(self, value, extra):
        self.value, self.extra = value, (extra,)

    def __call__(self, x):
        return self.value


@st.claim(
    "torch-optimisers-take-the-steps-of-their-rules",
    statement=r"Each optimiser for networks agrees with its rule over 1,000 steps in which $\eta_k$ and $\beta_k$ move.",
    source="Definition 2.3, Eq. (1) and the rules' own sources",
)
def parity(run):
    torch, *_ = parts()
    rng = np.random.default_rng(run.seed)
    noise = rng.normal(size=(STEPS, 8))
    k = np.arange(STEPS)
    lr, mu = 0.05 * (1 + 0.5 * np.sin(k / 9)), 0.6 + 0.3 * np.cos(k / 31)
    oracle = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.none(1))
    plan = st.schedules.from_arrays(lr, mu)
    family = {
        "SGD": (st.SGD, lr[:, None], {}),
        "SGDM": (st.SGDM, np.column_stack([lr, mu]), {}),
        "HeavyBall": (st.HeavyBall, np.column_stack([lr, mu]), {}),
        "Nesterov": (st.dynamics.Nesterov, np.column_stack([lr, mu]), {}),
        "QHM": (st.dynamics.QHM, st.dynamics.QHM(oracle, plan, nu=0.6).coefficient_values(STEPS), {"nu": 0.6}),
        "PNM": (st.dynamics.PNM, st.dynamics.PNM(oracle, plan, b0=0.8).coefficient_values(STEPS), {"b0": 0.8}),
        "SNGM": (st.dynamics.SNGM, np.column_stack([lr, mu]), {}),
        "RandomScaling": (st.dynamics.RandomScaling, np.column_stack([lr, mu]), {}),
        "SGDF": (st.dynamics.SGDF, st.dynamics.SGDF(oracle, plan).coefficient_values(STEPS), {}),
    }

    def apart(name, momentum=mu):
        rule, table, options = family[name]
        p = torch.nn.Parameter(torch.ones(8, dtype=torch.float64))
        own = torch.Generator().manual_seed(5)
        extra = {"generator": torch.Generator().manual_seed(5)} if name == "RandomScaling" else {}
        optimiser = getattr(st.bridge, name)([p], lr=0.1, **options, **extra)
        state, worst = tuple(np.full((8, 1), float(i == 0)) for i, _ in enumerate(rule.parts)), 0.0
        for step in range(STEPS):
            g = state[0][:, 0] * np.linspace(0.3, 2, 8) + noise[step]
            for group in optimiser.param_groups:
                group["lr"] = float(lr[step])
                if "momentum" in group:
                    group["momentum"] = float(momentum[step])
            p.grad = torch.as_tensor(g.copy())
            optimiser.step()
            s = float(torch.empty((), dtype=torch.float64).exponential_(generator=own)) if name == "RandomScaling" else 0.0
            state = tuple(np.asarray(part) for part in rule.rule(state, Shown(g[:, None], math.exp(-s)), *table[step].tolist()))
            worst = max(worst, float(np.abs(p.detach().numpy() - state[0][:, 0]).max()))
        return worst

    for name in family:
        run.measure(f"{name}: largest difference of a coordinate", apart(name), at_most=1e-12)
    with run.control("a momentum that does not move"):
        run.measure("SGDM", apart("SGDM", np.full(STEPS, 0.6)), at_most=1e-12)


@st.claim(
    "svag-on-a-network",
    statement=r"SVAG keeps the mean of a network's gradient and multiplies its covariance by $l$.",
    source="Definition 5.1; Li, Malladi and Arora (2021)",
)
def svag(run):
    torch, _, digits = parts()
    n = 24
    x, y = torch.as_tensor(digits.data[:n] / 16), torch.as_tensor(digits.target[:n])
    with torch.random.fork_rng():
        torch.manual_seed(run.seed % 2**31)
        model = torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Tanh(), torch.nn.Linear(3, 10)).double()

    def gradients(l):
        """The gradient of every pair of batches of one."""
        wrapped = st.bridge.SVAG(torch.optim.SGD(model.parameters(), lr=0.1), l)
        out = []
        for i in range(n):
            for j in range(n):
                model.zero_grad()
                first, second = ((x[k : k + 1], y[k : k + 1]) for k in (i, j))
                wrapped.backward(lambda b: torch.nn.functional.cross_entropy(model(b[0]), b[1]), first, second)
                out.append(torch.cat([p.grad.ravel() for p in model.parameters()]).numpy().copy())
        return np.array(out)

    plain = gradients(1)
    for l in (2, 8):
        own = gradients(l)
        size = np.linalg.norm(plain.mean(0))
        run.measure(
            f"l = {l}: change of the mean, relative", float(np.linalg.norm(own.mean(0) - plain.mean(0)) / size), at_most=1e-10
        )
        a, b = (np.cov(g.T, bias=True) for g in (plain, own))
        run.measure(f"l = {l}: Cov / l - Cov, relative", float(np.linalg.norm(b / l - a) / np.linalg.norm(a)), at_most=1e-10)
    with run.control("the covariance without the factor l"):
        run.measure("Cov at l = 8 against Cov", float(np.linalg.norm(b - a) / np.linalg.norm(a)), at_most=1e-10)


@st.claim(
    "network-trajectories",
    statement=r"On a network with the noise of its batches the weak gap between SGDM and SGD at the averaged rate falls at least like "
    r"$\sqrt{\eta/(1-\beta)}$, for parameters and not for losses only.",
    source="Theorem 3.5",
)
def trajectories(run):
    loss, oracle = network()
    observe = ["x0", "x5", displacement(loss)]
    names = ["x0", "x5", "|x - x_0|^2"]
    etas = run.scale(quick=[0.04, 0.02, 0.01], standard=[0.04, 0.02, 0.01, 0.005], full=[0.04, 0.02, 0.01, 0.005, 0.0025])
    paths = run.scale(quick=6000, standard=20_000, full=60_000)

    def pair(rate):
        def of(eta):
            plan = st.schedules.constant(eta=eta, beta=0.8)
            return st.SGDM(oracle, plan), st.SGD(oracle, st.schedules.constant(rate * eta), step_time=eta)

        return of

    study = st.order_study(pair(1), etas=etas, x0=loss.start, horizon=2.0, observe=observe, **run.options(paths=paths))
    run.table(
        "Largest gaps",
        [[eta, *(f"{g.sup(h).value:.4f}" for h in observe)] for eta, g in zip(etas, study.gaps)],
        ["eta", *names],
    )
    for name, h in zip(names, observe):
        run.measure(f"order in eta of the gap in {name}", study.order(h), at_least=0.5)
    with run.control("SGD at one and a half times the rate"):
        wrong = st.order_study(pair(1.5), etas=etas, x0=loss.start, horizon=2.0, observe=observe, **run.options(paths=paths))
        for name, h in zip(names, observe):
            run.measure(f"order in eta of the gap in {name}", wrong.order(h), at_least=0.5)


@st.claim(
    "network-insensitive-to-beta",
    statement=r"At small $\eta$ the law of a network's parameters after training hardly depends on $\beta$.",
    source="Theorem 3.5; insensitivity to beta",
)
def insensitive(run):
    loss, oracle = network()
    eta, paths = run.scale(quick=0.005, standard=0.0025, full=0.0025), run.scale(quick=2000, standard=8000, full=40_000)
    far = displacement(loss)

    def gap(beta, rate=1.0):
        plan = st.schedules.constant(eta=rate * eta, beta=beta)
        methods = st.SGDM(oracle, plan, step_time=eta), st.SGD(oracle, st.schedules.constant(eta))
        return st.weak_gap(*methods, x0=loss.start, horizon=2.0, observe=[far], **run.options(paths=paths)).sup(far)

    sgd = st.SGD(oracle, st.schedules.constant(eta))
    size = st.simulate(sgd, x0=loss.start, horizon=2.0, times=[2.0], observe=[far], **run.options(paths=paths)).at(far).value
    for beta in (0.3, 0.6, 0.9):
        run.measure(f"beta = {beta}: largest gap in |x - x_0|^2, beside a tenth of its size", gap(beta), at_most=0.1 * size)
    with run.control("half the rate"):
        run.measure("largest gap in |x - x_0|^2, beside a tenth of its size", gap(0.6, 0.5), at_most=0.1 * size)
