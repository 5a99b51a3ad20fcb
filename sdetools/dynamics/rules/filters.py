"""Linear relatives of SGD with momentum: filters of the gradients that have an equivalent plain SGD.

    Nesterov          v' = mu v + g,  x' = x - eta (g + mu v')                                        the form of torch
    QHM               m' = beta m + (1 - beta) g,  x' = x - eta ((1 - nu) g + nu m')                  Ma & Yarats 2019
    PrimalAveraging   z' = z - eta g,  x' = (1 - c) x + c z'                                          Defazio 2020
    AccSGD            w' = A w + (1 - A) (x - kappa eta g / .7),  x' a mean of x - eta g and w'       Kidambi et al. 2018
    PNM               m_t = beta^2 m_{t-2} + (1 - beta^2) g,  x' = x - eta ((1 + b0) m_t - b0 m_{t-1}) / norm    Xie et al. 2021
    STORM             d' = g(x) + (1 - a) (d - g(x_previous)),  x' = x - eta d'                       Cutkosky & Orabona 2019
    RandomScaling     m as in SGDM,  x' = x - s eta m',  s ~ Exp(1)                                   Zhang & Cutkosky 2024

A prime marks the value after the step, and g = g(x) is the noisy gradient. Slowly varying gradients pass these filters with a gain
(`LinearFilter.gain`): the plain SGD to compare with has the learning rate `gain * eta`. Methods without a gain are in `rules.without_gain`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sdetools import _check
from sdetools.dynamics.base import Oracle, State, columns, without_momentum
from sdetools.dynamics.rules.entry import OptimiserEntry
from sdetools.dynamics.rules.linear_filter import LinearFilter
from sdetools.noise.base import Uniform
from sdetools.noise.oracle import NoisyOracle
from sdetools.schedules import Plan


class Nesterov(LinearFilter):
    """Nesterov's momentum in the form of `torch.optim.SGD(nesterov=True)`: v' = mu v + g(x), x' = x - eta (g(x) + mu v').

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, v), position and velocity, each `(dim,)` or
    `(dim, paths)`. The velocity is a sum of gradients, as in `HeavyBall`. So the gain, the learning rate of the equivalent plain SGD divided by eta,
    is 1 / (1 - mu); where mu = beta_k changes, it is that of the last beta_k, and `averaged()` has the rates of all steps. At constant mu the method
    equals `QHM` with nu = beta = mu at the rate eta / (1 - mu). Source: Sutskever et al., ICML 2013, after Y. Nesterov 1983.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k is torch's `lr` and beta_k is mu, torch's `momentum`.
        momentum: The initial velocity v_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the gain times the plan's base rate, eta / (1 - mu) with the last mu of the plan.

    Raises:
        ValueError: If `momentum` has another form, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> method = st.Nesterov(oracle, st.schedules.constant(eta=0.125, beta=0.75))
        >>> method.gain, method.step_time
        (4.0, 0.5)
    """

    parts = ("x", "v")
    coefficients = ("eta", "beta")
    formula = r"v_{k+1} = \mu v_k + g_k, \quad x_{k+1} = x_k - \eta_k (g_k + \mu v_{k+1})"

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any) -> State:
        x, v = state
        g = oracle(x)
        v = beta * v + g
        return x - eta * (g + beta * v), v

    def memory(self, steps: int) -> np.ndarray:
        return self._memory_coefficients(steps)

    def fading(self, steps: int) -> np.ndarray:
        return self.plan.betas(steps)


class QHM(LinearFilter):
    """Quasi-hyperbolic momentum: m' = beta m + (1 - beta) g(x), x' = x - eta ((1 - nu) g(x) + nu m').

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, m), position and momentum buffer, each `(dim,)` or
    `(dim, paths)`. The gain, the learning rate of the equivalent plain SGD divided by eta, is 1 for every nu. nu = 1 is `SGDM`, nu = 0 is `SGD` and
    nu = beta is `Nesterov`; `AccSGD` is another special case. Source: Ma & Yarats, ICLR 2019, who recommend nu = .7, beta = .999.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k and beta_k are the authors' alpha and beta.
        nu: The weight of the momentum, a finite number.
        momentum: The initial momentum m_0: None for zero, a vector `(dim,)`, or a tuple (mean, covariance matrix or diagonal) of a normal law.
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `nu` is not a finite number, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.QHM(oracle, st.schedules.constant(eta=0.125, beta=0.999), nu=0.7).gain
        1.0
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta", "nu")
    formula = r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad x_{k+1} = x_k - \eta_k ((1 - \nu) g_k + \nu m_{k+1})"
    memory, fading = Nesterov.memory, Nesterov.fading

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, nu: float = 0.7, momentum: Any = None, step_time: float | None = None
    ) -> None:
        self.nu = _check.number("nu", nu, hint="nu = 0 is SGD, nu = 1 is SGDM.")
        super().__init__(oracle, plan, momentum=momentum, step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, nu: Any) -> State:
        x, m = state
        g = oracle(x)
        m = beta * m + (1 - beta) * g
        return x - eta * ((1 - nu) * g + nu * m), m


class PrimalAveraging(LinearFilter):
    """Stochastic primal averaging: z' = z - eta g(x), x' = (1 - c) x + c z', from z_0 = x_0.

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, z), the average and the iterate of the gradient steps, each
    `(dim,)` or `(dim, paths)`. The gain is 1: eta is the rate of the equivalent plain SGD. At constant eta the method equals `SGDM` with the same eta
    and beta = 1 - c, and `HeavyBall` with gamma = c eta. In a schedule, eta_k enters the memory with its gradient. Source: Defazio 2020.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        c: The averaging weight in (0, 1].
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `c` lies outside (0, 1], or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.PrimalAveraging(oracle, st.schedules.constant(eta=0.125), c=0.25).longest_memory
        4.0
    """

    parts = ("x", "z")
    at_x0 = ("z",)
    coefficients = ("eta", "c")
    formula = r"z_{k+1} = z_k - \eta_k g_k, \quad x_{k+1} = (1 - c)\, x_k + c\, z_{k+1}"

    def __init__(self, oracle: NoisyOracle, plan: Plan, c: float = 0.1, step_time: float | None = None) -> None:
        self.c = _fraction("c", c, "At c = 1 the method is SGD; at c = 0 the iterate would be constant.")
        super().__init__(oracle, without_momentum(plan, "PrimalAveraging", "c = 1 - beta"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, c: Any) -> State:
        x, z = state
        z = z - eta * oracle(x)
        return (1 - c) * x + c * z, z


class AccSGD(LinearFilter):
    """Accelerated SGD: w' = A w + (1 - A) (x - kappa eta g / e), x' = (e (x - eta g) + (1 - A) w') / (e + 1 - A), from w_0 = x_0.

    Here A = 1 - e^2 xi / kappa, e = 0.7, g = g(x) is the noisy gradient, and a prime marks the value after the step. The state is (x, w), the
    position and the average of long steps, each `(dim,)` or `(dim, paths)`. At constant eta the method equals `QHM` at the rate eta e
    (1 + xi) / (1 + e) with nu = (e xi - 1) / (e (1 + xi)), beta = (kappa - e^2 xi) / (kappa + e xi). So its gain, the rate of the equivalent plain
    SGD divided by eta, is e (1 + xi) / (1 + e). In a schedule, eta_k enters the memory together with its gradient. Source: Kidambi et al. 2018, in
    the authors' code.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, the short step, which the authors call delta; without momentum (all beta_k = 0).
        kappa: The ratio of the long step to the short step, positive.
        xi: What the authors call the statistical advantage parameter, in (0, kappa / e^2].
        step_time: The time of one step, positive; by default the gain times the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `kappa` or `xi` lies outside its range, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> round(st.AccSGD(oracle, st.schedules.constant(eta=0.125)).gain, 6)
        4.529412
    """

    parts = ("x", "w")
    at_x0 = ("w",)
    coefficients = ("eta", "kappa", "A")
    formula = (
        r"w_{k+1} = A w_k + (1 - A)(x_k - \tfrac{\kappa}{e}\eta_k g_k), \quad "
        r"x_{k+1} = \frac{e\,(x_k - \eta_k g_k) + (1 - A)\, w_{k+1}}{e + 1 - A}, \quad A = 1 - e^2\xi/\kappa, \; e = 0.7"
    )

    def __init__(
        self, oracle: NoisyOracle, plan: Plan, kappa: float = 1000.0, xi: float = 10.0, step_time: float | None = None
    ) -> None:
        self.kappa, self.xi = _check.positive("kappa", kappa), _check.positive("xi", xi)
        if 0.49 * self.xi > self.kappa:
            raise ValueError(
                f"`xi` must be at most kappa / 0.49 = {self.kappa / 0.49:g}; got xi={xi!r}. The authors use xi <= sqrt(kappa)."
            )
        self.A = 1 - 0.49 * self.xi / self.kappa
        super().__init__(oracle, without_momentum(plan, "AccSGD", "kappa and xi"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, kappa: Any, A: Any) -> State:
        x, w = state
        g = oracle(x)
        w = A * w + (1 - A) * (x - kappa * eta / 0.7 * g)
        return (0.7 * (x - eta * g) + (1 - A) * w) / (1.7 - A), w


class PNM(LinearFilter):
    """Positive-negative momentum: x' = x - eta ((1 + b0) m_t - b0 m_{t-1}) / norm, with m_t = beta^2 m_{t-2} + (1 - beta^2) g(x).

    t = 0, 1, ... counts the steps, and g(x) is the noisy gradient. Even and odd steps update two averages; for b0 > 0 the newer one has a positive
    and the older one a negative weight. The state is (x, m, previous): before step t position, m_{t-1} and m_{t-2}, each `(dim,)` or `(dim, paths)`;
    m_{-1} = m_{-2} = 0. norm = sqrt((1 + b0)^2 + b0^2) preserves the noise of a single step, not the drift: the gain (the rate of the equivalent
    plain SGD divided by eta) is 1 / norm, which is 0.447 at b0 = 1. At b0 = -beta / (1 + beta) the averages combine to that of `SGDM`; at
    beta = b0 = 0 the method is `SGD`. Source: Xie et al., ICML 2021, in the form of the authors' code.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule: eta_k is the authors' learning rate and beta_k their beta_1.
        b0: The weight of the older average, a finite number.
        step_time: The time of one step, positive; by default the gain times the plan's base rate `plan.eta`.

    Raises:
        ValueError: If `b0` is not a finite number, or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> round(st.PNM(oracle, st.schedules.constant(eta=0.125, beta=0.9)).gain, 6)
        0.447214
    """

    parts = ("x", "m", "previous")
    coefficients = ("eta", "beta", "b0", "norm")
    formula = (
        r"m_k = \beta^2 m_{k-2} + (1 - \beta^2) g_k, \quad "
        r"x_{k+1} = x_k - \eta_k \frac{(1 + \beta_0) m_k - \beta_0 m_{k-1}}{\sqrt{(1 + \beta_0)^2 + \beta_0^2}}"
    )

    def __init__(self, oracle: NoisyOracle, plan: Plan, b0: float = 1.0, step_time: float | None = None) -> None:
        self.b0 = _check.number("b0", b0, hint="The authors use b0 = 1.")
        self.norm = math.hypot(1 + self.b0, self.b0)
        super().__init__(oracle, plan, step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, beta: Any, b0: Any, norm: Any) -> State:
        x, m, previous = state
        new = beta * beta * previous + (1 - beta * beta) * oracle(x)
        return x - eta * ((1 + b0) * new - b0 * m) / norm, new, m


class STORM(LinearFilter):
    """Recursive momentum: d_t = g(x_t; xi_t) + (1 - a) (d_{t-1} - g(x_{t-1}; xi_t)), x_{t+1} = x_t - eta d_t, d_0 = g(x_0; xi_0).

    g(x; xi_t) is the noisy gradient at x on the draws xi_t of step t; each step evaluates two on the same draws. The state is (x, d, previous):
    before step t it holds x_t, d_{t-1} and x_{t-1}, each `(dim,)` or `(dim, paths)`, from x_0, 0 and x_0. Where the noise sigma v_t does not depend
    on the point, d_t = grad L(x_t) + e_t, with e_t = (1 - a) e_{t-1} + a sigma v_t, e_0 = sigma v_0. The noise is averaged as in `SGDM` with
    beta = 1 - a, while the gradient of the loss is not; the first draw has the full weight, 1 / a times that of the others. The gain is 1: eta is the
    rate of the equivalent plain SGD. a = 1 is `SGD`. `IGT` is a related method with one gradient per step. Source: Cutkosky & Orabona, NeurIPS 2019.

    Args:
        oracle: The noisy gradient oracle.
        plan: The schedule of eta_k, without momentum (all beta_k = 0).
        a: The weight of the newest draw in (0, 1].
        step_time: The time of one step, positive; by default the plan's base rate `plan.eta`.

    Raises:
        ValueError: If the plan has momentum, `a` lies outside (0, 1], or another argument is invalid.

    Example:
        >>> import sdetools as st
        >>> oracle = st.NoisyOracle(st.losses.quadratic(1.0), st.noise.gaussian(dim=1))
        >>> st.STORM(oracle, st.schedules.constant(eta=0.125), a=0.25).coefficient_values(2)
        array([[0.125, 1.   ],
               [0.125, 0.25 ]])
    """

    parts = ("x", "d", "previous")
    at_x0 = ("previous",)
    coefficients = ("eta", "a")
    formula = r"d_k = g(x_k; \xi_k) + (1 - a)(d_{k-1} - g(x_{k-1}; \xi_k)), \quad x_{k+1} = x_k - \eta_k d_k"

    def __init__(self, oracle: NoisyOracle, plan: Plan, a: float = 0.1, step_time: float | None = None) -> None:
        self.a = _fraction("a", a, "At a = 1 the method is SGD; at a = 0 it would not forget its first draws.")
        super().__init__(oracle, without_momentum(plan, "STORM", "a = 1 - beta"), step_time=step_time)

    @staticmethod
    def rule(state: State, oracle: Oracle, eta: Any, a: Any) -> State:
        x, d, previous = state
        d = oracle(x) + (1 - a) * (d - oracle(previous))
        return x - eta * d, d, x

    def averaged(self) -> Plan:
        return Plan(self.plan.eta_values, np.array([1 - self.a]), self.step_time).averaged()

    def coefficient_values(self, steps: int) -> np.ndarray:
        return columns(self.plan.etas(steps), np.where(np.arange(steps) == 0, 1.0, self.a))


class RandomScaling(LinearFilter):
    """SGDM with steps of random length: m' = beta m + (1 - beta) g(x), x' = x - s eta m', s ~ Exp(1).

    A prime marks the value after the step; g(x) is the noisy gradient. The state is (x, m), position and momentum buffer, each `(dim,)` or
    `(dim, paths)`. One s = -log(u) per step is shared by all coordinates of a path; u is a uniform draw of the method. As E s = 1, the mean is that
    of SGDM and the gain is 1. The method has no equivalent SGD in law: as Var s = 1, the variance of white noise is larger by the factor
    1 + (1 - beta) / (1 + beta) for every eta. Source: Zhang & Cutkosky, ICML 2024.

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
        >>> st.RandomScaling(oracle, st.schedules.constant(eta=0.125, beta=0.9)).draws
        (Normal(n=1), Uniform(n=1))
    """

    parts = ("x", "m")
    coefficients = ("eta", "beta")
    extra_draws = (Uniform(1),)
    mean_draws = (math.exp(-1),)
    formula = (
        r"m_{k+1} = \beta_k m_k + (1 - \beta_k) g_k, \quad x_{k+1} = x_k - s_k \eta_k m_{k+1}, \quad s_k \sim \mathrm{Exp}(1)"
    )

    @staticmethod
    def rule(state: State, oracle: Any, eta: Any, beta: Any) -> State:
        x, m = state
        m = beta * m + (1 - beta) * oracle(x)
        s = -np.log(oracle.extra[0])
        return x - s * eta * m, m


def _fraction(name: str, value: Any, hint: str) -> float:
    """Return `value` as a float; ValueError, with the argument's `name` and the `hint`, if it does not lie in (0, 1]."""
    out = _check.number(name, value, "lie in (0, 1]", hint)
    if not 0 < out <= 1:
        raise ValueError(f"`{name}` must lie in (0, 1]; got {name}={value!r}. {hint}")
    return out


ENTRIES = (
    OptimiserEntry(
        Nesterov,
        "I. Sutskever et al., ICML 2013",
        valid=({}, {"momentum": [0.3, -0.2]}),
        refused=(({"step_time": -1}, "step_time"),),
        torch=True,
    ),
    OptimiserEntry(
        QHM,
        "J. Ma, D. Yarats, ICLR 2019",
        valid=({"nu": 0.7}, {"nu": 0.0}, {"nu": 1.0}),
        refused=(({"nu": math.nan}, "`nu`"),),
        torch=True,
    ),
    OptimiserEntry(
        PrimalAveraging,
        "A. Defazio, arXiv:2010.00406",
        "eta",
        valid=({"c": 0.15}, {"c": 1.0}),
        refused=(({"c": 0.0}, "`c`"), ({"plan": Plan}, "without momentum")),
    ),
    OptimiserEntry(
        AccSGD,
        "R. Kidambi et al., ICLR 2018",
        "eta",
        valid=({"kappa": 50, "xi": 5},),
        refused=(
            ({"kappa": -1}, "`kappa`"),
            ({"xi": "a"}, "`xi`"),
            ({"kappa": 4.9, "xi": 10.5}, "at most kappa"),
            ({"plan": Plan}, "without"),
        ),
    ),
    OptimiserEntry(
        PNM,
        "Z. Xie et al., ICML 2021",
        valid=({"b0": 1.0}, {"b0": 0.8}, {"b0": 0.0}),
        refused=(({"b0": math.inf}, "`b0`"),),
        torch=True,
    ),
    OptimiserEntry(
        STORM,
        "A. Cutkosky, F. Orabona, NeurIPS 2019",
        "eta",
        valid=({"a": 0.2}, {"a": 1.0}),
        refused=(({"a": 1.5}, "`a`"), ({"plan": Plan}, "without momentum")),
    ),
    OptimiserEntry(
        RandomScaling, "Q. Zhang, A. Cutkosky, ICML 2024", refused=(({"step_time": -1}, "step_time"),), exact=False, torch=True
    ),
)
