"""SGD, SGD with momentum in both of its forms, and the auxiliary process that connects them.

    SGD        z_{k+1} = z_k - eta_k g_k                                                              Def. 2.2
    SGDM       m_{k+1} = beta_k m_k + (1 - beta_k) g_k,   x_{k+1} = x_k - eta_k m_{k+1}               Def. 2.3, "EMA form"
    HeavyBall  m_{k+1} = beta m_k + g_k,                  x_{k+1} = x_k - gamma m_{k+1}               Eq. (1)
    Auxiliary  y_k = x_k - c_k m_k along SGDM,            y_{k+1} = y_k - etabar_k g_k                proof of Theorem 3.5

g_k is the noisy gradient at the position of step k = 0, 1, ..., at x_k for the auxiliary process. etabar_k is the averaged schedule (`Plan.averaged`).
The two forms of momentum have the same iterates for constant beta, eta = gamma / (1 - beta), m_EMA = (1 - beta) m_HB.
`torch.optim.SGD(lr=eta, momentum=beta, dampening=beta)` is the EMA form except for its first step, where torch sets the buffer to g.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import spread
from sdetools.dynamics.base import Dynamics, Oracle, State, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan, from_arrays


class SGD(Dynamics):
    """Stochastic gradient descent, z_{k+1} = z_k - eta_k g_k with g_k = grad L(z_k) + sigma v_k (Def. 2.2 of the paper).

    Here eta_k is the learning rate of step k = 0, 1, ..., and v_k the noise. The state is (z,), the position alone. The method with momentum is
    `SGDM`.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule, without momentum (all beta_k = 0). To compare with SGDM on a plan, pass `plan.averaged()`.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.SGD(oracle, st.schedules.constant(eta=0.1)).step_time
        0.1
    """

    parts = ("x",)
    coefficients = ("eta",)
    formula = r"z_{k+1} = z_k - \eta_k\, g_k"

    def __init__(self, oracle: NoisyOracle, plan: Plan, step_time: float | None = None) -> None:
        super().__init__(oracle, without_momentum(plan, "SGD", instead="st.SGDM"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any) -> State:
        (x,) = state
        return (x - eta * oracle(x),)


class SGDM(Dynamics):
    """SGD with momentum in the EMA form, m_{k+1} = beta_k m_k + (1 - beta_k) g_k, x_{k+1} = x_k - eta_k m_{k+1} (Def. 2.3).

    Here g_k is the noisy gradient at x_k. The state is (x, m), position and momentum buffer, each `(dim,)` or `(dim, paths)`. The heavy-ball form,
    m_{k+1} = beta m_k + g_k with gamma = (1 - beta) eta, is `HeavyBall`. It has the same iterates for constant beta, with m_EMA = (1 - beta) m_HB.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `momentum` has another form, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.SGDM(oracle, st.schedules.constant(eta=0.1, beta=0.9)).memory(2)
        array([0.9, 0.9, 0.9])
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta")
    formula = r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad x_{k+1} = x_k - \eta_k m_{k+1}"

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any) -> State:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        return x - eta * m, m

    def memory(self, steps: int) -> np.ndarray:
        return self.plan.memory(steps)

    def fading(self, steps: int) -> np.ndarray:
        return self.plan.betas(steps)


class HeavyBall(Dynamics):
    """SGD with momentum in the heavy-ball form, m_{k+1} = beta m_k + g_k, x_{k+1} = x_k - gamma m_{k+1} (Eq. (1) of the paper).

    Here g_k is the noisy gradient at x_k. The state is (x, m), position and momentum buffer, each `(dim,)` or `(dim, paths)`. The EMA form,
    m_{k+1} = beta m_k + (1 - beta) g_k with eta = gamma / (1 - beta), is `SGDM`. For constant beta it has the same iterates, with
    m_HB = m_EMA / (1 - beta).

    Args:
        oracle: The noisy gradient oracle.
        gamma: The learning rate: a positive number, or a sequence of gamma_0, gamma_1, ..., 0 or above; after its last entry it is constant.
        beta: The momentum coefficient in [0, 1), a number or a sequence of beta_0, beta_1, ..., as long as that of gamma if both are sequences.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default gamma_0 / (1 - beta_0), the clock of the EMA form.

    Raises:
        ValueError: If `gamma` or `beta` lies outside its range, their lengths differ, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.HeavyBall(oracle, gamma=0.25, beta=0.75).step_time
        1.0
    """

    parts = ("x", "m")
    coefficients = ("gamma", "beta")
    formula = r"m_{k+1} = \beta m_k + g_k, \quad x_{k+1} = x_k - \gamma m_{k+1}"
    memory, fading = SGDM.memory, SGDM.fading

    def __init__(self, oracle: NoisyOracle, gamma: Any, beta: Any, momentum: Any = None, step_time: float | None = None) -> None:
        if np.ndim(gamma) == 0:
            gamma = _check.positive("gamma", gamma)
        if np.ndim(beta) == 0:
            beta = _check.momentum("beta", beta)
        plan = from_arrays(gamma, beta)
        rate = float(plan.eta_values[0] / (1 - plan.beta_values[0]))
        super().__init__(oracle, plan, momentum=momentum, step_time=rate if step_time is None else step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, gamma: Any, beta: Any) -> State:
        x, m = state
        m = beta * m + oracle(x)
        return x - gamma * m, m

    def coefficient_values(self, steps: int) -> np.ndarray:
        return np.column_stack([self.plan.etas(steps), self.plan.betas(steps)])

    def averaged(self) -> Plan:
        """Return the plan of the SGD to compare with: eta_k = sum_{s>=k} (gamma_s prod_{t=k+1..s} beta_t), no momentum, base rate `step_time`.

        eta_k is the rate of step k of SGD; gamma_s and beta_s are the coefficients of step s of this method. If they are constant, all rates are
        gamma / (1 - beta).
        """
        length = len(self.plan.eta_values)
        memory = self.plan.memory(length)
        return from_arrays(self.plan.etas(length) + memory[1:], 0.0, base=self.step_time)


class Auxiliary(Dynamics):
    """The auxiliary process y_k = x_k - c_k m_k along SGDM, c_k = sum_{s>=k} eta_s prod_{t=k..s} beta_t (proof of Theorem 3.5).

    The state is (y, x, m), each `(dim,)` or `(dim, paths)`: the auxiliary process, which is the position that is observed, then position and
    momentum of `SGDM`. It starts at y_0 = x_0 - c_0 m_0. For every schedule y_{k+1} = y_k - etabar_k g_k holds path by path, where etabar_k is the
    averaged schedule and g_k the noisy gradient at x_k, not at y_k.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `momentum` has another form, or another argument is invalid.

    Example:
        >>> import numpy as np, sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.Auxiliary(oracle, st.schedules.constant(eta=0.1, beta=0.9), momentum=[1.0])
        >>> method.start(np.array([2.0]))  # c = 0.1 * 0.9 / (1 - 0.9) = 0.9
        (array([1.1]), array([2.]), array([1.]))
    """

    parts = ("y", "x", "m")
    coefficients = ("eta", "beta", "c")
    formula = r"y_k = x_k - c_k m_k, \quad c_k = \sum_{s \ge k} \eta_s \prod_{t=k}^{s} \beta_t"

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, c: Any) -> State:
        _, x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        x = x - eta * m
        return x - c * m, x, m

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        x, m, _ = super().start(x0, z)
        c = self.plan.memory(0)[0]
        return spread(x, m) - c * spread(m, x), x, m

    def coefficient_values(self, steps: int) -> np.ndarray:
        return np.column_stack([self.plan.etas(steps), self.plan.betas(steps), self.plan.memory(steps)[1:]])


ENTRIES = (
    OptimiserEntry(
        SGD, "Def. 2.2", "eta", refused=(({"plan": Plan}, "without momentum"), ({"plan": 0.1}, "schedule")), torch=True
    ),
    OptimiserEntry(
        SGDM,
        "Def. 2.3",
        valid=({}, {"momentum": [0.3, -0.2]}, {"momentum": ([0.1, -0.1], [[1.0, 0.4], [0.4, 2.0]])}),
        refused=(({"momentum": [1.0, 2.0, 3.0]}, "momentum"), ({"step_time": 0.0}, "step_time")),
        torch=True,
    ),
    OptimiserEntry(
        HeavyBall,
        "Eq. (1); B. Polyak, USSR Comput. Math. Math. Phys. 4 (1964)",
        "",
        valid=({"gamma": 0.01, "beta": 0.8}, {"gamma": 0.01, "beta": 0.8, "momentum": [0.3, -0.2]}),
        refused=(({"gamma": -0.1, "beta": 0.9}, "`gamma`"), ({"gamma": 0.1, "beta": 1.0}, "`beta`")),
        torch=True,
    ),
)
