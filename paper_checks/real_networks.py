"""The same optimisers on real networks: torch's classes follow the rules, SVAG keeps the mean, SGDM stays near SGD.

The networks are small and their data real (diabetes and digits of scikit-learn), so that laws can be compared and not single runs.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
from _plain import ROUNDING, already_contradicted, draws, follow, path, relative_distance, sgdm

import sdetools as st

STEPS = 1000


def parts():
    """Return torch and the two data sets; without them a claim is not run."""
    import torch
    from sklearn.datasets import load_diabetes, load_digits

    return torch, load_diabetes(), load_digits()


def network() -> tuple[Any, Any]:
    """Return a tanh network with 16 parameters on 64 patients, as a loss, and the oracle of its batches of 4."""
    torch, raw, _ = parts()
    x = torch.as_tensor(raw.data[:64, :3] * 20)
    y = torch.as_tensor((raw.target[:64, None] - 150) / 80)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # one network: a run's seed is that of its batches
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    loss = st.bridge.loss_of_module(model, torch.nn.functional.mse_loss, x, y)
    return loss, st.NoisyOracle(loss, st.noise.minibatch(loss, size=4))


def displacement(loss: Any) -> str:
    """Return |x - x_0|^2 over all parameters, as a formula."""
    return " + ".join(f"(x{i} - ({v!r}))**2" for i, v in enumerate(loss.start.tolist()))


FORMULAS = {
    "SGD": lambda b, g, lr, mu, s: lr * g,
    "SGDM": lambda b, g, lr, mu, s: lr * put(b, m=mu * b["m"] + (1 - mu) * g)["m"],
    "HeavyBall": lambda b, g, lr, mu, s: lr * put(b, m=mu * b["m"] + g)["m"],
    "Nesterov": lambda b, g, lr, mu, s: lr * (g + mu * put(b, m=mu * b["m"] + g)["m"]),
    "QHM": lambda b, g, lr, mu, s: lr * (0.4 * g + 0.6 * put(b, m=mu * b["m"] + (1 - mu) * g)["m"]),
    "PNM": lambda b, g, lr, mu, s: pnm(b, g, lr, mu),
    "SNGM": lambda b, g, lr, mu, s: lr * put(b, m=mu * b["m"] + g / math.sqrt(sum(v * v for v in g.ravel().tolist())))["m"],
    "RandomScaling": lambda b, g, lr, mu, s: s * lr * put(b, m=mu * b["m"] + (1 - mu) * g)["m"],
    "SGDF": lambda b, g, lr, mu, s: sgdf(b, g, lr, mu),
    "DANA": lambda b, g, lr, mu, s: dana(b, g, lr),
    "MaSS": lambda b, g, lr, mu, s: lr * g - put(b, d=mu * b["d"] - lr * (mu - 0.2) * g)["d"],
    "Signum": lambda b, g, lr, mu, s: lr * np.sign(put(b, m=mu * b["m"] + (1 - mu) * g)["m"]),
    "Lion": lambda b, g, lr, mu, s: lr * lion(b, g, mu),
}
"""The displacement -(x' - x) of each method, from its equations: b are buffers, initially zero, s a draw from Exp(1)."""
NUMBERS = {"QHM": {"nu": 0.6}, "PNM": {"b0": 0.8}, "SGDF": {"b2": 0.99, "eps": 1e-3}}
NUMBERS |= {"DANA": {"delta": 4.0, "ratio": 0.3, "power": 0.5}, "MaSS": {"c": 0.2}, "Lion": {"b2": 0.97}}
"""Coefficients large enough for each to have a visible effect."""


def put(b, **values):
    """Update the buffers and return them."""
    b.update(values)
    return b


def pnm(b, g, lr, mu):
    """Return the step of PNM.

    m_t = mu^2 m_{t-2} + (1 - mu^2) g; the step is (1 + b0) m_t - b0 m_{t-1} over sqrt((1 + b0)^2 + b0^2), b0 = .8.
    """
    last, new = b["m"], mu**2 * b["before"] + (1 - mu**2) * g
    put(b, m=new, before=last)
    return lr * (1.8 * new - 0.8 * last) / math.sqrt(1.8**2 + 0.8**2)


def sgdf(b, g, lr, mu):
    """Return the step of SGDF.

    Averages m of g and s of (g - m)^2, each divided by its accumulated weight: mh and sh; K = sh / (sh + (g - mh)^2 + eps).
    """
    m, weight = mu * b["m"] + (1 - mu) * g, mu * b["m weight"] + (1 - mu)
    s, weight_2 = 0.99 * b["s"] + 0.01 * (g - m) ** 2, 0.99 * b["s weight"] + 0.01
    put(b, **{"m": m, "s": s, "m weight": weight, "s weight": weight_2})
    mh, sh = m / weight, s / weight_2
    return lr * (mh + sh / (sh + (g - mh) ** 2 + 1e-3) * (g - mh))


def dana(b, g, lr):
    """Return the step of DANA, y' = (1 - D) y + g, lr (g + g3 y') with D = 4 / (4 + k) and g3 = .3 / sqrt(1 + k) in step k."""
    k = b["k"]
    put(b, y=k / (4 + k) * b["y"] + g, k=k + 1)
    return lr * (g + 0.3 * (1 + k) ** -0.5 * b["y"])


def lion(b, g, mu):
    """Return the sign of Lion, of another average than its buffer's, b2 = .97."""
    direction = np.sign(mu * b["m"] + (1 - mu) * g)
    put(b, m=0.97 * b["m"] + 0.03 * g)
    return direction


class Shown:
    """An oracle that returns a given value."""

    def __init__(self, value, extra):
        self.value, self.extra = value, (extra,)

    def __call__(self, x):
        return self.value


@st.claim(
    "torch-optimisers-take-the-steps-of-their-rules",
    statement=r"Each optimiser for networks, and each rule, agrees with its equations over 1,000 steps with varying $\eta_k$ and "
    r"$\beta_k$: in two groups of parameters, with coupled and with decoupled weight decay.",
    source="Definition 2.3, Eq. (1) and the rules' own sources",
)
def parity(run):
    """Compare every optimiser and every rule with its equations over many steps."""
    torch, *_ = parts()
    rng = np.random.default_rng(run.seed)
    noise, curvature = rng.normal(size=(STEPS, 8)), np.linspace(0.3, 2, 8)
    k = np.arange(STEPS)
    lr, mu = 0.05 * (1 + 0.5 * np.sin(k / 9)), 0.6 + 0.3 * np.cos(k / 31)
    draws = torch.Generator().manual_seed(5)
    lengths = [float(torch.empty((), dtype=torch.float64).exponential_(generator=draws)) for _ in range(STEPS)]
    groups = (slice(0, 5), 1.0, 0.03), (slice(5, 8), 1.4, 0.1)
    own_lr, decays = (np.concatenate([np.full(g[0].stop - g[0].start, g[i]) for g in groups]) for i in (1, 2))

    def apart(name, decay="none", momentum=mu, ascends=False):
        """Compare the optimiser on two groups, with separate learning rates and decays, with the equations."""
        x, b, worst = np.ones(8), defaultdict(float), 0.0
        params = [torch.nn.Parameter(torch.ones(part.stop - part.start, dtype=torch.float64)) for part, *_ in groups]
        given = [{"params": [p], "weight_decay": wd if decay != "none" else 0.0} for p, (_, _, wd) in zip(params, groups)]
        extra = {"generator": torch.Generator().manual_seed(5)} if name == "RandomScaling" else {}
        settings = NUMBERS.get(name, {}) | extra | {"decoupled": decay == "decoupled", "maximize": ascends}
        optimiser = getattr(st.bridge, name)(given, lr=0.1, **settings)
        for step in range(STEPS if decay == "none" else 100):
            g = curvature * x + noise[step]
            for p, (part, factor, _), group in zip(params, groups, optimiser.param_groups):
                p.grad = torch.as_tensor((-g if ascends else g)[part].copy())
                group["lr"] = factor * float(lr[step])
                if "momentum" in group:
                    group["momentum"] = float(momentum[step])
            optimiser.step()
            if decay == "coupled":
                g = g + decays * x
            kept = 1 - lr[step] * own_lr * decays if decay == "decoupled" else 1.0
            x = kept * x - FORMULAS[name](b, g, lr[step] * own_lr, mu[step], lengths[step])
            worst = max(worst, float(np.abs(np.concatenate([p.detach().numpy() for p in params]) - x).max()))
        return worst

    oracle, plan = st.NoisyOracle(st.losses.quadratic([1.0]), st.noise.none(1)), st.schedules.from_arrays(lr, mu)

    def rule_apart(name):
        """Compare the rule with the equations."""
        rule = getattr(st, name, None) or getattr(st.dynamics, name)
        table = np.column_stack([lr, mu])[:, : len(rule.coefficients)]
        if name == "MaSS":  # a rule whose momentum is one number, and moves here
            table = np.column_stack([lr, mu, np.full(STEPS, 0.2)])
        elif name in NUMBERS:
            own = st.schedules.from_arrays(lr, 0.0) if name == "DANA" else plan
            numbers = {"beta2": 0.97} if name == "Lion" else NUMBERS[name]  # the rule has the name of its authors
            table = rule(oracle, own, **numbers).coefficient_values(STEPS)
        x, b, worst = np.ones(8), defaultdict(float), 0.0
        state = tuple(np.full((8, 1), float(part in ("x", *rule.at_x0))) for part in rule.parts)
        for step in range(STEPS):
            g = curvature * x + noise[step]
            shown = Shown(g[:, None], math.exp(-lengths[step]))
            state = tuple(np.asarray(part) for part in rule.rule(state, shown, *table[step].tolist()))
            x = x - FORMULAS[name](b, g, lr[step], mu[step], lengths[step])
            worst = max(worst, float(np.abs(state[0][:, 0] - x).max()))
        return worst

    for name in FORMULAS:
        run.measure(f"{name}: largest difference of a coordinate", apart(name), at_most=1e-12)
        run.measure(f"{name}, the rule: largest difference of a coordinate", rule_apart(name), at_most=1e-12)
        for decay in ("coupled", "decoupled"):
            run.measure(f"{name} with {decay} weight decay: largest difference", apart(name, decay), at_most=1e-12)
    run.measure("SGDM with maximize on the negative loss", apart("SGDM", "coupled", ascends=True), at_most=1e-12)
    with run.control("a momentum that does not move"):
        run.measure("SGDM", apart("SGDM", momentum=np.full(STEPS, 0.6)), at_most=1e-12)
    run.note(
        "The equations are written in this claim's file, in NumPy. Detected: any changed constant, sign, term or order of steps in an "
        "optimiser or in its rule, a momentum or a learning rate of another step or group, coupled for decoupled decay."
    )


REFUSED = 1e9
"""Distance assigned to an optimiser that refuses a state it should convert."""


def torch_step(b, g, lr, mu, dampening, nesterov):
    """Return the displacement of torch's SGD, from its documentation; its first buffer is the first gradient."""
    b["m"] = g if b["m"] is None else mu * b["m"] + (1 - dampening) * g
    return lr * (g + mu * b["m"]) if nesterov else lr * b["m"]


@st.claim(
    "optimisers-go-on-from-anothers-state",
    statement=r"An optimiser that loads another optimiser's state continues that optimiser's iterates: learning rates, coefficients and "
    r"buffers are converted.",
    source="Definition 2.3 and Eq. (1), at constant momentum; torch's description of its SGD",
)
def state_conversion(run):
    """Compare optimisers that load another optimiser's state with the equations of that optimiser."""
    torch, *_ = parts()
    noise = np.random.default_rng(run.seed).normal(size=(60, 4))
    curvature = np.linspace(0.3, 2, 4)

    def apart(source, targets, step, forgets=False):
        """Compare thirty steps of `source`, then thirty of the targets in turn, each from the previous state, with the equations."""
        p, x, b, worst = torch.nn.Parameter(torch.ones(4, dtype=torch.float64)), np.ones(4), {"m": None}, 0.0
        optimiser = source([p])
        for k in range(60):
            if k >= 30 and k % 5 == 0:
                state = copy.deepcopy(optimiser.state_dict())
                if forgets:
                    state["param_groups"] = [
                        {key: group[key] for key in ("params", "lr", "momentum")} for group in state["param_groups"]
                    ]
                optimiser = targets[k // 5 % len(targets)]([p], lr=9.0)
                try:
                    optimiser.load_state_dict(state)
                except ValueError:  # all of these can be converted
                    return REFUSED
            g = curvature * x + noise[k]
            p.grad = torch.as_tensor(g.copy())
            optimiser.step()
            x = x - step(b, g)
            worst = max(worst, float(np.abs(p.detach().numpy() - x).max()))
        return worst

    ema, heavy, nesterov, qhm = (getattr(st.bridge, name) for name in ("SGDM", "HeavyBall", "Nesterov", "QHM"))
    for name, settings, targets in (
        ("torch SGD", {"dampening": 0.0}, [ema, qhm, heavy]),
        ("torch SGD with dampening", {"dampening": 0.3}, [ema, qhm, heavy]),
        ("torch SGD with Nesterov's momentum", {"nesterov": True}, [nesterov, qhm]),
    ):
        step = partial(torch_step, lr=0.05, mu=0.8, dampening=settings.get("dampening", 0.0), nesterov="nesterov" in settings)
        source = partial(torch.optim.SGD, lr=0.05, momentum=0.8, **settings)
        run.measure(
            f"{name}, then {len(targets)} of ours in turn: largest difference", apart(source, targets, step), at_most=1e-12
        )
        with run.control(f"{name}, its numbers taken as they are"):
            run.measure(
                "largest difference",
                apart(source, targets[:1] if "nesterov" not in settings else [ema], step, True),
                at_most=1e-12,
            )
    for form, gain in (
        ("sgdm", 1.0),
        ("heavy-ball", 5.0),
        ("nesterov", 5.0),
    ):  # 1 / (1 - .8), the sum of all weights of a gradient
        plain = st.bridge.convert(0.05, 0.8, source=form, target="sgd")["lr"]
        run.measure(f"learning rate of the plain SGD that {form} acts like", plain, expected=0.05 * gain, tolerance=1e-15)
    run.note(
        "Detected: a missing dampening or Nesterov term, a learning rate or a buffer that is not converted, or scaled incorrectly."
    )


@st.claim(
    "svag-on-a-network",
    statement=r"A step of SVAG is $\frac{\eta}{l}(r_1 g_1 + r_2 g_2)$, $r_i = (1 \mp \sqrt{2l-1})/2$. It keeps the mean of a network's "
    r"gradient and multiplies its covariance by $l$. Schedules preserve the factor $1/l$.",
    source="Definition 5.1; Li, Malladi and Arora (2021)",
)
def svag(run):
    """Compare SVAG's gradients and steps on a network with formulas."""
    torch, _, digits = parts()
    n = 24
    x, y = torch.as_tensor(digits.data[:n] / 16), torch.as_tensor(digits.target[:n])
    with torch.random.fork_rng():
        torch.manual_seed(run.seed % 2**31)
        model = torch.nn.Sequential(torch.nn.Linear(64, 3), torch.nn.Tanh(), torch.nn.Linear(3, 10)).double()

    def loss_of(k):
        return torch.nn.functional.cross_entropy(model(x[k : k + 1]), y[k : k + 1])

    def own():
        return torch.cat([p.grad.ravel() for p in model.parameters()]).numpy().copy()

    def gradient(of, *which):
        model.zero_grad()
        of(*which)
        return own()

    single = np.array([gradient(lambda k: loss_of(k).backward(), k) for k in range(n)])
    mean, size = single.mean(0), np.linalg.norm(single.mean(0))
    cov = np.cov(single.T, bias=True)
    for l in (1, 2, 8):
        wrapped = st.bridge.SVAG(torch.optim.SGD(model.parameters(), lr=0.1), l)
        pairs = np.array([[gradient(lambda i, j: wrapped.backward(loss_of, i, j), i, j) for j in range(n)] for i in range(n)])
        low, high = (1 - math.sqrt(2 * l - 1)) / 2, (1 + math.sqrt(2 * l - 1)) / 2
        expected = low * single[:, None] + high * single[None]
        run.measure(
            f"l = {l}: largest difference from r_1 g_1 + r_2 g_2", float(np.abs(pairs - expected).max()), at_most=1e-12 * l
        )
        flat = pairs.reshape(n * n, -1)
        run.measure(f"l = {l}: change of the mean, relative", float(np.linalg.norm(flat.mean(0) - mean) / size), at_most=1e-10)
        ratio = float(np.trace(np.cov(flat.T, bias=True)) / np.trace(cov))
        run.measure(f"l = {l}: trace of the covariance over that of one batch", ratio, expected=l, tolerance=1e-10 * l)
        run.measure(f"l = {l}: Cov / l - Cov, relative", away(np.cov(flat.T, bias=True) / l, cov), at_most=1e-10)
    with run.control("the covariance without the factor l"):
        run.measure("Cov at l = 8 against Cov", away(np.cov(flat.T, bias=True), cov), at_most=1e-10)

    etas, betas = np.linspace(0.4, 0.1, 12), np.linspace(0.5, 0.9, 12)
    shown = np.random.default_rng(run.seed).normal(size=(12, 3))

    def stepped(l, order, divided=True):
        """Compare SGDM under SVAG and a scheduler, created in either order, with the equations at eta_k / l."""
        p, at, m, worst = torch.nn.Parameter(torch.ones(3, dtype=torch.float64)), np.ones(3), np.zeros(3), 0.0
        optimiser, plan = st.bridge.SGDM([p], lr=1.0), st.schedules.from_arrays(etas, betas)
        made = {"plan": lambda: st.bridge.PlanScheduler(optimiser, plan), "SVAG": lambda: st.bridge.SVAG(optimiser, l)}
        scheduler = {name: made[name]() for name in order}["plan"]
        for k in range(12):
            p.grad = torch.as_tensor(shown[k].copy())
            optimiser.step()
            scheduler.step()
            m = betas[k] * m + (1 - betas[k]) * shown[k]
            at = at - etas[k] / (l if divided else 1) * m
            worst = max(worst, float(np.abs(p.detach().numpy() - at).max()))
        return worst

    p, x = torch.nn.Parameter(torch.ones(3, dtype=torch.float64)), np.ones(3)
    optimiser = torch.optim.SGD([p], lr=0.4)
    st.bridge.SVAG(optimiser, 4)
    for g in shown:
        p.grad = torch.as_tensor(g.copy())
        optimiser.step()
        x = x - 0.4 / 4 * g
    run.measure("steps of torch's SGD at .4 / 4: difference", float(np.abs(p.detach().numpy() - x).max()), at_most=1e-13)
    run.measure("learning rate that is read after them", optimiser.param_groups[0]["lr"], expected=0.4, tolerance=1e-15)
    for order in (("plan", "SVAG"), ("SVAG", "plan")):
        run.measure(f"steps at eta_k / 4, {' then '.join(order)}: largest difference", stepped(4, order), at_most=1e-13)
    with run.control("steps at eta_k"):
        run.measure("largest difference", stepped(4, ("SVAG", "plan"), divided=False), at_most=1e-13)
    run.note(
        "The weights, the covariance and the steps are compared with formulas of this file and with gradients of single batches. Detected: "
        "another weight r_1 or r_2, exchanged batches or weights, another root, a learning rate that is not divided by l, or divided twice."
    )


def plain_network(a, y):
    """Return a reference implementation of the tanh network: x -> residuals f - y `(n,)` and gradients of f `(n, 16)`."""

    def of(x):
        W, b, w, c = x[:9].reshape(3, 3), x[9:12], x[12:15], x[15]
        h = np.tanh(a @ W.T + b)
        back = w * (1 - h**2)
        rows = [(back[:, :, None] * a[:, None, :]).reshape(len(a), 9), back, h, np.ones((len(a), 1))]
        return h @ w + c - y, np.concatenate(rows, axis=1)

    return of


def measure_batches(run, loss):
    """Compare the batch noise of the network with sums over its patients: covariances, and paths with independently computed batches."""
    _, raw, _ = parts()
    a, y = raw.data[:64, :3] * 20, (raw.target[:64] - 150) / 80
    of, x0, steps, n = plain_network(a, y), np.asarray(loss.start, float), 8, 64
    plan, sigma = st.schedules.constant(0.05, beta=0.7), 1.2
    r, slopes = of(x0)

    def rows(u, replace):
        if replace:
            return np.minimum((u * n).astype(int), n - 1)
        out = []
        for b, v in enumerate(u):  # Floyd's algorithm
            last = n - len(u) + b
            t = min(int(v * (last + 1)), last)
            out.append(last if t in out else t)
        return np.array(out)

    def batch(z, x, size, replace, factor, std, data):
        """Return (1/size) sum_b (factor r_i - std s_b) grad f_i minus the full gradient, or the label noise alone."""
        r, slopes = of(x)
        chosen = rows(z[:size], replace)
        own = (factor * r[chosen] if data else 0.0) - (std * z[size:] if std else 0.0)
        return slopes[chosen].T @ own / size - (factor * slopes.T @ r / n if data else 0.0)

    torch, *_ = parts()

    def model(x, a):
        return torch.tanh(x[:9].reshape(3, 3) @ a + x[9:12]) @ x[12:15] + x[15]

    squares = st.losses.from_torch_model(model, torch.as_tensor(a), torch.as_tensor(y), dim=16)  # half the mean square
    cases = [
        ("batches of 4 with replacement", loss, st.noise.minibatch(loss, 4), 4, True, 2.0, 0.0, True),
        ("batches of 40 without replacement", loss, st.noise.minibatch(loss, 40, replace=False), 40, False, 2.0, 0.0, True),
        ("labels of 3", squares, st.noise.label_noise(squares, 0.6, size=3), 3, True, 1.0, 0.6, False),
        (
            "batches of 3 with their labels",
            squares,
            st.noise.label_noise(squares, 0.6, size=3, batch=True),
            3,
            True,
            1.0,
            0.6,
            True,
        ),
    ]
    for name, of_loss, noise, size, replace, factor, std, data in cases:
        each = factor * r[:, None] * slopes
        exact = std**2 / size * slopes.T @ slopes / n
        if data:
            exact = exact + np.cov(each.T, bias=True) / size * (1.0 if replace else (n - size) / (n - 1))
        run.measure(f"{name}: covariance", relative_distance(noise.covariance(x0), exact), at_most=ROUNDING)
        z = st.noise.sample_draws(noise.draws, np.random.default_rng(run.seed), 3)
        z[0, 0] = 1.0  # a uniform rounded up to 1: selects the last sample
        found = noise.value(np.repeat(x0[:, None], 3, axis=1), z)
        plain = np.array([batch(one, x0, size, replace, factor, std, data) for one in z.T]).T
        run.measure(f"{name}: values beside sums over patients", relative_distance(found, plain), at_most=ROUNDING)
        method = st.SGDM(st.NoisyOracle(of_loss, noise, sigma=sigma), plan)
        z, along = draws(method, steps, run.seed), path(method, x0, steps, [f"x{i}" for i in range(16)], run.seed)

        def noisy(k, x, z=z, numbers=(size, replace, factor, std, data)):
            r, slopes = of(x)
            return numbers[2] * slopes.T @ r / n + sigma * batch(z[k], x, *numbers)

        plain = follow(sgdm, (x0, 0 * x0), [(0.05, 0.7)] * steps, noisy)
        run.measure(f"{name}: a path beside its equations", relative_distance(along, plain), at_most=ROUNDING)


def away(one, other):
    """Return the relative difference of two matrices."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@st.claim(
    "network-trajectories",
    statement=r"On a network with minibatch noise the weak gap between SGDM and SGD at the averaged rate decreases at least like "
    r"$\sqrt{\eta/(1-\beta)}$, for parameters and not only for losses.",
    source="Theorem 3.5",
)
def trajectories(run):
    """Check the order of the weak gap between SGDM and SGD on a network."""
    loss, oracle = network()
    measure_batches(run, loss)
    if already_contradicted(run):
        return
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
    """Check the gap between SGDM and SGD on a network for several beta."""
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
