"""The descent lemma, E L(z') - L(z) = descent + noise + curvature: exact on a quadratic, with a known remainder elsewhere.

    descent = - eta |grad L|^2,   noise = (sigma eta)^2 / 2 tr(Hess L Sigma),   curvature = eta^2 / 2 grad L^T Hess L grad L

On a quadratic there is no remainder, for noise of any law. Elsewhere Taylor's formula at z' = z - eta (g + sigma v) gives it:
with L3, L4 the third and fourth derivatives, kappa the skewness of v and Sigma = 1, in one dimension

    sigma fixed:         - eta^3 L3 (g^3 + 3 g sigma^2 + kappa sigma^3) / 6 + O(eta^4)
    sigma = eta^-1/2:    - eta^(3/2) kappa L3 / 6 + eta^2 (L4 (3 + excess) / 24 - L3 g / 2) + ...

In the scaling of the paper the remainder is thus as large as the curvature term, and larger for skewed noise. The lemma's
o(eta^2, (sigma eta)^2) has to be read as smaller than the larger of the two.
"""

from functools import partial

import numpy as np
from _plain import ROUNDING, draws, integrate_unit_interval, relative_distance

import sdetools as st
from sdetools.plots import loglog_orders


def terms(g: np.ndarray, H: np.ndarray, covariance: np.ndarray, eta: float) -> dict[str, float]:
    """Return the three terms of the lemma from the gradient, the Hessian and the covariance of the noise, sigma^2 Sigma."""
    return {"descent": -eta * g @ g, "noise": eta**2 / 2 * np.trace(H @ covariance), "curvature": eta**2 / 2 * g @ H @ g}


ETA, Z = 0.25, np.array([1.0, -0.5])
HESSIAN, CENTRE, SIGMA = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([0.2, 0.4]), 2.0
QUADRATIC = st.losses.quadratic(HESSIAN, center=CENTRE)
ROOT = [[1.0, 0.0], [0.6, 0.8]]
NOISES = {
    "gaussian": st.noise.gaussian(root=ROOT),
    "signs": st.noise.rademacher(root=ROOT),
    "skewed: exponential": st.noise.centred_exponential(root=ROOT),
    "skewed: two points": st.noise.two_point(dim=2, probability=0.1, root=ROOT),
    "heavy-tailed: t(10)": st.noise.student_t(dim=2, degrees=10, root=ROOT),
    "gaussian, Sigma(z)": st.noise.gaussian(root=[["1 + x0 / 4", "0"], ["0.6", "0.8"]], variables="x0 x1"),
}


def root_at(name, z):
    """Return the noise root of the claim at z."""
    return np.array([[1 + z[0] / 4, 0.0], [0.6, 0.8]]) if "Sigma(z)" in name else np.array(ROOT)


def plain_loss(z):
    """Return the loss in plain NumPy."""
    return (z - CENTRE) @ HESSIAN @ (z - CENTRE) / 2


# how an entry of u is made from uniform draws: (jumps, power of the substitution at 0)
ENTRIES = {
    "skewed: exponential": ((), 16),
    "skewed: two points": ((0.1,), 1),
    "heavy-tailed: t(10)": ((), 20),
}


def noise_moments(name, noise):
    """Return E v and E v v^T at Z from the noise's draws. Entries are independent, so that each is integrated separately.

    v = R u is linear in u. So E v and Cov v follow from v with the draws of one entry varying and those of the other fixed.
    """
    rows = noise.n_draws

    def values(row, at):
        z = np.full((rows, len(at)), 0.5)
        z[row] = at
        return z

    def over(row, function):
        if name == "signs":
            return (function(values(row, np.array([1.0]))) + function(values(row, np.array([-1.0]))))[..., 0] / 2
        if name.startswith("gaussian"):
            return function(values(row, HERMITE[0])) @ NORMAL[1]
        breaks, power = ENTRIES[name]
        if rows == 2:
            return integrate_unit_interval(lambda u: function(values(row, u)), breaks, power)
        angles = (np.arange(64) + 0.5) / 64  # the second uniform of an entry is an angle

        def at_angle(t):
            def both(u):
                z = values(row, u)
                z[row + 2] = t
                return function(z)

            return integrate_unit_interval(both, breaks, power)

        return np.mean([at_angle(t) for t in angles], axis=0)

    def v(z):
        return noise.value(np.repeat(Z[:, None], z.shape[1], axis=1), z)

    resting = v(np.full((rows, 1), 0.5))
    own = [over(row, lambda z: v(z) - resting) for row in (0, 1)]
    mean = resting[:, 0] + own[0] + own[1]
    spread = 0.0
    for row in (0, 1):
        products = over(row, lambda z: np.einsum("ip,jp->ijp", v(z) - resting, v(z) - resting))
        spread = spread + products - np.multiply.outer(own[row], own[row])
    return mean, spread


def measure_noise(run, name, noise):
    """Check the noise at Z: its mean and covariance by quadrature over its draws, its stated covariance, and one step of the kernel."""
    root = root_at(name, Z)
    mean, spread = noise_moments(name, noise)
    run.measure(f"mean of the noise by quadrature, {name}", float(np.abs(mean).max()), at_most=1e-9)
    run.measure(f"covariance of the noise by quadrature, {name}", relative_distance(spread, root @ root.T), at_most=1e-9)
    run.measure(
        f"covariance of the noise as stated, {name}", relative_distance(noise.covariance(Z), root @ root.T), at_most=ROUNDING
    )
    oracle = st.NoisyOracle(QUADRATIC, noise, sigma=SIGMA)
    sgd = st.SGD(oracle, st.schedules.constant(eta=ETA))
    z = draws(sgd, 1, run.seed)[0]
    gradient = HESSIAN @ (Z - CENTRE) + SIGMA * noise.value(Z, z)
    run.measure(f"the oracle beside its equation, {name}", relative_distance(oracle(Z, z), gradient), at_most=ROUNDING)
    observe = {"x0": "x0", "x1": "x1", "L": QUADRATIC}
    found = st.simulate(sgd, Z, horizon=ETA, observe=observe, **run.options(paths=1))
    after = Z - ETA * gradient
    seen = [found.at(h).value for h in observe]
    run.measure(f"one step beside Definition 2.2, {name}", relative_distance(seen, [*after, plain_loss(after)]), at_most=ROUNDING)


@st.claim(
    "lemma-2.4-quadratic",
    statement=r"On a quadratic $E\,L(z') - L(z) = -\eta |\nabla L|^2 + \frac{(\sigma\eta)^2}{2} "
    r"\mathrm{tr}(\nabla^2 L\,\Sigma(z)) + \frac{\eta^2}{2} \nabla L^\top \nabla^2 L\, \nabla L$ exactly, for noise of any law.",
    source="Lemma 2.4",
)
def quadratic(run):
    """Check the lemma on a quadratic for noise of several laws."""
    run.note(
        "A noise of another mean or covariance is detected by quadrature, a wrong step along a path, a wrong moment by the lemma's sum: "
        "all exactly, from the numbers of the problem and not from the library's derivatives."
    )
    start, measured, rows = float(plain_loss(Z)), {}, []
    slope = HESSIAN @ (Z - CENTRE)
    options = run.options(paths=10 * run.paths)  # a path is one step
    for name, noise in NOISES.items():
        measure_noise(run, name, noise)
        oracle, root = st.NoisyOracle(QUADRATIC, noise, sigma=SIGMA), root_at(name, Z)
        sgd = st.SGD(oracle, st.schedules.constant(eta=ETA))
        parts = terms(slope, HESSIAN, SIGMA**2 * root @ root.T, ETA)
        # half of the smallest term: a lemma without any one of them would be contradicted
        resolution = min(map(abs, parts.values())) / 2
        loss = measured[name] = st.simulate(sgd, Z, horizon=ETA, observe={"L": QUADRATIC}, **options).at("L")
        run.measure(f"E L(z'), {name}", loss, expected=start + sum(parts.values()), tolerance=resolution)
        exact = st.exact.expectation(st.exact.moments(sgd, Z, steps=1), QUADRATIC)[-1]
        run.measure(f"the same by moment recursion, {name}", exact, expected=start + sum(parts.values()), tolerance=1e-12)
        rows.append((name, *(f"{v:.4f}" for v in parts.values()), f"{exact - start:.4f}", f"{loss.value - start:.4f}"))
    run.table("expected change of the loss", rows, ["noise", *parts, "exact", f"{options['paths']:,} paths"])
    parts = terms(slope, HESSIAN, SIGMA**2 * np.array(ROOT) @ np.transpose(ROOT), ETA)
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
    """Return E L(z') - L(z) minus the terms of the lemma, by quadrature that is exact for this L (of degree 4)."""
    nodes, weights = law
    after = AT - eta * (G + sigma(eta) * nodes)
    parts = at_well(sigma(eta), eta) | ({without: 0.0} if without else {})
    return float(weights @ (well(after) - well(AT)) - sum(parts.values()))


def well(z):
    """Return the loss (z^2 - 1)^2 / 4."""
    return (z * z - 1) ** 2 / 4


def at_well(sigma: float, eta: float) -> dict[str, float]:
    """Return the terms of the lemma on the double well at AT."""
    return terms(np.array([G]), np.array([[3 * AT**2 - 1]]), np.array([[sigma**2]]), eta)


def fixed(eta: float) -> float:
    """Return sigma = 1."""
    return 1.0


def growing(eta: float) -> float:
    """Return sigma = eta^-1/2."""
    return eta**-0.5


@st.claim(
    "lemma-2.4-remainder",
    statement=r"As $\eta \to 0$ on a double well, the lemma's remainder is of order $\eta^3$ for fixed $\sigma$. For $\sigma = \eta^{-1/2}$ it is "
    r"$(\frac{L''''}{8} - \frac{L''' L'}{2})\,\eta^2$ to leading order, as large as the curvature term, and of order "
    r"$\eta^{3/2}$ when the noise is skewed; the noise term is of order $\eta$.",
    source="Lemma 2.4",
)
def remainders(run):
    """Check order and leading coefficient of the lemma's remainder on a double well."""
    run.note(
        "The remainder is quadrature in the claim's own numbers; the library's transfer operator and local orders must agree with it."
    )
    # order, leading coefficient and the next one, eta^(step) further on, from Taylor's formula
    cases = {
        "fixed noise": (NORMAL, fixed, 3.0, -L3 * (G**3 + 3 * G) / 6, L4 * (G**4 + 6 * G**2 + 3) / 24, 1.0),
        "sigma = eta^-1/2": (NORMAL, growing, 2.0, L4 / 8 - L3 * G / 2, L4 * G**2 / 4 - L3 * G**3 / 6, 1.0),
        "sigma = eta^-1/2, skewed": (SKEWED, growing, 1.5, -L3 * 2 / 6, L4 * 9 / 24 - L3 * G / 2, 0.5),
    }
    fine = ETAS[-2:]
    left = {name: np.array([remainder(law, sigma, eta) for eta in ETAS]) for name, (law, sigma, *_) in cases.items()}
    for name, (_, _, order, leading, following, step) in cases.items():
        # the next term of the formula changes slope and coefficient by about this relative amount; twice that is allowed
        bend = 2 * abs(following / leading) * fine[0] ** step
        slope = st.exact.local_orders(fine, np.abs(left[name][-2:]))[0]
        run.measure(f"order of the remainder, {name}", slope, expected=order, tolerance=bend)
        run.measure(f"coefficient, {name}", left[name][-1] / fine[1] ** order, expected=leading, tolerance=bend * abs(leading))
        plain = np.log(left[name][-1] / left[name][-2]) / np.log(fine[1] / fine[0])
        run.measure(f"local order beside a plain quotient, {name}", slope, plain, tolerance=ROUNDING)
    for eta in ETAS[:3]:  # the quadrature against the library's
        sgd = st.SGD(st.NoisyOracle(WELL, st.noise.gaussian(dim=1), growing(eta)), st.schedules.constant(eta=eta))
        change = st.exact.transfer(sgd, [AT], steps=1, h=WELL, record=[0, 1])
        here = remainder(NORMAL, growing, eta) + sum(at_well(growing(eta), eta).values())
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
        r"The remainder of the descent lemma on a double well at $z = 1.5$, and two of its terms. With $\sigma = \eta^{-1/2}$ "
        r"the remainder is parallel to the curvature term; skewness costs half an order.",
    )
