"""The fit of the probability of "keep" to the labels, and its evaluation: leave-one-network-out, and on networks run after the freeze."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dropping_momentum.labels import FEATURE_SEEDS, Row, digest
from dropping_momentum.scores import brier, clear, log_loss, over_networks, reliability, skill, skill_within, wrong
from dropping_momentum.settings import STEPS
from dropping_momentum.tasks import FITTED, TRAIN, UNSEEN
from sdetools.bridge import keep_probability as model

COEFFICIENTS = Path(model.__file__).with_suffix(".json")
STAGES: dict[str, tuple[str, ...]] = {
    "sharpness": ("log x0",),
    "first steps": ("log reduction", "stuck"),
    "trial": ("log reduction", "log gap"),
}
"""The features of each stage, in the order of a diagnosis."""
INCREASING = ("log x0", "log reduction", "stuck", "log gap")
"""Features in which the probability of "keep" never decreases."""
RIDGE = 0.5
"""The penalty 1/2 `RIDGE` |w|^2 on the weights of standardised features, in units of one setting."""
SHARPNESS_COST = 200
"""The most that the diagnosis spends on the sharpness, in batch gradients."""
SHUFFLES = 20


def features(rows: Sequence[Row], stage: str) -> np.ndarray:
    """Return the features of a stage, `(settings, features)`."""
    found = [row.evidence(stage) for row in rows]
    return np.array([[model.FEATURES[name](each) for name in STAGES[stage]] for each in found], dtype=float)


def logistic(x: np.ndarray, share: np.ndarray, increasing: Sequence[bool]) -> np.ndarray:
    """Return the intercept and the weights of a logistic regression, `(1 + features,)`, fitted to shares in [0, 1].

    It maximises the likelihood minus the penalty of `RIDGE` on the weights of standardised features, by Newton's method. A weight that is marked as
    increasing and comes out negative is set to 0, and the others are fitted again.
    """
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    z = np.column_stack([np.ones(len(x)), (x - mean) / scale])
    penalty = np.diag([1e-6] + [RIDGE] * x.shape[1])
    free = np.ones(z.shape[1], dtype=bool)
    while True:
        w, own = np.zeros(z.shape[1]), z[:, free]
        for _ in range(100):
            p = 1 / (1 + np.exp(-own @ w[free]))
            slope = own.T @ (share - p) - penalty[np.ix_(free, free)] @ w[free]
            bend = (own * (p * (1 - p))[:, None]).T @ own + penalty[np.ix_(free, free)]
            step = np.linalg.solve(bend, slope)
            w[free] += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
            if np.abs(step).max() < 1e-12:
                break
        bad = free & np.array([False, *increasing]) & (w < 0)
        if not bad.any():
            break
        free &= ~bad
    weights = w[1:] / scale
    return np.array([w[0] - weights @ mean, *weights])


def weights(x: np.ndarray, stage: str, shares: np.ndarray) -> np.ndarray:
    """Return the intercept and the weights of a stage, fitted to features and shares."""
    return logistic(x, shares, [name in INCREASING for name in STAGES[stage]])


def probabilities(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the probabilities, `(settings,)`, of features with an intercept and weights."""
    return 1 / (1 + np.exp(-(w[0] + x @ w[1:])))


def fitted(rows: Sequence[Row], stage: str) -> dict[str, Any]:
    """Return the regression of a stage, fitted to the shares of all rows, as it is stored."""
    w = weights(features(rows, stage), stage, np.array([row.share for row in rows]))
    return {"intercept": float(w[0]), "weights": {name: float(v) for name, v in zip(STAGES[stage], w[1:])}}


def left_out(rows: Sequence[Row], shares: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return for each stage the probability of each row from regressions fitted without the row's network, to its share or to `shares`."""
    networks = np.array([row.setting.network for row in rows])
    shares = np.array([row.share for row in rows]) if shares is None else shares
    out = {stage: np.zeros(len(rows)) for stage in STAGES}
    for stage, found in out.items():
        x = features(rows, stage)
        for name in sorted(set(networks)):
            own = networks == name
            found[own] = probabilities(x[own], weights(x[~own], stage, shares[~own]))
    return out


def staged(found: dict[str, np.ndarray], costs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the last probability, the number of the last stage and the cost of a diagnosis that stops once the probability is clear.

    `costs` has the steps of each stage alone, `(settings,)`.
    """
    p, cost, last = found["sharpness"].copy(), costs["sharpness"].astype(float), np.zeros(len(found["sharpness"]), dtype=int)
    for number, stage in enumerate(model.STAGES[1:], start=1):
        going = ~clear(p, model.CLEAR) & (last == number - 1)
        p[going], last[going] = found[stage][going], number
        cost[going] += costs[stage][going]
    return p, last, cost


def costs(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the cost of each stage in batch gradients, `(settings,)`.

    A Hessian product counts as two gradients over all data, at most `SHARPNESS_COST` for all. The first steps are 100 for each seed; the trial
    continues them and adds SGDM.
    """
    sharpness = [min(SHARPNESS_COST, 2 * row.products * TRAIN / row.setting.batch) for row in rows]
    first, trial = model.FIRST_STEPS * FEATURE_SEEDS, (2 * model.TRIAL_STEPS[0] - model.FIRST_STEPS) * FEATURE_SEEDS
    return {"sharpness": np.array(sharpness), "first steps": np.full(len(rows), first), "trial": np.full(len(rows), trial)}


def outcomes(rows: Sequence[Row]) -> np.ndarray:
    """Return 1 for "keep" and 0 for "drop", `(settings,)`."""
    return np.array([float(row.verdict == "keep") for row in rows])


def scored(rows: Sequence[Row], p: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Return probabilities, outcomes, networks and x0 of the decided rows."""
    own = np.array([row.verdict in ("keep", "drop") for row in rows])
    kept = [row for row, is_own in zip(rows, own) if is_own]
    return p[own], outcomes(kept), [row.setting.network for row in kept], np.array([row.x0 for row in kept])


def alive(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that are not dead."""
    return [row for row in rows if row.verdict != "dead"]


def of_part(rows: Sequence[Row], part: str) -> list[Row]:
    """Return the rows of "fitted" or "unseen" networks."""
    names = FITTED if part == "fitted" else UNSEEN
    return [row for row in rows if row.setting.network in names]


def coefficients(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the content of `keep_probability.json` from the rows of fitted networks."""
    own = alive(of_part(rows, "fitted"))
    return {
        "provenance": {
            "command": "python benchmarks/dropping_momentum fit",
            "table": "benchmarks/dropping_momentum/labels.csv, fitted networks",
            "digest": digest(of_part(rows, "fitted")),
            "settings": len(own),
            "networks": len({row.setting.network for row in own}),
            "steps": STEPS,
        },
        "stages": {stage: fitted(own, stage) for stage in STAGES},
    }


def line(name: str, p: np.ndarray, y: np.ndarray, networks: Sequence[str]) -> str:
    """Return a row of the table of scores."""
    ends = [over_networks(score, p, y, networks) for score in (brier, log_loss)]
    sure = clear(p, model.CLEAR)
    return (
        f"| {name} | {len(y)} | {y.mean():.2f} | {brier(p, y):.4f} | {skill(brier, p, y):.3f} [{ends[0][0]:.3f}, {ends[0][1]:.3f}] | "
        f"{skill(log_loss, p, y):.3f} [{ends[1][0]:.3f}, {ends[1][1]:.3f}] | {sure.mean():.2f} | {wrong(p[sure], y[sure])} | {wrong(p, y)} |"
    )


def evaluation(rows: Sequence[Row], found: dict[str, np.ndarray]) -> list[str]:
    """Return the tables of an evaluation of probabilities `found` of rows that are not dead, at each stage and staged."""
    p, last, cost = staged(found, costs(rows))
    lines = [
        "| probability | settings | keep | Brier | Brier skill, 90 % | log skill, 90 % | above 95 % | wrong there | wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, each in (*found.items(), ("staged", p)):
        own, y, networks, x0 = scored(rows, each)
        lines.append(line(name, own, y, networks))
        high = x0 > 2
        lines.append(line(f"{name}, x0 > 2", own[high], y[high], [n for n, is_high in zip(networks, high) if is_high]))
    share = np.array([row.share for row in rows])
    own, y, networks, _ = scored(rows, p)
    lines += [
        "",
        f"Brier skill of the staged probability against the share of seeds, open settings included: {skill(brier, p, share):.3f}. "
        f"Within networks: {skill_within(own, y, networks):.3f}.",
    ]
    full = 2 * STEPS
    lines += [
        f"Mean cost: {cost.mean():.0f} batch gradients, {cost.mean() / full:.2f} of a paired run of {STEPS} steps ({full}); without the sharpness "
        f"{(cost - costs(rows)['sharpness']).mean():.0f}. Last stage: "
        + ", ".join(f"{stage} {np.sum(last == i)}" for i, stage in enumerate(STAGES))
        + ".",
        "",
        "| probability | settings | mean probability | share of keep |",
        "|---|---|---|---|",
    ]
    own, y, _, _ = scored(rows, p)
    lines += [f"| {low:g} to {high:g} | {n} | {mean:.3f} | {rate:.3f} |" for low, high, n, mean, rate in reliability(own, y)]
    return lines


def shuffled_skill(
    rows: Sequence[Row], seed: int, predict: Callable[[np.ndarray], dict[str, np.ndarray]], within: bool = True
) -> tuple[float, float]:
    """Return the Brier skill after labels were shuffled, within networks or over all of them, and the skill within networks.

    `predict` returns the probabilities of each stage from the shuffled shares. Within networks, the difference between networks remains: the first
    skill shows it, the second does not.
    """
    rng, index = np.random.default_rng(seed), np.arange(len(rows))
    networks = np.array([row.setting.network if within else "" for row in rows])
    for name in sorted(set(networks)):
        own = np.flatnonzero(networks == name)
        index[own] = rng.permutation(own)
    share = np.array([rows[i].share for i in index])
    p = staged(predict(share), costs(rows))[0]
    own = np.array([rows[i].verdict in ("keep", "drop") for i in index])
    y = outcomes([rows[i] for i in index[own]])
    return skill(brier, p[own], y), skill_within(p[own], y, [row.setting.network for row, is_own in zip(rows, own) if is_own])


def command(rows: Sequence[Row], write: bool) -> list[str]:
    """Fit, write the coefficients if `write` says so, and return the report."""
    content = coefficients(rows)
    if write:
        COEFFICIENTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = []
    own = alive(of_part(rows, "fitted"))
    lines += ["### Leave one network out", "", *evaluation(own, left_out(own)), ""]
    for within, where in ((True, "within networks"), (False, "over all networks")):
        found = np.array([shuffled_skill(own, seed, lambda share: left_out(own, share), within) for seed in range(SHUFFLES)])
        ranges = [f"{one.mean():.3f}, {one.min():.3f} to {one.max():.3f}" for one in found.T]
        lines += [f"Labels shuffled {where}, {SHUFFLES} times: skill {ranges[0]}; within networks {ranges[1]}.", ""]
    unseen = alive(of_part(rows, "unseen"))
    if unseen:
        found = {stage: np.array([model.keep_probability(row.evidence(stage)) for row in unseen]) for stage in STAGES}
        lines += ["### Networks run after the coefficients were frozen", "", *evaluation(unseen, found)]
    return lines
