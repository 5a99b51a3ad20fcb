"""Methods with several gradients in a step: of several workers on independent draws, or at several points on the same draws.

    LocalSGD   w_i' = w_i - eta g_i(w_i),  i = 1 ... K;  after every H-th step all w_i are set to their mean x        Stich 2019
    SAM        x' = x - eta g(x + rho g(x))                                                           Foret et al. 2021

A prime marks the value after the step. g_i is the noisy gradient on the draws of worker i; in SAM both gradients use the same draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import select
from sdetools.dynamics.base import Dynamics, Oracle, State, columns, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.without_gain import WithoutGain
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class LocalSGD(Dynamics):
    """Local SGD: K workers take steps w_i' = w_i - eta g_i(w_i) from x_0, and after every H-th step all w_i are set to their mean.

    A prime marks the value after the step, and g_i is the noisy gradient on worker i's own draws, independent of those of the others. The state is
    (x, w1, ..., wK), each `(dim,)` or `(dim, paths)`: the mean of the workers after every step, which is observed, then the workers, all from x_0.
    One step of this dynamics is one local step of each worker, so
    that H = `local_steps` steps make a round, and time counts local steps as in `SGD`. K = 1 is `SGD`; H = 1 is `SGD` with the noise of K
    averaged gradients. Source: Stich, Local SGD converges fast and communicates little, ICLR 2019.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0); k counts local steps.
        workers: K, an integer from 1 to 1024.
        local_steps: H, the number of steps between two averagings, a positive integer.
        step_time: The time of one local step; by default the plan's base rate eta.

    Raises:
        ValueError: If the plan has momentum, `workers` or `local_steps` is not such an integer, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.LocalSGD(oracle, st.schedules.constant(eta=0.125), workers=2, local_steps=3)
        >>> method.parts, method.draws, method.coefficient_values(3)[:, 1]  # the workers meet after the third step
        (('x', 'w1', 'w2'), (Normal(n=1), Normal(n=1)), array([0., 0., 1.]))
    """

    coefficients = ("eta", "meet")
    formula = (
        r"w^i_{k+1} = w^i_k - \eta_k\, g^i_k, \quad x_{k+1} = \tfrac{1}{K} \sum_i w^i_{k+1}, \quad "
        r"w^i_{k+1} \leftarrow x_{k+1} \text{ if } H \mid k + 1"
    )

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, workers: int = 4, local_steps: int = 8, step_time: float | None = None
    ) -> None:
        self.workers = _check.count("workers", workers, hint="One worker is SGD.", most=1024)
        self.local_steps = _check.count("local_steps", local_steps, hint="With 1 the workers meet after every step.")
        self.at_x0 = tuple(f"w{i}" for i in range(1, self.workers + 1))
        self.parts, self.copies = ("x", *self.at_x0), self.workers
        super().__init__(oracle, without_momentum(plan, "LocalSGD"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Any, eta: Any, meet: Any) -> State:
        _, *workers = state
        moved = [w - eta * oracle.independent(i)(w) for i, w in enumerate(workers)]
        mean = sum(moved[1:], moved[0]) / len(moved)
        return mean, *(select(meet > 0, mean, w) for w in moved)

    @property
    def identity(self) -> str:
        return f"{super().identity} workers={self.workers}"

    def coefficient_values(self, steps: int) -> np.ndarray:
        return columns(self.plan.etas(steps), np.arange(1, steps + 1) % self.local_steps == 0)


class SAM(WithoutGain):
    """Sharpness-aware minimisation, unnormalised: x' = x - eta g(x + rho g(x)), with both gradients on the same draws.

    A prime marks the value after the step, and g is the noisy gradient. At rho = 0 the method is `SGD`. Foret et al. move by
    rho g / |g|; here the move is proportional to the gradient, as in Andriushchenko & Flammarion, so that a step is smooth in x and, on a
    quadratic loss, linear. Its drift is not that of SGD at any rate: `gain` raises ValueError. Sources: Foret et al., ICLR 2021;
    Andriushchenko & Flammarion, Towards understanding sharpness-aware minimization, ICML 2022.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        rho: The length of the move in units of the gradient, 0 or above.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `rho` is not a finite number, 0 or above, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic(2.0)
        >>> st.SAM.rule((np.ones(1),), loss.gradient, 0.125, 0.5)  # state, oracle, eta, rho: 1 - 0.125 * 2 * (1 + 0.5 * 2)
        (array([0.5]),)
    """

    parts = ("x",)
    coefficients = ("eta", "rho")
    formula = r"x_{k+1} = x_k - \eta_k\, g(x_k + \rho\, g(x_k; \xi_k); \xi_k)"
    no_gain = "gradients at the iterates; SAM takes its gradient at x + rho g(x). Compare it with SGD at the same eta"

    def __init__(self, oracle: NoisyOracle, plan: Plan, rho: float = 0.05, step_time: float | None = None) -> None:
        self.rho = _check.non_negative("rho", rho, "At rho = 0 the method is SGD; a move against the gradient is another method.")
        super().__init__(oracle, without_momentum(plan, "SAM"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, rho: Any) -> State:
        (x,) = state
        return (x - eta * oracle(x + rho * oracle(x)),)


_PLAN: tuple[dict[str, Any], str] = ({"plan": Plan}, "without momentum")
ENTRIES = (
    OptimiserEntry(
        LocalSGD,
        "S. Stich, ICLR 2019",
        "eta",
        valid=({"workers": 3, "local_steps": 4}, {"workers": 1, "local_steps": 1}),
        refused=(({"workers": 0}, "`workers`"), ({"local_steps": 1.5}, "`local_steps`"), _PLAN),
    ),
    OptimiserEntry(
        SAM,
        "P. Foret et al., ICLR 2021",
        "eta",
        valid=({"rho": 0.05}, {"rho": 0.0}),
        refused=(({"rho": np.inf}, "`rho`"), ({"rho": -0.05}, "`rho`"), _PLAN),
        gain=False,
    ),
)
