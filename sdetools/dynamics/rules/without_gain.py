"""Relatives of SGD with momentum without a gain: no plain SGD at another learning rate is equivalent to them.

    SNGM              m' = beta m + g / |g|,  x' = x - eta m'                                         Zhao et al. 2020
    SGDF              x' = x - eta (mh + K (g - mh)),  K in [0, 1] a Wiener gain                      Yao et al. 2023
    IGT               v' = c v + (1 - c) g(x + t (x - x_previous)),  c = t / (t + 1)                  Arnold et al. 2019

A prime marks the value after the step, g is the noisy gradient, and mh is m' without the bias of its start at 0. SNGM and SGDF are not linear in the
gradients, and the memory of IGT grows with the run. Linear methods are in `rules.filters`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sdetools import _check
from sdetools._arrays import select
from sdetools.dynamics.base import Dynamics, Oracle, State, columns, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class WithoutGain(Dynamics):
    """The base class of rules without a gain: no plain SGD at a multiple of their learning rate is equivalent to them.

    A subclass writes `parts`, `coefficients`, `rule` and `no_gain`. The arguments are those of `Dynamics`: the oracle, the plan, the initial momentum
    and the time of one step.

    Attributes:
        no_gain: What a gain requires and why the rule does not have it, a text that continues "`gain` requires ..." in the error that `gain` raises.
    """

    no_gain: ClassVar[str]

    @property
    def gain(self) -> float:
        """The learning rate of an equivalent plain SGD divided by eta, which this rule does not have.

        Raises:
            ValueError: Always; the message gives the reason.
        """
        raise ValueError(f"`gain` requires {self.no_gain}.")


def direction(g: Any) -> Any:
    """Return g / |g|_2, with the norm over all coordinates; where the norm is 0, or its square underflows, return g itself.

    `g` is a vector `(dim,)`, vectors `(dim, paths)`, one in each column, or a traced value; the result has its shape.

    Example:
        >>> import numpy as np
        >>> from sdetools.dynamics.rules.without_gain import direction
        >>> direction(np.array([[3.0, 0.0], [4.0, 0.0]])).tolist()
        [[0.6, 0.0], [0.8, 0.0]]
    """
    length = np.sqrt((g * g).sum(axis=0))
    return g / (length + select(length > 0, 0.0, 1.0))


class SNGM(WithoutGain):
    """Stochastic normalised gradient descent with momentum: m' = beta m + g(x) / |g(x)|_2, x' = x - eta m'.

    A prime marks the value after the step; g(x) is the noisy gradient, and |g|_2 its norm over all coordinates. The state is (x, m), position and
    momentum, each `(dim,)` or `(dim, paths)`. Where the norm is 0, or so small that its square underflows, the direction is g itself, which avoids a
    division by zero. With g / |g| in place of g this is `HeavyBall` with gamma = eta, and a step has length at most eta / (1 - beta); at beta = 0 it
    is `NormalisedSGD`. The method is not linear in g, and no plain SGD is equivalent: `gain` raises ValueError. Source: Zhao, Xie & Li, Stochastic
    normalized gradient descent with momentum for large-batch training, 2020.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k; eta_k is the length of a step without momentum.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `momentum` has another form, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic([3.0, 4.0])
        >>> x, m = st.SNGM.rule((np.ones(2), np.zeros(2)), loss.gradient, 0.5, 0.9)  # state, oracle, eta, beta
        >>> x, m
        (array([0.7, 0.6]), array([0.6, 0.8]))
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta")
    linear = False
    formula = r"m_{k+1} = \beta_k m_k + g_k / |g_k|_2, \quad x_{k+1} = x_k - \eta_k m_{k+1}"
    no_gain = (
        "a linear filter; SNGM is not linear: its step does not depend on the size of the gradient. Compare it with SGD at a rate that "
        "you choose"
    )

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any) -> State:
        x, m = state
        m = beta * m + direction(oracle(x))
        return x - eta * m, m


class SGDF(WithoutGain):
    """SGD with a Wiener filter in each coordinate: x' = x - eta (mh + K (g - mh)), K = sh / (sh + (g - mh)^2 + eps).

        m' = beta m + (1 - beta) g,    s' = b2 s + (1 - b2) (g - m')^2,    mh = m' / (1 - prod beta),    sh = s' / (1 - b2^t).

    Here g = g(x) is the noisy gradient, a prime marks the value after the step, and t = 1, 2, ... counts the steps; prod beta runs over steps 1 to t.
    All operations are those of each coordinate. The state is (x, m, s), each `(dim,)` or `(dim, paths)`: the position, the average of the gradients
    and that of their squared deviations, from x_0, 0 and 0. mh and sh are m' and s' without the bias of that start. K interpolates between `SGDM`
    with mh for m (K = 0) and `SGD` (K = 1), as the constant 1 - nu of `QHM` does. It depends on the gradient, so the method is not linear and no
    plain SGD is equivalent: `gain` raises ValueError. At beta = 0 the method is SGD. Source: Yao et al., Signal processing meets SGD: from momentum
    to filter, 2023.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k is the authors' learning rate and beta_k their beta_1.
        b2: The decay rate of the variance estimate, in [0, 1).
        eps: A positive number in the denominator of K, which avoids 0 / 0.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `b2` or `eps` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.SGDF(oracle, st.schedules.constant(eta=0.125, beta=0.5))
        >>> method.coefficient_values(2)[:, -2:].round(6)  # 1 - prod beta and 1 - b2^t in steps 1 and 2
        array([[0.5     , 0.001   ],
               [0.75    , 0.001999]])
    """

    parts = ("x", "m", "s")
    coefficients = ("eta", "beta", "b2", "eps", "m_share", "s_share")
    linear = False
    formula = (
        r"x_{k+1} = x_k - \eta_k (\hat m + K (g_k - \hat m)), \quad K = \frac{\hat s}{\hat s + (g_k - \hat m)^2 + \epsilon}, \quad "
        r"m \leftarrow \beta m + (1 - \beta) g_k, \quad s \leftarrow \beta_2 s + (1 - \beta_2)(g_k - m)^2"
    )
    no_gain = "a linear filter; SGDF is not linear: its K depends on the gradient. Compare it with SGD at the same eta"

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, b2: float = 0.999, eps: float = 1e-8, step_time: float | None = None
    ) -> None:
        self.b2 = _check.momentum("b2", b2)
        self.eps = _check.positive("eps", eps, "It avoids 0 / 0 where a gradient equals its average.")
        super().__init__(oracle, plan, step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, b2: Any, eps: Any, m_share: Any, s_share: Any) -> State:
        x, m, s = state
        g = oracle(x)
        m = beta * m + (1 - beta) * g
        s = b2 * s + (1 - b2) * (g - m) * (g - m)
        away, variance = g - m / m_share, s / s_share
        return x - eta * (m / m_share + variance / (variance + away * away + eps) * away), m, s

    def coefficient_values(self, steps: int) -> np.ndarray:
        betas, counted = self.plan.betas(steps), np.arange(1, steps + 1)
        return columns(self.plan.etas(steps), betas, self.b2, self.eps, 1 - np.cumprod(betas), 1 - self.b2**counted)


class IGT(WithoutGain):
    """Implicit gradient transport: v' = c v + (1 - c) g(x + c / (1 - c) (x - x_previous)), x' = x - eta v', c = t / (t + 1).

    A prime marks the value after the step, g(x) is the noisy gradient, t = 0, 1, ... counts the steps, and x_previous is x before the last step (x_0
    in the first). The state is (x, v, x_previous), each `(dim,)` or `(dim, paths)`, from x_0, 0 and x_0. The gradients are evaluated at extrapolated
    points, such that on a quadratic loss v' is grad L(x) plus the mean of all noise so far. As c / (1 - c) = t grows, the memory is as long as the
    run: no plain SGD is equivalent, and `gain` raises ValueError. `STORM` averages over a fixed memory, with two gradients per step. Source: Arnold
    et al., Reducing the variance in online optimization by transporting past gradients, NeurIPS 2019.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.IGT(oracle, st.schedules.constant(eta=0.125)).coefficient_values(2)  # eta, c, c / (1 - c) = t
        array([[0.125, 0.   , 0.   ],
               [0.125, 0.5  , 1.   ]])
    """

    parts = ("x", "v", "previous")
    at_x0 = ("previous",)
    coefficients = ("eta", "c", "reach")
    formula = (
        r"v_{k+1} = c_k v_k + (1 - c_k)\, g\big(x_k + \tfrac{c_k}{1 - c_k}(x_k - x_{k-1})\big), \quad "
        r"x_{k+1} = x_k - \eta_k v_{k+1}, \quad c_k = \tfrac{k}{k + 1}"
    )
    no_gain = "a filter with a fading memory; the memory of IGT is as long as its run. Compare it with SGD at the same eta"

    def __init__(self, oracle: NoisyOracle, plan: Plan, step_time: float | None = None) -> None:
        super().__init__(oracle, without_momentum(plan, "IGT", "c = t / (t + 1), which is fixed"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, c: Any, reach: Any) -> State:
        x, v, previous = state
        v = c * v + (1 - c) * oracle(x + reach * (x - previous))
        return x - eta * v, v, x

    def coefficient_values(self, steps: int) -> np.ndarray:
        t = np.arange(steps, dtype=float)
        return columns(self.plan.etas(steps), t / (t + 1), t)


ENTRIES = (
    OptimiserEntry(
        SNGM,
        "S.-Y. Zhao, Y.-P. Xie, W.-J. Li, arXiv:2007.13985",
        refused=(({"step_time": -1}, "step_time"),),
        exact=False,
        gain=False,
        torch=True,
    ),
    OptimiserEntry(
        SGDF,
        "Z. Yao et al., arXiv:2311.02818",
        valid=({"b2": 0.99}, {"b2": 0.0, "eps": 1e-6}),
        refused=(({"b2": 1.0}, "`b2`"), ({"eps": 0.0}, "`eps`")),
        exact=False,
        gain=False,
        torch=True,
    ),
    OptimiserEntry(
        IGT,
        "S. Arnold et al., NeurIPS 2019",
        "eta",
        refused=(({"plan": Plan}, "without momentum"), ({"plan": 0.1}, "schedule")),
        gain=False,
    ),
)
