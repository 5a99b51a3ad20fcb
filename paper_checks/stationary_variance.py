"""Stationary variance on a quadratic: momentum reduces only the curvature-induced excess, by the factor (1 - beta) / (1 + beta).

Var = eta s^2 / (lam (2 - eta lam (1 - beta)/(1 + beta))) for curvature lam and noise of variance s^2 per gradient. The SDE has
eta s^2 / (2 lam) for every beta. So the relative excess over the SDE's value is about (eta lam / 2) (1 - beta)/(1 + beta).
"""

from __future__ import annotations

from _plain import ROUNDING, draws, follow, moments, path, relative_distance, sgdm

import sdetools as st

LAM, ETA, S = 1.5, 0.5, 0.8
"""All values are distinct, and none is its own square, so that none can replace another unnoticed."""
BETAS = [0.0, 0.5, 0.9]


def dynamics(beta):
    """Return SGDM on the quadratic."""
    oracle = st.NoisyOracle(st.losses.quadratic(LAM), st.noise.gaussian(dim=1), sigma=S)
    return st.SGDM(oracle, st.schedules.constant(ETA, beta))


@st.claim(
    "stationary-variance",
    statement=r"On a quadratic of curvature $\lambda$ the stationary variance is "
    r"$\eta s^2 / (\lambda(2 - \eta\lambda\frac{1-\beta}{1+\beta}))$. Momentum reduces only the excess over the SDE's "
    r"$\eta s^2/2\lambda$, by the factor $(1-\beta)/(1+\beta)$.",
    source="Section 6",
)
def stationary(run):
    """Check the stationary variance for several beta."""
    run.note(
        "A wrong rule, noise scale or closed form is detected exactly: along a path, in the moments, and in their stationary values."
    )
    limit = ETA * S**2 / (2 * LAM)
    rows = []
    for i, beta in enumerate(BETAS):
        one = dynamics(beta)
        steps = round(60 / (ETA * LAM) + 60 / (1 - beta))  # the initial transient has decayed below e^-60
        exact = ETA * S**2 / (LAM * (2 - ETA * LAM * (1 - beta) / (1 + beta)))
        closed = st.exact.stationary_variance(ETA, beta, LAM, S**2)
        run.measure(f"the library's closed form, beta = {beta:g}", closed, exact, tolerance=ROUNDING)
        numbers = [(ETA, beta)] * steps
        at_rest = moments(sgdm, (0.0, 0.0), numbers, LAM, S**2)[1][:, 0, 0]
        run.measure(f"variance after {steps} steps by a plain recursion, beta = {beta:g}", at_rest[-1], exact, tolerance=1e-12)
        curve = st.exact.moments(one, [0.0], steps).covariance[:, 0, 0]
        run.measure(f"variance of x_k by the library, beta = {beta:g}", relative_distance(curve, at_rest), at_most=ROUNDING)
        far = st.exact.moments(one, [0.0], steps, record=[steps]).covariance[0, 0, 0]
        run.measure(f"variance after {steps} steps by moment recursion, beta = {beta:g}", far, expected=exact, tolerance=1e-12)
        z = draws(one, 32, run.seed)[:, 0]
        walk = follow(sgdm, (1.0, 0.0), numbers[:32], lambda k, x, z=z: LAM * x + S * z[k])
        run.measure(
            f"x_k along one path, beta = {beta:g}",
            relative_distance(path(one, [1.0], 32, ["x0"], run.seed), walk),
            at_most=ROUNDING,
        )

        def simulated(paths, one=one, steps=steps, i=i):
            options = run.options(paths=paths, observe=["x0**2"], times=[steps * ETA], stream=i)
            return st.simulate(one, [0.0], steps * ETA, **options).at("x0**2")

        # half of the smallest excess, 2 % of the variance at beta = 0.9
        paths = run.scale(quick=40 * run.paths, standard=run.paths, full=run.paths)
        found = run.decide(f"simulated, beta = {beta:g}", simulated, expected=exact, relative=0.01, paths=paths)
        rows.append((beta, exact, found.value, exact / limit - 1, far))
    run.table("stationary variance", [row[:-1] for row in rows], ["beta", "exact", "simulated", "excess over the SDE"])
    excess = {beta: 1 - limit / far for beta, *_, far in rows}
    for beta in BETAS[1:]:
        factor = excess[beta] / excess[0.0]
        run.measure(f"factor on the excess, beta = {beta:g}", factor, expected=(1 - beta) / (1 + beta), tolerance=1e-11)
    with run.control("momentum takes away the variance itself"):
        run.measure("variance at beta = 0.9 over that at beta = 0", rows[2][1] / rows[0][1], expected=0.1 / 1.9, tolerance=0.1)
