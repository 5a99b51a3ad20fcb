"""The auxiliary process of Theorem 3.5: y_k = x_k - c_k m_k follows plain SGD, and stays within sqrt(eta / (1 - beta)) of SGDM.

With c_k = sum_{s >= k} eta_s prod_{t=k..s} beta_t and the averaged rates etabar_k of the theorem,

    y_{k+1} = y_k - etabar_k g_k      for every schedule, every loss, every noise, g_k being the gradient taken at x_k.

The distance is known as well: E |x_k - y_k|^2 = c_k^2 E |m_k|^2. At sigma = eta^-1/2 nearly all of it is the noise in the momentum
buffer, (beta^2 / (1 + beta)) eta / (1 - beta). This strong gap determines the rate of the theorem.
"""

import math

import numpy as np
from _plain import ROUNDING, averaged, draws, follow, memory, moments, path, relative_distance, sgdm, start_draws

import sdetools as st

HORIZON, START = 1.0, [1.5]
RESOLUTION = 0.05
"""Relative tolerance of a simulated distance. Any factor of its formula that is forgotten, c^2, beta^2 or 1 + beta, changes it by 25 % or more."""
WELLS = st.losses.from_expression("x**2/2 + cos(2*x)/2")
LIPSCHITZ = 3.0  # |L''| = |1 - 2 cos 2x|


def slope(x):
    """Return the derivative of WELLS."""
    return x - np.sin(2 * x)


class Memoryless(st.Auxiliary):
    """The same SGDM run (x, m), with y computed by its own recursion, y_{k+1} = y_k - rate_k g_k, and not from x and m."""

    coefficients = ("eta", "beta", "rate")

    @staticmethod
    def rule(state, oracle, eta, beta, rate):
        y, x, m = state
        g = oracle(x)
        m = beta * m + (1 - beta) * g
        return y - rate * g, x - eta * m, m

    def coefficient_values(self, steps):
        return np.column_stack([self.plan.etas(steps), self.plan.betas(steps), self.rates(steps)])

    def rates(self, steps):
        return self.plan.averaged().etas(steps)


class Unaveraged(Memoryless):
    """The recursion with eta_k in place of etabar_k."""

    def rates(self, steps):
        return self.plan.etas(steps)


@st.claim(
    "auxiliary-process-recursion",
    statement=r"$y_k = x_k - c_k m_k$ obeys $y_{k+1} = y_k - \bar\eta_k g_k$, path by path and for every schedule.",
    source="Proof of Theorem 3.5",
)
def recursion(run):
    """Check the recursion of y on a random schedule."""
    random, eta = np.random.default_rng(run.seed), 1 / 64
    steps = round(HORIZON / eta)
    plan = st.schedules.from_arrays(eta=eta * random.uniform(0, 2, steps), beta=random.uniform(0, 0.98, steps), base=eta)
    oracle = st.NoisyOracle(WELLS, st.noise.gaussian(dim=1), sigma=eta**-0.5)
    drawn = ([1.0], [[1.0]])  # the initial momentum is random too
    bridge = st.Auxiliary(oracle, plan, momentum=drawn)
    options = run.options(paths=min(run.paths, 100_000), keep_final=True, control=False, times=[HORIZON])

    run.note(
        "The memory c_k, the averaged rates and y itself are compared with plain sums and recursions at every step of a varying schedule: "
        "a process that is one step early or late is detected, even if its endpoint is right."
    )
    measure_steps(run, bridge, plan, steps, eta**-0.5)

    def distance(other):
        gap = st.weak_gap(bridge, other, START, HORIZON, observe=["x"], **options)
        return float(np.abs(gap.final[0] - gap.final[1]).max()), float(np.abs(gap.final).max())

    found, size = distance(Memoryless(oracle, plan, momentum=drawn))
    # at most 8 roundings a step, kept by the momentum for 1 / (1 - beta) steps, amplified by at most exp(Lip sum eta_k) (Gronwall)
    growth = math.exp(LIPSCHITZ * plan.etas(steps).sum())
    allowed = 8 * steps * np.finfo(float).eps * size / (1 - plan.betas(steps).max()) * growth
    run.measure("largest distance of the two y", found, at_most=allowed)
    with run.control("eta_k in place of its average"):
        run.measure("largest distance of the two y", distance(Unaveraged(oracle, plan, momentum=drawn))[0], at_most=allowed)
    run.figure(
        "rates",
        lambda: plot_rates(plan, steps),
        r"The random schedule $\eta_k$ and its average $\bar\eta_k$, the rate of $y$. It is no smoother, as $\beta_k$ is random.",
    )


def measure_steps(run, bridge, plan, steps, sigma):
    """Compare y along one path of the kernel with reference implementations of x - c m and of its own recursion, at every step."""
    etas, betas = plan.etas(steps), plan.betas(steps)  # as drawn above
    c, rates = memory(etas, betas), averaged(etas, betas)
    c = np.append(c, c[-1])  # constant beyond the last pair
    run.measure("c_k beside its sum, every k", relative_distance(plan.memory(steps), c), at_most=ROUNDING)
    run.measure(
        "the averaged rate beside its sum, every k", relative_distance(plan.averaged().etas(steps), rates), at_most=ROUNDING
    )
    z, m0 = draws(bridge, steps, run.seed)[:, 0], 1.0 + start_draws(bridge, run.seed)[0]
    x, m = START[0], m0
    read_off, moved = [x - c[0] * m], [x - c[0] * m]
    for k in range(steps):
        g = slope(x) + sigma * z[k]
        moved.append(moved[-1] - rates[k] * g)
        m = betas[k] * m + (1 - betas[k]) * g
        x = x - etas[k] * m
        read_off.append(x - c[k + 1] * m)
    found = path(bridge, START, steps, ["x"], run.seed)[:, 0]
    run.measure("y_k along one path beside x_k - c_k m_k", relative_distance(found, read_off), at_most=ROUNDING)
    run.measure("y_k along one path beside y_k - etabar_k g_k", relative_distance(found, moved), at_most=ROUNDING)


def plot_rates(plan, steps):
    """Plot the schedule and its average."""
    from sdetools.plots import COLOURS, INK, canvas

    figure, axes = canvas(6.4, 3.2)
    axes.step(range(steps), plan.etas(steps), where="mid", color=COLOURS[4], label=r"$\eta_k$")
    axes.step(range(steps), plan.averaged().etas(steps), where="mid", color=COLOURS[1], label=r"$\bar\eta_k$")
    axes.set_xlabel("$k$", color=INK)
    axes.set_ylabel("learning rate", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


class Distance(st.SGDM):
    """An SGDM run (x, m) whose position is x_k - y_k = c_k m_k."""

    parts, coefficients = ("distance", "x", "m"), ("eta", "beta", "c")

    @staticmethod
    def rule(state, oracle, eta, beta, c):
        _, x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return c * m, x - eta * m, m

    def start(self, x0, z=None):
        x, m, _ = super().start(x0, z)
        return 0 * m, x, m

    def coefficient_values(self, steps):
        return np.column_stack([self.plan.etas(steps), self.plan.betas(steps), self.plan.memory(steps)[1:]])


def distance(eta: float, beta: float) -> Distance:
    """Return the distance process on x^2 / 2 at sigma = eta^-1/2."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.0, names=["x"]), st.noise.gaussian(dim=1), sigma=eta**-0.5)
    return Distance(oracle, st.schedules.constant(eta=eta, beta=beta))


def mean_square(eta: float, beta: float) -> float:
    """Return E |x_k - y_k|^2 = c^2 E |m_k|^2 at the horizon, c = eta beta / (1 - beta), by the plain recursion of SGDM's moments."""
    steps = round(HORIZON / eta)
    means, spreads = moments(sgdm, (*START, 0.0), [(eta, beta)] * steps, 1.0, 1 / eta)
    return float((eta * beta / (1 - beta)) ** 2 * (means[-1, 1] ** 2 + spreads[-1, 1, 1]))


def measure_distance(run: object, eta: float, beta: float) -> None:
    """Compare the distance along one path, the moments of m, and c with their formulas."""
    dynamics, steps, c = distance(eta, beta), 24, eta * beta / (1 - beta)
    name = f"beta={beta}, eta={eta:g}"
    z = draws(dynamics, steps, run.seed)[:, 0]

    def shown(state, gradient, *row):
        x, m = sgdm(state[1:], gradient, *row)
        return c * m, x, m

    exact = follow(shown, (0.0, START[0], 0.0), [(eta, beta)] * steps, lambda k, x: x + eta**-0.5 * z[k])[:, 0]
    found = path(dynamics, START, steps, ["x"], run.seed)[:, 0]
    run.measure(f"c_k m_k along one path, {name}", relative_distance(found, exact), at_most=ROUNDING)
    y = [START[0]]
    state = (START[0], 0.0)
    for k in range(steps):
        state = sgdm(state, lambda x, k=k: x + eta**-0.5 * z[k], eta, beta)
        y.append(state[0] - c * state[1])
    found = path(st.Auxiliary(dynamics.oracle, dynamics.plan), START, steps, ["x"], run.seed)[:, 0]
    run.measure(f"y_k = x_k - c_k m_k along one path, {name}", relative_distance(found, y), at_most=ROUNDING)
    run.measure(f"c_k beside eta beta / (1 - beta), {name}", dynamics.memory(0)[0] / c, 1.0, tolerance=ROUNDING)
    mean, spread = st.exact.moments(st.SGDM(dynamics.oracle, dynamics.plan), START, steps).part("m")
    means, spreads = moments(sgdm, (*START, 0.0), [(eta, beta)] * steps, 1.0, 1 / eta)
    away = max(relative_distance(mean[:, 0], means[:, 1]), relative_distance(spread[:, 0, 0], spreads[:, 1, 1]))
    run.measure(f"mean and variance of m_k beside plain recursions, {name}", away, at_most=ROUNDING)


@st.claim(
    "auxiliary-process-strong-gap",
    statement=r"At $\sigma = \eta^{-1/2}$, $E|x_k - y_k|^2 = c_k^2\, E|m_k|^2 \approx \frac{\beta^2}{1+\beta} "
    r"\frac{\eta}{1-\beta}$: for small $\eta/(1-\beta)$ the pathwise distance is of order one half in it.",
    source="Proof of Theorem 3.5",
)
def strong_gap(run):
    """Check the mean-square distance of x and y, and its order in eta / (1 - beta)."""
    etas, betas = [2.0**-k for k in (4, 6, 8)], (0.5, 0.75, 0.9)
    measured, exact = {}, {}
    run.note(
        "A wrong c, rule, rate or noise scale is detected along a path and in exact moments; a wrong constant at small learning rates."
    )
    for beta in betas:
        measure_distance(run, etas[0], beta)
        for eta in etas:
            exact[beta, eta] = mean_square(eta, beta)

            def simulated(paths, beta=beta, eta=eta):
                options = run.options(paths=paths, observe=["x**2"], times=[HORIZON])
                return st.simulate(distance(eta, beta), START, HORIZON, **options).at("x**2")

            name = f"E |x - y|^2, beta={beta}, eta={eta:g}"
            measured[beta, eta] = run.decide(name, simulated, exact[beta, eta], relative=RESOLUTION)
    for beta in betas:
        # E |m|^2 exceeds the noise's contribution by E |grad L|^2 and by its effect on x, both a fraction eta / (1 - beta) of it
        fine = [2.0**-k for k in (13, 14)]
        squares = [mean_square(eta, beta) for eta in fine]
        left = fine[0] / (1 - beta)
        order = st.exact.local_orders([eta / (1 - beta) for eta in fine], np.sqrt(squares))[0]
        plain = math.log(squares[0] / squares[1]) / math.log(4)
        run.measure(f"its local order beside a plain quotient, beta={beta}", order, plain, tolerance=ROUNDING)
        run.measure(f"order of the exact distance in eta / (1 - beta), beta={beta}", order, expected=0.5, tolerance=2 * left)
        law = beta**2 / (1 + beta) * fine[1] / (1 - beta)
        run.measure(f"exact E |x - y|^2 over the law, beta={beta}", squares[1] / law, expected=1.0, tolerance=5 * left)
    with run.control("order one"):
        run.measure("order of the exact distance", order, expected=1.0, tolerance=0.25)
    with run.control("c_k^2 forgotten"):
        beta, eta = betas[-1], etas[-1]
        found = measured[beta, eta]
        c = eta * beta / (1 - beta)
        run.measure("E |x - y|^2", found, expected=exact[beta, eta] / c**2, relative=RESOLUTION)
    run.figure(
        "strong gap",
        lambda: plot_strong_gap(measured, exact),
        r"$\sqrt{E|x_k - y_k|^2}$ at $t = 1$, three $\beta$ and three $\eta$: measured (markers), exact (crosses), and the asymptotic "
        r"law for small $\eta$, a line of slope one half for each $\beta$.",
    )


def plot_strong_gap(measured, exact):
    """Plot the root mean square distance against eta / (1 - beta)."""
    from sdetools.plots import COLOURS, FAINT, INK, MARKERS, canvas

    figure, axes = canvas()
    axes.set_xscale("log")
    axes.set_yscale("log")
    betas = sorted({b for b, _ in measured})
    for i, beta in enumerate(betas):
        last = beta == betas[-1]
        points = [(eta / (1 - b), math.sqrt(e.value), math.sqrt(exact[b, eta])) for (b, eta), e in measured.items() if b == beta]
        ratios, found, true = np.transpose(points)
        axes.plot(ratios, found, MARKERS[i], color=COLOURS[i], markersize=6, label=rf"$\beta = {beta}$")
        axes.plot(ratios, true, "x", color=INK, markersize=4, label="exact" if last else None)
        line = beta / math.sqrt(1 + beta) * np.sqrt(ratios)
        law = r"$\beta\, (1+\beta)^{-1/2} \sqrt{\eta / (1-\beta)}$"
        axes.plot(ratios, line, linestyle=":", color=FAINT, label=law if last else None)
    axes.set_xlabel(r"$\eta / (1 - \beta)$", color=INK)
    axes.set_ylabel("distance", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
