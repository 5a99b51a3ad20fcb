r"""Second-order modified equations: SGD and Eq. (1) stay within O(eta^2) of them, and only within O(eta) of those of first order.

The test problem of Li, Tai and E: L(x) = x^T H x / 2, gradients H (x - g) with g ~ N(0, I), so Sigma = H^2 and sigma = 1. Optimiser and
equation are linear with additive noise: both have exact moments, and the gaps are taken as maxima over all steps, since the error of the
first order can cross zero at one time. For SGD, E L(X_t) = x0^T H e^{-2Ht} x0 / 2 + eta/4 sum lam^2 (1 - e^{-2 lam t}) to first order.
"""

from __future__ import annotations

import numpy as np
from _common import off_exact, sups

import sdetools as st

H = np.diag([2.0, 1.0])
X0 = [1.0, 1.0]
HORIZON = 2.0
BETA_MU = 1.5
"""mu = (1 - beta) / sqrt(gamma)."""
ETAS = [2.0**-k for k in range(3, 8)]
FINE = 4
"""Steps of SRA1, of weak order 2 too, in one of SGD: its error is a sixteenth of what a step of eta would leave."""
LOSS = "x0**2 + x1**2/2"


def oracle():
    return st.NoisyOracle(st.losses.quadratic(H), st.noise.gaussian(root=H), sigma=1.0)


def sgd(eta, order=2):
    return st.SGD(oracle(), st.schedules.constant(eta)), st.ModifiedSDE(oracle(), eta, order)


def momentum(eta, order=2):
    beta = 1 - BETA_MU * eta**0.5
    return (
        st.HeavyBall(oracle(), gamma=eta, beta=beta, step_time=eta**0.5),
        st.ModifiedMomentumSDE(oracle(), eta, beta, order),
    )


def exact_sup(make, eta, order, h=LOSS):
    """The largest exact gap over all steps."""
    optimiser, sde = make(eta, order)
    steps = round(HORIZON / optimiser.step_time)
    moved = st.exact.moments(optimiser, X0, steps)
    solved = st.exact.solution(sde, X0, moved.times)
    return float(np.abs(st.exact.expectation(moved, h) - st.exact.expectation(solved, h)).max())


@st.claim(
    "modified-equations",
    statement=r"$\mathrm dX = -\nabla(L + \frac{\eta}{4}|\nabla L|^2)\,\mathrm dt + \sqrt\eta\,\Sigma^{1/2}\mathrm dW$ is a weak "
    r"approximation of SGD of order 2 in $\eta$, where leaving out the correction gives order 1; and so is its counterpart for "
    r"Eq. (1), in $h = \sqrt\gamma$.",
    source="Q. Li, C. Tai, W. E (2019), Theorems 9, 10 and 13",
)
def modified_equations(run):
    deep = [4.0**-k for k in range(2, 6)]
    for make, name in ((sgd, "SGD"), (momentum, "momentum")):
        for order in (1, 2):
            scale = deep if make is sgd else np.sqrt(deep)  # a step of momentum advances the clock by h = sqrt(gamma)
            local = st.exact.local_orders(scale, [exact_sup(make, eta, order) for eta in deep])
            room = abs(local[-1] - local[-2]) + 0.01
            run.measure(f"{name}, order {order}: last exact local order", local[-1], expected=order, tolerance=2 * room)
    first = exact_sup_formula()
    run.measure("E L to first order: farthest from its closed form", first, at_most=1e-12)
    paths = run.scale(quick=5 * run.paths, standard=2 * run.paths, full=run.paths)
    options = run.options(paths=paths)
    for order in (1, 2):

        def pair(eta, order=order):
            optimiser, sde = sgd(eta, order)
            return optimiser, st.SRA1(sde, dt=eta / FINE)

        found = st.order_study(pair, ETAS, X0, HORIZON, observe=[LOSS], **options)
        exact = sups(st.exact.gap(g.first, g.second, X0, int(g.steps[-1]), LOSS, record=g.steps) for g in found.gaps)
        estimates = found.estimates(LOSS)
        room = 10 * max(e.stderr / value for e, value in zip(estimates, exact, strict=True))
        run.measure(f"SGD, order {order}: farthest from the exact gap", off_exact(estimates, exact), at_most=room)
        fitted = found.order(LOSS)
        run.measure(
            f"SGD, order {order}: fitted order", fitted, fitted.fit(exact[np.isin(found.etas, fitted.etas)]), tolerance=0.2
        )
        run.figure(
            f"order {order}",
            found.plot(exact={LOSS: exact}, slopes=(1.0, 2.0)),
            f"SGD against its modified equation of order {order}.",
        )
    with run.control("the first-order equation taken for the second"):
        local = st.exact.local_orders(deep, [exact_sup(sgd, eta, 1) for eta in deep])
        run.measure("last exact local order", local[-1], at_least=1.5)


def exact_sup_formula(eta=0.1):
    times = np.linspace(0.25, HORIZON, 8)
    lam = np.diag(H)
    solved = st.exact.solution(sgd(eta, 1)[1], X0, times)
    formula = [
        0.5 * (lam * np.exp(-2 * lam * t) * np.square(X0)).sum() + eta / 4 * (lam**2 * (1 - np.exp(-2 * lam * t))).sum()
        for t in times
    ]
    return float(np.abs(st.exact.expectation(solved, LOSS) - formula).max())
