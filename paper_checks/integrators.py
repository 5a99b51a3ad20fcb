"""The integrators are the printed schemes, with the declared weak orders for all low moments and the declared strong orders.

Three claims. The first compares every step with the printed scheme, written out in plain loops (`_schemes.py`), draw by draw. It
detects any changed constant, sign, stage, time or term. The second needs no scheme: E f after one step is expanded in h and compared
with f + h L f + h^2 L^2 f / 2, L the generator written out here, for three noncommuting noises. The third is about paths:
X = sinh(Y), dY = dt + s dW, solves dX = (sqrt(1 + X^2) + s^2 X / 2) dt + s sqrt(1 + X^2) dW, which is dX = sqrt(1 + X^2) (dt + s o dW) in
the Stratonovich sense. The exact Y runs on the same Brownian path as a scheme.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations_with_replacement

import _schemes as printed
import numpy as np
from sympy import QQ
from sympy.polys.rings import ring

import sdetools as st
from sdetools.estimates import Estimate

LANES = 8
"""Number of random draws at which a step is compared with the printed one."""
ROUNDING = 1e-12
"""Rounding bound: some hundred operations on numbers of size one, with 1e-16 each, divided by sqrt(h) = 1/2. A constant with an error of
2 % changes a step by 1e-3 or more.
"""
TIME = 3
"""Number of steps before the compared one, so that the time enters."""
H = 0.3
NUMBERS = {"c": 0.7, "s": 0.4}

DRIFT = ["c*y*t - x + x**2/4", "sin(x) - s*y + t**2"]


def drift(t, y):
    """Return the drift of DRIFT in plain NumPy."""
    c, s = NUMBERS.values()
    return np.array([c * y[1] * t - y[0] + y[0] ** 2 / 4, np.sin(y[0]) - s * y[1] + t**2])


GENERAL = [["s*x + t", "c + y**2/5", "0.3*cos(x*y)"], ["0.2 - t*y/3", "s*x*y", "c*x"]]
ADDITIVE = [["s + t", "0.3*t", "0.5"], ["0.1", "c - t**2", "0.2*t"]]
DIAGONAL = [["s*x + x**2/5 + t", "0"], ["0", "c*cos(y) + t"]]
SCALAR = [["s*x + y*t"], ["c*sin(x)"]]
PARALLEL = [["s*(x + y*t)", "2*(x + y*t)"], ["s*sin(x)", "2*sin(x)"]]


def general(t, y):
    """Return the general noise matrix in plain NumPy."""
    c, s = NUMBERS.values()
    rows = [s * y[0] + t, c + y[1] ** 2 / 5, 0.3 * np.cos(y[0] * y[1])], [0.2 - t * y[1] / 3, s * y[0] * y[1], c * y[0]]
    return np.array(rows)


def additive(t, y):
    """Return the additive noise matrix in plain NumPy."""
    c, s = NUMBERS.values()
    return np.array([[s + t, 0.3 * t, 0.5], [0.1, c - t**2, 0.2 * t]])


def diagonal(t, y):
    """Return the diagonal noise matrix in plain NumPy."""
    c, s = NUMBERS.values()
    return np.diag([s * y[0] + y[0] ** 2 / 5 + t, c * np.cos(y[1]) + t])


def scalar(t, y):
    """Return the scalar noise matrix in plain NumPy."""
    c, s = NUMBERS.values()
    return np.array([[s * y[0] + y[1] * t], [c * np.sin(y[0])]])


def parallel(t, y):
    """Return a noise matrix with parallel columns in plain NumPy."""
    return np.outer([y[0] + y[1] * t, np.sin(y[0])], [NUMBERS["s"], 2.0])


def still(t, y):
    """Return a noise matrix without columns."""
    return np.zeros((2, 0))


PRINTED = [
    *((st.EulerMaruyama, printed.euler, text, b) for text, b in ((GENERAL, general), (ADDITIVE, additive), (None, still))),
    *(
        (st.Milstein, printed.milstein, text, b)
        for text, b in ((SCALAR, scalar), (DIAGONAL, diagonal), (PARALLEL, parallel), (ADDITIVE, additive), (None, still))
    ),
    *((st.Heun, printed.heun, text, b) for text, b in ((GENERAL, general), (SCALAR, scalar))),
    *(
        (cls, scheme, text, b)
        for cls, scheme in ((st.Platen, printed.platen), (st.RI1, printed.ri1))
        for text, b in ((GENERAL, general), (SCALAR, scalar), (ADDITIVE, additive), (None, still))
    ),
    *((st.SRA1, printed.sra1, text, b) for text, b in ((ADDITIVE, additive), (None, still))),
]


def sde(text, calculus="ito"):
    """Return the SDE with the drift DRIFT and the given noise."""
    return st.SDE(DRIFT, text, variables="x y", parameters=NUMBERS, calculus=calculus)


def distance_to_printed(cls, scheme, text, b):
    """Return the largest distance between a step and the printed one, over random points and draws."""
    one = cls(sde(text, cls.calculus if cls is st.Heun else "ito"), H)
    rng = np.random.default_rng(5)
    y, q = rng.uniform(-1.5, 1.5, (2, LANES)), one.sde.noise_dim
    z = rng.standard_normal((cls.levels * q, LANES))
    signs = rng.choice([-1.0, 1.0], (q * (q - 1) // 2 if cls in (st.Platen, st.RI1) else 0, LANES))
    (moved,) = one.rule((y,), one.bind(np.concatenate([z, signs])), *one.coefficient_values(TIME + 1)[TIME])
    apart = []
    for lane in range(LANES):
        w = math.sqrt(H) * z[:q, lane]
        more = np.zeros((q, q))
        more[np.tril_indices(q, -1)] = signs[:, lane] if len(signs) else 0.0  # the pairs (1, 0), (2, 0), (2, 1), ...
        more = more.T - more  # V_(r,j) is its sign for r < j
        if cls is st.SRA1:
            more = H**1.5 / 2 * (z[:q, lane] + z[q:, lane] / math.sqrt(3))  # the integral of W over the step
        apart.append(np.abs(moved[:, lane] - scheme(drift, b, TIME * H, y[:, lane], H, w, more)).max())
    return float(max(apart))


LOSS = st.losses.from_expression("x**2/2 + x*y/3 + y**4/5", variables="x y")
ROOT = [["1 + x**2/4", "0.3"], ["0.2*y", "0.8"]]
ETA = 2.0**-6


def slope(x):
    """Return the gradient of LOSS."""
    return np.array([x[0] + x[1] / 3, x[0] / 3 + 4 / 5 * x[1] ** 3])


def split(cls, scheme, state_dependent, eta=ETA):
    """Return the largest distance between step 30 of a splitting and the printed one.

    The kinetic equation has eta_k = eta / 2^(k/15) and beta_k = 1 - eta (1.5 + k/15).
    """
    noise = st.noise.gaussian(root=ROOT, variables="x y") if state_dependent else st.noise.gaussian(root=[[1.0, 0.3], [0.2, 0.8]])
    oracle = st.NoisyOracle(LOSS, noise, sigma=0.9 * eta**-0.5)
    part = np.arange(40) / 15
    plan = st.schedules.from_arrays(eta / 2**part, 1 - eta * (1.5 + part), base=eta)
    one = cls(st.KineticSDE(oracle, plan), eta)
    rng = np.random.default_rng(6)
    x, m, u = rng.uniform(-1, 1, (2, LANES)), rng.uniform(-1, 1, (2, LANES)), rng.standard_normal((2 * cls.levels, LANES))
    moved = np.concatenate(one.rule((x, m), one.bind(u), *one.coefficient_values(31)[30]))

    def root(at):
        return 0.9 * np.array([[1 + at[0] ** 2 / 4, 0.3], [0.2 * at[1], 0.8]] if state_dependent else [[1.0, 0.3], [0.2, 0.8]])

    right = [
        np.concatenate(scheme(slope, root, 1 / 4, 3.5, 3.5, eta, x[:, n], m[:, n], u[:, n].reshape(-1, 2))) for n in range(LANES)
    ]
    return float(np.abs(moved - np.stack(right, axis=1)).max())


def three_points(law):
    """Return E xi^k, k = 1 ... 6, of a draw, by the midpoint rule with 600 points: exact for laws with jumps at multiples of 1/6."""
    one = st.EulerMaruyama(st.SDE(["0"], ["1"], variables="x"), 1.0, law)
    (xi,) = one.rule((np.zeros((1, 600)),), one.bind((np.arange(600)[None] + 0.5) / 600), *one.coefficient_values(1)[0])
    return [float((xi[0] ** k).mean()) for k in range(1, 7)]


@st.claim(
    "integrators-are-the-printed-schemes",
    statement=r"A step of Euler-Maruyama, Milstein, Heun, Platen, RI1 and SRA1, with up to three Brownian motions and time-dependent "
    r"coefficients, and of the splittings OBABO, BAOAB and UBU, is the step of the printed scheme, draw by draw; RI1 has a sign for each pair.",
    source="P. Kloeden, E. Platen (1992), (11.1.7), (15.1.3); A. Roessler (2009), (2010); G. Bussi, M. Parrinello (2007)",
)
def printed_schemes(run):
    """Compare every integrator's step with the printed scheme.

    Detects any constant x 1.02, flipped sign, dropped term, swapped argument or stage in a step, its law, or the coefficients it evaluates.
    """
    for cls, scheme, text, b in PRINTED:
        name = f"{cls.__name__}, {b.__name__} noise: farthest from the printed step"
        run.measure(name, distance_to_printed(cls, scheme, text, b), at_most=ROUNDING)
    for cls, scheme in ((st.OBABO, printed.obabo), (st.BAOAB, printed.baoab), (st.UBU, printed.ubu)):
        for moving in (False, True) if cls is not st.UBU else (False,):
            name = f"{cls.__name__}, {'state-dependent' if moving else 'additive'} noise: farthest from the printed step"
            run.measure(name, split(cls, scheme, moving), at_most=ROUNDING)
    run.measure(
        "UBU, hardly any friction: farthest from the printed step", split(st.UBU, printed.ubu, False, 2.0**-8), at_most=ROUNDING
    )
    apart = np.abs(np.array(three_points("three-point")) - [0, 1, 0, 3, 0, 9]).max()
    run.measure("three-point draws: farthest of six moments", float(apart), at_most=ROUNDING)
    with run.control("Platen's scheme taken for RI1"):
        run.measure(
            "farthest from the printed step", distance_to_printed(st.Platen, printed.ri1, GENERAL, general), at_most=ROUNDING
        )


SPACE, X, Y, T = ring("x,y,t", QQ)
MONOMIALS = [math.prod(pick) for n in range(1, 5) for pick in combinations_with_replacement((X, Y), n)]
POINT = [0.5, -0.75]
A = [Y * T / 2 - X + X**2 / 4, X / 2 - 3 * Y / 4 + T + SPACE(1) / 8]
B = {
    "general": [[X / 2 + T / 4, SPACE(1) / 4 - Y**2 / 8], [SPACE(3) / 4 + Y**2 / 4, X * Y / 2], [X * Y / 4, X / 2 - T / 2]],
    "additive": [[SPACE(1) / 2 + T, SPACE(1) / 8], [T / 4, SPACE(3) / 4 - T / 2]],
    "scalar": [[X / 2 + T / 4, SPACE(1) / 4 + Y * X / 8]],
    "kinetic": [[SPACE(0), (SPACE(1) + X / 4) * 3 / 2]],
    "kinetic, additive": [[SPACE(0), SPACE(3) / 2]],
}
KINETIC = [-Y, (X + 3 * X**2 / 5 - X**3 / 4 - Y) * 3 / 2]
"""Drift of dX = -M dt, dM = 1.5 ((L' - M) dt + R dW), L = x^2/2 + x^3/5 - x^4/16, in x and y = M."""
DEGREE, LONGEST = 8, {1: 2.0**-12, 2: 2.0**-6}
"""E f is represented as a polynomial of degree DEGREE in h from its values at the Chebyshev nodes of (0, LONGEST]."""
READ = 1e-6
"""Error bound of the coefficients. Those of size one are good to 1e-15 * 64^2 * 600 = 3e-9, the last factor being the growth of the
interpolation. Milstein's term in h^(5/2) enters the coefficient of h with 2^-18 of its own 1/10. An error of 2 % in one term gives 1e-4.
"""


def generator(f, a, b, stratonovich):
    """Return df/dt + a . grad f + sum_k b_k b_k : Hess f / 2.

    In the Stratonovich sense the drift has the additional term (1/2) sum_k (b_k . grad) b_k.
    """
    if stratonovich:
        a = [a[i] + sum((c[j] * c[i].diff(v) for c in b for j, v in enumerate((X, Y))), SPACE(0)) / 2 for i in range(2)]
    second = sum((c[i] * c[j] * f.diff((X, Y)[i]).diff((X, Y)[j]) for c in b for i in range(2) for j in range(2)), SPACE(0)) / 2
    return f.diff(T) + a[0] * f.diff(X) + a[1] * f.diff(Y) + second


def expanded(law, degree):
    """Return the coefficients of E f(X_h) in powers of h, `(degree + 1, monomials)`.

    `law(h)` returns the points and weights of one step.
    """
    longest = LONGEST[degree]
    h = longest * (1 + np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))) / 2
    means = []
    for points, weights in map(law, h):
        means.append([weights @ (points[0] ** f.degrees()[0] * points[1] ** f.degrees()[1]) for f in MONOMIALS])
    scaled = np.linalg.solve(np.vander(h / longest, DEGREE + 1, increasing=True), np.array(means))
    return (scaled / longest ** np.arange(DEGREE + 1)[:, None])[: degree + 1]


def missed(law, a, b, order, stratonovich=False):
    """Return the distance of the expansion of one step from that of the semigroup up to h^order, relative to 1 + its coefficients."""
    right, now = [], list(MONOMIALS)
    for j in range(order + 1):
        right.append(
            [float(f.evaluate([(X, Fraction(POINT[0])), (Y, Fraction(POINT[1])), (T, 0)])) / math.factorial(j) for f in now]
        )
        now = [generator(f, a, b, stratonovich) for f in now] if j < order else []
    right = np.array(right)
    return float(np.max(np.abs(expanded(law, order) - right) / (1 + np.abs(right))))


def steps(cls, kind, law="normal"):
    """Return the law of one step of length h from POINT, of a formula or of the kinetic equation above."""
    if "kinetic" in kind:
        noise = st.noise.gaussian(root=[["1 + x/4" if kind == "kinetic" else "1"]], variables="x")
        oracle = st.NoisyOracle(st.losses.from_expression("x**2/2 + x**3/5 - x**4/16"), noise, sigma=8.0)
        plan = st.schedules.constant(1 / 64, beta=1 - 1.5 / 64)
        return lambda h: st.exact.step_law(cls(st.KineticSDE(oracle, plan, momentum=POINT[1:]), h), POINT[:1])
    rows = [[str(column[i].as_expr()) for column in B[kind]] for i in range(2)]
    calculus = cls.calculus if cls.calculus != "either" else "ito"
    one = st.SDE([str(f.as_expr()) for f in A], rows, variables="x y", calculus=calculus)
    return lambda h: st.exact.step_law(cls(one, h, law), POINT)


ORDERS = [
    *((st.EulerMaruyama, "general", law, 1) for law in ("normal", "three-point", "two-point")),
    (st.Milstein, "scalar", "normal", 1),
    (st.Heun, "general", "normal", 1),
    *((cls, "general", law, 2) for cls in (st.Platen, st.RI1) for law in ("normal", "three-point")),
    (st.SRA1, "additive", "normal", 2),
    *((cls, "kinetic", "normal", 2) for cls in (st.OBABO, st.BAOAB)),
    (st.UBU, "kinetic, additive", "normal", 2),
]


class OneSignPerMotion(st.RI1):
    """RI1 with the signs as printed in its paper: one I~_(k) for all pairs (k, l) with k < l."""

    def step(self, eq, y, h):
        eq.signs = [eq.signs[k] for j in range(eq.sde.noise_dim) for k in range(j)]
        return super().step(eq, y, h)


def extrapolated(h, mu=0.3, s=0.5, until=1.0):
    """Return 2 E X_{h/2}^2 - E X_h^2 of Euler's scheme on dX = mu X dt + s X dW, and the error of E X_h^2.

    The closed form is ((1 + mu h)^2 + s^2 h)^n.
    """
    gbm = st.SDE(["m*x"], ["s*x"], variables="x", parameters={"m": mu, "s": s})

    def second(dt):
        n = round(until / dt)
        found = st.exact.moments(st.EulerMaruyama(gbm, dt), [1.0], n, record=[n])
        return float(found.covariance[0, 0, 0] + found.mean[0, 0] ** 2)

    return 2 * second(h / 2) - second(h), abs(second(h) - ((1 + mu * h) ** 2 + s * s * h) ** round(until / h))


@st.claim(
    "integrators-weak-orders",
    statement=r"$E f(X_h) = f + h\,\mathcal L f + \dots + \frac{h^p}{p!}\mathcal L^p f + O(h^{p+1})$ for all moments up to the fourth: $p = 1$ "
    r"for Euler-Maruyama, Milstein and Heun, $p = 2$ for Platen, RI1 and SRA1 (three noncommuting noises; additive noise), "
    r"the splittings and extrapolated Euler.",
    source="P. Kloeden, E. Platen (1992); A. Roessler (2009); D. Talay, L. Tubaro (1990)",
)
def weak_orders(run):
    """Check the weak order of every integrator from the expansion of one step.

    Detects a change of the law of a step by 1e-6 of h^p: Platen's .25 -> .3 with three motions, RI1 with one sign per motion.
    """
    for cls, kind, law, order in ORDERS:
        a = KINETIC if "kinetic" in kind else A
        off = missed(steps(cls, kind, law), a, B[kind], order, cls is st.Heun)
        run.measure(f"{cls.__name__}, {kind} noise, {law} draws: farthest coefficient up to h^{order}", off, at_most=READ)
    deep = [2.0**-k for k in range(6, 10)]
    found, apart = zip(*map(extrapolated, deep), strict=True)
    run.measure("E X^2 of Euler: farthest from its closed form", max(apart), at_most=1e-11)
    local = st.exact.local_orders(deep, np.abs(np.array(found) - math.exp(0.85)))
    # the local order has an error of order dt = 2^-9 times a constant of order one
    run.measure("Euler extrapolated: last local order", float(local[-1]), expected=2.0, tolerance=0.02)
    with run.control("RI1 with one sign a motion"):
        run.measure(
            "farthest coefficient up to h^2",
            missed(steps(OneSignPerMotion, "general", "three-point"), A, B["general"], 2),
            at_most=READ,
        )
    with run.control("Euler taken for order 2"):
        run.measure(
            "farthest coefficient up to h^2", missed(steps(st.EulerMaruyama, "general"), A, B["general"], 2), at_most=READ
        )


S = 0.5
NOISE = {"variables": "x", "parameters": {"s": S}, "diffusion": ["s*sqrt(1 + x**2)"]}
ITO = st.SDE(drift=["sqrt(1 + x**2) + s**2*x/2"], **NOISE)
STRATONOVICH = st.SDE(drift=["sqrt(1 + x**2)"], **NOISE, calculus="stratonovich")
EXACT = st.SDE(drift=["1 + 0*x"], diffusion=[f"{S}"], variables="x")
STEPS = [2.0**-k for k in range(4, 8)]
PREASYMPTOTIC = 0.15
"""Allowed distance of a local order from its limit at these steps, for terms of the next order in dt^(1/2) = 1/8 and below. The interval of
a local order is +-0.03 at 40,000 paths, since an rms error over n paths has a relative error of 1/sqrt(n).
"""


def distances(run, cls, sde, steps=STEPS):
    """Return root mean square distances of asinh(X) from Y at t = 1, as Estimates."""
    out = []
    for i, dt in enumerate(steps):
        pair = cls(sde, dt), st.EulerMaruyama(EXACT, dt)
        options = run.options(paths=run.scale(quick=2 * run.paths, standard=run.paths // 5, full=run.paths // 10))
        x, y = st.weak_gap(*pair, [0.0], 1.0, observe=["x"], times=[1.0], keep_final=True, stream=i, **options).final
        square = (np.arcsinh(x) - y) ** 2
        mean = float(square.mean())
        error = float(square.std(ddof=1)) / math.sqrt(square.size)
        out.append(Estimate(math.sqrt(mean), error / 2 / math.sqrt(mean), square.size))
    return out


def local_order(steps, found):
    """Return the order between the two finest steps."""
    (dt, half), (a, b) = steps[-2:], found[-2:]
    width = math.log(dt / half)
    return Estimate(math.log(a.value / b.value) / width, math.hypot(a.stderr / a.value, b.stderr / b.value) / width, a.n)


@st.claim(
    "integrators-keep-their-orders",
    statement=r"On a nonlinear SDE Milstein's and Heun's schemes have strong order 1 as $h \to 0$.",
    source="P. Kloeden, E. Platen (1992); W. Ruemelin (1982)",
)
def strong_orders(run):
    """Check the strong orders of Milstein's and Heun's schemes.

    Detects a Brownian path that two steps do not share, and a missing or wrong double integral.
    """
    curves = {}
    for cls, sde in ((st.Milstein, ITO), (st.Heun, STRATONOVICH)):
        curves[cls.__name__] = distances(run, cls, sde)
        order = local_order(STEPS, curves[cls.__name__])
        run.measure(f"strong order of {cls.__name__}", order, expected=1.0, tolerance=PREASYMPTOTIC)
    run.figure(
        "errors",
        lambda: plot_errors(STEPS, curves),
        r"Distance of $\mathrm{asinh}(X_1)$ to $Y_1$, with reference slopes 1 and 2.",
    )
    with run.control("a drift that is too small by 3 %: no convergence to the right limit"):
        slow = st.SDE(drift=["0.97*(sqrt(1 + x**2) + s**2*x/2)"], **NOISE)
        run.measure("strong order of Milstein", local_order(STEPS, distances(run, st.Milstein, slow)), 1.0, PREASYMPTOTIC)


def plot_errors(steps, curves):
    """Plot the strong errors against the step."""
    from sdetools.plots import loglog_orders

    values = {name: [e.value for e in row] for name, row in curves.items()}
    low = {name: [max(0.0, e.value - e.half_width) for e in row] for name, row in curves.items()}
    high = {name: [e.value + e.half_width for e in row] for name, row in curves.items()}
    return loglog_orders(np.array(steps), values, low, high, None, (1.0, 2.0), xlabel="step dt", ylabel="strong error")
