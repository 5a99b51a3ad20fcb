"""The exact risk of linear rules on streaming least squares, step by step.

In the eigenbasis of the rows' covariance diag(lam), with s the label noise and B the rows of a batch, the gradient g at points u and w has E g_i =
lam_i u_i and Cov(g_i(u), g_i(w)) = (lam_i^2 u_i w_i + lam_i (s^2 + sum_j lam_j u_j w_j)) / B on the same rows. A coordinate of this basis is called a
mode. So the second moments of the parts of the state in one coordinate move by themselves, but for the one number (one for each pair of gradients) by
which all coordinates are coupled. Off-diagonal moments never enter. See `exact.least_squares.mode_loop` for the recursion. Gradients on independent
rows, as those of the workers of `st.LocalSGD`, are uncorrelated. A gradient at a point that contains another gradient on the same rows, as in
`st.SAM`, brings products of the rows; `exact.least_squares.chained_rows` has their recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.exact.least_squares.chained_rows import chained_risk
from sdetools.exact.least_squares.groups import NODES, contraction, group, grouping_bound
from sdetools.exact.least_squares.mode_problem import ModeProblem, mode_problem, start_moments
from sdetools.exact.least_squares.mode_steps import ModeSteps, mode_steps
from sdetools.exact.least_squares.moment_maps import moment_map
from sdetools.exact.least_squares.risk_result import Risk
from sdetools.exact.recorded import recorded
from sdetools.results.protocol import Origin, call_text

GROUPED_FROM = 2_000
"""The number of modes from which they are grouped by default."""


def risk(
    dynamics: Any,
    x0: Any,
    steps: int,
    record: Sequence[int] | np.ndarray | None = None,
    *,
    moments: bool = False,
    nodes: int | None = None,
) -> Risk:
    """Return the exact excess risk 1/2 sum_i lam_i E x_i^2 of a linear rule on streaming least squares, at recorded steps.

    x is the distance from the minimiser in the eigenbasis of the rows' covariance, lam_i its eigenvalues. Any rule goes that is linear in its state
    and its gradients and treats all coordinates alike, with moving coefficients, any number of parts of the state, and several gradients a step, on
    the same rows or on independent ones. The point of a gradient may contain other gradients of the step, up to three in a chain. The risk of an
    unstable rule overflows to infinity, without an error.

    Args:
        dynamics: The rule, such as `st.SGDM(oracle, plan)`, on an oracle of `st.streaming_least_squares`.
        x0: The initial point from the minimiser: a point `(dim,)`, a law of `st.starts`, or a pair (mean, variance) of vectors `(dim,)`.
        steps: The number of steps, 0 or more.
        record: The steps at which the risk is returned, increasing; by default 0, ..., `steps`.
        moments: Whether the second moments of the state in each mode are returned as well; modes are then not grouped.
        nodes: 0 makes the recursion for every eigenvalue. Otherwise groups of similar eigenvalues are represented by so many nodes each (see
            `exact.least_squares.groups`), and the result has a proved bound on the error where one is known (constant coefficients, one gradient a step),
            else an estimate. By default 4 for 2,000 modes or more, else 0; always 0 with `moments` and for a rule whose gradients form chains.

    Returns:
        The risk, with `.data`, `.table()` and `.plot()`.

    Raises:
        ValueError: If the oracle is not one of streaming least squares, the rule not linear, or an argument invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.streaming_least_squares(spectrum=[1.0, 0.5], label_noise=0.2, batch=4)
        >>> sgdm = st.exact.risk(st.SGDM(oracle, st.schedules.constant(0.2, beta=0.9)), x0=[1.0, 1.0], steps=400, record=[0, 400])
        >>> sgdm.risk.round(6)
        array([0.75  , 0.0008])
    """
    call = call_text(risk, locals())
    problem = mode_problem(getattr(dynamics, "oracle", None))  # type: ignore[arg-type]
    steps = _check.count("steps", steps, least=0)
    kept = recorded(record, steps)
    total = int(kept[-1])
    made = mode_steps(dynamics, max(total, 1))
    nodes = _nodes(nodes, len(problem.lam), moments, made.chained)
    start = problem.lam * start_moments(dynamics, x0)
    bound = estimate = 0.0
    kept_moments, followed = None, len(problem.lam)
    if made.chained:
        curve, every = chained_risk(problem, made, start, total, kept if moments else None)
        with np.errstate(invalid="ignore"):  # modes of eigenvalue 0
            kept_moments = every / problem.lam if every is not None else None
    elif nodes and total:
        curve, followed, bound = _grouped(problem, made, start, total, nodes)
        if np.isnan(bound):
            with np.errstate(invalid="ignore"):  # of a risk that is infinite in both
                apart = np.abs(_grouped(problem, made, start, total, max(nodes - 2, 1))[0] - curve)[kept]
            estimate = float(np.where(np.isnan(apart), np.inf, apart).max())
    else:
        curve, kept_moments = _followed(problem, made, start, total, kept if moments else None)
    return Risk(
        steps=kept,
        times=kept * dynamics.step_time,
        risk=curve[kept],
        spectrum=problem.lam,
        name=dynamics.name,
        parts=tuple(dynamics.parts),
        moments=kept_moments,
        nodes=followed,
        bound=bound,
        estimate=estimate,
        origin=Origin(call=call),
    )


def _nodes(given: int | None, modes: int, moments: bool, chained: bool) -> int:
    """Return the number of nodes of a group, 0 for no groups, as the argument `nodes` of `risk`, whose default depends on the problem.

    Args:
        given: The argument, or None.
        modes: The number of modes.
        moments: Whether the moments of each mode are asked for.
        chained: Whether gradients of the rule form chains.

    Raises:
        ValueError: If groups are asked for with `moments` or `chained`.
    """
    large = modes >= GROUPED_FROM and not moments and not chained
    nodes = (NODES if large else 0) if given is None else _check.count("nodes", given, least=0)
    if nodes and chained:
        raise ValueError(
            f"`nodes` must be 0 for a rule with a gradient at a point that contains another one of the step; got nodes={nodes}. "
            "Their modes are coupled by several sums and are not grouped."
        )
    if nodes and moments:
        raise ValueError(f"`nodes` must be 0 if the moments of each mode are returned; got nodes={nodes}.")
    return nodes


def _advance(
    problem: ModeProblem, made: ModeSteps, S: np.ndarray, lam: np.ndarray, drive: np.ndarray, cuts: Sequence[int], seen: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the risk after 0, 1, ..., cuts[-1] steps, and for each step the level of the noise of its last gradient, s^2 + sum_i lam_i E u_i^2.

    Args:
        problem: The problem, of which the label noise and sigma^2 / B are used.
        made: The steps of the rule.
        S: lam_i E s_a s_b at the start in entries a <= b, `(n, n, modes)`; changed in place.
        lam: The eigenvalues of modes or nodes, `(modes,)`.
        drive: lam_i^2, or its weighted sums at nodes, `(modes,)`.
        cuts: Increasing steps.
        seen: A function that is called as `seen(k, S)` after each number k of steps in `cuts`.
    """
    from sdetools.exact.least_squares.mode_loop import march

    total = int(cuts[-1])
    curve, levels = np.empty(total + 1), np.zeros(max(total, 1))
    curve[0] = S[0, 0].sum() / 2
    with np.errstate(all="ignore"):
        at = 0
        for k in cuts:
            march(
                S,
                lam,
                drive,
                made.A,
                made.G,
                made.U,
                made.copies,
                made.index,
                problem.label_variance,
                problem.factor,
                at,
                int(k) - at,
                curve,
                levels,
            )
            at = int(k)
            seen(at, S)
    curve[~np.isfinite(curve)] = np.inf
    return curve, levels


def _followed(
    problem: ModeProblem, made: ModeSteps, start: np.ndarray, total: int, kept: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the risk after 0, ..., `total` steps from the recursion of every mode, and the moments at the steps `kept`, or None without `kept`.

    `start` is lam_i E s_a s_b, `(n, n, modes)`; the moments are E s_a s_b, `(len(kept), n, n, modes)`, NaN in modes of eigenvalue 0.
    """
    found: list[np.ndarray] = []

    def seen(k: int, S: np.ndarray) -> None:
        if kept is not None:
            with np.errstate(all="ignore"):
                whole = np.where(np.tri(len(S)).T[..., None] > 0, S, np.swapaxes(S, 0, 1)) / problem.lam
            found.append(whole)

    S = np.ascontiguousarray(start)
    lam = np.array(problem.lam)
    curve, _ = _advance(problem, made, S, lam, lam * lam, [total] if kept is None else kept.tolist(), seen)
    return curve, np.array(found) if kept is not None else None


def _grouped(problem: ModeProblem, made: ModeSteps, start: np.ndarray, total: int, nodes: int) -> tuple[np.ndarray, int, float]:
    """Return the risk after 0, ..., `total` steps with modes in groups of `nodes` nodes, the number of all nodes, and the bound, NaN if none is known.

    `start` is lam_i E s_a s_b, `(n, n, modes)`; modes of eigenvalue 0 are left out.
    """
    use = problem.lam > 0
    lam, start = problem.lam[use], start[..., use]
    proved = made.constant and made.G.shape[1] == 1
    maps = moment_map(made, problem.factor)
    groups = group(lam, nodes, (lambda centre: contraction(maps, centre)[0]) if proved else None)
    drive = lam * lam
    S = np.ascontiguousarray(groups.sums(start))
    curve, levels = _advance(problem, made, S, groups.lam.copy(), groups.sums(drive), [total], lambda k, S: None)
    bound = np.nan
    if proved:
        bound = grouping_bound(groups, maps, start, drive, float(levels.max())) if np.isfinite(levels).all() else np.inf
    return curve, len(groups.lam), bound
