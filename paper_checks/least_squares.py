"""Where momentum has a value on least squares, and where not: exact risks of streaming least squares, without paths.

Rows are Gaussian with eigenvalues lam_i, B fresh rows a step, label noise s, h the learning rate of the EMA form. All numbers are exact (moment
recursions or closed forms); the references are written out here and share nothing with the library but the rule of the method.

    k = (1 - beta) / (1 + beta),    q_b = sum_i h lam_i / (2 B - (1 + k B) h lam_i),    stationary risk = (s^2 / 2) q_b / (1 - q_b)
"""

from __future__ import annotations

import math

import numpy as np
from _plain import value_or_far
from scipy import integrate, special

import sdetools as st

E = st.exact
LAM, RHO, S, B = np.array([2.0, 0.9, 0.3, 0.05]), np.array([1.0, -0.5, 2.0, 0.3]), 0.4, 2
ROUNDING = 1e-10
constant = st.schedules.constant


def whole_covariance(matrices, steps, square=1.0):
    """Return the risk by the recursion of the whole E s s^T for s' = A s + b g, g at c . s, all coordinates.

    `matrices` is (A, b, c) of one coordinate, or a function of the step that returns them. Parts other than x start at x_0 unless x is the first
    part alone: A_00 = c_0 = 1.
    """
    at = matrices if callable(matrices) else lambda k: matrices
    d, K = len(LAM), np.diag(LAM)
    eye, second, out = np.eye(d), None, []
    for k in range(steps + 1):
        A, b, c = (np.asarray(part, dtype=float) for part in at(k))
        lift, push, read = np.kron(A, eye), np.kron(b[:, None], eye), np.kron(c[None], eye)
        M = lift + push @ K @ read
        if second is None:
            s = np.kron(np.array([1.0, *([float(c[0] != 1.0 or A[0, 0] != 1.0)] * (len(b) - 1))]), RHO)
            second = np.outer(s, s)
        out.append(np.trace(K @ second[:d, :d]) / 2)
        C = read @ second @ read.T
        second = M @ second @ M.T + push @ (square * K @ C @ K + (np.trace(K @ C) + S * S) * K) @ push.T / B
    return np.array(out)


RULES = {
    "SGD": (lambda o: st.SGD(o, constant(0.2)), ([[1]], [-0.2], [1])),
    "SGDM": (lambda o: st.SGDM(o, constant(0.3, 0.8)), ([[1, -0.24], [0, 0.8]], [-0.06, 0.2], [1, 0])),
    "general momentum": (
        lambda o: st.GeneralMomentum(o, constant(1.0), D=0.1, g1=1.0, g2=0.1, g3=0.01),
        ([[1, -0.009], [0, 0.9]], [-0.11, 1.0], [1, 0]),
    ),
    "MaSS": (lambda o: st.MaSS(o, constant(0.15), gamma=0.6, c=0.2), ([[1.6, -0.6], [1, 0]], [-0.21, -0.15], [1, 0])),
    "schedule-free SGD": (
        lambda o: st.ScheduleFree(o, constant(0.2), beta=0.9),
        lambda k: ([[1 - 1 / (k + 2), 1 / (k + 2)], [0, 1]], [-0.2 / (k + 2), -0.2], [0.9, 0.1]),
    ),
    "DANA": (
        lambda o: st.DANA(o, constant(0.1), delta=4.0, ratio=0.5, power=0.5),
        lambda k: (
            [[1, -0.05 * (1 + k) ** -0.5 * k / (4 + k)], [0, k / (4 + k)]],
            [-0.1 * (1 + 0.5 * (1 + k) ** -0.5), 1],
            [1, 0],
        ),
    ),
}
"""Rules, and A, b and c of their papers in one coordinate, at step k where they move."""


@st.claim(
    "least-squares-recursion",
    statement=r"On streaming least squares the diagonal of the second moments closes: $\mathrm{Var}\, g_i = (\lambda_i^2 u_i^2 + \lambda_i s)/B$ "
    r"with $s = \sigma^2 + \sum_j \lambda_j E u_j^2$, in every dimension and for every linear rule.",
    source="Isserlis' theorem; derived",
)
def recursion(run):
    """Compare the risk of six rules with the recursion of the whole covariance, and one with a simulation."""
    run.note(
        "Detects a wrong rule, a term of the variance, the level of the noise, the batch, and the square of the label noise."
    )
    oracle = st.streaming_least_squares(LAM, S, B)
    for name, (make, matrices) in RULES.items():
        found, expected = E.risk(make(oracle), RHO, 60).risk, whole_covariance(matrices, 60)
        run.measure(f"{name}: largest relative distance, 60 steps", np.abs(found / expected - 1).max(), at_most=ROUNDING)
    rule, steps = RULES["SGDM"][0](oracle), 20
    exact, other = (whole_covariance(RULES["SGDM"][1], steps, square)[-1] for square in (1.0, 0.0))
    simulated = lambda paths: st.simulate(  # noqa: E731
        rule,
        RHO,
        steps * rule.step_time,
        observe={"L": oracle.loss.value},
        times=[steps * rule.step_time],
        **run.options(paths=paths),
    ).at("L")
    # 2 %, so that a gradient that is too long by 2 % is detected, whose noise is 4 % too large
    mean = run.decide("SGDM: simulated risk after 20 steps", simulated, exact, relative=0.02, paths=10 * run.paths)
    for dim in run.scale(quick=(), standard=(32, 128), full=(32, 128, 512)):
        law = E.power_law(dim, a=0.5, b=0.5)
        wide = st.streaming_least_squares(law.values, S, 8)
        for name, (make, _) in RULES.items():
            one = make(wide)
            found = st.simulate(
                one,
                law.distance,
                steps * one.step_time,
                observe={"L": wide.loss.value},
                times=[steps * one.step_time],
                **run.options(paths=max(run.paths // 32, 2_000)),
            )
            expected = E.risk(one, law.distance, steps, [steps]).risk[0]
            run.measure(f"{name}, {dim} coordinates: simulated risk after {steps} steps", found.at("L"), expected, relative=0.02)
    with run.control(r"without $\lambda_i^2 u_i^2$"):
        run.measure("SGDM: simulated risk after 20 steps", mean, expected=other, relative=0.02)


def budget(lam, batch, h, k):
    """Return q for a given k."""
    return (h * lam / (2 * batch - (1 + k * batch) * h * lam)).sum()


@st.claim(
    "least-squares-stationary-law",
    statement=r"The stationary risk is $\frac{\sigma^2}{2} \frac{q_b}{1 - q_b}$, $q_b = \sum_i \frac{h\lambda_i}{2B - (1 + kB) h\lambda_i}$, "
    r"$k = \frac{1-\beta}{1+\beta}$, and the rule is stable in mean square if and only if $q_b < 1$.",
    source="derived",
)
def stationary(run):
    """Compare the stationary risk and the edge with the formula."""
    run.note("Detects a wrong k, a factor of B or 2, and an edge that is not that of q = 1.")
    oracle = st.streaming_least_squares(LAM, S, B)
    for beta in (0.0, 0.5, 0.95):
        k, rule = (1 - beta) / (1 + beta), st.SGDM(oracle, constant(0.2, beta))
        q = budget(LAM, B, 0.2, k)
        run.measure(f"stationary risk, beta={beta}", E.stationary_risk(rule), S * S / 2 * q / (1 - q), relative=ROUNDING)
        run.measure(
            f"closed form of the library, beta={beta}",
            E.momentum_stationary_risk(LAM, B, S, 0.2, beta),
            S * S / 2 * q / (1 - q),
            relative=ROUNDING,
        )
        run.measure(
            f"risk after 20,000 steps, beta={beta}",
            E.risk(rule, RHO, 20_000, [20_000]).risk[0],
            S * S / 2 * q / (1 - q),
            relative=1e-9,
        )
        edge = 0.2 * E.stability_edge(rule)
        run.measure(f"q at the edge, beta={beta}", budget(LAM, B, edge, k), 1.0, tolerance=1e-8)
    with run.control("k = 1"):
        run.measure(
            "stationary risk, beta=0.95",
            E.stationary_risk(st.SGDM(oracle, constant(0.2, 0.95))),
            S * S / 2 * budget(LAM, B, 0.2, 1) / (1 - budget(LAM, B, 0.2, 1)),
            relative=0.01,
        )


def gain(lam, batch):
    """Return how many times faster the best SGDM is than the best SGD, by their exact rates; far off where the library refuses."""
    return value_or_far(lambda: math.log(E.best(lam, batch).rate) / math.log(E.best(lam, batch, momentum=False).rate))


def plain_rate(lam, batch, h, beta):
    """Return the spectral radius of the map of all second moments S_i of (x, m) of SGDM: M_i S_i M_i^T + b b^T (lam_i^2 u_i^2 + lam_i sum_j lam_j u_j^2) / B."""
    b = np.array([-h * (1 - beta), 1 - beta])
    position = np.array([1.0, 0.0, 0.0, 0.0])  # E u^2 of a mode
    whole = np.zeros((4 * len(lam), 4 * len(lam)))
    for i, one in enumerate(lam):
        M = np.array([[1.0, -h * beta], [0.0, beta]]) + one * np.outer(b, [1.0, 0.0])
        here = slice(4 * i, 4 * i + 4)
        whole[here, here] += np.kron(M, M) + one**2 / batch * np.outer(np.kron(b, b), position)
        for j, other in enumerate(lam):
            whole[here, 4 * j : 4 * j + 4] += one * other / batch * np.outer(np.kron(b, b), position)
    return float(np.abs(np.linalg.eigvals(whole)).max())


def best_by_hand(lam, batch, momentum=True):
    """Return the best rate of the library over `plain_rate` at its learning rate and momentum."""

    def quotient():
        found = E.best(lam, batch, momentum=momentum)
        return found.rate / plain_rate(lam, batch, found.h, found.beta)

    return value_or_far(quotient)


@st.claim(
    "least-squares-no-acceleration-at-small-batch",
    statement=r"For two eigenvalues 1 and $1/\kappa$, $\kappa \to \infty$, the best SGDM is $(B+2)/2$ times faster than the best SGD: 3/2 at batch 1, "
    r"where MaSS is more than 100 times faster.",
    source="derived; MaSS: Liu and Belkin, ICLR 2020",
)
def small_batch(run):
    """Measure the gain of the best momentum at small batch sizes, for a condition number of 10^6."""
    kappa = 1e6
    run.note(
        r"The distance from the limit is of order $(B+2)/\sqrt{\kappa}$. Detects a wrong rate, and a search that misses the optimum by 1 %."
    )
    for beta in (0.0, 0.7):
        rule = st.SGDM(st.streaming_least_squares(LAM, 0.0, B), constant(0.3, beta))
        run.measure(
            f"rate of four modes, beta={beta}", value_or_far(E.rate, rule), plain_rate(LAM, B, 0.3, beta), relative=ROUNDING
        )
    for name, free in (("SGDM", True), ("SGD", False)):
        run.measure(f"best rate of {name} over that by hand, four modes", best_by_hand(LAM, B, free), 1.0, tolerance=ROUNDING)
    gains = {batch: gain([1.0, 1 / kappa], batch) for batch in (1, 2, 4)}
    for batch, found in gains.items():
        run.measure(f"gain of SGDM, B={batch}", found, (batch + 2) / 2, relative=0.01)
    p = E.mass_parameters([1.0, 1 / kappa], 1)
    oracle = st.streaming_least_squares([1.0, 1 / kappa], 0.0, 1)
    rate = E.rate(st.MaSS(oracle, constant(p.eta), gamma=p.gamma, c=p.c))
    plain = E.best([1.0, 1 / kappa], 1, momentum=False).rate
    run.measure("gain of MaSS, B=1", math.log(rate) / math.log(plain), at_least=100)
    run.measure("rate of MaSS within its bound 1 - 1/S", rate, at_most=p.rate)
    with run.control("the gain sqrt(kappa) / 4 of large batches"):
        run.measure("gain of SGDM, B=1", gains[1], at_least=kappa**0.5 / 4)


@st.claim(
    "least-squares-mass",
    statement=r"At batch 1 in two dimensions, $-\log(\mathrm{rate})$ falls like $\kappa^{-1}$ for the best SGD and like $\kappa^{-1/2}$ for MaSS. "
    r"On rows with a single entry MaSS is as slow as SGD. Its parameters are recalled from the paper.",
    source="Liu and Belkin, ICLR 2020",
)
def mass(run):
    """Measure the exponents in kappa between 10^5 and 10^6, for Gaussian rows and for rows that see one coordinate each."""
    tilde, S_root = 4.0, math.sqrt((3.0 + 1e-6) / 1e-6 * 4.0)  # d + 2, and sqrt(kappa_1 kt_1) with L_1 = tr K + 2 lam_max
    for name, part, expected in (
        ("eta", "eta", 1 / (3.0 + 1e-6)),
        ("gamma", "gamma", (S_root - 1) / (S_root + 1)),
        ("compensation", "c", S_root / (S_root + 1) * (1 - 1 / tilde)),
    ):
        found = value_or_far(lambda part=part: getattr(E.mass_parameters([1.0, 1e-6], 1), part))
        run.measure(f"{name} of MaSS by hand", found, expected, relative=ROUNDING)
    speeds = {}
    for kappa in (1e5, 1e6):
        lam = [1.0, 1 / kappa]
        p, oracle = E.mass_parameters(lam, 1), st.streaming_least_squares(lam, 0.0, 1)
        speeds[kappa] = (
            -math.log(E.best(lam, 1, momentum=False).rate),
            -math.log(E.rate(st.MaSS(oracle, constant(p.eta), gamma=p.gamma, c=p.c))),
        )
        run.measure(
            f"Nesterov's rate with the same numbers, kappa={kappa:g}",
            E.rate(st.MaSS(oracle, constant(p.eta), gamma=p.gamma, c=0.0)),
            at_least=1.0,
        )
    sgd, accelerated = (math.log10(b / a) for a, b in zip(speeds[1e5], speeds[1e6], strict=True))
    run.note(
        r"S is $\sqrt{\kappa_m \tilde\kappa_m}$ up to a term of relative order $1/S$. Detects another gamma or compensation."
    )
    run.measure("exponent of SGD", sgd, -1.0, tolerance=0.02)
    run.measure("exponent of MaSS", accelerated, -0.5, tolerance=0.03)
    one_hot = [-math.log(one_hot_rate(kappa)) for kappa in (1e3, 1e4)]
    run.measure("exponent of MaSS on one-hot rows", math.log10(one_hot[1] / one_hot[0]), -1.0, tolerance=0.02)
    with run.control("MaSS as slow as SGD"):
        run.measure("exponent of MaSS", accelerated, -1.0, tolerance=0.03)


def one_hot_rate(kappa):
    """Return the rate of MaSS on rows e_i that come with probability p_i in the proportion 1 : 1/kappa, with the authors' parameters for such rows.

    For these L_1 = 1 and kappa_1 = kt_1 = S = 1 / p_min. A step multiplies (x, w) of a coordinate by [[1 + gamma, -gamma], [1, 0]], or with
    probability p by [[c, -gamma], [0, 0]], as eta = 1. So E of the Kronecker square is a matrix, and the rate is the larger radius of two. No parameters
    have a rate below 1 - p_min: a coordinate that starts at rest stays until its row comes.
    """
    p = np.array([kappa, 1.0]) / (1 + kappa)
    S = 1 / p.min()
    gamma, c = (S - 1) / (S + 1), S / (S + 1) * (1 - 1 / S)
    still, moved = np.array([[1 + gamma, -gamma], [1.0, 0.0]]), np.array([[c, -gamma], [0.0, 0.0]])
    maps = [one * np.kron(moved, moved) + (1 - one) * np.kron(still, still) for one in p]
    return max(np.abs(np.linalg.eigvals(each)).max() for each in maps)


SPECTRA = {
    "power law": np.arange(1.0, 16) ** -2,
    "geometric": np.geomspace(1, 1e-5, 12),
    "two bulks": np.repeat([1.0, 1e-4], [16, 2]),
}


@st.claim(
    "least-squares-batch-threshold",
    statement=r"The best rate of heavy ball over $4/\sqrt\kappa$ is nearly one function of $B / B^*$, $B^* = \frac12 r_{\rm eff} \sqrt\kappa$, "
    r"$r_{\rm eff} = \mathrm{tr} K / \lambda_{\max}$: an asymptotic rule, here measured on three spectra. Momentum gains at most $3/2$ at batch 1, about "
    r"$B/r_{\rm eff}$ in between, and $\sqrt\kappa$ at very large batches.",
    source="measured",
)
def threshold(run):
    """Compare the spread of the scaled best rates of three spectra at equal B/B* with that at equal B."""
    shares = run.scale(quick=(16.0,), standard=(1 / 4, 16.0), full=(1 / 4, 4.0, 16.0, 64.0))
    limits = {name: E.batch_threshold(lam) for name, lam in SPECTRA.items()}
    scales = {
        "B*": [one.threshold for one in limits.values()],
        "r_eff": [one.effective_rank for one in limits.values()],
        "1": [1.0] * len(limits),
    }
    middle = math.exp(np.mean(np.log(scales["B*"])))
    spreads = {kind: [] for kind in scales}

    def scaled(name, batch):
        speed = value_or_far(lambda: -math.log(E.best(SPECTRA[name], max(round(batch), 1)).rate))
        return speed * limits[name].kappa ** 0.5 / 4

    for share in shares:
        for kind, own in scales.items():  # batches with the same geometric mean for each scale
            factor = share * middle / math.exp(np.mean(np.log(own)))
            found = [math.log(scaled(name, factor * scale)) for name, scale in zip(limits, own, strict=True)]
            spreads[kind].append(max(found) - min(found))
    total = {kind: sum(own) for kind, own in spreads.items()}
    run.table(
        "spread of log(rate / (4 / sqrt kappa)) over the spectra",
        [{"B/B*": share} | {f"at equal B/{kind}": own[i] for kind, own in spreads.items()} for i, share in enumerate(shares)],
    )
    run.note("Detects another effective rank, and a threshold without sqrt(kappa).")
    run.measure("best rate over that by hand, two bulks, B = 64", best_by_hand(SPECTRA["two bulks"], 64), 1.0, tolerance=ROUNDING)
    for name, lam in SPECTRA.items():
        rank, root = lam.sum() / lam.max(), math.sqrt(lam.max() / lam.min())
        run.measure(f"threshold of the library, {name}", limits[name].threshold, rank * root / 2, relative=ROUNDING)
    lam, rank, root = SPECTRA["two bulks"], 16.0002, 100.0
    run.measure("gain at batch 1", gain(lam, 1), at_most=1.5)
    run.measure(
        "gain over B / r_eff, B = 10 r_eff: its logarithm", math.log(gain(lam, 160) / (160 / rank)), 0.0, tolerance=math.log(2)
    )
    # at B = infinity the ratio of both best rates is sqrt(kappa) (1 + O(1 / sqrt(kappa))). Noise moves a double root, by the square root of
    # r_eff sqrt(kappa) / B, here 1 %
    run.measure(
        "gain over sqrt(kappa), B = 10^4 r_eff sqrt(kappa)", gain(lam, round(1e4 * rank * root)) / root, 1.0, tolerance=0.05
    )
    run.measure("spread at equal B over spread at equal B/B*", total["1"] / total["B*"], at_least=5.0)
    with run.control("the scale r_eff in place of B*"):
        run.measure("spread at equal B over spread at equal B/r_eff", total["1"] / total["r_eff"], at_least=5.0)


def methods_of_exponents(oracle, h, delta=4.0):
    """Return SGD, SGDM, schedule-free SGD and DANA-decaying, g3 = g2 (1 + t)^-1/2, at the learning rate h."""
    return {
        "SGD": st.SGD(oracle, constant(h)),
        "SGDM": st.SGDM(oracle, constant(h, 0.9)),
        "schedule-free SGD": st.ScheduleFree(oracle, constant(h)),
        "DANA": st.DANA(oracle, constant(h), delta=delta, ratio=1.0, power=0.5),
    }


def squared_bessel(nu, power):
    """Return the integral of z^-power J_nu(z)^2 over z > 0, by Weber and Schafheitlin (DLMF 10.22.57)."""
    half = power / 2
    below = 2**power * math.gamma(0.5 + half) ** 2 * math.gamma(nu + 0.5 + half)
    return math.gamma(power) * math.gamma(nu + 0.5 - half) / below


def limits_without_noise(h):
    """Return the limits of R t^.8 of SGD and SGDM, of schedule-free SGD, and of R t^1.2 of DANA, as t grows, for a = 1, b = .3.

    R = sum_j lam_j j^-.6 X_j^2 / 2 becomes the integral of lam^-.2 X^2 / 4 over lam > 0, with X of the flow that the steps of a mode approach:

        SGD, SGDM         X = exp(-h lam t)
        schedule-free     u X'' + (2 + u) X' + X / (1 - beta) = 0 in u = (1 - beta) h lam t:  X = 1F1(1 / (1 - beta); 2; -u), beta = .9
        DANA              X'' + (4 + 1/2) X' / t + h lam t^-1/2 X = 0:  X = Gamma(1 + nu) (z / 2)^-nu J_nu(z), z = (4/3) (h lam)^1/2 t^3/4, nu = 7/3
    """
    free, _ = integrate.quad(lambda x: x**-0.2 * special.hyp1f1(10, 2, -0.1 * x) ** 2, 0, np.inf, limit=500)
    nu = 7 / 3
    dana = 0.5 * (9 / (16 * h)) ** 0.8 * (math.gamma(1 + nu) * 2**nu) ** 2 * squared_bessel(nu, 2 * nu - 0.6)
    plain = 0.25 * math.gamma(0.8) * (2 * h) ** -0.8
    return {"SGD": plain, "SGDM": plain, "schedule-free SGD": 0.25 * free * h**-0.8, "DANA": dana}


@st.claim(
    "least-squares-exponents",
    statement=r"On the spectrum $j^{-2a}$ with target $j^{-b}$, $a = 1$, $b = 0.3$, the risk of SGD, SGDM and schedule-free SGD falls like $t^{-0.8}$, that "
    r"of DANA-decaying like $t^{-1.2}$, $(2 - 1/2a)(2a + 2b - 1)/2a$: here momentum is not marginal. Without noise the factors are those of the flows of a mode "
    r"(exponential, Kummer's function, Bessel's function).",
    source="Ferbach et al., arXiv:2505.16098",
)
def exponents(run):
    """Measure the local exponents of two decades up to 100,000 steps, of 200,000 modes in groups, and extrapolate them; and factors without noise."""
    law, batch, record = E.power_law(200_000, a=1.0, b=0.3), 16, [1_000, 10_000, 100_000]
    oracle = st.streaming_least_squares(law.values, 0.0, batch)
    h = 0.1 * E.momentum_edge(law.values, batch)
    found, local = {}, {}
    for name, rule in methods_of_exponents(oracle, h).items():
        expected, power, tolerance = (-1.2, 0.5, 0.005) if name == "DANA" else (-0.8, 0.7, 0.003)
        before, after = E.risk(rule, law.distance, record[-1], record, nodes=2).local_exponents()
        local[name], found[name] = value_or_far(float, after), value_or_far(float, after + (after - before) / (10**power - 1))
        run.measure(f"exponent of {name}", found[name], expected, tolerance=tolerance)
    # a mode depends on lam t^{2 - kappa}, kappa = 1/2a, alone but for the part of g2, lam g2 t ~ t^{kappa - 1}, and for shifts of t by a constant
    run.note(
        r"Local exponents differ from their limit by terms of order $t^{-0.7}$ (of the noise of the gradients, $t^{-N + F}$), those of DANA by $t^{1/2a - 1} = "
        r"t^{-1/2}$ (of $g_2$ beside $g_3$); the power is known and the term is extrapolated: .015 for DANA. Its square, .002, is left, and so is the error of the "
        r"groups of modes, .001. Modes beyond the last would add $10^{-3}$ to the risk at the end. Detects another power of g3 or another decay D."
    )
    noiseless = st.streaming_least_squares(law.values, 0.0, 1_000_000)
    limits = limits_without_noise(h)

    def factor(name, rule):
        power = 1.2 if name == "DANA" else 0.8
        before, after = (
            E.risk(rule, law.distance, record[-1], record[1:], nodes=4).risk * np.array(record[1:]) ** power
        ) / limits[name]
        return value_or_far(float, after + (after - before) / (10**0.5 - 1) if name == "DANA" else after)

    for name, rule in methods_of_exponents(noiseless, h).items():
        tolerance = 0.005 if name == "DANA" else 0.002
        run.measure(f"factor of {name} without noise, over its limit", factor(name, rule), 1.0, tolerance=tolerance)
    run.note(
        r"Factors: terms of relative order $h \lambda_{\max}\, t^{-0.8}$ and the error of the groups are below $10^{-3}$. For DANA the term $t^{-1/2}$ is extrapolated; its "
        r"square is $3 \cdot 10^{-4}$, and modes beyond the last would add $10^{-3}$. Detects another weight of a gradient or of the averages."
    )
    other = factor("DANA", methods_of_exponents(noiseless, h, delta=5.0)["DANA"])
    with run.control("DANA with D = 5 / (5 + t)"):
        run.measure("factor of DANA without noise", other, 1.0, tolerance=0.005)
    few = E.power_law(20_000, a=1.0, b=0.3)
    alone, half = st.streaming_least_squares(few.values, 0.0, 1), 0.5 * E.momentum_edge(few.values, 1)
    for power in (0.0, 0.3):
        diverging = st.DANA(alone, constant(half), delta=4.0, ratio=1.0, power=power)
        last = E.risk(diverging, few.distance, 200_000, [200_000], nodes=2).risk[0]
        run.measure(f"log10 of the risk of g3 = g2 t^-{power} after 200,000 steps, B=1", min(math.log10(last), 300.0), at_least=3)
    slow = E.power_law(1_000_000, a=0.4, b=0.3)
    oracle, h = st.streaming_least_squares(slow.values, 0.0, batch), 0.1 * E.momentum_edge(slow.values, batch)
    plain, dana = (
        float(E.risk(rule, slow.distance, 2_000, [500, 2_000], nodes=2).local_exponents()[0])
        for rule in (st.SGD(oracle, constant(h)), st.DANA(oracle, constant(h), delta=4.0, ratio=1.0, power=1.25))
    )
    run.measure("a = .4: exponent of DANA less that of SGD, no gain", dana - plain, at_least=-0.02)
    with run.control("DANA as slow as SGD"):
        run.measure("exponent of DANA", found["DANA"], -0.8, tolerance=0.005)
    with run.control("DANA without extrapolation"):
        run.measure("exponent of DANA", local["DANA"], -1.2, tolerance=0.005)


@st.claim(
    "least-squares-noise-budget",
    statement=r"Frozen general momentum is stable in mean square if and only if $q = \sum_i r_i/(1 - r_i) < 1$ with the closed form of $r_i$, and "
    r"$q \approx (g_2\, \mathrm{tr} K + (g_3/g_2) N(D/g_2))/2B$ for small steps.",
    source="derived",
)
def noise_budget(run):
    """Compare the edge in g3 of the rule with the root of q = 1, and the schedule within the budget with SGD."""
    lam, batch, D, g2 = np.arange(1.0, 51) ** -2, 4, 0.01, 0.1
    oracle = st.streaming_least_squares(lam, 0.0, batch)
    edge = E.stability_edge(lambda g3: st.GeneralMomentum(oracle, constant(1.0), D=D, g1=1.0, g2=g2, g3=g3 * g2))
    run.measure("q at the edge of the rule", E.general_budget(lam, batch, D, g2, edge * g2), 1.0, tolerance=1e-6)
    small = (1e-3 * lam.sum() + 0.02 * (lam / (lam + 0.1)).sum()) / (2 * batch)
    run.measure("q for small steps", E.general_budget(lam, batch, 1e-4, 1e-3, 2e-5), small, relative=0.02)
    law, steps = E.power_law(20_000, a=1.0, b=0.3), 200_000
    for rows in (1, 16):
        stream = st.streaming_least_squares(law.values, 0.0, rows)
        h = 0.3 * E.momentum_edge(law.values, rows)
        rule = st.DANA(stream, constant(h), delta=4.0, share=0.25)
        D, g3 = rule.coefficient_values(steps)[-1, [1, 4]]
        kept = E.general_budget(law.values, rows, D, h, g3 * h) - E.general_budget(law.values, rows, D, h, 0.0)
        run.measure(
            f"part of the budget that momentum takes, B={rows}", kept, 0.25, relative=0.02
        )  # next term: order sqrt(D) = .0045
        within, plain, beyond = (
            E.risk(rule, law.distance, steps, [steps], nodes=2).risk[0]
            for rule in (
                rule,
                st.SGD(stream, constant(h)),
                st.DANA(stream, constant(h), delta=4.0, share=2.0),
            )
        )
        run.measure(f"risk of SGD over that within the budget, B={rows}", plain / within, at_least=20.0)
        with run.control(f"twice the budget, B={rows}"):
            run.measure("risk of SGD over that of the rule", plain / beyond, at_least=1.0)


@st.claim(
    "least-squares-interpolation",
    statement=r"Without label noise, where the loss falls by a power law, the loss of SGDM over that of SGD tends to $(1 - q_0)/(1 - q_b)$.",
    source="derived",
)
def interpolation(run):
    """Compare the ratio of the losses after 40,000 steps with the limit."""
    law, batch = E.power_law(2_000, a=1.0, b=0.3), 4
    h = 0.7 * E.momentum_edge(law.values, batch)
    oracle = st.streaming_least_squares(law.values, 0.0, batch)
    with_momentum, without = (
        E.risk(r, law.distance, 40_000, [40_000], nodes=4).risk[0]
        for r in (st.SGDM(oracle, constant(h, 0.9)), st.SGD(oracle, constant(h)))
    )
    limit = (1 - budget(law.values, batch, h, 1.0)) / (1 - budget(law.values, batch, h, 0.1 / 1.9))
    run.note("Detects a wrong k in either budget.")
    run.measure("loss of SGDM over that of SGD", with_momentum / without, limit, tolerance=1e-3)
    run.measure("the limit is away from 1", 1 - limit, at_least=0.03)
    with run.control("no difference"):
        run.measure("loss of SGDM over that of SGD", with_momentum / without, 1.0, tolerance=1e-3)


class AverageOfSGDM(st.Dynamics):
    """The mean x of the iterates z_0, ..., z_k of SGDM."""

    parts, at_x0, coefficients = ("x", "z", "m"), ("z",), ("eta", "beta", "c")

    @staticmethod
    def rule(state, oracle, eta, beta, c):
        x, z, m = state
        m = beta * m + (1 - beta) * oracle(z)
        z = z - eta * m
        return x + c * (z - x), z, m

    def coefficient_values(self, steps):
        return np.column_stack([self.plan.etas(steps), self.plan.betas(steps), 1 / (np.arange(steps) + 2.0)])


@st.claim(
    "least-squares-averages-do-not-see-momentum",
    statement=r"$T\, E L$ of the mean of $T$ iterates tends to $\sum_i (s + \lambda_i E\rho_i^2)/2B$ for every stable $(h, \beta)$, with the stationary "
    r"$s$ and $\rho$: equal up to their excess, while the last iterates differ.",
    source="derived",
)
def averages(run):
    """Compare T E L of the mean after 200,000 steps with the limit, with and without momentum."""
    steps, h, last = 200_000, 0.3, {}
    oracle = st.streaming_least_squares(LAM, S, B)
    for beta in (0.0, 0.9):
        k = (1 - beta) / (1 + beta)
        q = budget(LAM, B, h, k)
        level = S * S / (1 - q)
        modes = level * h * LAM / (2 * B - (1 + k * B) * h * LAM)
        limit = float((level + modes).sum() / (2 * B))
        found = steps * E.risk(AverageOfSGDM(oracle, constant(h, beta)), 0 * RHO, steps, [steps]).risk[0]
        run.measure(f"T E L of the mean, beta={beta}", found, limit, relative=1e-3)
        last[beta] = q / (1 - q), limit
    run.note(
        r"The next term is of relative order $1/(h \lambda_{\min} T) = 3 \cdot 10^{-4}$, a third of the tolerance. Detects a wrong level or factor of B."
    )
    run.measure("last iterates: risk of SGD over that of SGDM, minus 1", last[0.0][0] / last[0.9][0] - 1, at_least=0.2)
    with run.control("the mean as noisy as the last iterate"):
        run.measure("T E L of the mean, SGD over SGDM", last[0.0][1] / last[0.9][1], last[0.0][0] / last[0.9][0], relative=0.05)


@st.claim(
    "least-squares-dropping-momentum",
    statement=r"Where the three terms of the rule sum to at most $\delta$, the logarithm of the ratio of the risks of SGDM and SGD stays below $1.5\,\delta$ "
    r"(proportion .97 at $\delta = .02$, .95 at $\delta = .05$): the rule says when dropping momentum is safe.",
    source="derived for small steps; measured on random problems",
)
def dropping(run):
    """Run the rule and two naive ones on random power laws, with the exact risks as the truth, and its terms on one of them."""
    measure_terms(run)
    generator = np.random.default_rng(run.seed)
    count = run.scale(quick=400, standard=2_500, full=6_000)
    kept = {name: judged(rule, generator, count, -0.1) for name, rule in DROPPING.items()}
    run.table(
        "the rules",
        [
            {"rule": name, "delta": d, "drop": n[0], "precision": n[1] / max(n[0], 1)}
            for name, rows in kept.items()
            for d, n in rows.items()
        ],
    )
    rows, where = kept["the rule"], ""
    if run.budget == "quick":  # one problem in ten is a "drop", too few for an interval
        rows, where = (
            judged(DROPPING["the rule"], generator, 1_000, -2.3),
            r" At the quick budget rates are below $10^{-2.3}$ of the edge.",
        )
    run.note(r"Learning rates are log-uniform between $10^{-3.5}$ and $10^{-0.1}$ of SGDM's stability edge." + where)
    for delta, least in ((0.02, 0.97), (0.05, 0.95)):
        dropped, right = (int(number) for number in rows[delta])
        run.measure(f"precision of drop, delta={delta}", proportion(right, dropped), at_least=least)
        for naive in ("h lam <= delta", "eta lam <= delta"):
            dropped, right = (int(number) for number in kept[naive][delta])
            with run.control(f"{naive}, delta={delta}"):
                run.measure("precision of drop", proportion(right, dropped), at_least=0.8)


DROPPING = {
    "the rule": lambda law, batch, h, beta, steps: E.drop_momentum(law, batch, h, beta, steps).bound,
    "h lam <= delta": lambda law, batch, h, beta, steps: h * law.values[0],
    "eta lam <= delta": lambda law, batch, h, beta, steps: (1 - beta) * h * law.values[0],
}
"""Numbers that are at most delta where a rule says that momentum may be dropped."""


def measure_terms(run):
    """Compare the terms of the rule with exact risks and rates, and with a curve where the transient alone is left."""
    law, batch, h, beta = E.power_law(12, 1.0, 0.5, 0.5), 4, 0.3, 0.8
    oracle = st.streaming_least_squares(law.values, law.label_noise, batch)
    rules = st.SGDM(oracle, constant(h, beta)), st.SGD(oracle, constant(h))
    found = E.drop_momentum(law, batch, h, beta, 100)
    with_momentum, without = map(E.stationary_risk, rules)
    run.measure("noise term beside stationary risks", found.noise, math.log(without / with_momentum), relative=1e-8)
    run.measure("rate term beside rates", found.rate, found.floor_step * abs(math.log(E.rate(rules[0]) / E.rate(rules[1]))), 1e-8)
    run.measure("bound beside the three terms", found.bound, found.noise + found.transient + found.rate, relative=1e-12)
    # two modes with h lam t = 4 and 2 and equal weights w e^{-2 h lam t} at the last time: (4 (1 - 4) + 2 (1 - 2)) / 2 = -7 over that time
    late = E.Spectrum(np.array([1.0, 0.5]), np.sqrt([math.exp(4.0), 2.0]), 0.0)
    found = value_or_far(lambda: E.drop_momentum(late, 10**6, 0.004, beta, 1_000).transient)
    run.measure("transient term of two modes by hand", found, 2 * beta / (1 - beta) * 7 / 1_000, relative=ROUNDING)
    many, small, steps = 10**6, 2e-4, 25_000
    for modes in (1, 12):  # the largest gap is at the end, where x t = 5, and at the start
        quiet = E.power_law(modes, 1.0, 0.5, 0.0)
        oracle = st.streaming_least_squares(quiet.values, 0.0, many)
        curves = [
            E.risk(r, quiet.distance, steps).risk
            for r in (st.SGDM(oracle, constant(small, beta)), st.SGD(oracle, constant(small)))
        ]
        # the next term is of the relative order h lam / (1 - beta) = .001; ten times that is allowed
        run.measure(
            f"transient term beside exact curves, {modes} modes",
            E.drop_momentum(quiet, many, small, beta, steps).transient,
            np.abs(np.log(curves[0] / curves[1])).max(),
            relative=0.01,
        )


def judged(rule, generator, count, top):
    """Return for each delta the numbers of random problems that a rule drops, and of those that it drops rightly."""
    out = {delta: np.zeros(2, dtype=int) for delta in (0.02, 0.05)}
    for _ in range(count):
        law = E.power_law(
            int(generator.integers(4, 24)), generator.uniform(0.4, 1.5), generator.uniform(0, 1), 10 ** generator.uniform(-2, 0.5)
        )
        batch, beta = int(2 ** generator.integers(0, 9)), float(generator.choice([0.5, 0.8, 0.9, 0.95]))
        steps = int(10 ** generator.uniform(2, 3.3))
        h = E.momentum_edge(law.values, batch, beta) * 10 ** generator.uniform(-3.5, top)
        number = rule(law, batch, h, beta, steps)
        if number > max(out):
            continue
        oracle = st.streaming_least_squares(law.values, law.label_noise, batch)
        curves = [
            E.risk(one, law.distance, steps).risk for one in (st.SGDM(oracle, constant(h, beta)), st.SGD(oracle, constant(h)))
        ]
        gap = np.abs(np.log(curves[0] / curves[1])).max() if np.isfinite(curves[1]).all() else math.inf
        for delta, row in out.items():
            dropped, safe = number <= delta, gap < 1.5 * delta
            row += [dropped, dropped and safe]
    return out


def proportion(right, dropped):
    """Return a proportion of problems as an estimate, with Clopper and Pearson's interval; 0 for a rule that drops nowhere."""
    if dropped == 0:
        return 0.0
    share = right / dropped
    return st.Estimate(share, math.sqrt(share * (1 - share) / dropped), dropped, least=0.0, most=1.0, two_valued=True)
