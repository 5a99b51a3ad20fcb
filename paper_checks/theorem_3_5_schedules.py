"""Theorem 3.5, varying schedules: SGDM under warm-up, step decay and a varying beta stays close to SGD on the averaged schedule.

The averaged schedule is etabar_k = (1 - beta_k) sum_{s>=k} eta_s prod_{t=k+1..s} beta_t. Averaging keeps sum eta_k and changes
sum eta_k^2, so an alternating schedule shows its effect: eta_k = eta (1 + (-1)^k / 2) has mean square 1.25 eta^2
raw and 1.00 eta^2 averaged (beta = 0.9). At alpha = 1 the theorem no longer holds: the two have different limits.
"""

from __future__ import annotations

import numpy as np
from _common import (
    LIPSCHITZ,
    OBSERVE,
    SMOOTH,
    SPREAD,
    START,
    exact_curves,
    measure_equations,
    measure_study,
    pair,
    quadratic,
    sups,
)
from _plain import ROUNDING, averaged, relative_distance

import sdetools as st

ETAS = [2.0**-k for k in range(5, 9)]
AT = ETAS[1]
TESTS = (*SMOOTH, LIPSCHITZ)
BEYOND = 4
"""Number of steps after the last pair, beyond which the schedule is constant, up to which the series are compared."""
VARYING = SPREAD | {LIPSCHITZ: 2.5}
"""`SPREAD` under warm-up and decay, where the gap of |x - 1| is smaller."""
HALF = 0.25
"""Half of the theorem's order (1 - alpha)/2 at alpha = 0: a gap that does not vanish has order 0."""


def training(eta):
    """Return a schedule with warm-up until 1/8, then full rate, a third of it from 1/2 on; 1 - beta decreases from 0.3 to 0.1."""

    def rate(t):
        return min(1.0, 0.25 + 6 * t) if t < 0.5 else 1 / 3

    return st.schedules.scaled(eta, alpha=0.0, rate=rate, damping=lambda t: 0.3 - 0.2 * t, horizon=1.0)


def described(plan, eta):
    """Return eta_k, beta_k and noise variance of the two schedules, t = k eta, as the claim states them, up to their last pair."""
    if plan is training:
        t = np.arange(round(1 / eta) + 1) * eta
        return eta * np.where(t < 0.5, np.minimum(1.0, 0.25 + 6 * t), 1 / 3), 1 - (0.3 - 0.2 * t), 1 / eta
    k = np.arange(round(1 / eta) + 100)
    return eta * (1 + (-1.0) ** k / 2), np.full(len(k), 0.9), 1 / eta


def alternating(eta):
    """Return the alternating schedule."""
    return st.schedules.from_functions(lambda k: eta * (1 + (-1) ** k / 2), 0.9, steps=round(1 / eta) + 100, base=eta)


def not_averaged(oracle, plan):
    """Return SGDM and SGD on the raw rates."""
    return st.SGDM(oracle, plan), st.SGD(oracle, st.schedules.from_arrays(plan.eta_values, base=plan.eta))


def study(run, make):
    """Run an order study."""
    paths = run.scale(quick=run.paths, standard=run.paths // 4, full=run.paths // 4)
    return st.order_study(make, ETAS, START, 1.0, observe=OBSERVE, **run.options(paths=paths))


def measure(run, name, plan):
    """Compare a schedule, its average and its gaps with formulas, and return the study and the exact gaps."""
    schedule, made, steps = described(plan, AT), plan(AT), round(1 / AT)
    means, n = averaged(*schedule[:2]), len(schedule[0]) + BEYOND
    etas, betas, means = (np.pad(series, (0, BEYOND), mode="edge") for series in (*schedule[:2], means))
    for symbol, values, expected in (
        ("eta_k", made.etas(n), etas),
        ("beta_k", made.betas(n), betas),
        ("the averaged rate", made.averaged().etas(n), means),
        ("lambda_t", made.rate(AT * np.arange(n)), means / AT),
    ):
        run.measure(f"{name}: {symbol} beside its formula, every k", relative_distance(values, expected), at_most=ROUNDING)
    measure_equations(run, f"{name}, eta = {AT:g}", pair(quadratic(AT), made), schedule, TESTS, steps)
    found = study(run, lambda eta: pair(quadratic(eta), plan(eta)))
    exact = {h: sups(curves) for h, curves in exact_curves(found.gaps, [described(plan, eta) for eta in found.etas]).items()}
    measure_study(run, name, found, exact, TESTS, VARYING if plan is training else SPREAD)
    for h in TESTS:
        run.measure(f"{name}, {h}: fitted order, at least half of the theorem's", found.order(h), at_least=HALF)
    return found, exact


@st.claim(
    "theorem-3.5-schedules",
    statement=r"With warm-up, step decay and a varying $\beta_k$, or an alternating rate, the weak gap between SGDM and "
    r"SGD on the averaged schedule $\bar\eta_k = (1-\beta_k)\sum_{s \ge k} \eta_s \prod_{t=k+1}^{s} \beta_t$ vanishes with $\eta$ "
    r"and agrees with its exact curve.",
    source="Theorem 3.5",
)
def theorem_3_5_schedules(run):
    """Check the gap under varying and alternating schedules."""
    run.note(
        "The schedules, their averages, a path of the kernel and the exact moments are each compared with plain sums and recursions at "
        "every step: an average that is shifted by a step, a change of order eta, is detected as well."
    )
    found, exact = measure(run, "warm-up and decay", training)
    run.figure(
        "warm-up and decay", found.plot(exact=exact), "Warm-up, step decay and varying momentum against the averaged schedule."
    )

    measure(run, "alternating", alternating)
    plan, steps = alternating(ETAS[-1]), round(1 / ETAS[-1])
    left = (0.5 * (1 - 0.9) / (1 + 0.9)) ** 2  # the averaged rate alternates by eta (1 - beta)/(1 + beta)/2
    for name, rates, expected in (("raw", plan, 1.25), ("averaged", plan.averaged(), 1.0 + left)):
        squares = np.mean((rates.etas(steps) / ETAS[-1]) ** 2)
        run.measure(f"mean square of the alternating rate, {name}", squares, expected, tolerance=0.9**100)

    with run.control("the alternating schedule, not averaged"):
        raw = study(run, lambda eta: not_averaged(quadratic(eta), alternating(eta)))
        run.measure("order of x**2, at least half of the theorem's", raw.order("x**2", time=1.0), at_least=HALF)
    with run.control("alpha = 1: 1 - beta = 2 eta"):
        kinetic = study(run, lambda eta: pair(quadratic(eta), st.schedules.scaled(eta, alpha=1.0, damping=2.0)))
        run.measure("order of x, at least half of the theorem's at alpha = 0", kinetic.order("x"), at_least=HALF)
        run.measure("order of |x - 1|, at least half of the theorem's at alpha = 0", kinetic.order(LIPSCHITZ), at_least=HALF)
