"""Which SDE a rule is, and how good: weak orders are derived from one-step generators, and so are the constants of the errors.

One step of a rule changes E f by sum_a E[D^a] / a! d^a f, and the SDE with generator A changes it by (exp(tau A) - 1) f. The library expands
both symbolically; the first difference is tau^(p+1) Psi with the weak order p, and the error at time T is tau^p int E (Psi u)(X_s) ds.

Four claims. The first derives the order of every integrator and compares the constant of the error with exact moments. The second does the
same for optimisers and their equations, and derives the second-order equations of Li, Tai and E. The third eliminates the buffer of momentum
at 1 - beta ~ eta^alpha: for smooth h the gap of SGDM and SGD is C eta^(1 - alpha) with a derived C, twice the order of Theorem 3.5. The last is
about RMSProp: in the batch-equivalent scaling (sigma = sigma0/eta, 1 - b2 = c2 eta^2, eps = eps0/eta, h = eta^2) the logarithm of the one-step generator contains

    h c2 sigma0^2 s^4 / P^2 d_th d_th d_u,        P = sigma0 sqrt(u) + eps0,

which no SDE has: there is none of weak order 2. With constant sigma and 1 - b2 = c eta there is one. L = th^2 / 2, s = 1, sigma0 = 1/2,
eps0 = 1/5, c2 = 1, th0 = 1, u0 = 5/2, T = 2; u is deterministic in the limit, so that E th^2 of both is known.
"""

from __future__ import annotations

import math

import numpy as np
from _plain import value_or_far

import sdetools as st
from sdetools.estimates import Estimate

EXACT = 1e-12
GENERAL = ["-x + x*y/4", "x/2 - 3*y/4 + 1/8"], [["x/2", "3/4 + y/4"], ["1/4 - y/8", "x/2"]]
THREE = ["0", "0", "0"], [["1", "0", "0"], ["0", "x", "0"], ["0", "0", "x"]]
"""dX = dW1, dY = X dW2, dZ = X dW3: three motions, of which two pairs do not commute."""
DIAGONAL = ["-x + y/4", "x/2 - 3*y/4"], [["1/2 + x/4", "0"], ["0", "y/3 - 1/4"]]
ADDITIVE = ["-x + x*y/4", "x/2 - 3*y/4"], [["1/2", "1/8"], ["1/4", "3/4"]]
LINEAR = ["-1.3*x + 0.3*y", "-0.7*y - 0.2*x"], [["0.4*x + 0.1", "0.5*y"], ["0.2*y", "-0.3*x + 0.2"]]
START, HORIZON = [1.0, 0.5], 1.0


def equation(problem, calculus="ito"):
    """Return an SDE of expressions."""
    drift, diffusion = problem
    return st.SDE(drift, diffusion, "x y z" if len(drift) == 3 else "x y", calculus=calculus)


def kinetic(loss="x**2/2 + x**3/5", root="1"):
    """Return dX = -M dt, dM = 1.5 ((L' - M) dt + R dW)."""
    noise = st.noise.gaussian(root=[[root]], variables="x")
    oracle = st.NoisyOracle(st.losses.from_expression(loss, "x"), noise, sigma=8.0)
    return st.KineticSDE(oracle, st.schedules.constant(1 / 64, beta=1 - 1.5 / 64))


ORDERS = [
    *((st.EulerMaruyama, "general", law, 1) for law in ("normal", "three-point", "two-point")),
    (st.EulerMaruyama, "additive", "normal", 1),
    (st.Milstein, "diagonal", "normal", 1),
    (st.Milstein, "additive", "normal", 1),
    (st.Heun, "general", "normal", 1),
    (st.Heun, "additive", "normal", 2),
    (st.SRA1, "additive", "normal", 2),
    *((cls, "general", law, 2) for cls in (st.Platen, st.RI1) for law in ("normal", "three-point")),
    *((cls, "three", "normal", 2) for cls in (st.Platen, st.RI1)),
    *((cls, "kinetic", "normal", 2) for cls in (st.OBABO, st.BAOAB, st.UBU)),
    *((cls, "kinetic, multiplicative", "normal", 2) for cls in (st.OBABO, st.BAOAB)),
]
"""The orders in the literature, by class of noise."""
PROBLEMS = {"general": GENERAL, "three": THREE, "diagonal": DIAGONAL, "additive": ADDITIVE}


def specimen(cls, kind):
    """Return the SDE of a class of noise, in the calculus of the scheme."""
    if "kinetic" in kind:
        return kinetic(root="1 + x/4" if "multiplicative" in kind else "1")
    return equation(PROBLEMS[kind], "stratonovich" if cls is st.Heun else "ito")


class OneSignPerMotion(st.RI1):
    """RI1 with one random sign for all pairs (k, l) with k < l, as printed in its paper."""

    def step(self, eq, y, h):
        eq.signs = [eq.signs[k] for j in range(eq.sde.noise_dim) for k in range(j)]
        return super().step(eq, y, h)


def extrapolated(error, order, steps):
    """Return 2 e(h/2) - e(h) for e(h) = error(h) / h^order, which is its limit up to O(h^2)."""
    coarse, fine = (error(HORIZON / n) * (n / HORIZON) ** order for n in (steps, 2 * steps))
    return 2 * fine - coarse


def exact_error(cls, sde, x0, observable):
    """Return the error of E h(X_T) of a scheme as a function of the step."""
    goal = st.exact.expectation(st.exact.solution(sde, x0, [HORIZON]), observable)[0]

    def error(h):
        n = round(HORIZON / h)
        return float(st.exact.expectation(st.exact.moments(cls(sde, h), x0, n, record=[n]), observable)[0] - goal)

    return error


@st.claim(
    "generators-integrators",
    statement=r"The weak orders of all integrators follow from $E[D^\alpha]$ alone: $\sum_\alpha \frac{E[D^\alpha]}{\alpha!} \partial^\alpha - "
    r"(e^{h\mathcal L} - 1) = h^{p+1} \Psi + \dots$, and the error at time $T$ is $h^p \int_0^T E[(\Psi u_{T-s})(X_s)]\,\mathrm ds$.",
    source="derived; D. Talay, L. Tubaro (1990)",
)
def integrators(run):
    """Compare derived orders with those of the literature, and constants with exact errors."""
    run.note("Detects a wrong moment, a term of a scheme at or below its order, a factor of the operator, and a wrong semigroup.")
    rows = []
    for cls, kind, law, order in ORDERS:
        sde = specimen(cls, kind)
        gap = st.exact.generator_gap(cls(sde, 0.1, law), sde)
        run.measure(f"{cls.__name__}, {kind} noise, {law} draws: order", gap.weak_order, expected=order, tolerance=EXACT)
        if len(gap.text) < 120:
            rows.append((cls.__name__, kind, f"{order}", gap.text))
    run.table("leading errors that fit on a line", rows, ["integrator", "noise", "order", "operator"])
    for cls in (st.EulerMaruyama, st.Platen, st.RI1):
        sde = equation(LINEAR)
        gap = st.exact.generator_gap(cls(sde, 0.1), sde)
        found = extrapolated(exact_error(cls, sde, START, "x**2 + x*y"), gap.weak_order, 128)
        # the extrapolation leaves h^2 = 6e-5 times a constant of order ten
        run.measure(f"{cls.__name__}: constant", found, gap.constant("x**2 + x*y", START, HORIZON), relative=2e-3)
    for cls in (st.OBABO, st.BAOAB, st.UBU):
        sde = kinetic("x**2/2")
        gap = st.exact.generator_gap(cls(sde, 0.1), sde)
        found = extrapolated(exact_error(cls, sde, [1.0], "x**2"), 2, 64)
        run.measure(f"{cls.__name__}: constant", found, gap.constant("x**2", [1.0, 0.0], HORIZON), relative=5e-3)
    three = equation(THREE)
    with run.control("RI1 with one sign a motion"):
        wrong = st.exact.generator_gap(OneSignPerMotion(three, 0.1), three)
        run.measure("order", wrong.weak_order, expected=2, tolerance=EXACT)
    run.measure("RI1 with one sign a motion: its term in d_y d_z", wrong.local("y*z", [0.3, 0.0, 0.0]), 1 / 4, tolerance=EXACT)
    with run.control("a drift that is too large by 2 %"):
        sde, other = equation(LINEAR), equation((["-1.326*x + 0.3*y", LINEAR[0][1]], LINEAR[1]))
        gap = st.exact.generator_gap(st.RI1(other, 0.1), sde)
        run.measure("order", gap.weak_order, expected=2, tolerance=EXACT)


CURVED = st.losses.from_expression("x**2/2 + x*y/3 + y**4/5", variables="x y")
ROOT = [["1 + x**2/4", "0.3"], ["0.2*y", "0.8"]]


def curved(sigma=1.3, law=st.noise.gaussian):
    """Return the oracle of a loss that is not quadratic, with noise that depends on the state."""
    return st.NoisyOracle(CURVED, law(root=ROOT, variables="x y"), sigma=sigma)


def fields(sde, y, u):
    """Return drift and b u of an SDE, one after the other."""
    return np.concatenate([sde.drift(y), sde.diffusion(y, u)])


def hessian_of(x):
    """Return gradient and Hessian of CURVED, written here."""
    g = np.array([x[0] + x[1] / 3, x[0] / 3 + 4 / 5 * x[1] ** 3])
    return g, np.array([[1.0, 1 / 3], [1 / 3, 12 / 5 * x[1] ** 2]])


def distance(momentum):
    """Return the largest error of the derived equation of order 2 at random points, against formulas written here."""
    rng, away, h, mu, sigma = np.random.default_rng(1), [], 0.125, 0.75, 1.3
    if momentum:
        rule = st.HeavyBall(curved(sigma), gamma=h * h, beta=1 - mu * h, step_time=h)
    else:
        rule = st.SGD(curved(sigma), st.schedules.constant(h))
    sde = st.exact.modified_equation(rule, kinetic=momentum)
    for _ in range(8):
        x, m, u = rng.uniform(-1.5, 1.5, (3, 2))
        g, hessian = hessian_of(x)
        kick = sigma * h**0.5 * np.array([[1 + x[0] ** 2 / 4, 0.3], [0.2 * x[1], 0.8]]) @ u
        if momentum:
            dx = -(1 - h * mu / 2) * m - h / 2 * g
            dm = (1 + h * mu / 2) * g - (mu + h / 2 * mu**2) * m + h / 2 * hessian @ m
            right = np.concatenate([dx, dm, 0 * kick, kick])
            found = fields(sde, np.concatenate([x, m]), list(u))
        else:
            right, found = np.concatenate([-g - h / 2 * hessian @ g, -kick]), fields(sde, x, list(u))
        away.append(np.abs(found - right).max())
    return float(np.max(away))  # NaN if one of them is


@st.claim(
    "generators-modified-equations",
    statement=r"$\log(1 + \sum_\alpha \frac{E[D^\alpha]}{\alpha!}\partial^\alpha) / \tau$ gives the modified equation of a rule: for SGD "
    r"$\mathrm dX = -\nabla(L + \frac\eta4|\nabla L|^2)\,\mathrm dt - \sigma\sqrt\eta R\,\mathrm dW$, and that of Eq. (1); the weak orders of the library's "
    r"equations are 1, 2, and $\frac12$ for skewed noise at $\sigma = \eta^{-1/2}$.",
    source="Q. Li, C. Tai, W. E (2019); derived",
)
def equations(run):
    """Derive the equations, their orders and the constants of their errors."""
    run.note(
        "Detects any term of a drift or a diffusion, the scaling of sigma, eta, gamma and 1 - beta, and the skewness of the noise."
    )
    for name, momentum in (("SGD", False), ("momentum", True)):
        run.measure(
            f"{name}: derived drift and diffusion, farthest from the formulas", value_or_far(distance, momentum), at_most=EXACT
        )
    plan, heavy = st.schedules.constant(0.01), st.schedules.constant(0.01, beta=0.985)
    sgd, skewed = st.SGD(curved(), plan), curved(law=st.noise.centred_exponential)
    wanted = {
        "SGD, order 1": (sgd, st.ModifiedSDE(curved(), 0.01, order=1), 0.0, 1),
        "SGD, order 2": (sgd, st.ModifiedSDE(curved(), 0.01, order=2), 0.0, 2),
        "SGD, skewed, order 2": (st.SGD(skewed, plan), st.ModifiedSDE(skewed, 0.01, order=2), 0.0, 2),
        "SGD, gradient flow": (sgd, st.GradientFlow(curved(), plan), 0.0, 1),
        r"SGD, $\sigma = \eta^{-1/2}$": (sgd, st.LimitSDE(curved(), plan), -0.5, 1),
        r"SGD, $\sigma = \eta^{-1/2}$, skewed": (st.SGD(skewed, plan), st.LimitSDE(skewed, plan), -0.5, 0.5),
        r"SGDM, $\alpha = 1$": (st.SGDM(curved(), heavy), st.KineticSDE(curved(), heavy), -0.5, 1),
    }
    for name, (rule, sde, power, order) in wanted.items():
        found = st.exact.generator_gap(rule, sde, sigma_power=power).weak_order
        run.measure(f"{name}: order", found, expected=order, tolerance=EXACT)
    oracle, lam, x0, t = st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1)), 1.3, 1.2, 2.0
    decay = math.exp(-2 * lam * t)
    # E x^2 of SGD is Q x0^2 + eta (1 - Q) / (2 lam - eta lam^2), Q = (1 - eta lam)^(2t/eta); that of the equation of order 2 is
    # Q x0^2 + eta (1 - Q) / (2 a), Q = exp(-2 a t), a = lam + eta lam^2 / 2
    constants = {
        1: -(lam**2) * t * decay * x0**2 + (1 - decay) / (2 * lam),
        2: -2 / 3 * lam**3 * t * decay * x0**2 + (1 - decay) / 2,
    }
    for order in (1, 2):
        sde = st.ModifiedSDE(oracle, 0.1) if order == 2 else st.GradientFlow(oracle, st.schedules.constant(0.1))
        gap = st.exact.generator_gap(st.SGD(oracle, st.schedules.constant(0.1)), sde)
        run.measure(f"SGD, order {order}: constant", gap.constant("x0**2", [x0], t), constants[order], tolerance=1e-9)
    with run.control(r"without $\frac\eta4|\nabla L|^2$"):
        gap = st.exact.generator_gap(sgd, st.ModifiedSDE(curved(), 0.01, order=1))
        run.measure("order", gap.weak_order, expected=2, tolerance=EXACT)
    g, hessian = hessian_of([0.4, -0.7])
    run.measure(
        r"without $\frac\eta4|\nabla L|^2$: its term in d_x",
        gap.local("x", [0.4, -0.7]),
        -float((hessian @ g)[0]) / 2,
        tolerance=EXACT,
    )
    with run.control("a drift that is too large by 2 %"):
        off = st.SDE(["-1.02*x"], [["sqrt(eta)"]], "x", parameters={"eta": 0.1})
        plain = st.NoisyOracle(st.losses.from_expression("x**2/2", "x"), st.noise.gaussian(dim=1))
        found = st.exact.generator_gap(st.SGD(plain, st.schedules.constant(0.1)), off).weak_order
        run.measure("order", found, expected=1, tolerance=EXACT)


FILTERS = {
    "SGDM": lambda o, plan: st.SGDM(o, plan),
    "Nesterov": lambda o, plan: st.Nesterov(o, plan),
    "QHM": lambda o, plan: st.QHM(o, plan, nu=0.7),
    "PNM": lambda o, plan: st.PNM(o, plan),
}


def scaled_noise(eta, sigma0=0.5):
    """Return the oracle of L = 0.65 x^2 with sigma = sigma0 / sqrt(eta)."""
    return st.NoisyOracle(st.losses.quadratic(1.3), st.noise.gaussian(dim=1), sigma=sigma0 * eta**-0.5)


def momentum_constant(beta, t, x0, lam=1.3, sigma0=0.5):
    """Return the limit of (E x_k^2 - E z_k^2) / eta for SGDM and SGD from m_0 = 0, from the roots and the stationary law of one mode.

    With q = beta / (1 - beta) and k = (1 - beta) / (1 + beta) the mean of x is x_0 (1 + eta lam q) exp(-lam t (1 + eta lam (1/2 + q))) for
    SGDM; SGD has q = 0. The variance v relaxes at twice this rate to the stationary one, sigma0^2 / (lam (2 - eta lam k)), which has k = 1
    for SGD. It starts from that of x = y + eta q m after a few steps, where y sums the gradients and m has forgotten its start:
    Var x = Var y + 2 eta q Cov(y, m) + (eta q)^2 Var m with Cov(y, m) = -eta sigma^2 and Var m = k sigma^2.
    """
    q, k, decay = beta / (1 - beta), (1 - beta) / (1 + beta), math.exp(-2 * lam * t)
    mean = x0**2 * decay * (2 * lam * q - 2 * lam**2 * q * t)
    start = sigma0**2 * (q * q * k - 2 * q) * decay
    stationary = sigma0**2 * (k - 1) / 4 * (1 - decay)
    faster = sigma0**2 / (2 * lam) * decay * 2 * lam**2 * q * t
    return mean + start + stationary + faster


def exact_momentum(rule, eta, t, x0):
    """Return (E x_k^2 - E z_k^2) / eta^(1/2) of SGDM and SGD, exactly."""
    n, plain = round(t / eta), st.SGD(scaled_noise(eta), st.schedules.constant(eta))
    return float(st.exact.gap(rule(eta), plain, [x0], n, "x0**2", record=[n])[0]) / eta**0.5


@st.claim(
    "generators-momentum",
    statement=r"For smooth $h$ and $1 - \beta \propto \eta^\alpha$, $\alpha \in \{0, \frac14, \frac12, \frac34\}$, $E h(x_k) - E h(z_k) = C\,\eta^{1 - \alpha} + "
    r"o(\eta^{1 - \alpha})$ for SGDM and SGD at $\sigma \propto \eta^{-1/2}$, with $C$ from the elimination of the buffer; linear filters have weak order 1.",
    source="Theorem 3.5, sharpened for smooth functions; derived",
)
def momentum(run):
    """Derive orders and constants of linear filters, and compare them with exact gaps and with a formula for one mode."""
    run.note(
        "Detects a wrong gain, elimination, conserved combination or start of the buffer, and a term of order eta that is left out."
    )
    t, x0 = 2.0, 1.2

    def constant(make, beta):
        plan = st.schedules.constant(0.01, beta=beta)
        rule = make(scaled_noise(0.01), plan)
        averaged = rule.averaged() if hasattr(rule, "averaged") else plan.averaged()
        return st.exact.generator_gap(rule, st.LimitSDE(rule.oracle, averaged), 1, sigma_power=-0.5)

    def plain(o, plan):
        return st.SGD(o, plan.averaged())

    for name, make in FILTERS.items():
        order = value_or_far(lambda make=make: constant(make, 0.5).weak_order)
        run.measure(f"{name}: order", order, expected=1, tolerance=EXACT)
    for beta in (0.3, 0.8):
        derived, own = (
            value_or_far(lambda make=make, b=b: constant(make, b).constant("x0**2", [x0], t))
            for make, b in ((FILTERS["SGDM"], beta), (plain, 0.0))
        )
        derived -= own
        run.measure(f"beta = {beta}: derived constant", derived, momentum_constant(beta, t, x0), tolerance=1e-9)

        def exact(eta, beta=beta):
            oracle, plan = scaled_noise(eta), st.schedules.constant(eta, beta=beta)
            n = round(t / eta)
            return float(st.exact.gap(st.SGDM(oracle, plan), plain(oracle, plan), [x0], n, "x0**2", record=[n])[0]) / eta

        found = 2 * exact(2.0**-11) - exact(2.0**-10)
        # eta^2 / (1 - beta)^2 = 6e-6 times a constant of order one remains
        run.measure(f"beta = {beta}: exact gap over eta", found, derived, tolerance=1e-3)
    for alpha, size in ((0.25, 0.6), (0.5, 0.8), (0.75, 0.9)):

        def rule(eta, alpha=alpha, size=size):
            return st.SGDM(scaled_noise(eta), st.schedules.constant(eta, beta=1 - size * eta**alpha))

        def limit_of(eta):
            return st.LimitSDE(scaled_noise(eta), st.schedules.constant(eta))

        gap = st.exact.generator_gap(rule, limit_of, 1)
        run.measure(f"alpha = {alpha}: order", gap.weak_order, expected=1 - alpha, tolerance=EXACT)
        # the mean of one mode: x_0 (1 + lam d) exp(-lam t (1 + lam d)), d = eta / (1 - beta)
        mean = x0 * (1.3 - 1.69 * t) / size * math.exp(-1.3 * t)
        run.measure(f"alpha = {alpha}: constant of the mean", gap.constant("x0", [x0], t), mean, tolerance=1e-8)
        if alpha == 0.5:
            grown = [exact_momentum(rule, eta, t, x0) for eta in (2.0**-16, 2.0**-18)]
            # the next term is of relative order eta^(1/2), which the extrapolation removes; eta = 4e-6 times a constant remains
            constant_of = gap.constant("x0**2", [x0], t)
            run.measure("alpha = 0.5: exact gap over eta^(1/2)", 2 * grown[1] - grown[0], constant_of, relative=2e-3)
    with run.control("a learning rate that is too large by 2 %"):
        plan, oracle = st.schedules.constant(0.01, beta=0.5), scaled_noise(0.01)
        faster = st.LimitSDE(oracle, st.schedules.from_arrays(0.0102, 0.0, base=0.01))
        gap = st.exact.generator_gap(st.SGDM(oracle, plan), faster, 1, sigma_power=-0.5)
        run.measure("SGDM: order", gap.weak_order, expected=1, tolerance=EXACT)
    with run.control("the buffer forgotten: the constant of SGD alone"):
        run.measure("beta = 0.8: exact gap over eta", found, 0.0, tolerance=1e-3)


X0, U0, UNTIL = 1.0, 2.5, 2.0
SIGMA0, EPS0 = 0.5, 0.2
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)


class LaggedRMSProp(st.Dynamics):
    """th' = th - eta g / (sigma sqrt(u) + eps), u' = u + (1 - b2) ((g / sigma)^2 - u), with u = v / sigma^2 and the lagged denominator."""

    parts = ("x", "u")
    coefficients = ("eta", "share", "eps", "scale")

    def __init__(self, oracle, eta, share, eps, step_time):
        self.share, self.eps, self.scale = share, eps, oracle.sigma
        super().__init__(oracle, st.schedules.constant(eta), momentum=[U0], step_time=step_time)

    @staticmethod
    def rule(state, oracle, eta, share, eps, scale):
        x, u = state
        g = oracle(x)
        return x - eta * g / (scale * np.sqrt(u) + eps), u + share * ((g / scale) ** 2 - u)


class MeanOfSquares(LaggedRMSProp):
    """The same with the mean 1 of (g / sigma)^2 as h tends to 0: Euler's scheme for the limit, which shares the draws."""

    @staticmethod
    def rule(state, oracle, eta, share, eps, scale):
        x, u = state
        return x - eta * oracle(x) / (scale * np.sqrt(u) + eps), u + share * (1 - u)


LOSS = st.losses.from_expression("x**2/2", "x")


def batch_equivalent(cls=LaggedRMSProp, law=st.noise.gaussian):
    """Return the rule in the batch-equivalent scaling as a function of eta."""
    oracle = lambda eta: st.NoisyOracle(LOSS, law(1), sigma=SIGMA0 / eta)  # noqa: E731
    return lambda eta: cls(oracle(eta), eta, eta**2, EPS0 / eta, eta**2)


def ballistic(eta):
    """Return the rule with constant sigma, 1 - b2 = eta and constant eps, on the clock eta."""
    return LaggedRMSProp(st.NoisyOracle(LOSS, st.noise.gaussian(1), sigma=SIGMA0), eta, eta, EPS0, eta)


def limit(eta):
    """Return dth = -(th dt + sigma0 dW) / P, du = (1 - u) dt."""
    return st.SDE(["-x/(sqrt(u)/2 + 1/5)", "1 - u"], [["-1/2/(sqrt(u)/2 + 1/5)"], ["0"]], "x u")


def denominator(u):
    """Return P."""
    return SIGMA0 * np.sqrt(u) + EPS0


def relaxed(s, u):
    """Return u after time s."""
    return 1 + (u - 1) * np.exp(-s)


def over(function, low, high):
    """Return the integral of a smooth function by Gauss's rule with 40 nodes."""
    middle, half = (low + high) / 2, (high - low) / 2
    return half * (WEIGHTS @ np.array([function(middle + half * v) for v in NODES]))


def decayed(low, high, u):
    """Return exp(-2 int 1/P) from time `low` to `high` on the path of u that starts at `u`."""
    return np.exp(-2 * over(lambda r: 1 / denominator(relaxed(r, u)), low, high))


def square(s, u):
    """Return a and c of E th_s^2 = a th_0^2 + c on the limit."""
    noise = over(lambda r: decayed(r, s, u) * (SIGMA0 / denominator(relaxed(r, u))) ** 2, 0.0, s)
    return np.array([decayed(0.0, s, u), noise])


def coefficient(gap, skip=()):
    """Return the coefficient of h in E th_T^2 - E X_T^2: int E (Psi w)(X_s) ds, w = a th^2 + c at time T - s, without the terms `skip`."""
    import sympy

    names = sympy.symbols("x u", real=True)
    terms = {a: sympy.lambdify(names, c) for a, c in gap.leading.items() if a not in skip}
    z, weights = np.polynomial.hermite_e.hermegauss(8)
    d = 0.02  # differences of fourth order, with an error of 1e-8

    def at(s):
        a, c = square(s, U0)
        x, u = np.sqrt(a) * X0 + np.sqrt(c) * z, relaxed(s, U0)
        v = np.array([square(UNTIL - s, u + k * d) for k in (-2, -1, 0, 1, 2)])
        first = (v[0] - 8 * v[1] + 8 * v[3] - v[4]) / (12 * d)
        second = (-v[0] + 16 * v[1] - 30 * v[2] + 16 * v[3] - v[4]) / (12 * d * d)
        slopes = {(1, 0): 2 * v[2][0] * x, (2, 0): 2 * v[2][0], (1, 1): 2 * first[0] * x, (2, 1): 2 * first[0]}
        slopes |= {(0, 1): first[0] * x * x + first[1], (0, 2): second[0] * x * x + second[1]}
        return weights @ sum(f(x, u) * slopes[a] for a, f in terms.items()) / weights.sum()

    return float(over(at, 0.0, UNTIL))


def euler_square(steps):
    """Return E th_T^2 of Euler's scheme for the limit, by its recursion."""
    q, u, h = X0**2, U0, UNTIL / steps
    for _ in range(steps):
        q, u = (1 - h / denominator(u)) ** 2 * q + h * (SIGMA0 / denominator(u)) ** 2, u + h * (1 - u)
    return q


def seen(run, paths, steps=(40, 80)):
    """Return the simulated coefficient, extrapolated from two step sizes: h leaves an error of order h^2.

    The rule and Euler's scheme share their draws; the latter's E th^2 is known.
    """
    a, c = square(UNTIL, U0)
    found = []
    for n in steps:
        eta = (UNTIL / n) ** 0.5
        pair = [batch_equivalent(cls)(eta) for cls in (LaggedRMSProp, MeanOfSquares)]
        options = run.options(paths=paths, stream=n)
        one = st.weak_gap(*pair, [X0], UNTIL, observe=["x**2"], times=[UNTIL], **options).at("x**2")
        found.append(((one.value + euler_square(n) - a * X0**2 - c) * n / UNTIL, one.stderr * n / UNTIL, one.n))
    (coarse, first, n), (fine, second, _) = found
    return Estimate(2 * fine - coarse, math.hypot(2 * second, first), n)


@st.claim(
    "generators-no-second-order",
    statement=r"RMSProp at $\sigma = \sigma_0/\eta$, $1 - b_2 = c_2\eta^2$, $h = \eta^2$ has a limit of weak order 1 and no SDE of weak order 2: its "
    r"generator contains $h\, c_2\sigma_0^2 s^4 P^{-2}\, \partial_\theta^2\partial_u$. At constant $\sigma$ and $1 - b_2 = c\,\eta$ there is one.",
    source="derived; S. Malladi, K. Lyu, A. Panigrahi, S. Arora (2022)",
)
def no_second_order(run):
    """Derive the obstruction, and compare the coefficient of h in E th^2, with and without it, with a simulation."""
    import sympy

    run.note(
        "Detects a missing or wrong term of the leading error, the third-order one above all, and a skewness that is left out."
    )
    gap = st.exact.generator_gap(batch_equivalent(), limit, 1)
    run.measure("Gaussian noise: order in h", gap.weak_order, expected=1, tolerance=EXACT)
    skewed = st.exact.generator_gap(batch_equivalent(law=st.noise.centred_exponential), limit, 1)
    run.measure("skewed noise: order in h", skewed.weak_order, expected=0.5, tolerance=EXACT)
    power, terms = st.exact.step_generator(batch_equivalent(), 2).obstruction
    run.measure("power of h of the obstruction", power, expected=1, tolerance=EXACT)
    run.measure("terms of third order, besides that in d_th d_th d_u", len(set(terms) - {(2, 1)}), expected=0, tolerance=EXACT)
    for u in (0.5, 2.5):
        value = float(terms[2, 1].subs(sympy.Symbol("u", real=True), u))
        run.measure(f"its coefficient at u = {u}", value, (SIGMA0 / denominator(u)) ** 2, relative=EXACT)
    paths = run.scale(quick=10 * run.paths, standard=run.paths, full=run.paths)
    whole, without = coefficient(gap), coefficient(gap, [(2, 1)])
    # 10 %: the term changes the coefficient by 77 %
    found = run.decide(r"simulated coefficient of h in $E\theta^2$", lambda n: seen(run, n), whole, relative=0.1, paths=paths)
    with run.control("without the term of third order, as an SDE would have it"):
        run.measure(r"simulated coefficient of h in $E\theta^2$", found, without, relative=0.1)
    second = st.exact.modified_equation(ballistic, 2, eta=0.1)
    order = st.exact.generator_gap(ballistic, lambda eta: st.exact.modified_equation(ballistic, 2, eta=eta)).weak_order
    run.measure("constant sigma: order of the derived equation", order, expected=2, tolerance=EXACT)
    run.table("equation of order 2 at constant sigma, eta = 0.1", [(line,) for line in second.table().splitlines()], ["equation"])
    with run.control("constant sigma: the equation of order 1"):
        first = st.exact.generator_gap(ballistic, lambda eta: st.exact.modified_equation(ballistic, 1, eta=eta))
        run.measure("order", first.weak_order, expected=2, tolerance=EXACT)
