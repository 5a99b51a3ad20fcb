"""Arithmetic of independent estimates, with standard errors to first order."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sdetools.estimates import Estimate


def shifted(one: Estimate, by: float) -> Estimate:
    """Return an estimate minus a number."""
    return Estimate(one.value - by, one.stderr, one.n)


def scaled(one: Estimate, factor: float) -> Estimate:
    """Return an estimate times a number."""
    return Estimate(factor * one.value, abs(factor) * one.stderr, one.n)


def combined(terms: Iterable[tuple[float, Estimate]]) -> Estimate:
    """Return the sum of factor * estimate over independent estimates; its n is the smallest one."""
    parts = [scaled(one, factor) for factor, one in terms]
    return Estimate(sum(p.value for p in parts), math.hypot(*(p.stderr for p in parts)), min(p.n for p in parts))


def extrapolated(coarse: Estimate, fine: Estimate) -> Estimate:
    """Return 2 fine - coarse: the limit of values at a step and at half of it, without the term of first order."""
    return combined([(2.0, fine), (-1.0, coarse)])


def order(coarse: Estimate, fine: Estimate) -> Estimate:
    """Return log2 |coarse / fine|, the local order between a step and half of it."""
    error = math.hypot(coarse.stderr / coarse.value, fine.stderr / fine.value) / math.log(2)
    return Estimate(math.log2(abs(coarse.value / fine.value)), error, min(coarse.n, fine.n))
