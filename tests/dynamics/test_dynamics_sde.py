"""Messages about invalid drifts: they speak of components and quote the line of the user's function."""

from __future__ import annotations

import pytest

import sdetools as st


def out_of_range(x):
    return [x[0], x[7]]


@pytest.mark.parametrize(
    ("drift", "parts"),
    [
        (out_of_range, [r"return 2 components; calling it raised IndexError", "line", "return [x[0], x[7]]", "a list such as"]),
        (lambda x: [x[0]], ["must return 2 components, one for each coordinate; got 1. Return a list"]),
        (lambda x: None, ["calling it raised TypeError"]),
        (lambda x: {1.0, 2.0}, ["in an order; got a set"]),
        (lambda x: x * 1j, ["must return numbers"]),
    ],
)
def test_messages_about_a_drift_speak_of_a_vector_and_quote_the_users_line(drift, parts):
    with pytest.raises(ValueError, match="^`drift` must") as caught:
        st.SDE(drift, dim=2)
    assert all(w in str(caught.value) for w in parts) and "rows" not in str(caught.value)
    assert drift is not out_of_range or isinstance(caught.value.__cause__, IndexError)


def test_the_formula_of_a_modified_equation_is_that_of_its_order():
    """Only the second order has the term with the Hessian or with |grad L|^2; both have the noise."""
    oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
    first, second = (st.ModifiedSDE(oracle, 0.1, order=n).latex for n in (1, 2))
    assert r"\tfrac\eta4|\nabla L|^2" in second and r"\tfrac" not in first
    kinetic, corrected = (st.ModifiedMomentumSDE(oracle, 0.01, 0.9, order=n).latex for n in (1, 2))
    assert r"\nabla^2 L" in corrected and r"\nabla^2" not in kinetic
    for latex in (first, second, kinetic, corrected):
        assert r"\Sigma^{1/2}" in latex and r"\sigma" in latex
