"""Results of expansions in files: formulas are texts, and come back as equal formulas."""

from __future__ import annotations

import pytest
import sympy as sp

import sdetools as st
from sdetools.exact.generators.formula_texts import formula, formula_text

PLAN = st.schedules.constant(0.01, beta=0.5)
ROOTED = st.NoisyOracle(
    st.losses.from_expression("(x*y - 1)**2/2 + sqrt(1 + x**2)", "x y"),
    st.noise.gaussian(root=[["exp(x/3)", "0.37"], ["0", "sqrt(1 + y**2)"]], variables="x y"),
)
NOISY = st.NoisyOracle(st.losses.from_expression("x**2/2 + x**4/4", "x"), st.noise.gaussian(dim=1), sigma=0.5)
SIGNS = st.SignSGD(NOISY, st.schedules.constant(0.1)), st.SignSDE(NOISY, st.schedules.constant(0.1), weak_order=2)


def frictionless():
    """Return SGDM with 1 - beta = eta^(3/2) and its limit, as functions of eta."""

    def rule(eta):
        return st.SGDM(NOISY, st.schedules.scaled(eta, alpha=1.5), step_time=eta**1.25)

    return rule, lambda eta: st.HamiltonianSDE(NOISY, rule(eta).plan)


RESULTS = {
    "signs": lambda: st.exact.generator_gap(*SIGNS),
    "frictionless": lambda: st.exact.generator_gap(*frictionless(), 1),
    "filter": lambda: st.exact.generator_gap(st.SGDM(*filter_pair()), st.LimitSDE(*filter_pair()), 1),
    "nothing found": lambda: st.exact.generator_gap(
        st.SGD(filter_pair()[0], st.schedules.constant(0.1)),
        st.exact.modified_equation(st.SGD(filter_pair()[0], st.schedules.constant(0.1)), 3),
    ),
    "roots": lambda: st.exact.step_generator(st.SGD(ROOTED, st.schedules.constant(0.1)), 1),
    "obstruction": lambda: st.exact.step_generator(SIGNS[0], 3),
}


def filter_pair():
    return st.NoisyOracle(st.losses.from_expression("x**2/2 + x**4/4", "x"), st.noise.gaussian(dim=1)), PLAN


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", RESULTS)
def test_a_saved_expansion_is_loaded_with_equal_formulas(name, tmp_path):
    found = RESULTS[name]()
    again = st.load(found.save(tmp_path / "result.nc"))
    assert type(again) is type(found) and again.table() == found.table() and repr(again) == repr(found)
    assert again.names == found.names and again.weak_order == found.weak_order and again.latex == found.latex
    assert again.data.equals(found.data)
    mappings = [found.terms, again.terms] if name in ("roots", "obstruction") else None
    pairs = (
        zip(mappings[0].items(), mappings[1].items(), strict=True)
        if mappings
        else [((0, one), (0, two)) for one, two in fields_of(found, again)]
    )
    for (power, one), (other, two) in pairs:
        assert power == other and list(one) == list(two)
        for index, c in one.items():
            assert sp.expand(c - two[index]) == 0 or abs(sp.N((c - two[index]).subs(AT), 30)) < 1e-16
    if name == "signs":
        assert again.local("x**2", [0.3]) == pytest.approx(found.local("x**2", [0.3]), rel=1e-15)
        assert again.constant("x**2", [0.3], 1.0) == pytest.approx(found.constant("x**2", [0.3], 1.0), rel=1e-12)
    if name == "obstruction":
        assert again.obstruction is not None and again.obstruction[0] == 2


AT = {sp.Symbol("x", real=True): sp.Rational(2, 7), sp.Symbol("y", real=True): sp.Rational(3, 7)}


def fields_of(found, again):
    return [(getattr(found, name), getattr(again, name)) for name in ("leading", "limit", "terminal")]


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "x.real", "y", "lambda: x"])
def test_a_text_that_is_no_formula_is_refused(text):
    """The parser refuses what a file may contain instead of a formula, and evaluates nothing."""
    with pytest.raises(ValueError, match="`text` must"):
        st.exact.GeneratorGap("SGD", "SDE", ("x",), 1.0, {(1,): text}, {}, 0.1)


@pytest.mark.parametrize(
    "text", ["-sqrt(2)*exp(-2*x**2)*erf(sqrt(2)*x)/sqrt(pi)", "abs(x)**3 + sign(x)/3", "max(x, 2) - e", "0.1*x + 1/3"]
)
def test_texts_of_formulas(text):
    x = formula(text, ["x"])
    assert formula(formula_text(x), ["x"]) == x


def test_an_expansion_that_is_too_long_for_a_file_is_refused(tmp_path):
    long = sp.Add(*(sp.Symbol("x", real=True) ** k / (k + 12345) for k in range(1, 900)))
    gap = st.exact.GeneratorGap("SGD", "SDE", ("x",), 1.0, {(1,): long}, {}, 0.1)
    with pytest.raises(ValueError, match="at most 10000 characters"):
        gap.save(tmp_path / "result.nc")
    assert not list(tmp_path.iterdir())
