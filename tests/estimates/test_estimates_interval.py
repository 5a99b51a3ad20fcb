"""Confidence intervals: the class, its comparison with tolerances, and the intervals of all kinds of results."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as some

import sdetools as st
from sdetools.estimates.interval import ConfidenceInterval, Kind, binomial_interval
from sdetools.studies.distance import distance

PACKAGE = Path(st.__file__).parent
ends = some.floats(-10, 10)


@given(ends, ends, ends, ends)
def test_an_interval_is_inside_disjoint_or_overlapping(a, b, c, d):
    """`within` and `disjoint` agree with their definitions, and exclude each other."""
    interval, low, high = ConfidenceInterval(min(a, b), max(a, b)), min(c, d), max(c, d)
    meets = max(interval.low, low) <= min(
        interval.high, high
    )  # two closed intervals meet where the larger of the lower ends is no larger
    assert interval.disjoint(low, high) == (not meets)
    assert interval.within(low, high) == (
        interval.low in ConfidenceInterval(low, high) and interval.high in ConfidenceInterval(low, high)
    )
    assert not (interval.within(low, high) and interval.disjoint(low, high))


def test_unpacking_scaling_and_widening():
    """Arithmetic preserves level and kind; a NaN end makes the interval infinite."""
    interval = ConfidenceInterval(1.0, 3.0, 0.9, Kind.BOOTSTRAP)
    low, high = interval
    assert (low, high, interval.width, interval.half_width) == (1.0, 3.0, 2.0, 1.0)
    assert interval * 2 == ConfidenceInterval(2.0, 6.0, 0.9, "bootstrap")
    assert interval.widened(0.5) == ConfidenceInterval(0.5, 3.5, 0.9, Kind.BOOTSTRAP)
    assert ConfidenceInterval(math.nan, 1.0) == ConfidenceInterval.unknown()
    assert ConfidenceInterval.unknown().width == math.inf and not ConfidenceInterval.unknown().finite


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ((2.0, 1.0), "`low`"),
        ((0.0, 1.0, 0.0), "`level`"),
        ((0.0, 1.0, 1.5), "`level`"),
        ((0.0, 1.0, 0.9, "sure"), "sure"),
    ],
)
def test_invalid_intervals_are_refused(given_, words):
    """Exchanged ends, levels outside of (0, 1] and unknown kinds."""
    with pytest.raises(ValueError, match=words):
        ConfidenceInterval(*given_)


def gap(observe="x0", noise=None, **more):
    """Return the gap between SGDM and SGD on a quadratic loss."""
    noise = st.noise.gaussian(dim=1) if noise is None else noise
    oracle = st.NoisyOracle(st.losses.quadratic(np.eye(1)), noise, sigma=1.0)
    plan = st.schedules.constant(eta=0.25, beta=0.5)
    pair = st.SGDM(oracle, plan), st.SGD(oracle, plan.averaged())
    return st.weak_gap(*pair, [1.0], 1.0, 500, [observe], backend="numpy", keep_final=True, **more)


RESULTS = {
    "a gap": (lambda: gap().at(), Kind.POINTWISE),
    "its supremum": (lambda: gap().sup(), Kind.SIMULTANEOUS),
    "one without noise": (lambda: gap(noise=st.noise.none(1)).sup(), Kind.EXACT),
    "a probability": (
        lambda: st.simulate(gap().first, [1.0], 1.0, 500, [st.Indicator(lambda x: x[0] > 0.5)], backend="numpy").at(),
        Kind.CLOPPER_PEARSON,
    ),
    "a distance in law": (lambda: distance(*gap().final), Kind.BOOTSTRAP),
    "a number": (lambda: st.Estimate.exact(2.0), Kind.EXACT),
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_has_an_interval_of_its_kind(name):
    """The kind is as expected, a higher level gives a wider interval, and the deprecated method agrees."""
    made, kind = RESULTS[name]
    found = made()
    own, wide = found.confidence_interval(), found.confidence_interval(0.999)
    assert isinstance(own, ConfidenceInterval) and own.kind is wide.kind is kind
    assert (found.low, found.high) == tuple(own) and own.within(*wide)
    assert own.level == (1.0 if kind is Kind.EXACT else 0.95) and float(found) == found.value
    assert (wide.width > own.width) == (kind is not Kind.EXACT)
    with pytest.warns(DeprecationWarning, match="confidence_interval"):
        pair = found.interval(0.999) if kind is not Kind.EXACT else found.interval(0.95)
    assert pair == tuple(wide if kind is not Kind.EXACT else own)


def test_there_is_one_class_of_intervals():
    """No other class has fields `low` and `high`, except ranges of formulas and stated bounds."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = {n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
                if {"low", "high"} <= fields:
                    found.add(f"{file.relative_to(PACKAGE)}:{node.name}")
    assert found == {
        "estimates/interval.py:ConfidenceInterval", "studies/observables.py:Bounded", "studies/ranges.py:Range",
    }  # fmt: skip


def test_binomial_intervals_have_their_kind():
    """Kind and level of a Clopper-Pearson interval."""
    interval = binomial_interval(3, 10, 0.9)
    assert interval.kind is Kind.CLOPPER_PEARSON and interval.level == 0.9 and 0.3 in interval
