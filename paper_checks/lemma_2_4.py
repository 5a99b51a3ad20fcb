r"""The descent lemma, E L(z') - L(z) = descent + noise + curvature: exact on a quadratic, and what it leaves over elsewhere.

    descent = - eta |grad L|^2,   noise = (sigma eta)^2 / 2 tr(Hess L Sigma),   curvature = eta^2 / 2 grad L^T Hess L grad L

On a quadratic nothing is left over, whatever the law of the noise. Elsewhere Taylor's formula at z' = z - eta (g + sigma v) says
what is: with L3, L4 the third and fourth derivatives, kappa the skewness of v and Sigma = 1, in one dimension

    sigma fixed:         - eta^3 L3 (g^3 + 3 g sigma^2 + kappa sigma^3) / 6 + O(eta^4)
    sigma = eta^-1/2:    - eta^(3/2) kappa L3 / 6 + eta^2 (L4 (3 + excess) / 24 - L3 g / 2) + ...

In the scaling of the paper the remainder is thus as large as the curvature term, and larger for skewed noise: the lemma's
o(eta^2, (sigma eta)^2) has to be read as smaller than the larger of the two.
"""

from functools import partial

import numpy as np

import sdetools as st
from sdetools.plots import loglog_orders


def terms(oracle: st.NoisyOracle, z: np.ndarray, eta: float) -> dict[str, float]:
    """The three terms of the lemma at z."""
    g, H, covariance = oracle.loss.gradient(z), oracle.loss.hessian(z), oracle.covariance(z)
    return {"descent": -eta * g @ g, "noise": eta**2 / 2 * np.trace(H @ covariance), "curvature": eta**2 / 2 * g @ H @ g}


ETA, Z = 0.25, np.array([1.0, -0.5])
QUADRATIC = st.losses.quadratic([[2.0, 0.5], [0.5, 1.0]], center=[0.2, 0.4])
ROOT = [[1.0, 0.0], [0.6, 0.8]]
NOISES = {
    "gaussian": st.noise.gaussian(root=ROOT),
    "signs": st.noise.rademacher(root=ROOT),
    "skewed: exponential": st.noise.centred_exponential(root=ROOT),
    "skewed: two points": st.noise.two_point(dim=2, probability=0.1, root=ROOT),
    "heavy-tailed: t(10)": st.noise.student_t(dim=2, degrees=10, root=ROOT),
    "gaussian, Sigma(z)": st.noise.gaussian(root=[["1 + x0 / 4", "0"], ["0.6", "0.8"]], variables="x0 x1"),
}


@st.claim(
    "lemma-2.4-quadratic",
    statement=r"On a quadratic $E\,L(z') - L(z) = -\eta |\nabla L|^2 + \frac{(\sigma\eta)^2}{2} "
    r"\mathrm{tr}(\nabla^2 L\,\Sigma(z)) + \frac{\eta^2}{2} \nabla L^\top \nabla^2 L\, \nabla L$ exactly, for noise of any law.",
    source="Lemma 2.4",
)
def quadratic(run):
    start, measured, rows = float(QUADRATIC.value(Z)), {}, []
    options = run.options(paths=10 * run.paths)  # a path is one step
    for name, noise in NOISES.items():
        oracle = st.NoisyOracle(QUADRATIC, noise, sigma=2.0)
        sgd = st.SGD(oracle, st.schedules.constant(eta=ETA))
        parts = terms(oracle, Z, ETA)
        # half of the smallest term: a lemma that lacks any of them would be found out
        resolution = min(map(abs, parts.values())) / 2
        loss = measured[name] = st.simulate(sgd, Z, horizon=ETA, observe={"L": QUADRATIC}, **options).at("L")
        run.measure(f"E L(z'), {name}", loss, expected=start + sum(parts.values()), tolerance=resolution)
        exact = st.exact.expectation(st.exact.moments(sgd, Z, steps=1), QUADRATIC)[-1]
        run.measure(f"the same by moment recursion, {name}", exact, expected=start + sum(parts.values()), tolerance=1e-12)
        rows.append((name, *(f"{v:.4f}" for v in parts.values()), f"{exact - start:.4f}", f"{loss.value - start:.4f}"))
    run.table("expected change of the loss", rows, ["noise", *parts, "exact", f"{options['paths']:,} paths"])
    parts = terms(st.NoisyOracle(QUADRATIC, NOISES["gaussian"], sigma=2.0), Z, ETA)
    for missing in ("noise", "curvature"):
        with run.control(f"the {missing} term left out"):
            rest = start + sum(parts.values()) - parts[missing]
            run.measure("E L(z'), gaussian", measured["gaussian"], expected=rest, tolerance=abs(parts[missing]) / 2)


WELL, AT = st.losses.double_well(), 1.5
G, L3, L4 = AT**3 - AT, 6 * AT, 6.0
ETAS = [2.0**-k for k in range(4, 13)]

# nodes and weights that integrate polynomials up to degree 15 exactly under N(0, 1) and under Exp(1) - 1
HERMITE = np.polynomial.hermite_e.hermegauss(8)
LAGUERRE = np.polynomial.laguerre.laggauss(8)
NORMAL = (HERMITE[0], HERMITE[1] / HERMITE[1].sum())
SKEWED = (LAGUERRE[0] - 1, LAGUERRE[1])  # skewness 2, excess kurtosis 6


def remainder(law, sigma, eta: float, without: str = "") -> float:
    """E L(z') - L(z) less the terms of the lemma, by quadrature that is exact for this L (of degree 4)."""
    nodes, weights = law
    oracle = st.NoisyOracle(WELL, st.noise.gaussian(dim=1), sigma=sigma(eta))
    z = np.array([AT])
    after = (AT - eta * (G + sigma(eta) * nodes))[None, :]
    parts = terms(oracle, z, eta) | ({without: 0.0} if without else {})
    return float(weights @ (WELL.value(after) - WELL.value(z)) - sum(parts.values()))


def fixed(eta: float) -> float:
    return 1.0


def growing(eta: float) -> float:
    return eta**-0.5


@st.claim(
    "lemma-2.4-remainder",
    statement=r"On a double well the lemma's remainder is of order $\eta^3$ for fixed $\sigma$. For $\sigma = \eta^{-1/2}$ it is "
    r"$(\frac{L''''}{8} - \frac{L''' L'}{2})\,\eta^2$ to leading order, as large as the curvature term, and of order "
    r"$\eta^{3/2}$ when the noise is skewed; the noise term is of order $\eta$.",
    source="Lemma 2.4",
)
def remainders(run):
    # order, leading coefficient and the next one, eta^(step) further on, from Taylor's formula
    cases = {
        "fixed noise": (NORMAL, fixed, 3.0, -L3 * (G**3 + 3 * G) / 6, L4 * (G**4 + 6 * G**2 + 3) / 24, 1.0),
        "sigma = eta^-1/2": (NORMAL, growing, 2.0, L4 / 8 - L3 * G / 2, L4 * G**2 / 4 - L3 * G**3 / 6, 1.0),
        "sigma = eta^-1/2, skewed": (SKEWED, growing, 1.5, -L3 * 2 / 6, L4 * 9 / 24 - L3 * G / 2, 0.5),
    }
    fine = ETAS[-2:]
    left = {name: np.array([remainder(law, sigma, eta) for eta in ETAS]) for name, (law, sigma, *_) in cases.items()}
    for name, (_, _, order, leading, following, step) in cases.items():
        # the next term of the formula bends the slope, and moves the coefficient, by about this part; twice that is allowed
        bend = 2 * abs(following / leading) * fine[0] ** step
        slope = st.exact.local_orders(fine, np.abs(left[name][-2:]))[0]
        run.measure(f"order of the remainder, {name}", slope, expected=order, tolerance=bend)
        run.measure(f"coefficient, {name}", left[name][-1] / fine[1] ** order, expected=leading, tolerance=bend * abs(leading))
    for eta in ETAS[:3]:  # the quadrature beside another one, of the library
        sgd = st.SGD(st.NoisyOracle(WELL, st.noise.gaussian(dim=1), growing(eta)), st.schedules.constant(eta=eta))
        change = st.exact.transfer(sgd, [AT], steps=1, h=WELL, record=[0, 1])
        here = remainder(NORMAL, growing, eta) + sum(terms(sgd.oracle, np.array([AT]), eta).values())
        run.measure(f"E L(z') - L(z) by another quadrature, eta={eta:g}", change[1] - change[0], expected=here, tolerance=1e-10)

    for missing, sigma, order in (("curvature", fixed, 3.0), ("noise", growing, 2.0)):
        with run.control(f"the {missing} term left out"):
            rest = [abs(remainder(NORMAL, sigma, eta, without=missing)) for eta in fine]
            run.measure("order of the remainder", st.exact.local_orders(fine, rest)[0], expected=order, tolerance=0.25)
    curves = {name: np.abs(value) for name, value in left.items()}
    curves["noise term, sigma = eta^-1/2"] = np.array([eta * (3 * AT**2 - 1) / 2 for eta in ETAS])
    curves["curvature term"] = np.array([eta**2 * (3 * AT**2 - 1) * G**2 / 2 for eta in ETAS])
    run.figure(
        "remainder",
        partial(loglog_orders, ETAS, curves, slopes=(1, 1.5, 2, 3), ylabel="size of the term"),
        r"What the descent lemma leaves over on a double well at $z = 1.5$, beside two of its terms. With $\sigma = \eta^{-1/2}$ "
        r"the remainder runs along with the curvature term; skewness costs half an order.",
    )
