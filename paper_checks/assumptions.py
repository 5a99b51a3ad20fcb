"""The role of the assumptions of Theorem 3.5: heavy tails, a gradient that is not Lipschitz, a large initial momentum.

The theorem assumes that all moments of the noise exist and that the gradient is Lipschitz (Assumption 3.3), and that the moments of
m_0 do not grow as eta decreases (Assumption 3.2). Each assumption is violated separately here, at sigma = eta^-1/2, and the outcome is
compared with an exact value. Part of the conclusion survives, part does not.
"""

import math
from dataclasses import dataclass

import numpy as np
from _plain import ROUNDING, draws, follow, gap_path, integrate_unit_interval, moments, path, relative_distance, sgd, sgdm

import sdetools as st
from sdetools.estimates.interval import HasInterval, binomial_interval
from sdetools.plots import COLOURS, INK, MARKERS, canvas, loglog_orders

BOWL = st.losses.quadratic(1.0, names=["x"])
DEGREES = 2.5


def pair(eta: float, noise: st.noise.Noise, beta: float = 0.75, momentum=None) -> tuple[st.SGDM, st.SGD]:
    """Return SGDM and SGD on x^2 / 2 at sigma = eta^-1/2, with the given noise and initial momentum."""
    oracle, plan = st.NoisyOracle(BOWL, noise, sigma=eta**-0.5), st.schedules.constant(eta=eta, beta=beta)
    return st.SGDM(oracle, plan, momentum=momentum), st.SGD(oracle, plan.averaged())


# Heavy tails


def characteristic(t: np.ndarray) -> np.ndarray:
    """Return E cos(t v) for v of Student's t law with DEGREES degrees of freedom, scaled to variance 1."""
    from scipy.special import gammaln, kv

    half, s = DEGREES / 2, np.sqrt(DEGREES - 2) * np.abs(t)
    return np.exp(half * np.log(s) - gammaln(half) - (half - 1) * math.log(2)) * kv(half, s)


def mean_cosine(rule, state, row, sigma: float, steps: int) -> np.ndarray:
    """Return E cos x_k, k = 0 ... steps.

    On L = x^2 / 2 the iterate is its mean plus a weighted sum of independent symmetric draws.
    """
    blank = (0.0,) * len(state)
    mean = follow(rule, state, [row] * steps, lambda k, x: x)[:, 0]
    weight = follow(rule, blank, [row] * steps, lambda k, x: x + (sigma if k == 0 else 0.0))[1:, 0]
    return np.cos(mean) * np.concatenate([[1.0], np.cumprod(characteristic(weight))])  # a draw has weight[k] after k + 1 steps


def exact_cosines(eta: float, beta: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """Return E cos x_k of SGDM and of SGD."""
    sigma, steps = eta**-0.5, round(1 / eta)
    return mean_cosine(sgdm, (1.0, 0.0), (eta, beta), sigma, steps), mean_cosine(sgd, (1.0,), (eta,), sigma, steps)


def exact_sup(eta: float) -> float:
    """Return max_k |E cos x_k - E cos z_k|."""
    return float(np.abs(np.subtract(*exact_cosines(eta))).max())


def measure_pair(run, name, two, eta, beta, observe, values, m0=0.0, gradient=lambda x: x) -> None:
    """Compare the gap along one path of the kernel, step by step, with a reference implementation of SGDM and SGD.

    The noise value of a step is `noise.value(x, z)` at the draws z.
    """
    first, steps = two[0], min(32, round(1 / eta))
    gap = gap_path(two, [1.0], steps, [observe], run.seed)
    z, noise = draws(first, steps, run.seed), first.oracle.noise

    def noisy(k, x):
        return gradient(x) + eta**-0.5 * noise.value(np.zeros(1), z[k])[0]

    x = follow(sgdm, (1.0, m0), [(eta, beta)] * steps, noisy)[:, 0]
    y = follow(sgd, (1.0,), [(eta,)] * steps, noisy)[:, 0]
    away = relative_distance(gap[:, 0], values(x) - values(y))
    run.measure(f"{name}: gap of {observe} along one path beside Definitions 2.2 and 2.3", away, at_most=ROUNDING)


def measure_student(run, noise) -> None:
    """Check the characteristic function and the variance of Student's law, as the noise makes it of two uniforms, by quadrature."""
    angles, t = (np.arange(512) + 0.5) / 512, np.array([0.3, 1.0])

    def over_angles(function, u):
        values = noise.value(np.zeros((1, u.size * angles.size)), np.stack([np.tile(u, angles.size), np.repeat(angles, u.size)]))[
            0
        ]
        found = function(values)
        return found.reshape(*found.shape[:-1], angles.size, u.size).mean(axis=-2)

    def both(function):
        return integrate_unit_interval(lambda u: over_angles(function, u), (), 25, 200)

    run.measure("variance of the noise by quadrature", float(both(lambda v: v * v)), 1.0, tolerance=1e-6)
    seen = both(lambda v: np.cos(np.multiply.outer(t, np.minimum(np.abs(v), 1e6))))
    away = relative_distance(seen, characteristic(t))
    # cos(t v) oscillates fast where v is large; |v| > 100 holds for a fraction 1e-5 of all draws
    run.measure("characteristic function of the noise by quadrature", away, at_most=1e-4)
    run.measure("covariance of the noise as stated", float(noise.covariance(np.zeros(1))[0, 0]), 1.0, tolerance=ROUNDING)


def fitted(etas, gaps) -> float:
    """Return the least-squares slope of log gap against log eta."""
    return float(np.polyfit(np.log(etas), np.log(gaps), 1)[0])


def growth(values: np.ndarray, groups: int = 200, parts: int = 50) -> st.Estimate:
    """Return the exponent q with which a sum of n of the values grows like n^q.

    It is estimated from logarithms of sums over groups and over their parts. q = 1 where a mean exists (law of large numbers);
    q = 1 / a where only moments below a < 1 exist.
    """
    sums = values[: len(values) // (groups * parts) * groups * parts].reshape(groups, parts, -1).sum(axis=-1)
    each = (np.log(sums.sum(axis=1)) - np.log(sums).mean(axis=1)) / math.log(parts)
    return st.Estimate(float(each.mean()), float(each.std(ddof=1) / math.sqrt(groups)), groups)


@st.claim(
    "assumption-3.3-moments",
    statement=r"Under Student $t$ noise with 2.5 degrees of freedom, which has no moments of order 2.5 or higher, the gap of the bounded "
    r"$h = \cos x$ still vanishes with order 1 as $\eta \to 0$. $E\,x^4$ does not exist, and so neither does its gap.",
    source="Assumption 3.3 (bounded moments)",
)
def heavy_tails(run):
    """Check the order for a bounded test function under heavy tails, and that the fourth moment of x diverges."""
    heavy, light = st.noise.student_t(dim=1, degrees=DEGREES), st.noise.gaussian(dim=1)
    etas = [2.0**-k for k in range(4, 9)]
    # the interval of a bounded h allows for events that no path has seen: twice the paths at the quick budget
    options = run.options(paths=run.scale(quick=2 * run.paths, standard=run.paths, full=run.paths), observe=["cos(x)"])
    run.note(
        "A wrong law is detected by quadrature over its draws; a wrong rule, rate or noise scale along one path, step by step."
    )
    measure_student(run, heavy)
    measure_pair(run, "eta=1/32", pair(1 / 32, heavy), 1 / 32, 0.75, "cos(x)", np.cos)
    study = st.order_study(lambda eta: pair(eta, heavy), etas, x0=[1.0], horizon=1.0, **options)
    exact = [exact_sup(eta) for eta in study.etas]
    # the orders of interest are 1 and the theorem's 1/2; half of their distance separates them
    order = study.order("cos(x)")
    run.measure("order of the gap of cos x", order, expected=fitted(study.etas, exact), tolerance=0.25)
    run.measure("the fit beside plain least squares", order.value, fitted(order.etas, order.gaps), tolerance=ROUNDING)
    for eta, truth in zip(study.etas, exact, strict=True):
        run.measure(f"gap of cos x, eta={eta:g}", study.sup("cos(x)", eta), expected=truth, tolerance=truth / 2)
    fine = [2.0**-10, 2.0**-11]
    limit = st.exact.local_orders(fine, [exact_sup(eta) for eta in fine])[0]
    run.measure("local order of the exact gap at eta=2^-11", limit, expected=1.0, tolerance=0.25)

    def fourth_powers(noise):
        first, _ = pair(1 / 8, noise)
        options = run.options(paths=1_000_000, times=[1.0], keep_final=True)
        return growth(st.simulate(first, [0.0], 1.0, observe=["x"], **options).final[0] ** 4)

    exponent = 4 / DEGREES  # P(x^4 > s) decays like s^(-2.5/4)
    apart = (exponent - 1) / 2  # half the distance from 1, the exponent of a sum of values with a mean
    run.measure("exponent of the growth of a sum of x^4", fourth_powers(heavy), expected=exponent, tolerance=apart)
    with run.control("the same under Gaussian noise"):
        run.measure("exponent of the growth of a sum of x^4", fourth_powers(light), expected=exponent, tolerance=apart)
    with run.control("no better than the theorem's 1/2"):
        run.measure("order of the gap of cos x", order, at_most=0.5)
    run.note(
        r"A sample of $x^4$ always has a mean and a standard error, but here neither estimates anything: the sum of $n$ values grows "
        r"like $n^{1.6}$ and is dominated by its few largest terms."
    )
    run.figure("bounded", study.plot(exact={"cos(x)": exact}), r"Gap of $\cos x$ under heavy-tailed noise; dashed: exact.")


# A gradient that is not Lipschitz

QUARTIC = st.losses.from_expression("x**4 / 4")
FAR, UNTIL = 5.0, 2.0


class Clipped(st.Dynamics):
    """SGD with its gradient clipped at 8."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        g = oracle(x)[0]
        return (st.components([x[0] - eta * st.select(g > 8.0, 8.0, st.select(g < -8.0, -8.0, g))], x),)


@dataclass(frozen=True)
class Share(HasInterval):
    """The fraction of n paths that diverged, with the interval of Clopper and Pearson, which also holds for no diverged path.

    The count is called `events`: an attribute `diverged` would mark the estimate itself as biased by divergence.
    """

    events: int
    n: int

    @property
    def value(self) -> float:
        return self.events / self.n

    def confidence_interval(self, level: float = 0.95) -> st.ConfidenceInterval:
        return binomial_interval(self.events, self.n, level)


HALF = 0.005
"""Half a per cent, the precision of the stated shares of diverged paths."""


def exact_share(eta: float, steps: int = 12) -> float:
    """Return the probability that SGD on x^4/4 diverges from FAR, by quadrature backwards in time.

    Where eta x^2 > 2 a step without noise increases |x|. Beyond 1.5 times that radius no path returns. A path that has not diverged
    after 12 steps has contracted.
    """
    from scipy.special import ndtr

    edge, spread = 1.5 * math.sqrt(2 / eta), math.sqrt(eta)
    grid, width = np.linspace(-edge, edge, 401, retstep=True)
    points = np.append(grid, FAR)
    mean = (points - eta * points**3)[:, None]
    density = np.exp(-(((grid - mean) / spread) ** 2) / 2) * width / (spread * math.sqrt(2 * math.pi))
    density[:, [0, -1]] /= 2
    leaves = (ndtr((mean - edge) / spread) + ndtr((-edge - mean) / spread))[:, 0]
    diverges = np.zeros(len(grid))
    for _ in range(steps - 1):
        diverges = (leaves + density @ diverges)[:-1]
    return float(leaves[-1] + density[-1] @ diverges)


@st.claim(
    "assumption-3.3-lipschitz",
    statement=r"On $L = x^4/4$, whose gradient is not Lipschitz, some of SGD's paths from $x_0 = 5$ diverge: 96 % at "
    r"$\eta = 1/12$, 4.4 % at $\eta = 1/13$, and none is observed to diverge at $\eta = 1/16$. Weak gaps are then undefined. With "
    r"momentum or with clipped gradients no path is observed to diverge at $\eta = 1/13$.",
    source="Assumption 3.3 (well-behaved)",
)
def not_lipschitz(run):
    """Check the fraction of diverged paths of SGD, SGDM and clipped SGD on a quartic."""
    options = run.options(times=[UNTIL])

    def dynamics(kind, eta):
        plan = st.schedules.constant(eta=eta, beta=0.9)
        oracle = st.NoisyOracle(QUARTIC, st.noise.gaussian(dim=1), sigma=eta**-0.5)
        return kind(oracle, plan if kind is st.SGDM else plan.averaged())

    def share(kind, n, paths=run.paths):
        seen = st.simulate(dynamics(kind, 1 / n), [FAR], UNTIL, observe=["x"], **options | {"paths": paths})
        return Share(seen.diverged, seen.paths)

    run.note(
        "A wrong rule, gradient or noise scale is detected along one path, step by step, at a learning rate where paths stay bounded, and "
        "by the exact fraction of diverged paths."
    )
    start, eta, steps = 1.0, 1 / 16, 32
    for kind in (st.SGD, st.SGDM):
        one = dynamics(kind, eta)
        z = draws(one, steps, run.seed)[:, 0]
        rule, state, row = (sgd, (start,), (eta,)) if kind is st.SGD else (sgdm, (start, 0.0), (eta, 0.9))
        x = follow(rule, state, [row] * steps, lambda k, x, z=z: x**3 + eta**-0.5 * z[k])[:, 0]
        away = relative_distance(path(one, [start], steps, ["x"], run.seed)[:, 0], x)
        run.measure(f"{kind.__name__}: x_k along one path beside its definition", away, at_most=ROUNDING)
    rare = 1e-3  # 20,000 paths without divergence exclude a fraction of 11 / 20,000 at any level of a run
    diverged_sgd = {n: share(st.SGD, n) for n in (11, 14, 16)}
    for n in (12, 13):
        found = run.decide(
            f"diverged share, SGD, eta=1/{n}", lambda paths, n=n: share(st.SGD, n, paths), exact_share(1 / n), tolerance=HALF
        )
        diverged_sgd[n] = found
    run.measure("diverged share, SGD, eta=1/16", diverged_sgd[16], at_most=rare)
    others = {"SGDM": share(st.SGDM, 13), "clipped SGD": share(Clipped, 13)}
    for name, diverged in others.items():
        run.measure(f"diverged share, {name}, eta=1/13", diverged, at_most=rare)
    gap = st.weak_gap(dynamics(st.SGDM, 1 / 13), dynamics(st.SGD, 1 / 13), [FAR], UNTIL, observe=["x"], **options).at("x")
    run.measure("the gap of x at eta=1/13 is given as no number", float(np.isnan(gap.value)), expected=1.0, tolerance=0.5)
    with run.control("no path of SGD diverges at eta=1/13"):
        run.measure("diverged share", diverged_sgd[13], at_most=rare)
    run.note(
        r"With Gaussian noise a path can diverge at any $\eta$; the probability decreases faster than exponentially in $1/\eta$ (exactly "
        f"{exact_share(1 / 14):.1g} at 1/14, {exact_share(1 / 16):.1g} at 1/16). But $x_k$ is a polynomial of degree $3^k$ in "
        r"the noise, so that $E x_k^2$ itself is astronomical at every $\eta$. For unbounded $h$ the theorem needs its "
        r"assumption, and a sample at small $\eta$ shows only the paths that stay bounded."
    )
    run.figure(
        "diverged", lambda: plot_diverged(diverged_sgd, others), r"Share of diverged paths, from $x_0 = 5$; dashed: exact."
    )


def plot_diverged(sgd, others):
    """Plot the fraction of diverged paths against 1 / eta."""
    figure, axes = canvas()
    inverse = np.linspace(10.5, 16.5, 61)
    axes.plot(inverse, [exact_share(1 / n) for n in inverse], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="exact, SGD")
    axes.plot(list(sgd), [e.value for e in sgd.values()], MARKERS[0], color=COLOURS[0], markersize=6, label="SGD")
    for i, (name, share) in enumerate(others.items(), 1):
        axes.plot([13], [share.value], MARKERS[i], color=COLOURS[i], markersize=6 + 3 * (i == 1), label=name)
    axes.set_xlabel(r"$1/\eta$", color=INK)
    axes.set_ylabel("diverged paths", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


# A large initial momentum


def plain_laws(eta: float, m0: float, beta: float = 0.5) -> dict[str, list[np.ndarray]]:
    """Return E x and E x^2 of SGDM from m_0 and of SGD, k = 0 ... 1 / eta, by plain recursions."""
    steps = round(1 / eta)
    both = [moments(sgdm, (1.0, m0), [(eta, beta)] * steps, 1.0, 1 / eta), moments(sgd, (1.0,), [(eta,)] * steps, 1.0, 1 / eta)]
    return {"x": [mean[:, 0] for mean, _ in both], "x**2": [mean[:, 0] ** 2 + spread[:, 0, 0] for mean, spread in both]}


@st.claim(
    "assumption-3.2-initial-momentum",
    statement=r"From $m_0 = \eta^{-p}$ the gap of smooth $h$ has order $1 - p$ as $\eta \to 0$. The theorem's $1/2$ still holds for $p = 1/2$, "
    r"although Assumption 3.2 is violated. For $p = 1$ the gap does not vanish.",
    source="Assumption 3.2",
)
def initial_momentum(run):
    """Check the order of the gap for initial momenta of size eta^-p."""
    noise, observe = st.noise.gaussian(dim=1), ["x", "x**2"]
    run.note("A wrong rule, start, rate or scale is detected along one path and in the exact moments, each step by step.")
    etas = [2.0**-k for k in range(4, 9)]
    options = run.options(paths=run.scale(quick=5 * run.paths, standard=200_000, full=200_000))
    gaps, exact, orders = {}, {}, {}
    for p in (0.0, 0.5, 1.0):

        def from_momentum(eta, p=p):
            return pair(eta, noise, beta=0.5, momentum=[eta**-p])

        study = st.order_study(from_momentum, etas, x0=[1.0], horizon=1.0, observe=observe, **options)
        laws = {eta: plain_laws(eta, eta**-p) for eta in etas}
        library = [st.exact.moments(d, [1.0], 32) for d in from_momentum(1 / 32)]
        measure_pair(run, f"p={p}", from_momentum(1 / 32), 1 / 32, 0.5, "x**2", np.square, (1 / 32) ** -p)
        for h in observe:
            truth = [np.abs(np.subtract(*laws[eta][h])).max() for eta in etas]
            away = max(
                relative_distance(st.exact.expectation(law, h), plain)
                for law, plain in zip(library, laws[1 / 32][h], strict=True)
            )
            run.measure(f"E h(x_k) and E h(z_k) of {h} beside plain recursions, p={p}", away, at_most=ROUNDING)
            found = orders[p, h] = study.order(h)
            # the orders 1, 1/2 and 0 differ by half a unit: half of that separates them
            run.measure(f"order of the gap of {h}, p={p}", found, expected=fitted(etas, truth), tolerance=0.25)
            own = fitted(found.etas, found.gaps)
            run.measure(f"the fit beside plain least squares, {h}, p={p}", found.value, own, tolerance=ROUNDING)
            for eta, expected in zip(etas, truth, strict=True):
                # for p > 0 the initial momentum contributes most of the gap; an error of a tenth of its contribution is detected
                run.measure(f"gap of {h} at eta={eta:g}, p={p}", study.sup(h, eta), expected, relative=0.1 if p == 0 else 0.05)
            limit = st.exact.local_orders(etas[-2:], truth[-2:])[0]
            run.measure(f"local order of the exact gap of {h} at eta=2^-8, p={p}", limit, expected=1 - p, tolerance=0.25)
            if h == "x":
                gaps[f"p = {p:g}"], exact[f"p = {p:g}"] = study.estimates(h), truth
    with run.control("the theorem's order with m_0 = 1/eta"):
        run.measure("order of the gap of x", orders[1.0, "x"], at_least=0.5)
    with run.control("the order of a bounded m_0 with m_0 = eta^-1/2"):
        run.measure("order of the gap of x", orders[0.5, "x"], expected=1.0, tolerance=0.25)
    run.figure("momentum", lambda: plot_momentum(etas, gaps, exact), r"Gap of $x$ for $m_0 = \eta^{-p}$; dashed: exact.")


def plot_momentum(etas, gaps, exact):
    """Plot the gap of x for each initial momentum against eta."""

    def curves(field):
        return {name: [getattr(e, field) for e in row] for name, row in gaps.items()}

    return loglog_orders(etas, curves("value"), curves("low"), curves("high"), exact, ylabel="sup over time of the gap of $x$")
