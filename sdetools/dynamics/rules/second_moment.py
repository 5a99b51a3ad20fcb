"""Methods that divide each coordinate of a step by the root of a second moment of its gradients.

    RMSProp   v' = beta2 v + (1 - beta2) g^2,  b' = beta b + g / (sqrt(v') + eps),  x' = x - eta b'            Tieleman & Hinton 2012
    Adam      m' = beta m + (1 - beta) g,  v' as above,  x' = x - eta mh / (sqrt(vh) + eps)                    Kingma & Ba 2015
    AdamW     x' = (1 - eta wd) x - eta mh / (sqrt(vh) + eps)                                                  Loshchilov & Hutter 2019

A prime marks the value after the step, g = g(x) is the noisy gradient, squares and roots are those of each coordinate, and mh = m' / (1 - prod beta),
vh = v' / (1 - beta2^(k+1)) in step k = 0, 1, ... correct the bias of a start at 0. The three are those of torch. The *lagged* rules divide
by v, the second moment before this gradient, in place of v': those of Malladi et al., On the SDEs and scaling rules for adaptive gradient algorithms,
NeurIPS 2022. Their scaling is sigma = sigma0 / eta, 1 - beta = c1 eta^2, 1 - beta2 = c2 eta^2, eps = eps0 / eta and `step_time` = eta^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sdetools import _check
from sdetools._arrays import select
from sdetools.dynamics.base import Oracle, State, columns
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.without_gain import WithoutGain
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class SecondMoment(WithoutGain):
    """The base class of rules whose last part v averages squared gradients: v' = beta2 v + (1 - beta2) g^2, from v_0 = `second_moment`.

    A prime marks the value after the step k = 0, 1, ..., g is the noisy gradient, and squares are those of each coordinate. A subclass writes
    `parts`, with v last, `coefficients`, `rule` and `no_gain`; coefficients beyond those of `whole_run` it adds there.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k.
        beta2: The factor of the old v in v', in [0, 1); 1, for a constant v, only without bias correction.
        eps: The number that is added to the root of v, 0 or above.
        lagged: Whether a step divides by v, the second moment before its gradient, in place of v', the one after it.
        bias_correction: Whether v' is divided by 1 - beta2^(k+1) in step k, also where `lagged` takes v in its place.
        second_moment: The initial v_0, a number or a vector `(dim,)`, 0 or above.
        momentum: The initial value of the parts between x and v: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or
            diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`. Pass eta**2 in the scaling of Malladi et al.
        steps_taken: For a run that is continued, the number of steps before x0: its first step is step k = steps_taken of plan and bias corrections.

    Attributes:
        lag: 1.0 for a lagged rule, else 0.0.
        second_moment: The initial v_0, `(dim,)`.

    Raises:
        ValueError: If `beta2`, `eps`, `second_moment` or `steps_taken` lies outside its range, or another argument is invalid.
    """

    linear = False

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        beta2: float,
        eps: float,
        lagged: bool,
        bias_correction: bool,
        second_moment: Any,
        momentum: Any,
        step_time: float | None,
        steps_taken: int,
    ) -> None:
        self.steps_taken = _check.count("steps_taken", steps_taken, least=0)
        self.beta2 = _check.number("beta2", beta2, "lie in [0, 1]")
        self.eps = _check.non_negative("eps", eps, "It avoids a division by 0.")
        self.lag, self.bias_correction = float(bool(lagged)), bool(bias_correction)
        if not 0 <= self.beta2 <= 1 or (self.beta2 == 1 and self.bias_correction):
            allowed, hint = ("[0, 1)", "At 1, a constant v, add bias_correction=False.") if bias_correction else ("[0, 1]", "")
            raise ValueError(f"`beta2` must lie in {allowed}; got beta2={beta2!r}. {hint}".rstrip())
        super().__init__(oracle, plan, momentum=momentum, step_time=step_time)
        given = _check.finite("second_moment", second_moment)
        self.second_moment = (
            np.full(oracle.dim, float(given)) if given.ndim == 0 else _check.point("second_moment", given, oracle.dim)
        )
        if self.second_moment.min() < 0:
            raise ValueError(f"`second_moment` must not be negative; got {_check.shown(second_moment)}. It is a mean of squares.")

    @property
    def start_numbers(self) -> tuple[np.ndarray, ...]:
        return (*super().start_numbers, self.second_moment)

    def start(self, x0: np.ndarray, z: np.ndarray | None = None) -> State:
        return (*super().start(x0, z)[:-1], self.second_moment)

    def coefficient_values(self, steps: int) -> np.ndarray:
        return self.whole_run(self.steps_taken + steps)[self.steps_taken :]

    def whole_run(self, steps: int) -> np.ndarray:
        """Return the coefficients of the steps from 0 on, `(steps, len(coefficients))`: row k for step k, also for the `steps_taken` before x0.

        The columns here are eta_k, beta_k, beta2, eps, `lag` and the bias correction 1 - beta2^(k+1), or 1 without it.
        """
        share = 1 - self.beta2 ** np.arange(1.0, steps + 1) if self.bias_correction else 1.0
        return columns(self.plan.etas(steps), self.plan.betas(steps), self.beta2, self.eps, self.lag, share)


def second_moments(g: Any, v: Any, beta2: Any, eps: Any, lag: Any, share: Any) -> tuple[Any, Any, Any]:
    """Return the tuple (v', r, s): v' = beta2 v + (1 - beta2) g^2, and the denominator s / r = sqrt(v' / share) + eps of a step.

    If `lag` > 0, v takes the place of v' in the denominator. r = sqrt(share) is a number and s = sqrt(v') + eps r has the shape of `g`, so that the
    bias correction needs no division in each coordinate.

    Args:
        g: The noisy gradient, `(dim,)`, `(dim, paths)` or a traced value.
        v: The second moment before the step, in the shape of `g` or `(dim,)`.
        beta2: The factor of v in v'.
        eps: The number added to the root.
        lag: 1 for the denominator of a lagged rule, 0 for the current one.
        share: The bias correction 1 - beta2^(k+1), or 1.
    """
    new, root = beta2 * v + (1 - beta2) * (g * g), np.sqrt(share)
    return new, root, np.sqrt(select(lag > 0, v, new)) + eps * root


class RMSProp(SecondMoment):
    """RMSProp: v' = beta2 v + (1 - beta2) g(x)^2, b' = beta b + g(x) / (sqrt(v') + eps), x' = x - eta b'.

    A prime marks the value after the step, g(x) is the noisy gradient, and squares and roots are those of each coordinate. The state is (x, b, v):
    position, buffer of the divided gradients and second moment, each `(dim,)` or `(dim, paths)`. On a plan without momentum b' is the divided
    gradient itself. With `lagged` the denominator is sqrt(v) + eps, with `bias_correction` v' (or v) is first divided by 1 - beta2^(k+1) in step k.
    The defaults are those of `torch.optim.RMSprop`, whose lr, momentum, alpha are eta, beta, beta2. `Adam` averages the gradients before it divides
    them. The method is not linear in g: `gain` raises ValueError. Source: Tieleman & Hinton 2012.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k and beta_k; the buffer b is a sum, as in torch and in `HeavyBall`, not an average.
        beta2: The factor of the old v in v', in [0, 1); 1, for a constant v, only without bias correction.
        eps: The number that is added to the root of v, 0 or above.
        lagged: Whether the denominator has v, the second moment before this gradient, in place of v' (Malladi et al. 2022).
        bias_correction: Whether v' (or v) is divided by 1 - beta2^(k+1) in step k = 0, 1, ..., which corrects its start at 0.
        second_moment: The initial v_0, a number or a vector `(dim,)`, 0 or above.
        momentum: The initial b_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.
        steps_taken: For a run that is continued, the number of steps before x0: its first step is step k = steps_taken of plan and bias corrections.

    Raises:
        ValueError: If `beta2`, `eps`, `second_moment` or `steps_taken` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1))
        >>> method = st.RMSProp(oracle, st.schedules.constant(eta=0.125), beta2=0.0, eps=0.0)  # x' = x - 0.125 sign(x)
        >>> st.simulate(method, [2.0], 0.25, 2, ["x0"], backend="numpy").data["mean"].values[:, 0]
        array([2.   , 1.875, 1.75 ])
    """

    parts = ("x", "b", "v")
    coefficients = ("eta", "beta", "beta2", "eps", "lag", "share")
    formula = (
        r"v_{k+1} = \beta_2 v_k + (1 - \beta_2) g_k^2, \quad b_{k+1} = \beta_k b_k + \frac{g_k}{\sqrt{\hat v} + \epsilon}, \quad "
        r"x_{k+1} = x_k - \eta_k b_{k+1}"
    )
    no_gain = (
        "a linear filter; RMSProp is not linear: it divides by the size of the gradients. Compare it with Adam at the same eta"
    )

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        beta2: float = 0.99,
        eps: float = 1e-8,
        lagged: bool = False,
        bias_correction: bool = False,
        second_moment: Any = 0.0,
        momentum: Any = None,
        step_time: float | None = None,
        steps_taken: int = 0,
    ) -> None:
        super().__init__(oracle, plan, beta2, eps, lagged, bias_correction, second_moment, momentum, step_time, steps_taken)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, beta2: Any, eps: Any, lag: Any, share: Any) -> State:
        x, b, v = state
        g = oracle(x)
        v, root, size = second_moments(g, v, beta2, eps, lag, share)
        b = beta * b + root * (g / size)
        return x - eta * b, b, v


class Adam(SecondMoment):
    """Adam: m' = beta m + (1 - beta) g(x), v' = beta2 v + (1 - beta2) g(x)^2, x' = x - eta mh / (sqrt(vh) + eps).

    Here mh = m' / (1 - prod beta) and vh = v' / (1 - beta2^(k+1)) correct the bias of a start at 0, where k = 0, 1, ... counts the steps and prod
    beta runs over steps 0 to k; without `bias_correction` they are m' and v'. A prime marks the value after the step, g(x) is the noisy gradient, and
    squares and roots are those of each coordinate. The state is (x, m, v): position, average of the gradients and of their squares, each `(dim,)` or
    `(dim, paths)`. With `lagged`, v takes the place of v' in vh. The defaults are those of `torch.optim.Adam`, whose lr and betas are eta and (beta,
    beta2). At beta = 0 the method is `RMSProp` with the same switches, at beta = beta2 = eps = 0 `SignSGD`. It is not linear in g: `gain` raises
    ValueError. Source: Kingma & Ba, Adam, ICLR 2015.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k is the authors' alpha and beta_k their beta_1.
        beta2: The factor of the old v in v', in [0, 1); 1, for a constant v, only without bias correction.
        eps: The number that is added to the root of v, 0 or above.
        lagged: Whether the denominator has v, the second moment before this gradient, in place of v' (Malladi et al. 2022).
        bias_correction: Whether m' and v' are divided by their bias corrections 1 - prod beta and 1 - beta2^(k+1).
        second_moment: The initial v_0, a number or a vector `(dim,)`, 0 or above.
        momentum: The initial m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`. Pass eta**2 in the scaling of Malladi et al., to
            compare with `AdamSDE`.
        steps_taken: For a run that is continued, the number of steps before x0: its first step is step k = steps_taken of plan and bias corrections.

    Raises:
        ValueError: If `beta2`, `eps`, `second_moment` or `steps_taken` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.Adam(oracle, st.schedules.constant(eta=0.125, beta=0.5), beta2=0.75)
        >>> method.coefficient_values(2)[:, -2:]  # 1 - beta2^(k+1) and 1 - prod beta in steps 0 and 1
        array([[0.25  , 0.5   ],
               [0.4375, 0.75  ]])
    """

    parts = ("x", "m", "v")
    coefficients: tuple[str, ...] = ("eta", "beta", "beta2", "eps", "lag", "share", "m_share")
    formula = (
        r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad v_{k+1} = \beta_2 v_k + (1 - \beta_2) g_k^2, \quad "
        r"x_{k+1} = x_k - \eta_k \frac{\hat m}{\sqrt{\hat v} + \epsilon}"
    )
    no_gain = (
        "a linear filter; Adam is not linear: it divides by the size of the gradients. Compare it with RMSProp at the same eta"
    )

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        beta2: float = 0.999,
        eps: float = 1e-8,
        lagged: bool = False,
        bias_correction: bool = True,
        second_moment: Any = 0.0,
        momentum: Any = None,
        step_time: float | None = None,
        steps_taken: int = 0,
    ) -> None:
        super().__init__(oracle, plan, beta2, eps, lagged, bias_correction, second_moment, momentum, step_time, steps_taken)

    @staticmethod
    def rule(
        state: State, oracle: Oracle, eta: Any, beta: Any, beta2: Any, eps: Any, lag: Any, share: Any, m_share: Any
    ) -> State:
        x, m, v = state
        g = oracle(x)
        m = beta * m + (1 - beta) * g
        v, root, size = second_moments(g, v, beta2, eps, lag, share)
        return x - eta / m_share * (root * (m / size)), m, v  # at beta = 0 the bits of RMSProp

    def whole_run(self, steps: int) -> np.ndarray:
        m_share = 1 - np.cumprod(self.plan.betas(steps)) if self.bias_correction else 1.0
        return columns(*super().whole_run(steps).T, m_share)


class AdamW(Adam):
    """Adam with decoupled weight decay wd: x' = (1 - eta wd) x - eta mh / (sqrt(vh) + eps).

    mh and vh are the bias-corrected averages of g and g^2 of `Adam`, from the noisy gradient g(x) at x before the decay, which does not enter them. A
    prime marks the value after the step. The state is (x, m, v): position, average of the gradients and of their squares, each `(dim,)` or
    `(dim, paths)`. The defaults are those of
    `torch.optim.AdamW`. It is not linear in g: `gain` raises ValueError. Source: Loshchilov & Hutter, Decoupled weight decay
    regularization, ICLR 2019.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k is torch's learning rate and beta_k the authors' beta_1.
        beta2: The factor of the old v in v', in [0, 1); 1, for a constant v, only without bias correction.
        eps: The number that is added to the root of v, 0 or above.
        weight_decay: wd, 0 or above; a step shrinks x by the factor 1 - eta_k wd.
        lagged: Whether the denominator has v, the second moment before this gradient, in place of v' (Malladi et al. 2022).
        bias_correction: Whether m' and v' are divided by their bias corrections 1 - prod beta and 1 - beta2^(k+1).
        second_moment: The initial v_0, a number or a vector `(dim,)`, 0 or above.
        momentum: The initial m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.
        steps_taken: For a run that is continued, the number of steps before x0: its first step is step k = steps_taken of plan and bias corrections.

    Raises:
        ValueError: If `beta2`, `eps`, `weight_decay`, `second_moment` or `steps_taken` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.none(dim=1))
        >>> method = st.AdamW(oracle, st.schedules.constant(eta=0.125), beta2=0.0, eps=0.0, weight_decay=2.0)  # x' = 0.75 x - 0.125 sign(x)
        >>> st.simulate(method, [2.0], 0.25, 2, ["x0"], backend="numpy").data["mean"].values[:, 0]
        array([2.     , 1.375  , 0.90625])
    """

    coefficients = (*Adam.coefficients, "weight_decay")
    formula = (
        r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad v_{k+1} = \beta_2 v_k + (1 - \beta_2) g_k^2, \quad "
        r"x_{k+1} = (1 - \eta_k \lambda) x_k - \eta_k \frac{\hat m}{\sqrt{\hat v} + \epsilon}"
    )
    no_gain = (
        "a linear filter; AdamW is not linear: it divides by the size of the gradients. Compare it with RMSProp at the same eta"
    )

    def __init__(
        self,
        oracle: NoisyOracle,
        plan: Plan,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        lagged: bool = False,
        bias_correction: bool = True,
        second_moment: Any = 0.0,
        momentum: Any = None,
        step_time: float | None = None,
        steps_taken: int = 0,
    ) -> None:
        self.weight_decay = _check.non_negative("weight_decay", weight_decay, "At 0 the method is Adam.")
        super().__init__(oracle, plan, beta2, eps, lagged, bias_correction, second_moment, momentum, step_time, steps_taken)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, *numbers: Any) -> State:
        *numbers, weight_decay = numbers
        x, m, v = Adam.rule(state, oracle, eta, *numbers)
        return x - eta * weight_decay * state[0], m, v

    def whole_run(self, steps: int) -> np.ndarray:
        return columns(*super().whole_run(steps).T, self.weight_decay)


_REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"beta2": 1.5, "bias_correction": False}, "`beta2`"),
    ({"beta2": 1.0, "bias_correction": True, "lagged": True}, "bias_correction=False"),
    ({"eps": -1e-8}, "`eps`"),
    ({"second_moment": [1.0, -1.0]}, "`second_moment`"),
    ({"steps_taken": -1}, "`steps_taken`"),
)
_LAGGED: dict[str, Any] = {"beta2": 0.9, "eps": 0.1, "lagged": True, "second_moment": [0.5, 2.0], "steps_taken": 7}
ENTRIES = (
    OptimiserEntry(
        Adam,
        "D. Kingma, J. Ba, ICLR 2015",
        valid=({}, {**_LAGGED, "bias_correction": False, "momentum": [0.3, -0.2]}, {"beta2": 0.5, "eps": 0.1}),
        refused=_REFUSED,
        exact=False,
        gain=False,
    ),
    OptimiserEntry(
        AdamW,
        "I. Loshchilov, F. Hutter, ICLR 2019",
        valid=({}, {**_LAGGED, "bias_correction": False, "weight_decay": 0.5}),
        refused=(*_REFUSED, ({"weight_decay": -0.1}, "`weight_decay`")),
        exact=False,
        gain=False,
    ),
    OptimiserEntry(
        RMSProp,
        "T. Tieleman, G. Hinton, Coursera lecture 6.5 (2012)",
        valid=({}, {**_LAGGED, "bias_correction": True, "momentum": [0.3, -0.2]}),
        refused=_REFUSED,
        exact=False,
        gain=False,
    ),
)
