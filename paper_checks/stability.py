r"""Where methods are stable without noise, the two-cycle of Adam, and heavy-tailed noise: exact, from the rules themselves.

A rule that is linear on a quadratic is a matrix, which is read off by its action on unit vectors; its spectral radius is 1 at the edge.
"""

from __future__ import annotations

import math

import numpy as np
from _plain import relative_distance, value_or_far, value_or_nan
from scipy.optimize import brentq

import sdetools as st

BETA, DECAY = 0.9, 0.5
constant = st.schedules.constant


def oracle(lam, noise=None, sigma=1.0):
    """Return an oracle of lam x^2 / 2, without noise by default."""
    return st.NoisyOracle(st.losses.quadratic(lam), noise or st.noise.none(dim=1), sigma=sigma)


def radius(method, lam):
    """Return the spectral radius of a linear step on lam x^2 / 2, of the parts that move: a second moment that is constant is left out."""
    row, fixed = method.coefficient_values(1)[0], [np.ones(1)] * (len(method.parts) == 3)
    moving = len(method.parts) - len(fixed)
    columns = [
        np.concatenate(
            method.rule((*(np.array([float(i == j)]) for i in range(moving)), *fixed), lambda x: lam * x, *row)[:moving]
        )
        for j in range(moving)
    ]
    return float(np.abs(np.linalg.eigvals(np.column_stack(columns))).max())


TABLE = {
    "gradient descent": (lambda h: st.SGD(oracle(1.0), constant(h)), lambda h: 2 / h),
    "heavy ball": (lambda h: st.HeavyBall(oracle(1.0), h, BETA), lambda h: 2 * (1 + BETA) / h),
    "SGDM": (lambda h: st.SGDM(oracle(1.0), constant(h, BETA)), lambda h: 2 * (1 + BETA) / ((1 - BETA) * h)),
    "Nesterov, torch's form": (
        lambda h: st.Nesterov(oracle(1.0), constant(h, BETA)),
        lambda h: 2 * (1 + BETA) / ((1 + 2 * BETA) * h),
    ),
    "AdamW, frozen at v = 1": (
        lambda h: st.AdamW(
            oracle(1.0), constant(h, BETA), beta2=1.0, eps=0.0, weight_decay=DECAY, bias_correction=False, second_moment=1.0
        ),
        lambda h: (2 - h * DECAY) * (1 + BETA) / ((1 - BETA) * h),
    ),
}
"""Methods at a learning rate h, and the largest stable eigenvalue."""


@st.claim(
    "stability-without-noise",
    statement=r"On a quadratic without noise the largest stable eigenvalue is $2/\eta$ for gradient descent, $2(1+\beta)/\eta$ for heavy ball, "
    r"$2(1+\beta)/((1-\beta)\eta)$ for SGDM, $2(1+\beta)/((1+2\beta)\eta)$ for torch's Nesterov and $(2 - \eta w)(1+\beta)/((1-\beta)\eta)$ for "
    r"frozen AdamW with weight decay $w$.",
    source="classical; derived for frozen AdamW",
)
def table(run):
    """Compare the eigenvalue at which the spectral radius of a step is 1 with the formula."""
    run.note("Detects a wrong form of momentum, a decay that is not decoupled, and a wrong order of updates.")
    for name, (make, edge) in TABLE.items():
        for h in (0.01, 0.3):
            method, expected = make(h), edge(h)
            found = value_or_far(
                brentq,
                lambda lam, method=method: radius(method, lam) - 1,
                0.5 * expected,
                2 * expected,
                xtol=1e-14,
                rtol=1e-14,
            )
            run.measure(f"{name}, eta={h}: edge over the formula", found / expected, 1.0, tolerance=1e-6)
            with run.control(f"{name}, eta={h}, 1 % above the edge"):
                run.measure("spectral radius", radius(method, 1.01 * expected), at_most=1.0)


def cycle_kept(beta1, beta2):
    """Return the distance of Adam on x^2/2 from its two-cycle after 500 / (1 - beta2) steps, over that at the start, 10^-6 of the cycle."""
    eta = 0.1
    method = st.Adam(oracle(1.0), constant(eta, beta1), beta2=beta2, eps=0.0, bias_correction=False)
    size = eta * (1 - beta1) / (2 * (1 + beta1))
    row = method.coefficient_values(1)[0]
    # x = +-size with m' = (1 - beta1) / (1 + beta1) x and v = x^2: before a step at x the buffer is the negative of that
    x, m, v = np.array([size * (1 + 1e-6)]), np.array([-size * (1 - beta1) / (1 + beta1)]), np.array([size**2])
    for _ in range(round(500 / (1 - beta2))):
        x, m, v = method.rule((x, m, v), lambda y: y, *row)
    return float(abs(abs(x[0]) / size - 1) / 1e-6)


@st.claim(
    "adams-two-cycle",
    statement=r"On $\lambda x^2/2$ without noise Adam has the cycle $\pm\eta(1-\beta_1)/(2(1+\beta_1))$, which is stable if and only if "
    r"$1 + \beta_1^2\beta_2 - 3\beta_1(1 + \beta_2) > 0$.",
    source="derived",
)
def two_cycle(run):
    """Run Adam from beside its cycle, for beta1 on either side of the criterion."""
    run.note("Detects a wrong criterion by .02 in beta1, and a cycle of another size.")
    for beta2 in (0.9, 0.99):
        edge = brentq(lambda b, beta2=beta2: 1 + b * b * beta2 - 3 * b * (1 + beta2), 0, 1)
        run.measure(
            f"beta2={beta2}, .02 below the edge: distance from the cycle",
            cycle_kept(edge - 0.02, beta2),
            at_most=1.0,
        )
        run.measure(f"beta2={beta2}, .02 above the edge: distance from the cycle", cycle_kept(edge + 0.02, beta2), at_least=100.0)
    with run.control("the edge at beta1 = 1/2"):
        run.measure("distance from the cycle at beta1 = .48", cycle_kept(0.48, 0.9), at_most=1.0)


def plain_stable(u, w, alpha):
    """Return draws of the law of characteristic function exp(-|t|^alpha) from two uniform draws (J. Chambers, C. Mallows, B. Stuck, 1976)."""
    V, E = math.pi * (u - 0.5), -np.log(w)
    return np.sin(alpha * V) * np.cos(V) ** (-1 / alpha) * (np.cos((1 - alpha) * V) / E) ** ((1 - alpha) / alpha)


@st.claim(
    "heavy-tails-and-momentum",
    statement=r"Under symmetric $\alpha$-stable noise the stationary law of a linear method is $\alpha$-stable with scale$^\alpha$ = "
    r"$\sum_k |\psi_k|^\alpha$, $\psi$ its response to one draw. At equal $h$ momentum narrows the law for Gaussian noise and widens it for $\alpha = 1.5, 1.2$.",
    source="derived",
)
def heavy_tails(run):
    """Compare E cos(t x) of SGD and SGDM with the closed form."""
    h, beta, lam, steps, simulated = 0.3, 0.9, 1.0, 300, 40
    run.note(
        "The law after 40 steps is that of the sum over 40 responses, exactly. Detects a scale of the noise that is 2 % off, and a wrong alpha."
    )
    impulse = np.zeros((2, steps))
    for which, method in enumerate((st.SGD(oracle(lam), constant(h)), st.SGDM(oracle(lam), constant(h, beta)))):
        state = (np.zeros(1), np.zeros(1))[: len(method.parts)]
        row = method.coefficient_values(1)[0]
        for k in range(steps):
            state = method.rule(state, lambda x, first=float(k == 0): lam * x + first, *row)
            impulse[which, k] = state[0][0]
    ratios = {}
    for alpha in (2.0, 1.5, 1.2):
        rest, scales = ((np.abs(impulse[:, :n]) ** alpha).sum(axis=1) ** (1 / alpha) for n in (steps, simulated))
        ratios[alpha] = rest[1] / rest[0]
        noise = st.noise.alpha_stable(alpha, dim=1)
        z = np.random.default_rng(run.seed).random((2, 100))
        away = relative_distance(value_or_nan(noise.value, np.zeros((1, 100)), z), plain_stable(*z, alpha)[None])
        run.measure(f"alpha={alpha}: draws beside the formula of Chambers, Mallows and Stuck", away, at_most=1e-11)
        for scale, make in zip(scales, (lambda o: st.SGD(o, constant(h)), lambda o: st.SGDM(o, constant(h, beta))), strict=True):
            method = make(oracle(lam, noise))
            t = float(1 / scale)  # where E cos(t x) = 1/e
            found = st.simulate(
                method, [0.0], simulated * method.step_time, observe=[f"cos({t!r}*x0)"], times=[simulated * method.step_time],
                **run.options(paths=run.scale(quick=500_000, standard=2_000_000, full=8_000_000)),
            ).at(f"cos({t!r}*x0)")  # fmt: skip
            run.measure(f"{method.name}, alpha={alpha}: E cos(t x) at t = 1/scale", found, math.exp(-1), tolerance=0.006)
            with run.control(f"{method.name}, alpha={alpha}: a scale that is 5 % larger"):
                run.measure("E cos(t x)", found, math.exp(-(1.05**alpha)), tolerance=0.006)
    # responses of one mode, summed by hand: .926, 1.233, 1.651
    run.measure("scale of SGDM over that of SGD, alpha=2", ratios[2.0], at_most=0.95)
    for alpha in (1.5, 1.2):
        run.measure(f"scale of SGDM over that of SGD, alpha={alpha}", ratios[alpha], at_least=1.2)


class DecayedSGD(st.Dynamics):
    """SGD with weight decay: x' = (1 - eta decay) x - eta g(x)."""

    parts, coefficients, decay = ("x",), ("eta", "decay"), 0.1

    @staticmethod
    def rule(state, oracle, eta, decay):
        (x,) = state
        return ((1 - eta * decay) * x - eta * oracle(x),)


@st.claim(
    "weight-decay-without-a-loss-of-scale",
    statement=r"SGD with weight decay $\lambda$ on a scale-invariant loss, $|g||x| = G$, settles at $|x|^4 = \eta G^2/(2\lambda - \eta\lambda^2)$ and turns by "
    r"$\arctan(\sqrt{2\eta\lambda - (\eta\lambda)^2}/(1 - \eta\lambda))$ a step. AdamW with a frozen denominator on pure noise has the variance "
    r"$\eta/(w(2 - \eta w))$.",
    source="derived",
)
def weight_decay(run):
    """Run SGD on a loss of the angle alone, and read the response of AdamW to its state and to its noise."""
    run.note("Detects a decay that is not decoupled, and one that is applied after the step.")
    eta, G = 0.3, 2.0
    method, x = DecayedSGD(oracle(1.0), constant(eta)), np.array([1.0, 0.0])
    row = method.coefficient_values(1)[0]
    for _ in range(20_000):
        before = x
        (x,) = method.rule((x,), lambda y: G * np.array([-y[1], y[0]]) / (y @ y), *row)
    lam = method.decay
    run.measure("|x|^4 over the formula", (x @ x) ** 2 / (eta * G**2 / (2 * lam - eta * lam**2)), 1.0, tolerance=1e-6)
    turn = math.acos(before @ x / math.sqrt((before @ before) * (x @ x)))
    expected = math.atan(math.sqrt(2 * eta * lam - (eta * lam) ** 2) / (1 - eta * lam))
    run.measure("turn of a step over the formula", turn / expected, 1.0, tolerance=1e-6)
    with run.control("the turn for small eta lam, its root"):
        run.measure("turn of a step", turn / math.sqrt(2 * eta * lam), 1.0, tolerance=1e-6)
    own = {"beta2": 1.0, "eps": 0.0, "weight_decay": DECAY, "bias_correction": False, "second_moment": 1.0}
    for h in (0.01, 0.5):
        adamw = st.AdamW(oracle(1.0), constant(h), **own)
        row = adamw.coefficient_values(1)[0]
        kept, added = (
            float(adamw.rule((np.array([x]), np.zeros(1), np.ones(1)), lambda y, z=z: np.array([z]), *row)[0][0])
            for x, z in ((1.0, 0.0), (0.0, 1.0))
        )
        run.measure(f"AdamW, eta={h}: factor of x in a step", kept, 1 - h * DECAY, tolerance=1e-12)
        found, formula = added**2 / (1 - kept**2), h / (DECAY * (2 - h * DECAY))
        run.measure(f"AdamW, eta={h}: variance over the formula", found / formula, 1.0, tolerance=1e-6)
        with run.control(f"AdamW, eta={h}: the variance for small eta w"):
            run.measure("variance", found / (h / (2 * DECAY)), 1.0, tolerance=1e-6)
