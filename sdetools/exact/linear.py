"""One step of a linear rule as matrices, which are computed by calling the rule once on a batch of unit inputs.

The state s, of length n, consists of all parts of the dynamics one after another, such as x and m. For fixed coefficients (eta_k, beta_k) a linear rule
is s' = A0 s + sum_j G_j g_j + b0, where g_j is the answer to its j-th oracle call (the noisy gradient) at the point
u_j = U_j s + sum_{i<j} K_ji g_i + d_j. On a quadratic loss g_j = H u_j + c + v_i, with one deviation v_i shared by all calls that use the
same copy i of the noise, so

    s' = A s + b + sum_i N_i v_i,        u_1 = U s + d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sdetools.dynamics.arguments import check_dynamics

_PROBES = 6
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class OpenStep:
    """A linear step in terms of the gradients g_j that the oracle returns: s' = constant + matrix s + sum_j answers[j] g_j.

    s is the state before the step, all parts of the dynamics in order, and s' the state after it; g_j is the result of oracle call j.

    Attributes:
        constant: The vector b0, shape `(n,)` with n the length of the state s.
        matrix: The matrix A0, shape `(n, n)`.
        answers: The matrices G_j, shape `(n, dim)`, one per oracle call, in the order of the calls.
        points: For each call, the point u_j = d + U s + sum_{i<j} K_i g_i at which it evaluates the gradient: d `(dim,)`, U `(dim, n)`, and
            the tuple of the K_i `(dim, dim)`, i = 0, ..., j - 1.
        copies: For each call, the index, from 0, of the independent copy of the noise that it uses; calls with equal indices share a draw.
    """

    constant: np.ndarray
    matrix: np.ndarray
    answers: tuple[np.ndarray, ...]
    points: tuple[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]], ...]
    copies: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LinearStep:
    """The step s' = A s + b + sum_i N_i v_i of the state s on a quadratic loss, with v_i the deviation of stochastic gradients on draw i of the noise.

    Independent draws within a step are called copies. s are all n coordinates of the parts of the state, one part after another.

    Attributes:
        A: The matrix of the state, shape `(n, n)`.
        b: The constant, shape `(n,)`.
        N: The matrices of the noise, shape `(copies, n, dim)`.
        points: (U, d) of each point u = U s + d, up to the noise, at which a gradient is evaluated, shapes `(dim, n)` and `(dim,)`.
        copies: For each of these gradients, the index i, from 0, of its copy of the noise; gradients with the same index share it.
        chained: Whether a point depends on the noise of an earlier gradient.
    """

    A: np.ndarray
    b: np.ndarray
    N: np.ndarray
    points: tuple[tuple[np.ndarray, np.ndarray], ...]
    copies: tuple[int, ...]
    chained: bool

    @property
    def separate(self) -> bool:
        """Whether every gradient of the step has an independent draw of the noise of its own, at a point that depends on the state alone."""
        return not self.chained and len(set(self.copies)) == len(self.copies)


def check_linear(dynamics: Any, what: str, one_draw: bool = True) -> None:
    """Refuse dynamics that declare their steps to be nonlinear, or that have draws of their own.

    Args:
        dynamics: A `Dynamics`.
        what: What is computed, the subject of the message, such as "the exact risk".
        one_draw: Whether to refuse also those with several independent copies of the noise in one step.

    Raises:
        ValueError: If it is no dynamics, its `linear` is False, it has `extra_draws`, or, with `one_draw`, its `copies` is above 1.
    """
    check_dynamics(dynamics)
    if not getattr(dynamics, "linear", True):
        raise ValueError(
            f"{what} must have a rule that is linear in its state and its gradients; {dynamics.name} is not. Simulate it instead."
        )
    if getattr(dynamics, "extra_draws", ()):
        raise ValueError(
            f"{what} must have a rule without extra draws; got {dynamics.name}, which multiplies by them. Simulate it instead."
        )
    if one_draw and getattr(dynamics, "copies", 1) > 1:
        raise ValueError(
            f"{what} must have a rule with one draw of the noise in a step; {dynamics.name} has {dynamics.copies} independent ones. "
            "Simulate it instead."
        )


def open_step(rule: Callable, sizes: Sequence[int], dim: int, coefficients: Sequence[float] | np.ndarray) -> OpenStep:
    """Return the matrices of one step of a linear rule, in terms of the gradients g_j that its oracle calls return, whatever the loss.

    Args:
        rule: The function `rule(state, oracle, *coefficients)` of a dynamics, which returns the parts of the new state.
        sizes: The lengths of the parts of the state.
        dim: The number of coordinates of x and of a gradient.
        coefficients: The values of the rule's coefficients in this step, such as eta_k and beta_k.

    Raises:
        ValueError: If random inputs show that the rule is not linear in the state and the answers of the oracle, or if its number of oracle
            calls depends on the state.
    """
    n = sum(sizes)
    copies = _copies(rule, sizes, coefficients, dim)
    calls = len(copies)
    inputs = n + calls * dim
    rng = np.random.default_rng(20240601)
    random = rng.standard_normal((inputs, _PROBES)) * 10.0 ** rng.uniform(-1, 2, size=_PROBES)
    columns = np.concatenate([np.zeros((inputs, 1)), np.eye(inputs), random], axis=1)
    with np.errstate(all="ignore"):
        after, queries = _call(rule, sizes, columns[:n], columns[n:].reshape(calls, dim, -1), coefficients, dim)
        if len(queries) != calls:
            raise ValueError(
                f"{_name(rule)} must call the oracle equally often in every step; got {calls} and {len(queries)} calls."
            )
        maps = [_affine(values, columns, random, rule) for values in (after, *queries)]
    (constant, matrix), points = maps[0], maps[1:]
    split = [slice(n + j * dim, n + (j + 1) * dim) for j in range(calls)]
    return OpenStep(
        constant,
        matrix[:, :n],
        tuple(matrix[:, part] for part in split),
        tuple((d, U[:, :n], tuple(U[:, part] for part in split[:j])) for j, (d, U) in enumerate(points)),
        copies,
    )


def close(step: OpenStep, hessian: np.ndarray, linear: np.ndarray) -> LinearStep:
    """Return the step on a quadratic loss, where the gradient at the point u_j of oracle call j is g_j = H u_j + c + v_i on its copy i of the noise.

    Args:
        step: The step in terms of the gradients, from `open_step`.
        hessian: The Hessian H, shape `(dim, dim)`.
        linear: The vector c, the gradient at 0, shape `(dim,)`.
    """
    dim, n, many = len(linear), len(step.constant), 1 + max(step.copies, default=0)
    given: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # each answer as (constant, in s, in all v_i)
    points, chained = [], False
    A, b, N = step.matrix.copy(), step.constant.copy(), np.zeros((n, many * dim))
    for answer, (d, U, earlier), i in zip(step.answers, step.points, step.copies, strict=True):
        u0, us, uv = d.copy(), U.copy(), np.zeros((dim, many * dim))
        for K, (g0, gs, gv) in zip(earlier, given, strict=True):
            u0, us, uv = u0 + K @ g0, us + K @ gs, uv + K @ gv
        points.append((us, u0))
        chained = chained or bool(uv.any())
        own = np.eye(dim, many * dim, k=i * dim)
        g0, gs, gv = hessian @ u0 + linear, hessian @ us, hessian @ uv + own
        given.append((g0, gs, gv))
        A, b, N = A + answer @ gs, b + answer @ g0, N + answer @ gv
    return LinearStep(A, b, np.moveaxis(N.reshape(n, many, dim), 1, 0), tuple(points), step.copies, chained)


def _call(
    rule: Callable, sizes: Sequence[int], state: np.ndarray, answers: Any, coefficients: Sequence[float] | np.ndarray, dim: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return new states and oracle points for columns of states.

    `state` is `(n,)` or `(n, columns)`. The j-th oracle call is answered by `answers[j]`, and by zeros beyond the last answer. The new states
    have the shape of `state`; the points are a list with one array `(dim,)` or `(dim, columns)` per oracle call.
    """
    if state.ndim == 1:
        return _call_once(rule, sizes, state, answers, coefficients, dim)
    alone = partial(_column, rule, sizes, state, answers, coefficients, dim)
    after, queries = alone(-1)  # raises errors of the rule itself, if any
    try:
        found = _call_once(rule, sizes, state, answers, coefficients, dim)
        if len(found[1]) == len(queries) and all(
            np.allclose(many[:, -1], one, rtol=1e-6, equal_nan=True)
            for many, one in zip((found[0], *found[1]), (after, *queries))
        ):
            return found
    except Exception:  # the rule is written for one path, as np.mean(x) is
        pass
    columns = [alone(j) for j in range(state.shape[1])]
    return np.stack([c[0] for c in columns], -1), [np.stack(points, -1) for points in zip(*(c[1] for c in columns), strict=True)]


def _column(
    rule: Callable,
    sizes: Sequence[int],
    state: np.ndarray,
    answers: Any,
    coefficients: Sequence[float] | np.ndarray,
    dim: int,
    j: int,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the new state `(n,)` and the list of oracle points, each `(dim,)`, of `_call` for column `j` of states and answers alone."""
    return _call_once(rule, sizes, state[:, j], [a[:, j] for a in answers], coefficients, dim)


def _call_once(
    rule: Callable, sizes: Sequence[int], state: np.ndarray, answers: Any, coefficients: Sequence[float] | np.ndarray, dim: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return new states, in the shape of `state`, and the list of oracle points, as `_call` does, from one call of the rule on all columns together."""
    oracle = _Answers(answers, (dim, *state.shape[1:]))
    parts = np.split(state, np.cumsum(sizes)[:-1])
    with np.errstate(all="ignore"):
        new = rule(tuple(np.array(part) for part in parts), oracle, *(float(value) for value in coefficients))
    new = [
        np.broadcast_to(np.asarray(part, dtype=float), (size, *state.shape[1:])) for part, size in zip(new, sizes, strict=True)
    ]
    return np.concatenate(new), oracle.queries


class _Answers:
    """An oracle with given answers in the order of its calls, which records where and on which copy of the noise it is called.

    Args:
        answers: The answers, a sequence of arrays of `shape`; calls beyond its end are answered by zeros.
        shape: The shape of a point and of an answer, `(dim,)` or `(dim, columns)`.

    Attributes:
        queries: The points of the calls, in their order.
        copies: The index of the copy of the noise of each call.
    """

    def __init__(self, answers: Any, shape: tuple[int, ...]) -> None:
        self.answers, self.shape = answers, shape
        self.queries: list[np.ndarray] = []
        self.copies: list[int] = []

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._answer(x, 0)

    def independent(self, i: int) -> Callable[[np.ndarray], np.ndarray]:
        return partial(self._answer, copy=i)

    def _answer(self, x: np.ndarray, copy: int) -> np.ndarray:
        self.queries.append(np.array(np.broadcast_to(x, self.shape), dtype=float))
        self.copies.append(copy)
        at = len(self.queries) - 1
        return np.array(self.answers[at]) if at < len(self.answers) else np.zeros(self.shape)


def _copies(rule: Callable, sizes: Sequence[int], coefficients: Sequence[float] | np.ndarray, dim: int) -> tuple[int, ...]:
    """Return the index of the copy of the noise for each oracle call of a step, from one call of the rule at the state 0."""
    oracle = _Answers((), (dim,))
    with np.errstate(all="ignore"):
        rule(tuple(np.zeros(size) for size in sizes), oracle, *(float(value) for value in coefficients))
    return tuple(oracle.copies)


def _affine(values: np.ndarray, columns: np.ndarray, random: np.ndarray, rule: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Return (constant, matrix) of an affine map, checked at random inputs; ValueError, which names `rule`, if it is not affine.

    Args:
        values: Its values at 0, at the unit inputs and at `random`, in this order, `(outputs, 1 + inputs + probes)`.
        columns: These inputs, `(inputs, 1 + inputs + probes)`; only their number of rows is used.
        random: The random inputs, `(inputs, probes)`.
        rule: The rule.
    """
    constant = values[:, 0]
    units = values[:, 1 : 1 + len(columns)]
    matrix = units - constant[:, None]
    expected = constant[:, None] + matrix @ random
    scale = np.abs(constant)[:, None] + np.abs(matrix) @ np.abs(random) + np.finfo(float).tiny
    error = np.abs(values[:, 1 + len(columns) :] - expected) / scale
    if not (np.isfinite(units).all() and np.isfinite(error).all() and error.max(initial=0.0) < _TOLERANCE):
        raise ValueError(
            f"{_name(rule)} must be linear in the state and the gradient to have exact moments; "
            "its value at a random input does not follow from its values at unit inputs. Simulate it instead."
        )
    return constant, matrix


def _name(rule: Callable) -> str:
    return f"the rule `{getattr(rule, '__qualname__', type(rule).__name__)}`"
