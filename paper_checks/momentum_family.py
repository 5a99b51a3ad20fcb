"""Variants of momentum that are plain SGD in disguise, with their effective learning rates, and those that are different methods.

A filter that is linear in the gradients and has a fading memory passes a slow gradient with a fixed gain: y_k = w . (x_k, buffers) changes
by - gain eta g_k, and x_k stays near y_k. Drift and noise have that one gain, and for small eta the filter is SGD at the
learning rate gain eta. Here every method that has a gain runs at gain eta = h, the others at SGD's drift. All of them and SGD at the
rate h read the same draws, sigma = h^-1/2, so that differences are measured path by path.

    drift   on a linear loss: displacement of the mean over that of SGD                           1 for SGD in disguise
    extra   on a flat loss: growth of E (x - x_SGD)^2, over the growth of E x_SGD^2               0 for SGD in disguise

Both are taken over the second half of the run, to exclude the initial transient. (A transient may be long: the first draw of STORM keeps
the weight 1 / a, so STORM is O(h / a^2) from SGD where the others are O(h / (1 - beta)). Here a^2 = 1 - beta.) A method that is not SGD
in disguise has extra noise at every learning rate:

    random scaling   s_k m_k = m_k + (s_k - 1) m_k: white noise of variance Var s  Var m = (1 - beta) / (1 + beta)
    SNGM             in one coordinate sign(g), of slope sqrt(2 / pi) / sigma and variance 1: pi / 2 - 1 at SGD's drift
    SGDF             in units of its deviation, D = g - m passes as D / (1 + D^2); its linear part is QHM's filter,
                     the rest is nearly white: b^2 (1 + r) (p - 1/2 - (1 - p)^2), r = (1 - b) / (1 + b), p = E 1 / (1 + Z^2), Z ~ N(0, 1)
    IGT              the mean of all noise so far, whose sum over k has extra variance sum_s (w_s - 1)^2, w_s = sum_{t>=s} 1 / (t + 1)
"""

from __future__ import annotations

import math

import numpy as np
from _plain import ROUNDING, acc_sgd, draws, follow, moments, nesterov, path, relative_distance, sgd, sgdm

import sdetools as st
from sdetools.dynamics.rules import IGT, PNM, QHM, SGDF, SNGM, STORM, AccSGD, Nesterov, PrimalAveraging, RandomScaling
from sdetools.estimates.estimate import skewness_of_mean
from sdetools.plots import COLOURS, INK, canvas

H, BETA = 2.0**-8, 0.9
STEPS, R = round(1 / H), (1 - BETA) / (1 + BETA)
MEMORY = 1 / (1 - BETA)
P = math.sqrt(math.pi / 2) * math.exp(0.5) * math.erfc(math.sqrt(0.5))  # E 1 / (1 + Z^2)
DRIFT = {"SNGM": 0.06, "IGT": 0.08}
"""Tolerances of the drift over SGD's; 0.03 for all others. At 0.7 of the gain, the control, it is 0.7."""
EXTRA_OFF, RELATIVE = 0.004, {"IGT": 0.15, "SNGM": 0.15}
"""Tolerance of an extra noise of 0, an eighth of the smallest that a method has; relative tolerances of the others, 0.25 except for two."""

constant = st.schedules.constant
DISGUISED = {
    "SGDM": lambda oracle, eta: st.SGDM(oracle, constant(eta, BETA)),
    "Nesterov": lambda oracle, eta: Nesterov(oracle, constant(eta, BETA)),
    "QHM": lambda oracle, eta: QHM(oracle, constant(eta, BETA), nu=0.7),
    "primal averaging": lambda oracle, eta: PrimalAveraging(oracle, constant(eta), c=1 - BETA),
    "AccSGD": lambda oracle, eta: AccSGD(oracle, constant(eta), kappa=50, xi=5),  # a memory of 9 steps
    "PNM": lambda oracle, eta: PNM(oracle, constant(eta, BETA)),
    "STORM": lambda oracle, eta: STORM(oracle, constant(eta), a=(1 - BETA) ** 0.5),  # its first draw has weight 1 / a, squared 10
}
OTHERS = {
    "random scaling": lambda oracle, eta: RandomScaling(oracle, constant(eta, BETA)),
    "SNGM": lambda oracle, eta: SNGM(oracle, constant((1 - BETA) * math.sqrt(math.pi / 2) * eta / math.sqrt(H), BETA)),
    "SGDF": lambda oracle, eta: SGDF(oracle, constant(eta, BETA)),
    "IGT": lambda oracle, eta: IGT(oracle, constant(eta)),
}
NAMES = [*DISGUISED, *OTHERS]


def quadratic(h=H):
    """Return the oracle of L = x^2 / 2 in one coordinate."""
    return st.NoisyOracle(st.losses.from_expression("x**2 / 2"), st.noise.gaussian(dim=1), sigma=h**-0.5)


def qhm(state, g, eta, beta, nu):
    """Return the state after a step of QHM."""
    x, m = state
    now = g(x)
    m = beta * m + (1 - beta) * now
    return x - eta * ((1 - nu) * now + nu * m), m


def primal_averaging(state, g, eta, c):
    """Return the state after a step of primal averaging."""
    x, z = state
    z = z - eta * g(x)
    return x + c * (z - x), z


def pnm(state, g, eta, beta, b0):
    """Return the state after a step of PNM."""
    x, last, before = state
    new = beta**2 * before + (1 - beta**2) * g(x)
    return x - eta * ((1 + b0) * new - b0 * last) / math.sqrt((1 + b0) ** 2 + b0**2), new, last


def storm(state, g, eta, a):
    """Return the state after a step of STORM."""
    x, d, previous = state
    d = a * g(x) + (1 - a) * (d + g(x) - g(previous))
    return x - eta * d, d, x


def random_scaling(state, g, eta, beta, s):
    """Return the state after a step of SGDM whose step is scaled by s."""
    x, m = state
    m = beta * m + (1 - beta) * g(x)
    return x - s * eta * m, m


def sngm(state, g, eta, beta):
    """Return the state after a step of SNGM in one coordinate."""
    x, m = state
    m = beta * m + np.sign(g(x))
    return x - eta * m, m


def sgdf(state, g, eta, beta, b2, t):
    """Return the state after a step of SGDF; t counts steps from 1."""
    x, m, s = state
    now = g(x)
    m = beta * m + (1 - beta) * now
    s = b2 * s + (1 - b2) * (now - m) ** 2
    mean, variance = m / (1 - beta**t), s / (1 - b2**t)
    K = variance / (variance + (now - mean) ** 2 + 1e-8)
    return x - eta * (mean + K * (now - mean)), m, s


def igt(state, g, eta, t):
    """Return the state after a step of IGT; t counts steps from 0."""
    x, v, previous = state
    v = (t * v + g(x + t * (x - previous))) / (t + 1)
    return x - eta * v, v, x


GAIN = {
    "SGDM": 1.0,  # (1 - beta) / (1 - beta)
    "Nesterov": 1 / (1 - BETA),  # 1 + mu / (1 - mu)
    "QHM": 1.0,  # (1 - nu) + nu
    "primal averaging": 1.0,  # c eta in every step, divided by 1 - (1 - c): c / c
    "AccSGD": 0.7 * (1 + 5) / 1.7,  # e (1 + xi) / (1 + e)
    "PNM": 1 / math.sqrt(5),  # (1 + b0) - b0 = 1 over the norm
    "STORM": 1.0,
}
"""The response to a constant gradient, from the papers' equations and not from the library's rules."""


def plain(name, rate, steps, scales=None):
    """Return the reference implementation of a method as (rule, parts, its coefficients in each step).

    Its learning rate is such that it responds to a slow gradient like SGD at `rate`.
    """
    rate, k = rate / GAIN.get(name, 1.0), np.arange(steps)
    a, A = (1 - BETA) ** 0.5, 1 - 0.49 * 5 / 50
    scales = np.ones(steps) if scales is None else scales
    length = (
        (1 - BETA) * math.sqrt(math.pi / 2) * rate / math.sqrt(H)
    )  # g / |g| has the slope sqrt(2 / pi) / sigma, and no 1 - beta
    rule, parts, numbers = {
        "SGDM": (sgdm, "xm", [rate, BETA]),
        "Nesterov": (nesterov, "xv", [rate, BETA]),
        "QHM": (qhm, "xm", [rate, BETA, 0.7]),
        "primal averaging": (primal_averaging, "xx", [rate, 1 - BETA]),
        "AccSGD": (acc_sgd, "xx", [rate, 50, A]),
        "PNM": (pnm, "xmm", [rate, BETA, 1.0]),
        "STORM": (storm, "xmx", [rate, np.where(k == 0, 1.0, a)]),
        "random scaling": (random_scaling, "xm", [rate, BETA, scales]),
        "SNGM": (sngm, "xm", [length, BETA]),
        "SGDF": (sgdf, "xmm", [rate, BETA, 0.999, k + 1]),
        "IGT": (igt, "xmx", [rate, k]),
    }[name]
    return rule, parts, np.column_stack([np.broadcast_to(value, steps) for value in numbers]).astype(float)


def start_of(parts, x0):
    """Return the initial state: x0 in every part that is a position, 0 in the buffers."""
    return tuple(x0 if part == "x" else 0.0 for part in parts)


def gain(name):
    """Return the library's gain of a method; 1 for those without a gain, and for SGDM, where Theorem 3.5 states it."""
    return 1.0 if name in OTHERS or name == "SGDM" else DISGUISED[name](quadratic(), 1.0).gain


def method(name, rate, h=H):
    """Return a method that responds to slow gradients like SGD at the learning rate `rate`."""
    return (DISGUISED | OTHERS)[name](quadratic(h), rate / GAIN.get(name, 1.0))


def measure_rules(run):
    """Compare every method along one path of the kernel with its paper's equations, and its gain with its formula."""
    steps = 48
    combined = make_combined(1.0, slope=0.3, curve=1.0, well=2.0)
    names = [f"x{i}" for i in range(1 + len(NAMES))]
    found = path(combined, [1.5] * len(names), steps, names, run.seed)
    z = draws(combined, steps, run.seed)  # the shared normal, then the uniform of random scaling

    def noisy(k, x):
        return 0.3 + x - 2 * x / np.sqrt(1 + x * x) + H**-0.5 * z[k, 0]

    for i, name in enumerate(["SGD", *NAMES]):
        made = (sgd, "x", np.full((steps, 1), H)) if name == "SGD" else plain(name, H, steps, -np.log(z[:, -1]))
        rule, parts, rows = made
        expected = follow(rule, start_of(parts, 1.5), rows, noisy)[:, 0]
        run.measure(
            f"{name}: x_k along one path beside its equations", relative_distance(found[:, i], expected), at_most=ROUNDING
        )
    rng = np.random.default_rng(8)
    x, m, g = rng.standard_normal((3, 3, 5))
    after = SNGM.rule((x, m), lambda point: g, 0.3, BETA)
    m = BETA * m + g / np.linalg.norm(g, axis=0)
    run.measure(
        "SNGM: a step in three coordinates beside its equation", relative_distance(after, (x - 0.3 * m, m)), at_most=ROUNDING
    )
    for name, expected in GAIN.items():
        run.measure(f"{name}: gain", gain(name), expected, relative=ROUNDING)


class CombinedMethods(st.Dynamics):
    """Methods on the same draws, one in each coordinate. Each runs by its own rule."""

    parts, extra_draws = ("x", "second", "third"), RandomScaling.extra_draws
    formula = r"\text{each coordinate by the rule of its method}"

    def __init__(self, oracle, plan, methods):
        self.methods = methods
        self.coefficients = tuple(f"{name}_{i}" for i, one in enumerate(methods) for name in one.coefficients)
        super().__init__(oracle, plan)

    def rule(self, state, oracle, *coefficients):
        coefficients, after = iter(coefficients), []
        for i, one in enumerate(self.methods):
            own, used = [part[i : i + 1] for part in state], len(one.parts)
            new = one.rule(tuple(own[:used]), CoordinateOracle(oracle, i), *(next(coefficients) for _ in one.coefficients))
            after.append([*new, *own[used:]])
        return tuple(np.concatenate(part) for part in zip(*after, strict=True))

    def start(self, x0, z=None):
        blank = np.zeros(1)
        rows = [[*one.start(x0[i : i + 1]), blank, blank][: len(self.parts)] for i, one in enumerate(self.methods)]
        return tuple(np.concatenate(part) for part in zip(*rows, strict=True))

    def coefficient_values(self, steps):
        return np.hstack([one.coefficient_values(steps) for one in self.methods])

    @property
    def identity(self):
        return " & ".join([super().identity, *(one.identity for one in self.methods)])


class CoordinateOracle:
    """The oracle of the method in coordinate i: it takes that method's point and returns the gradient of its coordinate."""

    def __init__(self, oracle, i):
        self.oracle, self.i, self.extra = oracle, i, oracle.extra

    def __call__(self, x):
        return self.oracle(np.repeat(x, 1 + len(NAMES), axis=0))[self.i : self.i + 1]


def make_combined(share=1.0, **numbers):
    """Return SGD at the rate h, followed by all other methods at h times `share`.

    The loss is the same function of every coordinate, so that all problems share one compiled kernel. Its wells lie at x^2 = 3 for
    curve = 1, well = 2: there L' = x - 2 x / sqrt(1 + x^2), and -1 <= L'' <= 1.
    """
    numbers = {"slope": 0.0, "curve": 0.0, "well": 0.0} | numbers
    names = [f"x{i}" for i in range(1 + len(NAMES))]
    loss = " + ".join(f"slope*{x} + curve*{x}**2/2 - well*sqrt(1 + {x}**2)" for x in names)
    oracle = st.NoisyOracle(
        st.losses.from_expression(loss, variables=" ".join(names), parameters=numbers),
        st.noise.gaussian(root=np.ones((len(names), 1))),
        sigma=H**-0.5,
    )
    return CombinedMethods(oracle, constant(H), [st.SGD(quadratic(), constant(H)), *(method(name, share * H) for name in NAMES)])


def endpoints(run, x0, horizon=1.0, share=1.0, stream=0, **numbers):
    """Return x at the horizon, SGD first: `(methods, paths)`, and the number of diverged paths.

    The final points are kept in memory, hence the bound on the number of paths.
    """
    combined = make_combined(share, **numbers)
    options = run.options(paths=min(run.paths, 250_000), stream=stream, times=[horizon], keep_final=True)
    found = st.simulate(combined, [x0] * combined.dim, horizon, observe=["x0"], **options)
    return found.final, found.diverged


def mean(values, diverged):
    """Return the sample mean as an `Estimate`."""
    groups = np.array([part.mean() for part in np.array_split(values, 256)])
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return st.Estimate(float(values.mean()), error, len(values), diverged=diverged, skewness=skewness_of_mean(groups))


def halves(run, stream, **numbers):
    """Return x at T / 2 and at T, on the same draws, and the number of diverged paths."""
    (early, _), (late, diverged) = (endpoints(run, 0.0, horizon, stream=stream, **numbers) for horizon in (0.5, 1.0))
    return early, late, diverged


def drifts(run):
    """Return -2 (x_T - x_{T/2}) for slope 1, with SGD's noise subtracted: SGD's mean displacement is exactly -1/2."""
    early, late, diverged = halves(run, stream=1, slope=1.0)
    own = late - early
    return {name: mean(1 - 2 * (own[i] - own[0]), diverged) for i, name in enumerate(NAMES, 1)}


def extras(run, share=1.0):
    """Return 2 ((x - z)^2 at T - (x - z)^2 at T / 2) against SGD's z, whose variance grows by exactly 1/2."""
    early, late, diverged = halves(run, stream=0, share=share)
    return {name: mean(2 * ((late[i] - late[0]) ** 2 - (early[i] - early[0]) ** 2), diverged) for i, name in enumerate(NAMES, 1)}


def extra_of_igt():
    """Return the growth of the sum over draws of (w_s - 1)^2 in the second half."""

    def total(steps):
        weights = np.cumsum((1 / np.arange(1, steps + 1))[::-1])
        return ((weights - 1) ** 2).sum()

    return (total(STEPS) - total(STEPS // 2)) / (STEPS / 2)


EXTRA = {
    "random scaling": R,
    "SNGM": math.pi / 2 - 1,
    "SGDF": BETA**2 * (1 + R) * (P - 0.5 - (1 - P) ** 2),
    "IGT": extra_of_igt(),
}
NORMALISED = math.erf(math.sqrt(H / 2)) * math.sqrt(
    math.pi / (2 * H)
)  # drift of SNGM: E sign(c + sigma v) over its slope at c = 0


def exact_gap(name, h):
    """Return E x^2 at T = 1 on the quadratic from x_0 = 1, minus that of SGD, from the papers' equations at a finite h."""
    steps = round(1 / h)
    rule, parts, rows = plain(name, h, steps)
    mine, own = moments(rule, start_of(parts, 1.0), rows, 1.0, 1 / h)
    other, others = moments(sgd, [1.0], np.full((steps, 1), h), 1.0, 1 / h)
    return float(mine[-1, 0] ** 2 + own[-1, 0, 0] - other[-1, 0] ** 2 - others[-1, 0, 0])


def library_gap(name, h):
    """Return the same gap by the library, from its rules."""
    one, steps = method(name, h, h), round(1 / h)
    other = st.SGD(one.oracle, constant(h), step_time=one.step_time)
    return float(st.exact.gap(one, other, [1.0], steps, "x**2", record=[steps])[0])


def squared(points, diverged, i):
    """Return the mean of x_i^2 - z^2."""
    return mean(points[i] ** 2 - points[0] ** 2, diverged)


@st.claim(
    "momentum-family-is-sgd-in-disguise",
    statement=r"For small $\eta$ Nesterov's momentum, QHM, primal averaging, AccSGD, PNM and STORM are plain SGD at the learning rate "
    r"gain $\cdot\,\eta$, where the gain is the response of their filter to a constant gradient. Random scaling, SNGM, SGDF and IGT are not. "
    r"At SGD's drift their extra noise variance is $\frac{1-\beta}{1+\beta}$, $\frac{\pi}{2} - 1$ (one coordinate, normal noise), about "
    r"0.032 ($\beta = 0.9$, normal noise) and, before it averages out, 1 times that of SGD.",
    source="Theorem 3.5, extended to variants of momentum",
)
def momentum_family(run):
    """Check gains, drifts and extra noise of the momentum family."""
    run.note(
        "A wrong rule, coefficient or order of steps is detected along one path, where each method agrees with its paper's equations to "
        "rounding; a wrong gain by its formula; a wrong moment by the exact gap at a finite learning rate, from plain recursions. Simulations "
        "confirm the results in law."
    )
    measure_rules(run)
    drift, extra, wrong = drifts(run), extras(run), extras(run, share=0.7)
    points, diverged = endpoints(run, 1.0, stream=2, curve=1.0)
    wells, diverged_in_wells = endpoints(run, 1.5, stream=3, curve=1.0, well=2.0)

    for i, name in enumerate(DISGUISED, 1):
        run.measure(f"{name}: drift", drift[name], expected=1.0, tolerance=0.03)
        run.measure(f"{name}: extra noise", extra[name], expected=0.0, tolerance=EXTRA_OFF)
        # a quarter of h / (1 - beta), the bound below
        gap = squared(points, diverged, i)
        run.measure(f"{name}: gap of x^2 on a quadratic", gap, expected=exact_gap(name, H), tolerance=H * MEMORY / 4)
        away = abs(library_gap(name, H) - exact_gap(name, H))
        run.measure(f"{name}: exact gap of x^2 by the library beside plain recursions", away, at_most=ROUNDING)
        shrunk = abs(exact_gap(name, H / 16) / exact_gap(name, H))
        run.measure(f"{name}: what is left of the exact gap at h / 16", shrunk, at_most=16**-0.5)  # order 1/2
        # of order h / (1 - beta); the diffusion, T and the bound on |L''| are all 1, and so is the constant used here
        gap = squared(wells, diverged_in_wells, i)
        run.measure(f"{name}: gap of x^2 between two wells", gap, expected=0.0, tolerance=H * MEMORY)
        with run.control(f"{name} at 0.7 of its gain"):
            run.measure("extra noise", wrong[name], expected=0.0, tolerance=EXTRA_OFF)

    for name, expected in EXTRA.items():
        exact = NORMALISED if name == "SNGM" else 1.0
        run.measure(f"{name}: drift", drift[name], expected=exact, tolerance=DRIFT.get(name, 0.03))
        # SGDF estimates its variance from k = K/2 ... K draws: a relative error below 1 / k, to second order
        off = expected / (STEPS / 2) if name == "SGDF" else 0.0
        run.measure(f"{name}: extra noise", extra[name], expected, tolerance=RELATIVE.get(name, 0.25) * expected + off)
        with run.control(f"{name} taken for SGD in disguise"):
            run.measure("extra noise", extra[name], at_most=expected / 4)

    igt = squared(points, diverged, 1 + NAMES.index("IGT"))
    run.measure("IGT: gap of x^2 on a quadratic", igt, expected=exact_gap("IGT", H), relative=0.3)
    with run.control("IGT taken for SGD with twice the noise"):
        doubled = (1 - math.exp(-2)) / 2  # E x^2 of the Ornstein-Uhlenbeck process from its noise alone
        run.measure("gap of x^2 on a quadratic", igt, expected=doubled, tolerance=H * MEMORY)

    rows = [(n, f"{gain(n):.4f}", *map(formatted, (drift[n], extra[n])), "0", f"{exact_gap(n, H):.4f}", "yes") for n in DISGUISED]
    rows += [
        (n, "1.0000" if n == "random scaling" else "none", *map(formatted, (drift[n], extra[n])), f"{EXTRA[n]:.4f}", "", "no")
        for n in OTHERS
    ]
    titles = ["gain", "drift over SGD's", "extra noise over SGD's", "expected", "exact gap of x^2, h = 1/256", "SGD in disguise?"]
    run.table("the family", rows, ["method", *titles])
    run.figure(
        "extra noise", lambda: plot_extra(extra), "Noise variance in excess of SGD's, in units of SGD's: measured, expected."
    )


def formatted(estimate):
    """Return an estimate with its half width as text."""
    return f"{estimate.value:.4f} +- {estimate.half_width:.4f}"


def plot_extra(extra):
    """Plot the extra noise of every method."""
    figure, axes = canvas()
    rows = range(len(NAMES))
    axes.errorbar(
        [extra[name].value for name in NAMES],
        rows,
        xerr=[extra[name].half_width for name in NAMES],
        fmt="o",
        color=COLOURS[0],
        label="measured",
    )
    axes.plot([EXTRA.get(name, 0.0) for name in NAMES], rows, "|", markersize=14, color=INK, label="expected")
    axes.set_yticks(rows, NAMES)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.02)
    axes.set_xlabel(r"growth of $E (x - x_{SGD})^2$ over that of $E x_{SGD}^2$", color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure
