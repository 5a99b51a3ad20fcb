"""First steps that the members of a pair take together: proven where they do, and never where only all paths agree."""

from __future__ import annotations

import math

import numpy as np
import pytest

import sdetools as st
from sdetools.studies.coincidence import MOST_STEPS, steps_together
from sdetools.studies.means import make_program

ORACLE = st.NoisyOracle(st.losses.hyperbola(), st.noise.gaussian(dim=2), sigma=0.5)
PLAN, BARE = st.schedules.constant(0.05, 0.5), st.schedules.constant(0.05)
EXPONENTIAL = st.NoisyOracle(st.losses.hyperbola(), st.noise.centred_exponential(2), sigma=0.5)


def rates(*values):
    return st.SGD(ORACLE, st.schedules.from_arrays(values, base=0.05))


CASES = {
    "Adam and RMSProp": (1, lambda: (st.Adam(ORACLE, PLAN), st.RMSProp(ORACLE, BARE, beta2=0.999, bias_correction=True))),
    "the same, lagged": (
        1,
        lambda: (
            st.Adam(ORACLE, PLAN, lagged=True, second_moment=1.0),
            st.RMSProp(ORACLE, BARE, beta2=0.999, lagged=True, bias_correction=True, second_moment=1.0),
        ),
    ),
    "without a correction": (0, lambda: (st.Adam(ORACLE, PLAN, bias_correction=False), st.RMSProp(ORACLE, BARE, beta2=0.999))),
    "another beta2": (0, lambda: (st.Adam(ORACLE, PLAN), st.RMSProp(ORACLE, BARE, beta2=0.99, bias_correction=True, second_moment=1.0))),
    "Signum and SignSGD": (1, lambda: (st.Signum(ORACLE, PLAN), st.SignSGD(ORACLE, BARE))),
    "Signum in motion": (0, lambda: (st.Signum(ORACLE, PLAN, momentum=[0.0, 0.1]), st.SignSGD(ORACLE, BARE))),
    "Signum in random motion": (0, lambda: (st.Signum(ORACLE, PLAN, momentum=([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])), st.SignSGD(ORACLE, BARE))),
    "Lion and Signum": (1, lambda: (st.Lion(ORACLE, PLAN, beta2=0.9), st.Signum(ORACLE, PLAN))),
    "Adam and SGDF": (0, lambda: (st.Adam(ORACLE, PLAN), st.SGDF(ORACLE, PLAN))),
    "two rates": (2, lambda: (rates(0.05, 0.04, 0.05), rates(0.05, 0.04, 0.03))),
    "one rate": (MOST_STEPS, lambda: (rates(0.05), rates(0.05, 0.05, 0.05, 0.05, 0.05, 0.04))),
    "workers": (1, lambda: (st.LocalSGD(ORACLE, BARE, workers=2), st.LocalSGD(ORACLE, BARE, workers=2, local_steps=1))),
    "clipping that no path sees": (0, lambda: (st.ClippedSGD(ORACLE, BARE, norm=1e3), st.SGD(ORACLE, BARE))),
    "draws that are not normal": (1, lambda: (st.Signum(EXPONENTIAL, PLAN), st.SignSGD(EXPONENTIAL, BARE))),
}  # fmt: skip


def prepared(first, second, coupled=True):
    return make_program((first, second), [2.0, 0.5], 0.5, ["x*y"], None, (), True, coupled)[0]


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_common_steps(name):
    expected, make = CASES[name]
    assert steps_together(prepared(*make())) == expected
    assert steps_together(prepared(*make(), coupled=False)) == 0


@pytest.mark.parametrize("name", CASES)
def test_the_paths_are_at_one_point_exactly_in_these_steps(name):
    """By simulation: equal to rounding at step k for k up to the number, and apart in the next one, up to what no path shows."""
    expected, make = CASES[name]
    gap = st.weak_gap(*make(), [2.0, 0.5], 0.5, 400, ["x*y"], times="all", backend="numpy", threads=1)
    equal = np.abs(gap.statistics.total["d2"]).reshape(len(gap.times)) < 1e-24
    assert equal[: expected + 1].all()
    if expected < MOST_STEPS and name != "clipping that no path sees":
        assert not equal[expected + 1]


def test_the_largest_gap_has_a_finite_interval():
    gap = st.weak_gap(*CASES["Adam and RMSProp"][1](), [2.0, 0.5], 0.5, 2_000, ["x*y"], threads=1)
    assert math.isfinite(gap.sup("x*y").low) and gap.at("x*y", 0.05).stderr == 0.0 and not gap.at("x*y", 0.05).random
    unseen = st.weak_gap(*CASES["clipping that no path sees"][1](), [2.0, 0.5], 0.5, 2_000, ["x*y"], threads=1)
    assert unseen.sup("x*y").high == math.inf  # negative control: all paths agree, and nothing proves it
