"""Means and covariances of linear processes from explicitly written matrices: a reference for the library's exact moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import expm

Law = tuple[np.ndarray, np.ndarray]
"""Mean and covariance."""


def flow(A: np.ndarray, D: np.ndarray, t: float) -> Law:
    """Return exp(A t) and the covariance accumulated by dX = A X dt + noise of covariance D dt in a time t, by Van Loan's block matrix."""
    n = len(A)
    block = expm(np.block([[-A, D], [np.zeros((n, n)), A.T]]) * t)
    decay = block[n:, n:].T
    return decay, decay @ block[:n, n:]


def moved(step: Law, law: Law) -> Law:
    """Return the law after X -> M X + noise of covariance Q, `step` = (M, Q)."""
    (M, Q), (mean, covariance) = step, law
    return M @ mean, M @ covariance @ M.T + Q


def iterated(step: Law | Callable[[int], Law], start: Sequence[float], steps: int) -> list[Law]:
    """Return the laws after 0, 1, ..., `steps` steps from a point, for a constant step or for `step(k)`."""
    law = np.asarray(start, dtype=float), np.zeros((len(start), len(start)))
    out = [law]
    for k in range(steps):
        law = moved(step(k) if callable(step) else step, law)
        out.append(law)
    return out


def moment(laws: Sequence[Law], power: int, coordinate: int = 0) -> np.ndarray:
    """Return E x or E x^2 of one coordinate at each time."""
    first = np.array([mean[coordinate] for mean, _ in laws])
    return first if power == 1 else first**2 + np.array([covariance[coordinate, coordinate] for _, covariance in laws])


def after(step: Law, start: Sequence[float], steps: Sequence[int]) -> list[Law]:
    """Return the laws after the given numbers of equal steps, by powers of the joint map of first and second moments."""
    M, Q = step
    n = len(M)
    whole = np.zeros((1 + n * n, 1 + n * n))  # acts on (1, E X X^T): P -> M P M^T + Q
    whole[0, 0], whole[1:, 0], whole[1:, 1:] = 1.0, Q.ravel(), np.kron(M, M)
    point = np.asarray(start, dtype=float)
    out = []
    for k in steps:
        second = (np.linalg.matrix_power(whole, int(k)) @ np.concatenate([[1.0], np.outer(point, point).ravel()]))[1:].reshape(
            n, n
        )
        mean = np.linalg.matrix_power(M, int(k)) @ point
        out.append((mean, second - np.outer(mean, mean)))
    return out


def solved(A: np.ndarray, D: np.ndarray, start: Sequence[float], times: Sequence[float]) -> list[Law]:
    """Return the laws of dX = A X dt + noise of covariance D dt at the given times, from a point."""
    law = np.asarray(start, dtype=float), np.zeros((len(start), len(start)))
    return [moved(flow(A, D, t), law) for t in times]
