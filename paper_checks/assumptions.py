r"""What the assumptions of Theorem 3.5 are for: heavy tails, a gradient that is not Lipschitz, a momentum that starts large.

The theorem asks that all moments of the noise exist and that the gradient is Lipschitz (Assumption 3.3), and that the moments of
m_0 do not grow as eta falls (Assumption 3.2). Each is broken here by itself, at sigma = eta^-1/2, and what happens is measured
beside an exact value: some of the conclusion survives, some does not.
"""

import math
from dataclasses import dataclass

import numpy as np
from _plain import ROUNDING, draws, farthest, follow, gap_path, moments, over_uniforms, path, sgd, sgdm

import sdetools as st
from sdetools.estimates.interval import HasInterval, binomial_interval
from sdetools.plots import COLOURS, INK, MARKERS, canvas, loglog_orders

BOWL = st.losses.quadratic(1.0, names=["x"])
DEGREES = 2.5


def pair(eta: float, noise: st.noise.Noise, beta: float = 0.75, momentum=None) -> tuple[st.SGDM, st.SGD]:
    oracle, plan = st.NoisyOracle(BOWL, noise, sigma=eta**-0.5), st.schedules.constant(eta=eta, beta=beta)
    return st.SGDM(oracle, plan, momentum=momentum), st.SGD(oracle, plan.averaged())


# Heavy tails


def characteristic(t: np.ndarray) -> np.ndarray:
    """E cos(t v) for v of Student's t law with DEGREES degrees of freedom, scaled to variance 1."""
    from scipy.special import gammaln, kv

    half, s = DEGREES / 2, np.sqrt(DEGREES - 2) * np.abs(t)
    return np.exp(half * np.log(s) - gammaln(half) - (half - 1) * math.log(2)) * kv(half, s)


def mean_cosine(rule, state, row, sigma: float, steps: int) -> np.ndarray:
    """E cos x_k, k = 0 ... steps: on L = x^2 / 2 the point is its mean plus a weighted sum of independent symmetric draws."""
    blank = (0.0,) * len(state)
    mean = follow(rule, state, [row] * steps, lambda k, x: x)[:, 0]
    weight = follow(rule, blank, [row] * steps, lambda k, x: x + (sigma if k == 0 else 0.0))[1:, 0]
    return np.cos(mean) * np.concatenate(
        [[1.0], np.cumprod(characteristic(weight))]
    )  # a draw is worth weight[k] k + 1 steps later


def exact_cosines(eta: float, beta: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """E cos x_k of SGDM and of SGD."""
    sigma, steps = eta**-0.5, round(1 / eta)
    return mean_cosine(sgdm, (1.0, 0.0), (eta, beta), sigma, steps), mean_cosine(sgd, (1.0,), (eta,), sigma, steps)


def exact_sup(eta: float) -> float:
    """max_k |E cos x_k - E cos z_k|."""
    return float(np.abs(np.subtract(*exact_cosines(eta))).max())


def measure_pair(run, name, two, eta, beta, observe, values, m0=0.0, gradient=lambda x: x) -> None:
    """The gap along one path of the kernel, step by step, beside SGDM and SGD written down anew; v = value(z) as the noise makes it."""
    first, steps = two[0], min(32, round(1 / eta))
    gap = gap_path(two, [1.0], steps, [observe], run.seed)
    z, noise = draws(first, steps, run.seed), first.oracle.noise

    def noisy(k, x):
        return gradient(x) + eta**-0.5 * noise.value(np.zeros(1), z[k])[0]

    x = follow(sgdm, (1.0, m0), [(eta, beta)] * steps, noisy)[:, 0]
    y = follow(sgd, (1.0,), [(eta,)] * steps, noisy)[:, 0]
    away = farthest(gap[:, 0], values(x) - values(y))
    run.measure(f"{name}: gap of {observe} along one path beside Definitions 2.2 and 2.3", away, at_most=ROUNDING)


def measure_student(run, noise) -> None:
    """Student's law as the noise makes it of two uniforms: its characteristic function and its variance, by quadrature."""
    turns, t = (np.arange(512) + 0.5) / 512, np.array([0.3, 1.0])

    def value(u, turn):
        return noise.value(np.zeros((1, len(u))), np.stack([u, np.full_like(u, turn)]))[0]

    def both(function):
        return np.mean([over_uniforms(lambda u, b=b: function(value(u, b)), (), 25, 200) for b in turns], axis=0)

    run.measure("variance of the noise by quadrature", float(both(lambda v: v * v)), 1.0, tolerance=1e-6)
    seen = both(lambda v: np.cos(np.multiply.outer(t, np.minimum(np.abs(v), 1e6))))
    away = farthest(seen, characteristic(t))
    # cos(t v) turns ever faster where v is large, |v| > 100 in a share 1e-5 of all draws
    run.measure("characteristic function of the noise by quadrature", away, at_most=1e-4)
    run.measure("covariance of the noise as stated", float(noise.covariance(np.zeros(1))[0, 0]), 1.0, tolerance=ROUNDING)


def fitted(etas, gaps) -> float:
    """The slope of log gap against log eta by least squares."""
    return float(np.polyfit(np.log(etas), np.log(gaps), 1)[0])


def growth(values: np.ndarray, groups: int = 200, parts: int = 50) -> st.Estimate:
    """The q with which a sum of n of the values grows like n^q, from logarithms of sums over groups and over their parts.

    q = 1 where a mean exists (law of large numbers); 1 / a where only moments below a < 1 do.
    """
    sums = values[: len(values) // (groups * parts) * groups * parts].reshape(groups, parts, -1).sum(axis=-1)
    each = (np.log(sums.sum(axis=1)) - np.log(sums).mean(axis=1)) / math.log(parts)
    return st.Estimate(float(each.mean()), float(each.std(ddof=1) / math.sqrt(groups)), groups)


@st.claim(
    "assumption-3.3-moments",
    statement=r"Under Student $t$ noise with 2.5 degrees of freedom, which has no moments from 2.5 on, the gap of the bounded "
    r"$h = \cos x$ still vanishes with order 1; $E\,x^4$ does not exist, so that neither does its gap.",
    source="Assumption 3.3 (bounded moments)",
)
def heavy_tails(run):
    heavy, light = st.noise.student_t(dim=1, degrees=DEGREES), st.noise.gaussian(dim=1)
    etas = [2.0**-k for k in range(4, 9)]
    # the interval of a bounded h reckons with what the paths may have missed: twice the paths at quick
    options = run.options(paths=run.scale(quick=2 * run.paths, standard=run.paths, full=run.paths), observe=["cos(x)"])
    run.note(
        "A wrong law is noticed by quadrature over its draws, a wrong rule, rate or noise scale along one path, step by step."
    )
    measure_student(run, heavy)
    measure_pair(run, "eta=1/32", pair(1 / 32, heavy), 1 / 32, 0.75, "cos(x)", np.cos)
    study = st.order_study(lambda eta: pair(eta, heavy), etas, x0=[1.0], horizon=1.0, **options)
    exact = [exact_sup(eta) for eta in study.etas]
    # orders of interest are 1 and the theorem's 1/2; half of their distance tells them apart
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

    exponent = 4 / DEGREES  # P(x^4 > s) falls like s^(-2.5/4)
    apart = (exponent - 1) / 2  # from the exponent 1 of a sum that has a mean
    run.measure("exponent of the growth of a sum of x^4", fourth_powers(heavy), expected=exponent, tolerance=apart)
    with run.control("the same under Gaussian noise"):
        run.measure("exponent of the growth of a sum of x^4", fourth_powers(light), expected=exponent, tolerance=apart)
    with run.control("no better than the theorem's 1/2"):
        run.measure("order of the gap of cos x", order, at_most=0.5)
    run.note(
        r"A sample gives $x^4$ a mean and a standard error all the same. Both are empty: the sum of $n$ values grows like "
        r"$n^{1.6}$, carried by its few largest members."
    )
    run.figure("bounded", study.plot(exact={"cos(x)": exact}), r"Gap of $\cos x$ under heavy-tailed noise; dashed: exact.")


# A gradient that is not Lipschitz

QUARTIC = st.losses.from_expression("x**4 / 4")
FAR, UNTIL = 5.0, 2.0


class Clipped(st.Dynamics):
    """SGD with its gradient cut off at 8."""

    @staticmethod
    def rule(state, oracle, eta):
        (x,) = state
        g = oracle(x)[0]
        return (st.components([x[0] - eta * st.select(g > 8.0, 8.0, st.select(g < -8.0, -8.0, g))], x),)


@dataclass(frozen=True)
class Share(HasInterval):
    """How many of n paths were lost, with the interval of Clopper and Pearson, which holds for no lost path as well."""

    lost: int
    n: int

    @property
    def value(self) -> float:
        return self.lost / self.n

    def confidence_interval(self, level: float = 0.95) -> st.ConfidenceInterval:
        return binomial_interval(self.lost, self.n, level)


def exact_share(eta: float, steps: int = 12) -> float:
    """The probability that SGD on x^4/4 runs away from FAR, by quadrature backwards in time.

    Where eta x^2 > 2 a step without noise leads further out; half as far again nothing leads back. A path that has not gone
    after 12 steps has come home.
    """
    from scipy.special import ndtr

    edge, spread = 1.5 * math.sqrt(2 / eta), math.sqrt(eta)
    grid, width = np.linspace(-edge, edge, 401, retstep=True)
    points = np.append(grid, FAR)
    mean = (points - eta * points**3)[:, None]
    lands = np.exp(-(((grid - mean) / spread) ** 2) / 2) * width / (spread * math.sqrt(2 * math.pi))
    lands[:, [0, -1]] /= 2
    leaves = (ndtr((mean - edge) / spread) + ndtr((-edge - mean) / spread))[:, 0]
    lost = np.zeros(len(grid))
    for _ in range(steps - 1):
        lost = (leaves + lands @ lost)[:-1]
    return float(leaves[-1] + lands[-1] @ lost)


@st.claim(
    "assumption-3.3-lipschitz",
    statement=r"On $L = x^4/4$, whose gradient is not Lipschitz, a share of SGD's paths that start at $x_0 = 5$ leaves every "
    r"bound: 96 % at $\eta = 1/12$, 4.4 % at $\eta = 1/13$, none seen at $\eta = 1/16$. Weak gaps are then no numbers. With "
    r"momentum or with clipped gradients none is seen to leave at $\eta = 1/13$.",
    source="Assumption 3.3 (well-behaved)",
)
def not_lipschitz(run):
    options = run.options(times=[UNTIL])

    def dynamics(kind, eta):
        plan = st.schedules.constant(eta=eta, beta=0.9)
        oracle = st.NoisyOracle(QUARTIC, st.noise.gaussian(dim=1), sigma=eta**-0.5)
        return kind(oracle, plan if kind is st.SGDM else plan.averaged())

    def share(kind, n):
        seen = st.simulate(dynamics(kind, 1 / n), [FAR], UNTIL, observe=["x"], **options)
        return Share(seen.diverged, seen.paths)

    run.note(
        "A wrong rule, gradient or noise scale is noticed along one path, step by step, at a rate where paths stay, and by the exact share."
    )
    start, eta, steps = 1.0, 1 / 16, 32
    for kind in (st.SGD, st.SGDM):
        one = dynamics(kind, eta)
        z = draws(one, steps, run.seed)[:, 0]
        rule, state, row = (sgd, (start,), (eta,)) if kind is st.SGD else (sgdm, (start, 0.0), (eta, 0.9))
        x = follow(rule, state, [row] * steps, lambda k, x, z=z: x**3 + eta**-0.5 * z[k])[:, 0]
        away = farthest(path(one, [start], steps, ["x"], run.seed)[:, 0], x)
        run.measure(f"{kind.__name__}: x_k along one path beside its definition", away, at_most=ROUNDING)
    rare = 1e-3  # 20,000 paths without a lost one rule out a share of 11 / 20,000 at any level of a run
    lost_sgd = {n: share(st.SGD, n) for n in (11, 12, 13, 14, 16)}
    for n in (12, 13):
        truth = exact_share(1 / n)
        error = math.sqrt(truth * (1 - truth) / run.paths)
        # no interval of a run is wider than five standard errors to a side, so ten of them hold a true value and its interval
        run.measure(f"lost share, SGD, eta=1/{n}", lost_sgd[n], expected=truth, tolerance=10 * error)
    run.measure("lost share, SGD, eta=1/16", lost_sgd[16], at_most=rare)
    others = {"SGDM": share(st.SGDM, 13), "clipped SGD": share(Clipped, 13)}
    for name, lost in others.items():
        run.measure(f"lost share, {name}, eta=1/13", lost, at_most=rare)
    gap = st.weak_gap(dynamics(st.SGDM, 1 / 13), dynamics(st.SGD, 1 / 13), [FAR], UNTIL, observe=["x"], **options).at("x")
    run.measure("the gap of x at eta=1/13 is given as no number", float(np.isnan(gap.value)), expected=1.0, tolerance=0.5)
    with run.control("no path of SGD is lost at eta=1/13"):
        run.measure("lost share", lost_sgd[13], at_most=rare)
    run.note(
        r"Gaussian noise lets a path escape at any $\eta$; the probability falls faster than exponentially in $1/\eta$ (exactly "
        f"{exact_share(1 / 14):.1g} at 1/14, {exact_share(1 / 16):.1g} at 1/16). Yet $x_k$ is a polynomial of degree $3^k$ in "
        r"the noise, so that $E x_k^2$ itself is astronomical at every $\eta$: for unbounded $h$ the theorem needs its "
        r"assumption, and what a sample shows at small $\eta$ are the paths that stay."
    )
    run.figure(
        "lost", lambda: draw_lost(lost_sgd, others), r"Share of paths that leave every bound, from $x_0 = 5$; dashed: exact."
    )


def draw_lost(sgd, others):
    figure, axes = canvas()
    inverse = np.linspace(10.5, 16.5, 61)
    axes.plot(inverse, [exact_share(1 / n) for n in inverse], color=INK, linewidth=1.1, linestyle=(0, (5, 3)), label="exact, SGD")
    axes.plot(list(sgd), [e.value for e in sgd.values()], MARKERS[0], color=COLOURS[0], markersize=6, label="SGD")
    for i, (name, share) in enumerate(others.items(), 1):
        axes.plot([13], [share.value], MARKERS[i], color=COLOURS[i], markersize=6 + 3 * (i == 1), label=name)
    axes.set_xlabel(r"$1/\eta$", color=INK)
    axes.set_ylabel("lost paths", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


# A momentum that starts large


def plain_laws(eta: float, m0: float, beta: float = 0.5) -> dict[str, list[np.ndarray]]:
    """E x and E x^2 of SGDM from m_0 and of SGD, k = 0 ... 1 / eta, by plain recursions."""
    steps = round(1 / eta)
    both = [moments(sgdm, (1.0, m0), [(eta, beta)] * steps, 1.0, 1 / eta), moments(sgd, (1.0,), [(eta,)] * steps, 1.0, 1 / eta)]
    return {"x": [mean[:, 0] for mean, _ in both], "x**2": [mean[:, 0] ** 2 + spread[:, 0, 0] for mean, spread in both]}


@st.claim(
    "assumption-3.2-initial-momentum",
    statement=r"From $m_0 = \eta^{-p}$ the gap of smooth $h$ has order $1 - p$: the theorem's $1/2$ still holds for $p = 1/2$, "
    r"though Assumption 3.2 does not, and for $p = 1$ the two no longer approach each other.",
    source="Assumption 3.2",
)
def initial_momentum(run):
    noise, observe = st.noise.gaussian(dim=1), ["x", "x**2"]
    run.note("A wrong rule, start, rate or scale is noticed along one path and in the exact moments, each step by step.")
    etas = [2.0**-k for k in range(4, 9)]
    options = run.options(paths=min(run.paths, 200_000))  # coupling resolves these gaps to a percent
    gaps, exact, orders = {}, {}, {}
    for p in (0.0, 0.5, 1.0):

        def from_momentum(eta, p=p):
            return pair(eta, noise, beta=0.5, momentum=[eta**-p])

        study = st.order_study(from_momentum, etas, x0=[1.0], horizon=1.0, observe=observe, **options)
        laws = {eta: plain_laws(eta, eta**-p) for eta in etas}
        mine = [st.exact.moments(d, [1.0], 32) for d in from_momentum(1 / 32)]
        measure_pair(run, f"p={p}", from_momentum(1 / 32), 1 / 32, 0.5, "x**2", np.square, (1 / 32) ** -p)
        for h in observe:
            truth = [np.abs(np.subtract(*laws[eta][h])).max() for eta in etas]
            away = max(farthest(st.exact.expectation(law, h), plain) for law, plain in zip(mine, laws[1 / 32][h], strict=True))
            run.measure(f"E h(x_k) and E h(z_k) of {h} beside plain recursions, p={p}", away, at_most=ROUNDING)
            found = orders[p, h] = study.order(h)
            # the orders 1, 1/2 and 0 lie half a unit apart: half of that tells them apart
            run.measure(f"order of the gap of {h}, p={p}", found, expected=fitted(etas, truth), tolerance=0.25)
            own = fitted(found.etas, found.gaps)
            run.measure(f"the fit beside plain least squares, {h}, p={p}", found.value, own, tolerance=ROUNDING)
            for eta, expected in zip(etas, truth, strict=True):
                gap = study.sup(h, eta)
                # six standard errors for an interval at the level of a whole run, four for where it falls
                run.measure(f"gap of {h} at eta={eta:g}, p={p}", gap, expected, tolerance=10 * gap.stderr)
            limit = st.exact.local_orders(etas[-2:], truth[-2:])[0]
            run.measure(f"local order of the exact gap of {h} at eta=2^-8, p={p}", limit, expected=1 - p, tolerance=0.25)
            if h == "x":
                gaps[f"p = {p:g}"], exact[f"p = {p:g}"] = study.estimates(h), truth
    with run.control("the theorem's order with m_0 = 1/eta"):
        run.measure("order of the gap of x", orders[1.0, "x"], at_least=0.5)
    with run.control("the order of a bounded m_0 with m_0 = eta^-1/2"):
        run.measure("order of the gap of x", orders[0.5, "x"], expected=1.0, tolerance=0.25)
    run.figure("momentum", lambda: draw_momentum(etas, gaps, exact), r"Gap of $x$ for $m_0 = \eta^{-p}$; dashed: exact.")


def draw_momentum(etas, gaps, exact):
    def curves(field):
        return {name: [getattr(e, field) for e in row] for name, row in gaps.items()}

    return loglog_orders(etas, curves("value"), curves("low"), curves("high"), exact, ylabel="sup over time of the gap of $x$")
