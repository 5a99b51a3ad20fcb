"""Methods whose step is a sign in each coordinate: its length does not depend on the size of the gradients.

    SignSGD   x' = x - eta sign(g)                                                                    Bernstein et al. 2018
    Signum    m' = beta m + (1 - beta) g,  x' = x - eta sign(m')                                      Bernstein et al. 2018
    Lion      x' = (1 - eta wd) x - eta sign(beta m + (1 - beta) g),  m' = beta2 m + (1 - beta2) g    Chen et al. 2023

A prime marks the value after the step, g = g(x) is the noisy gradient, and wd is the weight decay; sign(0) = 0. Under noise of standard deviation s,
sign(g) has the mean 2 P(g > 0) - 1, which is erf(grad L / (sqrt(2) s)) for Gaussian noise: with step time eta these methods have a limit as eta -> 0
at fixed s.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Oracle, State, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.without_gain import WithoutGain
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class SignSGD(WithoutGain):
    """Sign descent: x' = x - eta sign(g(x)) in each coordinate, with sign(0) = 0.

    A prime marks the value after the step, and g(x) is the noisy gradient. The iterates from x_0 live on the grid x_0 + eta Z if eta is
    constant. `Signum` is the method with momentum. It is not linear in g, and no plain SGD is equivalent: `gain` raises ValueError.
    Source: Bernstein et al., signSGD: compressed optimisation for non-convex problems, ICML 2018.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the length of a step in each coordinate; without momentum (all beta_k = 0).
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic([3.0, -4.0])
        >>> st.SignSGD.rule((np.ones(2),), loss.gradient, 0.5)  # state, oracle, eta
        (array([0.5, 1.5]),)
    """

    parts = ("x",)
    coefficients = ("eta",)
    linear = False
    formula = r"x_{k+1} = x_k - \eta_k\, \mathrm{sign}(g_k)"
    no_gain = (
        "a linear filter; SignSGD is not linear: its step does not depend on the size of the gradient. Compare it with Signum"
    )

    def __init__(self, oracle: NoisyOracle, plan: Plan, step_time: float | None = None) -> None:
        super().__init__(oracle, without_momentum(plan, "SignSGD", instead="st.Signum"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any) -> State:
        (x,) = state
        return (x - eta * np.sign(oracle(x)),)


class Signum(WithoutGain):
    """Sign descent with momentum: m' = beta m + (1 - beta) g(x), x' = x - eta sign(m') in each coordinate, with sign(0) = 0.

    A prime marks the value after the step, and g(x) is the noisy gradient. The state is (x, m), position and momentum buffer, each `(dim,)` or
    `(dim, paths)`. m is that of `SGDM`, beta = 0 is `SignSGD`, and `Lion` takes the sign of another average than it stores. The method is not linear
    in g, and no plain SGD is equivalent: `gain` raises ValueError. Source: Bernstein et al., signSGD: compressed optimisation for non-convex
    problems, ICML 2018.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the length of a step in each coordinate, and of beta_k.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `momentum` has another form, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic([3.0, -4.0])
        >>> st.Signum.rule((np.ones(2), np.array([-9.0, 0.0])), loss.gradient, 0.5, 0.5)  # state, oracle, eta, beta
        (array([1.5, 1.5]), array([-3., -2.]))
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta")
    linear = False
    formula = r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad x_{k+1} = x_k - \eta_k\, \mathrm{sign}(m_{k+1})"
    no_gain = (
        "a linear filter; Signum is not linear: its step does not depend on the size of the gradients. Compare it with SignSGD"
    )

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any) -> State:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * np.sign(m), m


class Lion(WithoutGain):
    """Lion: c = beta m + (1 - beta) g(x), x' = x - eta (sign(c) + wd x), m' = beta2 m + (1 - beta2) g(x), with sign(0) = 0.

    A prime marks the value after the step, g(x) is the noisy gradient, signs are those of each coordinate, and wd is a decoupled weight decay. The
    state is (x, m), position and momentum buffer, each `(dim,)` or `(dim, paths)`. At beta = beta2, wd = 0 the method is `Signum`. It is not linear
    in g, and no plain SGD is equivalent: `gain` raises ValueError. Source: Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023,
    who use beta = .9, beta2 = .99.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the length of a step in each coordinate, and of beta_k, the authors' beta_1.
        beta2: The decay rate of m in [0, 1).
        weight_decay: wd, 0 or above.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `beta2` or `weight_decay` lies outside its range, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> loss = st.losses.quadratic([3.0, -4.0])
        >>> st.Lion.rule((np.ones(2), np.zeros(2)), loss.gradient, 0.5, 0.9, 0.75, 0.0)  # state, oracle, eta, beta, beta2, weight decay
        (array([0.5, 1.5]), array([ 0.75, -1.  ]))
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta", "beta2", "weight_decay")
    linear = False
    formula = (
        r"x_{k+1} = (1 - \eta_k \lambda) x_k - \eta_k\, \mathrm{sign}(\beta_k m_k + (1 - \beta_k) g_k), \quad "
        r"m_{k+1} = \beta_2 m_k + (1 - \beta_2) g_k"
    )
    no_gain = "a linear filter; Lion is not linear: its step does not depend on the size of the gradients. Compare it with Signum"

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        momentum: Any = None,
        step_time: float | None = None,
    ) -> None:
        self.beta2 = _check.momentum("beta2", beta2)
        self.weight_decay = _check.non_negative("weight_decay", weight_decay)
        super().__init__(oracle, plan, momentum=momentum, step_time=step_time)

    @property
    def longest_memory(self) -> float:
        """The memory in steps: 1 / (1 - beta2), that of m, or the plan's longest memory if that is longer."""
        return max(self.plan.longest_memory, 1 / (1 - self.beta2))

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, beta2: Any, weight_decay: Any) -> State:
        x, m = state
        g = oracle(x)
        sign = np.sign(beta * m + (1 - beta) * g)
        return (1 - eta * weight_decay) * x - eta * sign, beta2 * m + (1 - beta2) * g


_SOURCE = "J. Bernstein et al., ICML 2018"
ENTRIES = (
    OptimiserEntry(
        SignSGD,
        _SOURCE,
        "eta",
        refused=(({"plan": Plan}, "without momentum"), ({"plan": 0.1}, "schedule")),
        exact=False,
        gain=False,
    ),
    OptimiserEntry(
        Signum,
        _SOURCE,
        valid=({}, {"momentum": [0.3, -0.2]}),
        refused=(({"step_time": 0.0}, "step_time"),),
        exact=False,
        gain=False,
        torch=True,
    ),
    OptimiserEntry(
        Lion,
        "X. Chen et al., NeurIPS 2023",
        valid=({"beta2": 0.99}, {"beta2": 0.0, "weight_decay": 0.5}),
        refused=(({"beta2": 1.0}, "`beta2`"), ({"weight_decay": -0.1}, "`weight_decay`")),
        exact=False,
        gain=False,
        torch=True,
    ),
)
