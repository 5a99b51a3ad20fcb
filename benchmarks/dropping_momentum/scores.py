"""Scores of probabilities: Brier and log loss against the base rate, a bootstrap over networks, reliability, what is answered above 95 %."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
"""Ends of the bins of the reliability table."""
LEVEL, RESAMPLES = 0.9, 2000


def brier(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean of (p - y)^2, for probabilities p and outcomes y in [0, 1], both `(settings,)`."""
    return float(np.mean((p - y) ** 2))


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    """Return the mean of -y log p - (1 - y) log(1 - p) with p between 10^-6 and 1 - 10^-6."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return float(np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p)))


Score = Callable[[np.ndarray, np.ndarray], float]


def skill(score: Score, p: np.ndarray, y: np.ndarray) -> float:
    """Return 1 - score/score of the base rate, the mean of the very outcomes y: the best constant; nan if all outcomes are equal."""
    base = score(np.full_like(p, y.mean()), y)
    return 1 - score(p, y) / base if y.std() > 0 else float("nan")


def skill_within(p: np.ndarray, y: np.ndarray, networks: Sequence[str]) -> float:
    """Return the Brier skill within networks: 1 - sum (p~ - y~)^2 / sum y~^2, where p~ and y~ are the deviations from their means over a network.

    What only distinguishes networks gains nothing here. If outcomes are exchangeable within networks, p~ and y~ are not correlated, and the skill is
    -sum p~^2 / sum y~^2: not above 0, and 0 for probabilities that are constant within networks.
    """
    names, place = np.unique(np.array(networks), return_inverse=True)
    deviations = [x - (np.bincount(place, x, len(names)) / np.bincount(place))[place] for x in (p, y)]
    return float(1 - np.sum((deviations[0] - deviations[1]) ** 2) / np.sum(deviations[1] ** 2))


def resampled(
    score: Score, p: np.ndarray, y: np.ndarray, networks: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> list[float]:
    """Return the skills of a bootstrap that draws whole networks with replacement."""
    groups = [np.flatnonzero(np.array(networks) == name) for name in sorted(set(networks))]
    rng, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        index = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        found.append(skill(score, p[index], y[index]))
    return found


def over_networks(
    score: Score, p: np.ndarray, y: np.ndarray, networks: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the ends of the 90 % interval of the skill by a bootstrap that draws whole networks with replacement."""
    low, high = np.nanquantile(resampled(score, p, y, networks, seed, resamples), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def clear(p: np.ndarray, width: float) -> np.ndarray:
    """Return whether each probability is at most `width` or at least 1 - `width`, `(settings,)`."""
    return (p <= width) | (p >= 1 - width)


def wrong(p: np.ndarray, y: np.ndarray) -> int:
    """Return the number of settings whose outcome is the less probable one."""
    return int(np.sum((p > 0.5) != (y > 0.5)))


def reliability(p: np.ndarray, y: np.ndarray) -> list[tuple[float, float, int, float, float]]:
    """Return for each bin of `BINS` its ends, the number of settings, their mean probability and their mean outcome (nan if there are none)."""
    place = np.clip(np.searchsorted(BINS, p, side="right") - 1, 0, len(BINS) - 2)
    rows = []
    for i, (low, high) in enumerate(itertools.pairwise(BINS)):
        own = place == i
        means = (float(p[own].mean()), float(y[own].mean())) if own.any() else (float("nan"), float("nan"))
        rows.append((low, high, int(own.sum()), *means))
    return rows
