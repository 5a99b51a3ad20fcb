r"""Multilevel Monte Carlo: E h(X_T) of an SDE to a root-mean-square error eps, by coupled paths with different steps.

    E h(X_L) = E h(X_0) + sum_{l=1}^L E[h(X_l) - h(X_{l-1})],        X_l with steps dt r^-l,

The two members of a level share a Brownian path (the coarse increments are exact sums of the fine ones); the levels are independent. Let
m_l, V_l and C_l be the mean, the variance and the cost of a path of level l, alpha the weak order and beta twice the strong order. Then

    |m_l| ~ r^(-alpha l),    V_l ~ r^(-beta l),    N_l = 2 eps^-2 sqrt(V_l / C_l) sum_k sqrt(V_k C_k),

so that sum V_l / N_l = eps^2 / 2. The cost is O(eps^-2) for beta > 1, O(eps^-2 log^2 eps) for beta = 1; plain Monte Carlo takes
O(eps^(-2 - 1/alpha)).

Error budget. The remaining bias after level L is at most eps/2, the standard error at most eps/sqrt(2). The remaining quarter of eps^2 is a
reserve for the errors of these two estimates.

Remaining bias. With m_{L-j} = c r^(alpha j), the last three levels give a weighted mean c_hat +- s, and each level an estimate c_j +- s_j.
The bias is estimated by max(|c_hat| + s, max_j |c_j| - s_j) / (r^alpha - 1). This includes the statistical error. A mean that is near zero on
a single level (because it changes sign, or by chance) does not end the search, because the other two levels enter as well.

No selection bias. Pilot paths determine the coarsest step, L and N_l, and do not enter the estimate. Main paths have independent draws. More
main paths (with new draws, pooled in proportion) are added only if their own variances or means show that the pilot was insufficient, which
has an effect of order 1 / N_l.

Sources: M. B. Giles, Operations Research 56 (2008) 607-617; M. B. Giles, Acta Numerica 24 (2015) 259-328, section 3 for the two checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from sdetools import _check
from sdetools._moved import renamed_argument
from sdetools.dynamics.base import Moving
from sdetools.results.protocol import Origin, call_text
from sdetools.simulation.philox import Stream
from sdetools.studies.clock import fraction
from sdetools.studies.execution import Execution, ExecutionOptions
from sdetools.studies.multilevel.levels import LevelSampler
from sdetools.studies.multilevel.result import Multilevel
from sdetools.studies.multilevel.search import LEAST_LEVEL, LEAST_PILOT, Search
from sdetools.studies.sampler import sampling

ATTEMPTS = 4
"""The number of coarsest steps that are tried if the pilot's choice fails."""


def multilevel(
    make: Callable[[float], Moving],
    x0: Any,
    horizon: float,
    eps: float,
    observe: Any,
    *,
    dt: float | None = None,
    refinement: int = 2,
    weak_order: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    pilot: int = 512,
    most_levels: int = 20,
    weak: float | None = None,
    **execution: Unpack[ExecutionOptions],
) -> Multilevel:
    r"""Estimate E h(X_T) to a root-mean-square error eps by multilevel Monte Carlo with steps dt r^-l, l = 0 ... L.

    The cost is counted in steps. If `dt` is given and paths diverge, the estimate is NaN.

    Args:
        make: A function of dt that returns a dynamics of step dt whose draws are Brownian increments, usually `lambda dt: st.Milstein(sde, dt)`.
        x0: Where paths start: a point `(dim,)`, points `(dim, n)` of which path p takes column p mod n, or a law of `st.starts`.
        horizon: The final time T.
        eps: The root-mean-square error, in the units of the observables; it holds for each of them.
        observe: Observables h: an expression, a function of x with x[i] the i-th coordinate, a loss, a list of these, or a dict from names to these.
        dt: The coarsest step, which divides T; None for the longest T r^-k at which no pilot path diverges and the level is efficient,
            sqrt(V_0 C_0) + sqrt(V_1 C_1) < sqrt(V[h(X_1)] T / dt_1), with the variance V_l and the cost C_l of a path of level l.
        refinement: The ratio r of successive steps, an integer of at least 2.
        weak_order: The weak order by which the bias is judged; None for the integrator's own, or 1 if it declares none. Where the levels decay
            more slowly, the order fitted to them is taken, with a warning.
        confidence: The level of the estimate's interval, which includes the bias, strictly between 0 and 1.
        seed: The seed of the draws, an integer from 0 to 2^64 - 1.
        stream: The number 0, 1, 2, ... of one of many independent sets of draws that belong to the seed, or a `Stream` with this number.
        pilot: The number of pilot paths, which determine the levels and numbers of paths and do not enter the estimate, on the first level, at least 32;
            later levels have fewer.
        most_levels: The largest L, at least 2. If the bias is still too large there, the result has a warning.
        weak: Deprecated name of `weak_order`.
        execution: Options of `st.Execution`: threads, executor, backend, dtype, store, resume, progress, retries.

    Returns:
        The estimate with its remaining bias, the levels, their rates, and the cost beside plain Monte Carlo.

    Raises:
        ValueError: If an argument is invalid, steps of different length cannot share the draws, eps is out of reach, or an observable is not
            finite or has a variance that rests on few paths.
        TypeError: If a keyword is neither a parameter nor an option of `st.Execution`.

    Example:
        >>> import numpy as np, sdetools as st
        >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
        >>> found = st.multilevel(lambda dt: st.Milstein(ou, dt), x0=[1.0], horizon=1.0, eps=0.02, observe=["x**2"], backend="numpy")
        >>> bool(abs(found.estimate.value - (1 + np.exp(-2)) / 2) < 0.04), found.rmse < 0.02, found.saving > 1, found.warnings
        (True, True, True, ())

    Source: M. B. Giles, Acta Numerica 24 (2015) 259-328.
    """
    weak_order, weak = renamed_argument("weak", weak, "weak_order", weak_order), None
    how = Execution.of(execution)
    call = call_text(multilevel, locals(), **how.changed())
    if not callable(make):
        raise ValueError(
            f"`make` must be a function of dt that returns a dynamics; got {make!r}. Write lambda dt: st.Milstein(sde, dt)."
        )
    _check.confidence(confidence)
    horizon = _check.positive("horizon", horizon)
    eps = _check.positive("eps", eps, hint="It is the requested root-mean-square error, in the units of the observables.")
    refinement = _check.count("refinement", refinement, least=2)
    pilot = _check.count("pilot", pilot, least=LEAST_PILOT)
    most = _check.count("most_levels", most_levels, least=LEAST_LEVEL)
    coarsest = horizon if dt is None else _check.positive("dt", dt)
    if dt is not None:
        _check_divides(horizon, coarsest)
    work = LevelSampler(make, x0, horizon, observe, refinement)
    first = work.dynamics(coarsest)
    order = _check.positive("weak_order", getattr(first, "weak_order", 1.0) if weak_order is None else weak_order)
    asked = (seed, Stream.of(stream), horizon, eps, dt, refinement, order, pilot, most)
    with sampling(how, seed, stream, lambda: f"multilevel {work.single(coarsest).program.fingerprint(*asked)}") as sampler:
        work.sampler = sampler
        for attempt in range(ATTEMPTS if dt is None else 1):
            # After a failure: a shorter coarsest step, and four times as many pilot paths.
            search = Search(work, eps, order, pilot * 4**attempt, most)
            if search.run(coarsest, dt is None):
                break
            coarsest = search.levels[0].dt / refinement
        origin = Origin(call, seed, sampler.stream.number, how.backend, how.dtype)
        return search.result(confidence, origin)


def _check_divides(horizon: float, dt: float) -> None:
    """Raise a ValueError unless the `horizon` is a whole number of at least 1 of steps `dt`; otherwise nothing is returned."""
    steps = horizon / dt
    if abs(steps - round(steps)) > 1e-9 * max(1.0, steps) or round(steps) < 1:
        near = float(f"{horizon / max(1, round(steps)):.12g}")
        raise ValueError(
            f"`dt` must divide the horizon; got dt={dt!r}, which is {fraction(steps)} steps to horizon={horizon!r}. Take dt={near!r}."
        )
