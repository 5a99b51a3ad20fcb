"""Exact moments of code written for one path, such as `np.mean(x)` without an axis, against the same code with matrices."""

from __future__ import annotations

import numpy as np
import pytest

import sdetools as st

MEAN, SUMS = np.full((3, 3), 1 / 3), np.tril(np.ones((3, 3)))
X0 = [1.0, 2.0, 3.0]


class OnePath(st.Dynamics):
    parts, coefficients = ("x", "m"), ("eta", "beta")

    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        m = beta * m + (1 - beta) * np.cumsum(oracle(x - 0.3 * m))
        return x - eta * m - 0.3 * np.mean(x), np.roll(m, 1)


class Matrices(OnePath):
    @staticmethod
    def rule(state, oracle, eta, beta):
        x, m = state
        m = beta * m + (1 - beta) * (SUMS @ oracle(x - 0.3 * m))
        return x - eta * m - 0.3 * (MEAN @ x), np.roll(m, 1, axis=0)


NOISES = {
    "constant": (st.noise.gaussian(dim=3), st.noise.gaussian(dim=3)),
    "of the point": (
        st.noise.gaussian(root=lambda x: np.diag(x) + np.mean(x), dim=3),
        st.noise.gaussian(root=[[f"{'x' + str(i) if i == j else 0} + (x0+x1+x2)/3" for j in range(3)] for i in range(3)], dim=3),
    ),
}


@pytest.mark.parametrize("name", NOISES)
def test_rules_for_one_path(name):
    loss, plan = st.losses.quadratic(np.diag(X0)), st.schedules.constant(eta=0.05, beta=0.8)
    found, wanted = (
        st.exact.moments(made(st.NoisyOracle(loss, noise, sigma=0.7), plan), x0=X0, steps=8, record=[8])
        for made, noise in zip((OnePath, Matrices), NOISES[name])
    )
    for h in ("x0", "x1", "x0*x2"):
        np.testing.assert_allclose(st.exact.expectation(found, h), st.exact.expectation(wanted, h), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [st.EulerMaruyama, st.Platen])
def test_sdes_for_one_path(scheme):
    text = st.SDE(lambda x: -x - 0.3 * np.mean(x), lambda x: np.diag(0.2 * x) + 0.1 * np.mean(x), dim=3)
    rows = [[f"{f'0.2*x{i}' if i == j else 0} + (x0+x1+x2)/30" for j in range(3)] for i in range(3)]
    formula = st.SDE([f"-x{i} - (x0+x1+x2)/10" for i in range(3)], rows, variables="x0 x1 x2")
    found, wanted = (st.exact.moments(scheme(sde, 0.05), X0, 2, record=[2]) for sde in (text, formula))
    for h in ("x0", "x1", "x0*x2"):
        np.testing.assert_allclose(st.exact.expectation(found, h), st.exact.expectation(wanted, h), rtol=1e-12)
