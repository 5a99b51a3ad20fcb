r"""Multilevel Monte Carlo: E h(X_T) of an SDE to a root-mean-square error eps, at the cost of coarse steps.

    E h(X_L) = E h(X_0) + sum_{l=1}^L E[h(X_l) - h(X_{l-1})],        X_l with steps dt r^-l,

the two members of a level on the same Brownian path (its coarse increments are exact sums of the fine ones), the levels on draws of their
own. With m_l, V_l and C_l the mean, the variance and the cost of a path of level l, alpha the weak order and beta twice the strong one,

    |m_l| ~ r^(-alpha l),    V_l ~ r^(-beta l),    N_l = 2 eps^-2 sqrt(V_l / C_l) sum_k sqrt(V_k C_k),

so that sum V_l / N_l = eps^2 / 2. The cost is O(eps^-2) for beta > 1, O(eps^-2 log^2 eps) for beta = 1; plain Monte Carlo takes
O(eps^(-2 - 1/alpha)).

The budget. The bias that remains after level L is kept below eps/2, the standard error below eps/sqrt(2); the last quarter of eps^2 is in
reserve for what these two do not know of themselves.

The remaining bias. Levels follow m_{L-j} = c r^(alpha j); the last three give c with the weights of their errors, c_hat +- s, and each alone,
c_j +- s_j. It is taken to be max(|c_hat| + s, max_j |c_j| - s_j) / (r^alpha - 1): its noise enters, and a mean that happens to be near zero
on one level (of changing sign, or by chance) does not end the search, for the levels below it speak too.

No selection. Pilot paths choose the coarsest step, L and N_l, and enter no estimate. Main paths are other draws; more of them (again other
draws, joined by the numbers of paths) come only where their own variances or means show that the pilot fell short, which leaves an
effect of order 1 / N_l.

Sources: M. B. Giles, Operations Research 56 (2008) 607-617; M. B. Giles, Acta Numerica 24 (2015) 259-328, section 3 for the two checks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from sdetools import _check
from sdetools.dynamics.base import Moving
from sdetools.simulation.philox import Stream
from sdetools.studies.execution import Options, opened
from sdetools.studies.multilevel.levels import LevelSampler
from sdetools.studies.multilevel.result import Multilevel
from sdetools.studies.multilevel.search import LEAST_LEVEL, LEAST_PILOT, Search
from sdetools.studies.result_protocol import Origin, called

ATTEMPTS = 4
"""So many coarsest steps are tried when the pilot's choice does not hold."""


def multilevel(
    make: Callable[[float], Moving],
    x0: Any,
    horizon: float,
    eps: float,
    observe: Any,
    *,
    dt: float | None = None,
    refinement: int = 2,
    weak: float | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    stream: int | Stream = 0,
    pilot: int = 512,
    most_levels: int = 20,
    threads: int | None = None,
    executor: Executor | None = None,
    store: Any = None,
    resume: bool = False,
    progress: Any = False,
    backend: str = "auto",
    dtype: str = "float64",
) -> Multilevel:
    r"""E h(X_T), T = `horizon`, to a root-mean-square error of `eps`, by multilevel Monte Carlo on steps dt r^-l, l = 0 ... L.

    `make(dt)` returns a dynamics of step dt with Brownian increments, usually `lambda dt: st.Milstein(sde, dt)`. With several observables
    `eps` holds for each of them. `dt`: the coarsest step; by default the longest T r^-k at which no pilot path leaves the finite range and
    the level pays, sqrt(V_0 C_0) + sqrt(V_1 C_1) < sqrt(V[h(X_1)] T / dt_1). `refinement`: r. `weak`: the weak order that the bias is judged by, by default
    the integrator's own; where the levels decay more slowly than that, their fitted order is taken and a warning says so. `pilot`: paths
    on the first level, fewer on later ones. `most_levels`: L at most. `confidence`: of the estimate's interval, which includes the bias.
    Other arguments as in `simulate`: the draws depend on `seed` and `stream` alone. Units of time are those of the dynamics; cost is counted in steps.
    With a `dt` of your own the estimate is NaN where paths left the finite range.
    ValueError for draws that steps of different length cannot share, and for anything that does not fit.

    Source: M. B. Giles, Acta Numerica 24 (2015) 259-328.

    >>> import numpy as np, sdetools as st
    >>> ou = st.SDE(drift=["-x"], diffusion=["1"], variables="x")
    >>> found = multilevel(lambda dt: st.Milstein(ou, dt), x0=[1.0], horizon=1.0, eps=0.02, observe=["x**2"], backend="numpy")
    >>> bool(abs(found.estimate.value - (1 + np.exp(-2)) / 2) < 0.04), found.rmse < 0.02, found.saving > 1, found.warnings
    (True, True, True, ())
    """
    call = called(multilevel, locals())
    if not callable(make):
        raise ValueError(
            f"`make` must be a function of dt that returns a dynamics; got {make!r}. Write lambda dt: st.Milstein(sde, dt)."
        )
    _check.confidence(confidence)
    horizon = _check.positive("horizon", horizon)
    eps = _check.positive("eps", eps, hint="It is the root-mean-square error asked for, in the units of the observables.")
    refinement = _check.count("refinement", refinement, least=2)
    pilot = _check.count("pilot", pilot, least=LEAST_PILOT)
    most = _check.count("most_levels", most_levels, least=LEAST_LEVEL)
    coarsest = horizon if dt is None else _check.positive("dt", dt)
    if dt is not None:
        _whole(horizon, coarsest)
    work = LevelSampler(make, x0, horizon, observe, refinement)
    first = work.dynamics(coarsest)
    weak = _check.positive("weak", getattr(first, "weak", 1.0) if weak is None else weak)
    asked = (seed, Stream.of(stream), horizon, eps, dt, refinement, weak, pilot, most)
    with opened(store, resume, lambda: f"multilevel {work.single(coarsest).program.fingerprint(*asked)}") as kept:
        work.options = Options(seed, Stream.of(stream), threads, executor, kept, progress, backend, dtype)
        for attempt in range(ATTEMPTS if dt is None else 1):
            # After the first: the coarsest step that seemed to do did not. A shorter one, and a closer look.
            search = Search(work, eps, weak, pilot * 4**attempt, most)
            if search.run(coarsest, dt is None):
                break
            coarsest = search.levels[0].dt / refinement
        origin = Origin(call, seed, Stream.of(stream).number, backend, dtype)
        return search.result(confidence, origin)


def _whole(horizon: float, dt: float) -> None:
    steps = horizon / dt
    if abs(steps - round(steps)) > 1e-9 * max(1.0, steps) or round(steps) < 1:
        near = float(f"{horizon / max(1, round(steps)):.12g}")
        raise ValueError(
            f"`dt` must divide the horizon; got dt={dt!r}, which is {steps:.6g} steps to horizon={horizon!r}. Take dt={near!r}."
        )
