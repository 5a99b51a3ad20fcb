"""Least squares with samples e_1 or sqrt(2/kappa) e_2, one a step: heavy-ball momentum gains at most a factor of two.

w* = 0. The two coordinates are independent: the gradient of coordinate i has curvature c_i or 0, each with probability 1/2, so
its second moments evolve by (A_c x A_c + A_0 x A_0) / 2 (x: Kronecker product), where A_c is one step of the rule on the gradient c w.
The convergence rate of E|w|^2 is one minus the largest spectral radius. The best rate is the largest over a grid of settings, refined by
a local search. All of it is exact.

Result: 1 - rho is about 4/kappa for SGD and 8/kappa for SGDM at their best settings, a factor that tends to 2 and not to sqrt(kappa), as
the source proves for heavy ball. AccSGD reaches kappa^-1/2, as its authors state. So does Nesterov's method, at a learning rate near 1 and
1 - beta of order kappa^-1/2: its gain over SGD grows without bound. The instance separates heavy ball from both, not momentum from AccSGD.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from _common import limit
from _plain import ROUNDING, acc_sgd, draws, follow, nesterov, path, relative_distance, sgd, sgdm

import sdetools as st

KAPPAS = [4.0**k for k in range(3, 8)]
CHECKED = 256.0
STEPS = 12


PLAIN = {st.SGD: (sgd, 1), st.SGDM: (sgdm, 2), st.Nesterov: (nesterov, 2), st.AccSGD: (acc_sgd, 2)}
"""Reference rules and the number of parts of their states. The rates are computed from these, and the library's rules are compared with them."""


def step_matrices(rule, parts, c, numbers):
    """Return A_c `(settings, parts, parts)`: one step of the rule on the gradient c w."""
    size = np.broadcast(*numbers).shape
    columns = []
    for j in range(parts):
        state = tuple(np.full(size, float(i == j)) for i in range(parts))
        columns.append(np.stack(rule(state, lambda w: c * w, *numbers), axis=-1))
    return np.stack(columns, axis=-1)


def rate(cls, numbers, kappa):
    """Return 1 - rho for settings given as arrays; 0 where E|w|^2 does not decrease."""
    (rule, parts), radius = PLAIN[cls], 0.0
    for c in (1.0, 2 / kappa):
        unsampled, sampled = (step_matrices(rule, parts, k, numbers) for k in (0.0, c))
        second = sum(np.einsum("sij,skl->sikjl", a, a) for a in (unsampled, sampled)) / 2
        spectrum = np.linalg.eigvals(second.reshape(-1, parts**2, parts**2))
        radius = np.maximum(radius, np.abs(spectrum).max(axis=-1))
    return np.maximum(0.0, 1 - radius)


def settings(cls, kappa, q):
    """Return a rule's coefficients from unconstrained numbers `q`, each an array."""
    if cls is st.SGD:
        return (np.exp(q[0]),)
    if cls is st.AccSGD:  # short step, its ratio to the long step as chosen by the authors, statistical advantage
        xi = np.exp(q[1])
        return np.exp(q[0]), np.full_like(xi, kappa), 1 - 0.49 * xi / kappa
    return np.exp(q[0]), 1 / (1 + np.exp(q[1]))


GRIDS = {
    st.SGD: lambda kappa: [np.linspace(-3, 1.2, 1000)],
    st.SGDM: lambda kappa: [np.linspace(-5, 2.5, 50), np.linspace(-2, 9, 50)],
    st.Nesterov: lambda kappa: [np.linspace(-9, 1.2, 50), np.linspace(-2, 9, 50)],
    st.AccSGD: lambda kappa: [np.linspace(-4, 1.2, 60), np.linspace(0, math.log(kappa), 60)],
}


def best(cls, kappa):
    """Return the best rate over the grid of settings, refined by the Nelder-Mead method, and its settings."""
    from scipy.optimize import minimize

    q = np.array(list(itertools.product(*GRIDS[cls](kappa)))).T
    start = q[:, int(np.argmax(rate(cls, settings(cls, kappa, q), kappa)))]

    def loss(q):
        return -float(rate(cls, settings(cls, kappa, np.array(q)[:, None]), kappa)[0])

    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9})
    return -found.fun, [float(v[0]) for v in settings(cls, kappa, found.x[:, None])]


def instance(kappa):
    """Return the oracle of the least-squares problem with batches of one."""
    features = np.array([[1.0, 0.0], [0.0, math.sqrt(2 / kappa)]])
    loss = st.losses.least_squares(features, np.zeros(2))
    return st.NoisyOracle(loss, st.noise.minibatch(loss, size=1), sigma=1.0)


def dynamics(cls, kappa, numbers):
    """Return the library's dynamics of a rule with the given coefficients."""
    if cls is st.AccSGD:
        short, long, A = numbers
        return st.AccSGD(instance(kappa), st.schedules.constant(short), kappa=long, xi=(1 - A) * long / 0.49)
    return cls(instance(kappa), st.schedules.constant(*numbers))


def exact_loss(cls, kappa, numbers):
    """Return E L after STEPS steps from (1, 1), from the second moments of both coordinates with samples of probability 1/2."""
    rule, parts = PLAIN[cls]
    total = 0.0
    for c in (1.0, 2 / kappa):
        unsampled, sampled = (step_matrices(rule, parts, k, tuple(np.array([v]) for v in numbers))[0] for k in (0.0, c))
        start = np.ones(parts) if cls in (st.SGD, st.AccSGD) else np.array([1.0, 0.0])
        second = np.outer(start, start)
        for _ in range(STEPS):
            second = (unsampled @ second @ unsampled.T + sampled @ second @ sampled.T) / 2
        total += c / 4 * second[0, 0]  # L = (w_1^2 + 2/kappa w_2^2) / 4
    return total


def measure_rule(run, cls, kappa, numbers):
    """Compare one path of the kernel and its batches with the paper's equations, and the noise covariance with its formula."""
    one, (rule, parts), steps = dynamics(cls, kappa, numbers), PLAIN[cls], 16
    z = draws(one, steps, run.seed)[:, 0]
    curvatures = np.array([1.0, 2 / kappa])

    def gradient(k, w):
        return np.where(np.arange(2) == int(2 * z[k]), curvatures * w, 0.0)

    start = (np.ones(2), *(np.ones(2) if cls is st.AccSGD else np.zeros(2) for _ in range(parts - 1)))
    expected = follow(rule, start, [tuple(numbers)] * steps, gradient)
    observe = ["x0", "x1"] if one.names == ("x0", "x1") else list(one.names)
    found = path(one, [1.0, 1.0], steps, observe, run.seed)
    run.measure(f"{cls.__name__}: w_k along one path beside its equations", relative_distance(found, expected), at_most=ROUNDING)
    point = np.array([0.7, -1.2])
    samples = [np.array([point[0], 0.0]), np.array([0.0, curvatures[1] * point[1]])]
    mean = sum(samples) / 2
    covariance = sum(np.outer(g - mean, g - mean) for g in samples) / 2
    away = relative_distance(one.oracle.covariance(point), covariance)
    run.measure(f"{cls.__name__}: covariance of the noise of one sample", away, at_most=ROUNDING)


@st.claim(
    "hard-instance",
    statement=r"On least squares with samples $e_1$ or $\sqrt{2/\kappa}\,e_2$, one a step, SGDM at its best rate and $\beta$ contracts "
    r"$E|w|^2$ at most twice as fast as SGD at its best rate, $1-\rho = O(1/\kappa)$ as $\kappa \to \infty$, while AccSGD and Nesterov's method reach "
    r"$1-\rho \sim \kappa^{-1/2}$.",
    source="R. Kidambi, P. Netrapalli, P. Jain, S. Kakade (2018), the hard instance for heavy ball",
)
def hard_instance(run):
    """Check the best convergence rates of SGD, SGDM, Nesterov's method and AccSGD as functions of kappa."""
    run.note(
        "A wrong rule or batch is detected along one path, step by step, a wrong moment by the exact loss. The rates are those of the "
        "published rules, so that the library's rules are compared with the subject of the claim."
    )
    rates = {cls: [best(cls, kappa) for kappa in KAPPAS] for cls in GRIDS}
    inverse = [1 / kappa for kappa in KAPPAS]
    for cls, order in ((st.SGD, 1.0), (st.SGDM, 1.0), (st.Nesterov, 0.5), (st.AccSGD, 0.5)):
        local = st.exact.local_orders(inverse, [r for r, _ in rates[cls]])
        value, tolerance = limit(local)
        run.measure(
            f"{cls.__name__}: limit of the local order of the best rate in 1/kappa", value, order, tolerance=tolerance + 0.02
        )
    gain = max(a / b for (a, _), (b, _) in zip(rates[st.SGDM], rates[st.SGD], strict=True))
    run.measure("SGDM: the most that it gains over SGD", gain, at_most=2.0)
    at = KAPPAS.index(CHECKED)
    for i, cls in enumerate(GRIDS):
        one = dynamics(cls, CHECKED, rates[cls][at][1])
        horizon = STEPS * one.step_time
        loss = one.oracle.loss
        moved = st.exact.moments(one, [1.0, 1.0], STEPS, record=[STEPS])
        expected = exact_loss(cls, CHECKED, rates[cls][at][1])
        measure_rule(run, cls, CHECKED, rates[cls][at][1])
        found = float(st.exact.expectation(moved, loss)[0])
        run.measure(f"{cls.__name__}: E L after {STEPS} steps by the library", found, expected, relative=ROUNDING)

        def simulated(paths, one=one, loss=loss, horizon=horizon, i=i):
            options = run.options(paths=paths, observe={"L": loss}, times=[horizon], stream=i)
            return st.simulate(one, [1.0, 1.0], horizon, **options).at("L")

        # 5 %, where the four rules differ by 50 % or more; the moments are exact, and batches are compared one by one
        paths = run.scale(quick=20 * run.paths, standard=2 * run.paths, full=run.paths)
        run.decide(f"{cls.__name__}: E L after {STEPS} steps, simulated", simulated, expected, relative=0.05, paths=paths)
    run.table(
        "best rates",
        [(kappa, *(rates[cls][k][0] for cls in GRIDS)) for k, kappa in enumerate(KAPPAS)],
        ["kappa", *(cls.__name__ for cls in GRIDS)],
    )
    run.table(
        "best settings",
        [(kappa, *(", ".join(f"{v:.4g}" for v in rates[cls][k][1]) for cls in GRIDS)) for k, kappa in enumerate(KAPPAS)],
        ["kappa", "SGD: eta", "SGDM: eta, beta", "Nesterov: eta, beta", "AccSGD: eta, kappa, A"],
    )
    run.figure("best rates", lambda: plot_rates(rates), r"$1 - \rho$ of $E|w|^2$ at the best settings, against $1/\kappa$.")
    with run.control("momentum as on a problem without noise, 1 - rho of order kappa^-1/2"):
        local = st.exact.local_orders(inverse, [r for r, _ in rates[st.SGDM]])
        run.measure("SGDM: last local order", local[-1], expected=0.5, tolerance=0.1)


def plot_rates(rates):
    """Plot the best rates against 1 / kappa."""
    from sdetools.plots import loglog_orders

    values = {cls.__name__: [r for r, _ in found] for cls, found in rates.items()}
    return loglog_orders(
        np.array([1 / k for k in KAPPAS]), values, None, None, None, (0.5, 1.0), xlabel=r"$1/\kappa$", ylabel="rate"
    )
