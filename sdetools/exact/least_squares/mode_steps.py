"""The steps of a linear rule in one coordinate: the matrices of every step, from calls of the rule itself.

A rule that treats all coordinates alike is, in one coordinate, s' = A s + sum_j G_j g_j with the gradients g_j at the points
u_j = U_j . s + sum_{i<j} K_ji g_i, where s has one number for each part of the state, such as x and m. Most rules have K = 0. On a quadratic loss of
curvature lam in this coordinate with minimiser 0, E g_j = lam u_j then, so that the mean of s moves by M(lam) = A + lam sum_j G_j U_j^T where K = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sdetools.exact.linear import check_linear, open_step

_BLOCK = 16_384
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class ModeSteps:
    """The matrices of a run of a linear rule in one coordinate, with n parts of the state and J gradients a step.

    Steps with the same coefficients, such as eta_k and beta_k, are of one kind and have one set of matrices. In a step of kind c,
    s' = A[c] s + sum_j G[c, j] g_j, and g_j is the gradient at U[c, j] . s + sum_i K[c, j, i] g_i.

    Attributes:
        A: The matrices of the state, shape `(kinds, n, n)`.
        G: The weights of the gradients in the new state, shape `(kinds, J, n)`.
        U: The weights of the state in the points of the gradients, shape `(kinds, J, n)`.
        K: The weights of earlier gradients i in the points of later ones j, shape `(kinds, J, J)`, 0 for j <= i.
        index: The kind of each step of the run, integers of shape `(steps,)`.
        copies: For each gradient, the index of the independent batch of rows that it uses, shape `(J,)`; equal numbers stand for the same rows.
    """

    A: np.ndarray
    G: np.ndarray
    U: np.ndarray
    K: np.ndarray
    index: np.ndarray
    copies: np.ndarray

    @property
    def chained(self) -> bool:
        """Whether the point at which a gradient is taken depends on another gradient of the same step, in a step of any kind."""
        return bool(self.K.any())

    @property
    def together(self) -> np.ndarray:
        """1.0 for each pair of gradients on the same rows, else 0.0, shape `(J, J)`."""
        return (self.copies[:, None] == self.copies).astype(float)

    @property
    def constant(self) -> bool:
        """Whether all steps are of one kind."""
        return len(self.A) == 1

    def mean_map(self, lam: Any, kind: int = 0) -> np.ndarray:
        """Return M(lam) = A + lam sum_j G_j U_j^T, by which the mean of the state moves in a step without chained gradients.

        Args:
            lam: The curvature, a number or an array `(...)`, real or complex.
            kind: Which of the different steps, an index of `A`.

        Returns:
            The matrices, shape `(..., n, n)`.
        """
        slope = np.einsum("ja,jb->ab", self.G[kind], self.U[kind])
        return self.A[kind] + np.asarray(lam)[..., None, None] * slope


def mode_steps(dynamics: Any, steps: int) -> ModeSteps:
    """Return the matrices of steps 0, ..., `steps` - 1 of a linear rule in one coordinate.

    The rule is called with the coefficients of many steps at once, and checked against single calls; a rule that cannot take arrays as
    coefficients is called step by step.

    Args:
        dynamics: The dynamics, such as `st.SGDM(oracle, plan)`.
        steps: The number of steps, at least 1.

    Raises:
        ValueError: If the rule is not linear, mixes coordinates or treats them differently, or has constants or draws besides those of the oracle.
    """
    check_linear(dynamics, "the exact risk", one_draw=False)
    rows = np.asarray(dynamics.coefficient_values(steps), dtype=float).reshape(steps, -1)
    fresh = np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])
    rows, index = rows[fresh], np.cumsum(fresh) - 1
    if len(rows) < steps and len(np.unique(rows, axis=0)) < len(rows):
        rows, back = np.unique(rows, axis=0, return_inverse=True)
        index = back.ravel()[index]
    n = len(dynamics.parts)
    _check_coordinatewise(dynamics, n, rows[0])
    checked = np.unique(np.linspace(0, len(rows) - 1, 5).astype(int))
    copies = open_step(dynamics.rule, [1] * n, 1, rows[0]).copies
    single = [_single(dynamics.rule, n, rows[k]) for k in checked]
    try:
        tables = [
            _together(dynamics.rule, n, single[0][1].shape[0], part) for part in np.array_split(rows, -(-len(rows) // _BLOCK))
        ]
        made = [np.concatenate(parts) for parts in zip(*tables, strict=True)]
        if all(
            np.allclose(found[k], one, rtol=1e-13, atol=1e-15)
            for k, four in zip(checked, single, strict=True)
            for found, one in zip(made, four, strict=True)
        ):
            return _made(made, index, copies)
    except Exception:  # the rule is written for numbers as coefficients, as math.sqrt(eta) is
        pass
    made = [np.stack(parts) for parts in zip(*(_single(dynamics.rule, n, row) for row in rows), strict=True)]
    return _made(made, index, copies)


def _made(parts: list[np.ndarray], index: np.ndarray, copies: tuple[int, ...]) -> ModeSteps:
    """Return the steps from [A, G, U, K], with contiguous arrays of floats and of 64-bit integers, as the compiled loop takes them."""
    A, G, U, K = (np.ascontiguousarray(part, dtype=float) for part in parts)
    return ModeSteps(A, G, U, K, np.ascontiguousarray(index, dtype=np.int64), np.array(copies, dtype=np.int64))


def _single(rule: Any, n: int, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, G, U and K of one step, shapes `(n, n)`, `(J, n)`, `(J, n)` and `(J, J)`, from its coefficients `row`.

    Raises:
        ValueError: If the rule is not linear or moves the point 0 without a gradient.
    """
    step = open_step(rule, [1] * n, 1, row)
    if step.constant.any() or any(d.any() for d, _, _ in step.points):
        raise ValueError(
            "the exact risk must have a rule without constants, in coordinates whose origin is the minimiser; "
            "got one that moves the point 0 without a gradient. Measure x from the minimiser."
        )
    empty, calls = np.zeros((0, n)), len(step.points)
    K = np.zeros((calls, calls))
    for j, (_, _, earlier) in enumerate(step.points):
        K[j, :j] = [part[0, 0] for part in earlier]
    return (
        step.matrix,
        np.array([g[:, 0] for g in step.answers] or empty),
        np.array([U[0] for _, U, _ in step.points] or empty),
        K,
    )


class _Given:
    """An oracle whose answers are `table[0]`, `table[1]`, ... in the order of its calls, on whatever copy of the noise.

    The points at which it was called are in `points`, in the same order, each with the shape of `table[0]`, `(1, columns)`.
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.points = table, []  # type: tuple[np.ndarray, list[np.ndarray]]

    def __call__(self, x: Any) -> np.ndarray:
        self.points.append(np.broadcast_to(np.asarray(x, dtype=float), self.table.shape[1:]))
        return self.table[len(self.points) - 1].copy()

    def independent(self, i: int) -> _Given:
        return self


def _together(rule: Any, n: int, calls: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, G, U and K of many steps, each with a leading axis `(steps, ...)`, from one call of the rule.

    Args:
        rule: The function `rule(state, oracle, *coefficients)` of a dynamics.
        n: The number of parts of the state.
        calls: The number J of gradients a step.
        rows: The coefficients of each step, `(steps, coefficients)`.

    Raises:
        ValueError: If random inputs show that the rule is not linear in the state and the gradients.
    """
    steps, inputs = len(rows), n + calls
    probes = np.random.default_rng(20240604).standard_normal((inputs, 2))
    columns = np.concatenate([np.eye(inputs), probes], axis=1)
    table = np.broadcast_to(columns[:, None], (inputs, steps, columns.shape[1])).reshape(inputs, 1, -1)
    oracle = _Given(table[n:])
    with np.errstate(all="ignore"):
        new = rule(tuple(part.copy() for part in table[:n]), oracle, *np.repeat(rows, columns.shape[1], axis=0).T)
    values = np.stack([np.broadcast_to(np.asarray(part, dtype=float), table.shape[1:]) for part in (*new, *oracle.points)])
    values = np.moveaxis(values.reshape(n + calls, steps, -1), 1, 0)  # (steps, new state and points, columns)
    matrix, found = values[..., :inputs], values[..., inputs:]
    size = np.abs(matrix) @ np.abs(probes) + np.finfo(float).tiny
    if not np.all(np.abs(matrix @ probes - found) <= _TOLERANCE * size):
        raise ValueError("not linear")
    return matrix[:, :n, :n], np.swapaxes(matrix[:, :n, n:], 1, 2), matrix[:, n:, :n], matrix[:, n:, n:]


def _check_coordinatewise(dynamics: Any, n: int, row: np.ndarray) -> None:
    """Raise ValueError if the step of a rule of n parts with the coefficients `row` in two coordinates is not the same step in each of them."""
    step = None
    try:
        step = open_step(dynamics.rule, [2] * n, 2, row)
    except ValueError as error:
        if "linear" in str(error) or "equally often" in str(error):
            raise
    except Exception:  # an array of another length within the rule
        step = None
    if step is None or not all(
        map(_alike, (step.matrix, *step.answers, *(part for _, U, earlier in step.points for part in (U, *earlier))))
    ):
        raise ValueError(
            f"the exact risk must have a rule that treats every coordinate alike and by itself; {dynamics.name} does not. Simulate it instead."
        )


def _alike(matrix: np.ndarray) -> bool:
    """Return whether the 2 x 2 blocks of a matrix, `(2 a, 2 b)`, are multiples of the identity, up to rounding."""
    blocks = matrix.reshape(matrix.shape[0] // 2, 2, matrix.shape[1] // 2, 2)
    size = _TOLERANCE * np.abs(blocks).max(initial=0.0)
    off = max(np.abs(blocks[:, 0, :, 1]).max(initial=0.0), np.abs(blocks[:, 1, :, 0]).max(initial=0.0))
    return bool(off <= size and np.abs(blocks[:, 0, :, 0] - blocks[:, 1, :, 1]).max(initial=0.0) <= size)
